"""Tests of what others bring, and of what happens to a machine. `benchmarks/faults.py` tries more.

Each of these was a traceback, a wrong result or a file left behind before.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from fnmatch import fnmatchcase
from io import BytesIO
from pathlib import Path

import pyarrow
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from safetensors.torch import save_file
from tiny_run import tiny_checkpoint, tiny_run

from lightseek.data.prepare.folder import write_folder
from lightseek.data.prepare.shards import Job
from lightseek.data.sources import local
from lightseek.data.sources.tables import Wanted, read_table
from lightseek.lab.stored import read_results
from lightseek.model.config import ConfigError, OCRConfig
from lightseek.page import pdf
from lightseek.page.pictures import PictureFrames, open_picture
from lightseek.scores.compare import report, score
from lightseek.scores.predictions import Prediction, append_predictions, read_predictions
from lightseek.text.tokenizer import Tokenizer
from lightseek.tools.errors import is_out_of_memory
from lightseek.tools.files import NOT_UPLOADED, atomic_write, leads_out, remove_leftovers, write_json
from lightseek.tools.json_files import read_json
from lightseek.training.log import RunLog, read_rows
from lightseek.training.run import Run
from lightseek.training.settings import RunConfig
from lightseek.weights.loading import LightSeekOCR
from lightseek.weights.lora_files import load_adapter
from lightseek.weights.tensors import CheckpointError

ROOT = Path(__file__).parents[1]
EIGHT_BITS = torch.float8_e4m3fn
ROW = {"text": "A ferry left. It was late.", "summary": "A ferry."}


def picture(form: str = "PNG") -> bytes:
    file = BytesIO()
    Image.new("RGB", (32, 32), "white").save(file, form)
    return file.getvalue()


def rows_of(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# Data


def test_skip_bad_leaves_out_just_the_row_whose_picture_or_text_no_system_can_name(tmp_path):
    (tmp_path / "a.png").write_bytes(picture())
    bad = [
        {"image": "x" * 300 + ".png"},
        {"image": "half\ud800.png"},
        {"image": "a\0.png"},
        ROW | {"facts": ["\udfff"]},
    ]
    table = rows_of(tmp_path / "train.jsonl", [ROW, *(row | {"text": "b", "summary": "b"} for row in bad), ROW])
    prepared = write_folder(Job(str(table), task="ocr", skip_bad=True), tmp_path / "out")
    assert len(prepared.total.text) == 2
    assert [message.split(":")[0].rpartition("row ")[2] for message in prepared.bad] == ["2", "3", "4", "5"]
    assert read_json(tmp_path / "out/.prepare/figures.json")["bad"] == prepared.bad


def test_a_file_whose_name_is_not_utf_8_is_a_document_like_any_other(tmp_path):
    name = os.fsdecode(b"ferry-\xff.txt")
    try:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / name).write_text("A ferry left. It was late.")
    except OSError:
        pytest.skip("this file system has no such names")
    prepared = write_folder(Job(str(tmp_path / "in")), tmp_path / "out")
    assert len(prepared.total.text) == 1
    (document,) = (document for document, _ in local.read(tmp_path / "out"))
    assert document.text == "It was late."
    rows = next((tmp_path / "out").glob("*.jsonl")).read_text(encoding="utf-8")
    assert json.loads(rows)["name"] == "ferry-\\udcff.txt"


def test_a_parquet_text_that_is_not_utf_8_is_one_bad_row(tmp_path):
    texts = pyarrow.array([b"A ferry left. Late.", b"\xff\xfe", b"Another one left. Late."], pyarrow.binary())
    column = pyarrow.StringArray.from_buffers(3, *texts.buffers()[1:])
    parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
    bad: list[ValueError] = []
    found = list(read_table(tmp_path / "a.parquet", "a", Wanted(summary=None), bad.append))
    assert [document.name for document, _ in found] == ["a:1", "a:3"]
    assert [str(error).startswith(f"{tmp_path / 'a.parquet'}, row 2: ") for error in bad] == [True]


def test_a_link_out_of_the_folder_is_not_read_but_those_of_the_hubs_cache_are(tmp_path):
    (tmp_path / "secret.txt").write_text("A secret. It is mine.")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(ValueError, match=r"a\.txt is a link that leads out of"):
        local.files_of(tmp_path / "in")
    snapshot, blobs = tmp_path / "cache/snapshots/1a2b", tmp_path / "cache/blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    (blobs / "77").write_text("A ferry left. It was late.")
    (snapshot / "a.txt").symlink_to("../../blobs/77")
    (snapshot / "b.txt").symlink_to("../../../secret.txt")
    assert not leads_out(snapshot / "a.txt", snapshot) and leads_out(snapshot / "b.txt", snapshot)
    (tmp_path / "linked").symlink_to(tmp_path / "cache/blobs")  # the folder itself may be a link
    assert not leads_out(tmp_path / "linked/77", tmp_path / "linked")


def test_a_bad_test_document_is_told_before_the_first_step_and_not_after_the_last(tmp_path):
    Image.new("RGB", (40, 30), "white").save(tmp_path / "page.png")
    whole = (tmp_path / "page.png").read_bytes()
    (tmp_path / "torn.png").write_bytes(whole[: len(whole) // 2])
    splits = ("train", "train", "validation", "test")
    rows = [{"image": "page.png", "text": f"Page {i}.", "split": split} for i, split in enumerate(splits)]
    rows[-1]["image"] = "torn.png"
    config = tiny_run(
        tiny_checkpoint(tmp_path / "model"), data=str(rows_of(tmp_path / "pages.jsonl", rows)), task="ocr"
    )
    run = Run(config, tmp_path / "run")
    with pytest.raises(ValueError, match=r"document pages\.jsonl:4: .*torn\.png is not a picture that can be read"):
        run.fit()
    assert not (tmp_path / "run").exists()


# Pictures and PDFs


def test_every_error_of_a_decoder_is_one_line_that_names_the_file(tmp_path):
    path = tmp_path / "a.png"
    header = bytearray(picture("DDS"))
    header[76:84] = b"\x20\0\0\0\x04\0\0\0"  # pixels in a compression that does not exist
    header[84:88] = b"XXXX"
    path.write_bytes(bytes(header))
    with (
        pytest.raises(ValueError, match=r"a\.png is not a picture that can be read: \S"),
        PictureFrames(path) as frames,
    ):
        frames.draw(0)


def test_all_pages_together_have_a_limit(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    frames = [Image.new("L", (100, 100), 255) for _ in range(5)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    monkeypatch.setattr(pdf, "MAX_TOGETHER", 50_000)
    assert len(open_picture(path)) == 5
    monkeypatch.setattr(pdf, "MAX_TOGETHER", 49_999)
    with pytest.raises(ValueError, match=r"a\.tif: its first 5 pages have more than"):
        open_picture(path)
    frames[0].save(tmp_path / "a.pdf", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=r"a\.pdf: its first 5 pages"):
        pdf.render_pdf(tmp_path / "a.pdf", side=100)


# Checkpoints


def test_a_token_outside_of_the_alphabet_stands_for_itself_as_in_the_library():
    fields = json.loads(Tokenizer.nano()._definition)
    fields["model"]["vocab"]["文書"] = len(fields["model"]["vocab"])
    tokenizer = Tokenizer(json.dumps(fields))
    assert tokenizer.decode([fields["model"]["vocab"]["文書"]]) == "文書"


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "sub/model.safetensors", "..", ""])
def test_an_index_names_files_of_its_own_folder_only(tmp_path, name):
    folder = tiny_checkpoint(tmp_path / "model")
    index = read_json(folder / "model.safetensors.index.json")
    index["weight_map"][next(iter(index["weight_map"]))] = name
    write_json(folder / "model.safetensors.index.json", index)
    with pytest.raises(CheckpointError, match="is not the name of a file in this folder"):
        LightSeekOCR.from_pretrained(folder)


def test_a_side_file_that_is_a_link_is_not_copied_into_a_model_that_may_be_published(tmp_path):
    (tmp_path / "secret").write_text("mine")
    folder = tiny_checkpoint(tmp_path / "model")
    (folder / "tokenizer_config.json").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json is a link that leads out"):
        LightSeekOCR.from_pretrained(folder).save_pretrained(tmp_path / "copy")


@pytest.mark.parametrize(
    ("place", "value", "complaint"),
    [
        ("compressor", [1.5, 2], "compressor must be a list of integers"),
        ("sam.width", "64", "sam.width must be an integer, got '64'"),
        ("clip", 5, "clip must be dict"),
        ("decoder.rope_theta", None, "decoder.rope_theta must be a number"),
        ("decoder.trick", 1, "decoder.trick is not a size"),
        ("boxes.compressor.settings", 3, "boxes.compressor.settings must be an object"),
        ("dtype", True, "dtype must be a text"),
    ],
)
def test_the_sizes_of_a_swapped_model_have_the_right_types(place, value, complaint):
    values = json.loads(json.dumps(OCRConfig.preset("nano").with_box("compressor", "meanpool").summary()))
    assert OCRConfig.from_dict(values).box("compressor").kind == "meanpool"
    *path, key = place.split(".")
    inner = values
    for name in path:
        inner = inner[name]
    inner[key] = value
    with pytest.raises(ConfigError, match=complaint):
        OCRConfig.from_dict(values)


@pytest.mark.parametrize(
    ("config", "tensors", "complaint"),
    [
        ({"rank_pattern": {"(": 4}}, {}, "not a LoRA adapter's settings .*unterminated subpattern"),
        ({"modules_to_save": 5}, {}, "'modules_to_save' must be a list of texts"),
        ({}, {"lora_A": torch.zeros(0), "lora_B": torch.zeros(0)}, r"needs lora_A \(r x in\)"),
        (
            {},
            {"lora_A": torch.zeros(2, 16).to(torch.float8_e4m3fn), "lora_B": torch.zeros(16, 2)},
            "float8_e4m3fn, not one of",
        ),
        (
            {},
            {"lora_A": torch.zeros(0, 16), "lora_B": torch.zeros(16, 0)},
            "the rank of .* is 2, but lora_A and lora_B have 0",
        ),
    ],
)
def test_an_adapter_of_a_strange_shape_is_one_line(tmp_path, config, tensors, complaint):
    model = LightSeekOCR.from_pretrained(tiny_checkpoint(tmp_path / "model"))
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = tensors or {"lora_A": torch.zeros(2, 16), "lora_B": torch.zeros(16, 2)}
    (tmp_path / "adapter").mkdir()
    save_file(
        {f"{name}.{key}.weight": value for key, value in tensors.items()},
        tmp_path / "adapter/adapter_model.safetensors",
    )
    write_json(tmp_path / "adapter/adapter_config.json", {"peft_type": "LORA", "r": 2, "lora_alpha": 4} | config)
    with pytest.raises(CheckpointError, match=complaint):
        load_adapter(model, tmp_path / "adapter")


def test_a_tokenizer_that_fails_on_ordinary_text_is_refused_when_it_is_loaded():
    fields = json.loads(Tokenizer.nano()._definition)
    fields["model"] = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "?"}  # it has no token for unknown words
    with pytest.raises(ValueError, match=r"not a tokenizer\.json: .*Missing"):
        Tokenizer(json.dumps(fields))


# Files of our own that are read back


def test_a_file_of_predictions_for_an_unknown_task_or_with_huge_counts(tmp_path):
    row = {"id": "a", "reference": "r", "prediction": "p", "text_tokens": 2**62}
    path = rows_of(tmp_path / "p.jsonl", [{"settings": {"task": "translate"}}, row])
    with pytest.raises(ValueError, match=r"p\.jsonl: unknown task 'translate'"):
        score(path)
    assert len(report([score(path, "ocr")])["models"][0]["bins"]) == 1


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('"facts": true', "'facts' must be a list of texts, not True"),
        ('"text_tokens": Infinity', "'text_tokens' must be a whole number, not inf"),
        ('"seconds": 1e400', "'seconds' must be a number, not inf"),
        ('"source": 5', "'source' must be a text, not 5"),
        ('"finish_reason": []', r"'finish_reason' must be a text, not \[\]"),
        ('"peak_bytes": ' + "9" * 400, "a whole number has 400 digits"),
    ],
)
def test_a_prediction_is_checked_whole(tmp_path, line, complaint):
    path = tmp_path / "p.jsonl"
    path.write_text('{"id": "a", "reference": "r", "prediction": "p", ' + line + "}\n")
    with pytest.raises(ValueError, match=f"line 1 is not a prediction: .*{complaint}"):
        read_predictions(path)
    for head in ('{"settings": 5}', '{"settings": {}, "pages": "x"}', '{"settings": {"task": 7}}'):
        path.write_text(head + "\n")
        with pytest.raises(ValueError, match="line 1 is not a prediction: "):
            read_predictions(path)


def test_the_rows_behind_a_checkpoint_are_all_there(tmp_path):
    rows = [{"step": step, "train_loss": 1.0, "lr": 0.1} for step in (1, 2, 3)]
    path = rows_of(tmp_path / "metrics.jsonl", rows)
    with path.open("a") as file:
        file.write('{"step": 4, "tra')  # killed here; the checkpoint is of step 3
    assert read_rows(tmp_path, 3) == rows
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 4: not valid JSON"):
        read_rows(tmp_path, 4)
    rows_of(path, [rows[0], rows[2]])
    with pytest.raises(ValueError, match=r"line 2 is of step 3, but the checkpoint beside it is of step 3"):
        read_rows(tmp_path, 3)
    rows_of(path, [rows[0] | {"train_loss": "low"}])
    with pytest.raises(ValueError, match="'train_loss' must be a number"):
        read_rows(tmp_path, 1)
    path.unlink()
    with pytest.raises(ValueError, match="line 1 is missing"):
        read_rows(tmp_path, 1)


@pytest.mark.parametrize(
    "results",
    [
        {},
        {"settings": 5},
        {"settings": {}, "rouge1": "x"},
        {"settings": {}, "lead3": 1},
        {"settings": {}, "flops_page": "x"},
    ],
)
def test_results_of_another_shape_are_named(tmp_path, results):
    write_json(tmp_path / "results.json", results)
    with pytest.raises(ValueError, match=r"results\.json: '\w+' (is missing|must be)"):
        read_results(tmp_path / "results.json")


def test_no_other_code_reads_json_from_a_file():
    """Python's own reader has no limits and names no file. It may only copy what is in memory already."""
    copies = ("json.loads(json.dumps(", "json.loads(model.config.to_json_string(")
    found = []
    for path in sorted((ROOT / "lightseek").rglob("*.py")):
        if path.name != "json_files.py":
            lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
            found += [
                f"{path.name}:{n}" for n, line in lines if "json.load" in line and not any(c in line for c in copies)
            ]
    assert not found


# Kills


def test_the_temporary_file_of_a_killed_program_goes_and_that_of_a_living_one_stays(tmp_path):
    program = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from lightseek.tools.files import atomic_write
with atomic_write({str(tmp_path / "deep/a.json")!r}) as temporary:
    print(temporary, flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    left = Path(process.stdout.readline().strip())
    earlier = time.time() - 60
    os.utime(left, (earlier, earlier))
    mine = tmp_path / ".notes.tmp"
    mine.write_text("not ours")
    remove_leftovers(tmp_path)
    assert left.exists()  # its program lives
    process.kill()
    process.wait()
    remove_leftovers(tmp_path)
    assert not left.exists() and mine.exists()


def test_what_a_kill_left_beside_the_cells_of_a_grid_goes_and_the_cells_keep_theirs(tmp_path):
    names = [".grid.png.12345678.tmp", "cell/.curve.png.12345678.tmp"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("half")
    remove_leftovers(tmp_path, below=False)
    assert [(tmp_path / name).exists() for name in names] == [False, True]
    remove_leftovers(tmp_path)
    assert not (tmp_path / names[1]).exists()


def test_no_upload_has_a_temporary_file(tmp_path):
    with atomic_write(tmp_path / "images/train-00000/a.png") as temporary:
        for path in (temporary.relative_to(tmp_path).as_posix(), ".lock", ".prepare/job.json", ".a.json.12345678.tmp"):
            assert any(fnmatchcase(path, pattern) for pattern in NOT_UPLOADED), path
    for path in ("README.md", "train-00000-of-00001.jsonl", "images/train-00000/a.png", "model.safetensors.index.json"):
        assert not any(fnmatchcase(path, pattern) for pattern in NOT_UPLOADED), path


def test_a_folder_that_is_removed_while_a_program_writes_to_it_is_told(tmp_path):
    rows = [{"step": 1, "train_loss": 1.0, "lr": 0.1}]
    with (
        RunLog(tmp_path / "run", rows, RunConfig()) as log,
        pytest.raises(FileNotFoundError, match="it was removed while") as error,
    ):
        log.sync()
        shutil.rmtree(tmp_path / "run")
        log.sync()
    assert error.value.filename == str(tmp_path / "run/metrics.jsonl")

    def found():
        yield Prediction("a", "r", "p")
        (tmp_path / "p.jsonl").unlink()
        yield Prediction("b", "r", "p")

    with pytest.raises(FileNotFoundError, match="it was removed while"):
        list(append_predictions(tmp_path / "p.jsonl", {}, 2, found()))


def test_a_killed_worker_of_prepare_is_one_line(tmp_path, monkeypatch):
    def killed(*_: object) -> None:
        raise BrokenProcessPool("A process in the process pool was terminated abruptly")

    monkeypatch.setattr("lightseek.data.prepare.folder.write_shard", killed)
    table = rows_of(tmp_path / "train.jsonl", [ROW])
    with pytest.raises(ValueError, match="one of the processes was killed, perhaps because the memory was full"):
        write_folder(Job(str(table)), tmp_path / "out")


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError) as error:
            write_json(tmp_path / "a.json", "x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.filename == str(tmp_path / "a.json") and list(tmp_path.iterdir()) == []


def test_onednn_without_memory_is_out_of_memory_and_its_other_errors_are_not():
    assert is_out_of_memory(RuntimeError("could not create a primitive"))
    assert not is_out_of_memory(RuntimeError("could not create a primitive descriptor for a convolution"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the programs run in forks")
def test_a_short_version_of_the_benchmark_of_faults(tmp_path):
    options = ["--only", "mutants", "--mutants", "88", "--keep", str(tmp_path / "harm")]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/faults.py"), *options], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "mutants: 88 files of " in done.stdout and not (tmp_path / "harm").exists()
