"""Tests of the command line with nano: the output of each command, and the error messages."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from lightseek.__main__ import COMMANDS, main
from lightseek.model.config import OCRConfig
from lightseek.scores.metrics import cer
from lightseek.weights.loading import find_device, find_dtype, load_model

ROOT = Path(__file__).parents[2]
QUICK = ["--mode", "tiny", "--max-new-tokens", "4", "--device", "cpu"]


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.png"
    Image.new("RGB", (600, 400), "white").save(path)
    return str(path)


@pytest.fixture
def note(tmp_path):
    path = tmp_path / "note.md"
    path.write_text("# Minutes\n\nThe *pump* failed at 7:15.\n", encoding="utf-8")
    return str(path)


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Return (exit code, stdout, stderr). rich wraps errors at the width of the terminal, so stderr is joined again."""
    try:
        code = main(arguments)
    except SystemExit as stopped:
        code = stopped.code
    captured = capsys.readouterr()
    return code, captured.out, " ".join(captured.err.split())


def python(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120)


# --- Help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_is_quick_and_loads_no_pytorch(command):
    watch = (
        "import sys, runpy, atexit; atexit.register(lambda: print('LOADED', *sys.modules));"
        f"sys.argv = ['lightseek', *{command!r}, '--help']; runpy.run_module('lightseek', run_name='__main__')"
    )
    began = time.perf_counter()
    done = python("-c", watch)
    seconds = time.perf_counter() - began
    assert done.returncode == 0 and "usage: python -m lightseek" in done.stdout
    loaded = set(done.stdout.split("LOADED")[1].split())
    assert not loaded & {"torch", "matplotlib", "transformers", "numpy", "PIL", "rich"}
    assert seconds < 2


def test_the_modes_need_no_pytorch_either(capsys):
    done = python("-X", "importtime", "-m", "lightseek", "modes")
    assert "torch" not in done.stderr and "273" in done.stdout
    code, out, _ = run(capsys, "modes", "--json")
    rows = json.loads(out)
    assert code == 0 and {row["mode"]: row["positions"] for row in rows[:4]} == {
        "tiny": 73,
        "small": 111,
        "base": 273,
        "large": 421,
    }
    assert all(row["tokens"] + row["newlines"] + 1 == row["positions"] for row in rows)


# --- Read -------------------------------------------------------------------------------------------------------------


def test_more_new_tokens_than_positions_are_a_note_in_one_line(tmp_path):
    """The official scripts ask for 8192 new tokens, which is the number of the decoder's positions."""
    (tmp_path / "note.txt").write_text("Hi.")
    options = ["--mode", "tiny", "--device", "cpu"]
    done = [
        subprocess.run(
            [sys.executable, "-m", "lightseek", "read", "note.txt", "note.txt", *options, "--max-new-tokens", limit],
            cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for limit in ("60", "8192")
    ]  # fmt: skip
    assert [each.returncode for each in done] == [0, 0] and done[0].stdout == done[1].stdout
    notes = [line for line in done[1].stderr.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1 and "max_new_tokens=8192" in notes[0] and "8192 positions end" in notes[0]
    assert "note: " not in done[0].stderr and "Warning" not in done[1].stderr


def test_read_writes_the_text_and_nothing_else_to_stdout(capsys, note):
    code, out, err = run(capsys, "read", note, *QUICK)
    assert code == 0 and "4 tokens (length)" in err
    again = json.loads(run(capsys, "read", note, *QUICK, "--json")[1])
    (result,) = again["pages"]
    assert out == result["text"] + "\n"
    assert len(result["tokens"]) == 4 and result["finish_reason"] == "length" and result["timings"]["encode"] > 0
    assert again["prompt"] == "<image>\nFree OCR. " and again["mode"] == "tiny" and again["model"] == "nano"
    assert run(capsys, "read", note, *QUICK, "--stream")[1] == out


def test_read_gives_one_result_a_page(capsys, tmp_path, page):
    document = tmp_path / "scan.pdf"
    sheet = Image.new("RGB", (200, 300), "white")
    sheet.save(document, save_all=True, append_images=[sheet.rotate(90)])
    code, out, _ = run(capsys, "read", str(document), page, *QUICK)
    assert code == 0
    assert re.findall(r"--- (\S+), page (\d) ---", out) == [(str(document), "1"), (str(document), "2"), (page, "1")]
    pages = json.loads(run(capsys, "read", str(document), page, *QUICK, "--json")[1])["pages"]
    assert [(each["file"], each["page"]) for each in pages] == [(str(document), 1), (str(document), 2), (page, 1)]


def test_seeds_decide_sampling(capsys, page):
    def read(seed):
        options = ["--temperature", "9", "--top-p", "1", "--seed", str(seed), "--json"]
        return json.loads(run(capsys, "read", page, *QUICK, *options)[1])["pages"][0]["tokens"]

    assert read(3) == read(3) != read(4)


# --- Trace ------------------------------------------------------------------------------------------------------------


def test_trace_as_json(capsys, note, tmp_path):
    code, out, _ = run(capsys, "trace", note, "--mode", "64", "--device", "cpu", "--json", "--cold")
    plain = json.loads(out)
    shapes = {stage["name"]: stage["shape"] for stage in plain["stages"]}
    assert code == 0 and shapes["encoder.compressor"][2:] == [8, 8] and shapes["layout"][0] == 73
    assert plain["pages"][0]["text_tokens"] > 5  # a rendered page's text is known
    assert [use["layer"] for use in plain["experts"]] == [1, 2, 3]


def test_trace_as_table_and_picture(capsys, page, tmp_path):
    text = tmp_path / "truth.txt"
    text.write_text("a b c d e f g h", encoding="utf-8")
    picture = tmp_path / "trace.png"
    options = ["--mode", "tiny", "--device", "cpu", "--cold", "--text", str(text), "--picture", str(picture)]
    code, out, _ = run(capsys, "trace", page, *options)
    assert code == 0 and "encoder.sam.blocks.1" in out and "global attention" in out and "73 positions" in out
    assert re.search(r"text tokens / 64 = 0\.\d+x compression", out) and "busiest" in out
    assert Image.open(picture).width > 500


def test_trace_of_one_page_of_many(capsys, tmp_path):
    long = tmp_path / "long.txt"
    long.write_text("line\n" * 60, encoding="utf-8")
    options = ["--mode", "tiny", "--device", "cpu", "--cold", "--json"]
    assert run(capsys, "trace", str(long), "--page", "2", *options)[0] == 0
    code, _, err = run(capsys, "trace", str(long), "--page", "9", *options)
    assert code == 2 and "there is no page 9" in err


# --- Formula ----------------------------------------------------------------------------------------------------------


def test_formula_writes_a_checkpoint_that_traces_and_reads(capsys, tmp_path, page):
    folder = tmp_path / "nano"
    assert run(capsys, "formula", "--preset", "nano", "--out", str(folder), "--dtype", "float32")[0] == 0
    code, out, err = run(capsys, "read", page, *QUICK, "--model", str(folder), "--json")
    assert code == 0 and "random" not in err and json.loads(out)["model"] == str(folder)

    (folder / "tokenizer.json").unlink()
    options = ["--mode", "tiny", "--device", "cpu", "--cold", "--model", str(folder)]
    code, out, err = run(capsys, "trace", page, *options)
    assert code == 0 and "73 positions" in out and "no tokenizer.json" in err
    code, _, err = run(capsys, "read", page, *QUICK, "--model", str(folder))
    assert code == 2 and "no tokenizer.json" in err

    code, _, err = run(capsys, "formula", "--preset", "nano", "--out", str(folder))
    assert code == 2 and "give an empty or a new folder" in err


# --- Errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "required: command"),
        (["read"], "required: FILE"),
        (["read", "PAGE", "--mode", "huge"], "choose one of tiny (= 64)"),
        (["read", "PAGE", "--stream", "--json"], "not allowed with"),
        (["read", "PAGE", "--dtype", "int8"], "unknown dtype 'int8'"),
        (["read", "missing.png"], "missing.png: No such file"),
        (["read", "missing.docx"], "cannot tell what a .docx file is"),
        (["read", "PAGE", "--model", "no/such/model"], "no such folder"),
        (["read", "PAGE", "--device", "cuda:77"], "device 'cuda:77' cannot be used"),
        (["read", "PAGE", "--device", "nonsense"], "device 'nonsense' cannot be used"),
        (["trace", "PAGE", "--device", "meta"], "no values"),
        (["read", "PAGE", "--mode", "tiny", "--prompt", "<image> and <image>"], "once for each"),
        (["read", "PAGE", "--mode", "tiny", "--beams", "2", "--stream"], "beams is 2"),
        (["read", "PAGE", "--mode", "tiny", "--temperature", "-1"], "temperature is -1"),
        (["formula", "--preset", "giant", "--out", "x"], "invalid choice: 'giant'"),
        (["formula", "--preset", "nano", "--out", "PAGE"], "is there already"),
    ],
)
def test_errors_are_one_message_and_exit_code_2(capsys, page, arguments, message):
    code, out, err = run(capsys, *(page if argument == "PAGE" else argument for argument in arguments))
    assert code == 2 and out == "" and message in err
    assert err.count("error:") == 1 and "Traceback" not in err


def test_a_broken_checkpoint_is_named(capsys, page, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    code, _, err = run(capsys, "trace", page, "--model", str(tmp_path))
    assert code == 2 and "config.json" in err and "language_config is missing" in err


def test_a_closed_pipe_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -u -m lightseek modes --json | true", shell=True, capture_output=True, text=True
    )
    assert done.stderr == ""


# --- Choosing a model -------------------------------------------------------------------------------------------------


def test_a_random_nano_is_the_same_for_the_same_seed_and_leaves_random_numbers_alone():
    import torch

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model = load_model(init="random", seed=1, device="cpu")
    assert torch.equal(torch.rand(3), expected)
    again = load_model(init="random", seed=1, device="cpu")
    other = load_model(init="random", seed=2, device="cpu", dtype="bfloat16")
    assert torch.equal(model.decoder.embed.weight, again.decoder.embed.weight)
    assert not torch.equal(model.decoder.embed.weight, other.decoder.embed.weight.float())
    assert other.dtype == torch.bfloat16 and not other.training
    assert model.tokenizer.id_of("<image>") == model.config.image_token_id


def test_a_run_starts_from_the_weights_that_are_shipped_unless_it_asks_for_random_ones():
    import torch

    from lightseek.training.build import build_model
    from lightseek.training.settings import RunConfig

    shipped, random = load_model(device="cpu"), load_model(init="random", seed=3, device="cpu")
    assert shipped.dtype == torch.float32 and random.config == shipped.config == OCRConfig.preset("nano").with_(
        dtype="bfloat16"  # of the file
    )
    for init, expected in (("pretrained", shipped), ("random", random)):
        model, _ = build_model(RunConfig(init=init, seed=3), "cpu")
        assert torch.equal(model.projector.layers.weight, expected.projector.layers.weight)
    assert RunConfig().init == "pretrained"
    assert not torch.equal(shipped.projector.layers.weight, random.projector.layers.weight)


def test_devices_and_dtypes():
    import torch

    assert find_device("cpu") == find_device(torch.device("cpu")) == torch.device("cpu")
    assert find_dtype("float16") == torch.float16 and find_dtype(torch.float32) == torch.float32
    assert find_dtype(None) is None
    for name in ("int8", "nn"):
        with pytest.raises(ValueError, match="floating-point"):
            find_dtype(name)


OWN = "The ferry left at nine. Twelve people were on board. Nobody had told them about the storm behind the island."


@pytest.mark.parametrize("mode", ["tiny", "small", "base", "large", "gundam"])
def test_a_text_of_a_user_is_read_in_every_mode(capsys, tmp_path, mode):
    """At most 5 % of the characters of three sentences are wrong. nano was not trained on gundam-m."""
    own = tmp_path / "own.txt"
    own.write_text(OWN)
    code, out, err = run(capsys, "read", str(own), "--mode", mode)
    assert code == 0 and cer(out, OWN) <= 5, out
    assert re.search(r"drawn on \d+ pages? of (\d+) x \1 pixels in letters of \d+ pixels", err)


def test_a_long_text_is_read_from_several_pages_as_one(capsys, tmp_path):
    own = tmp_path / "own.txt"
    own.write_text(f"{OWN} {OWN}")
    code, out, err = run(capsys, "read", str(own), "--mode", "tiny")
    assert code == 0 and re.search("drawn on [2-9] pages", err)
    assert "---" not in out and cer(out, f"{OWN} {OWN}") <= 5, out


@pytest.mark.parametrize("page", ["README.md", "docs/one-page.md"])
def test_the_read_commands_of_the_docs_give_the_right_text(capsys, monkeypatch, page):
    monkeypatch.chdir(ROOT)
    commands = re.findall(r"^python -m lightseek (read docs/.*)$", (ROOT / page).read_text(), re.MULTILINE)
    assert commands
    for command in commands:
        argv = shlex.split(command, comments=True)
        _, out, _ = run(capsys, *argv)
        assert cer(out, (ROOT / argv[1]).read_text()) <= 5, out
