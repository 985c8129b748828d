"""Tests of `ablate.py` and `train.py`, run as a user runs them."""

import json
import math
import runpy
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
from PIL import Image
from tiny_models import bart_folder, gpt2_folder, small_model
from tiny_run import tiny_checkpoint, tiny_run

from lightseek.lab.grid import check_cells, grid, run_cell
from lightseek.scores.compare import report, score
from lightseek.tools.files import write_json
from lightseek.training.overfit import first_unknown, overfit, overfit_config
from lightseek.training.run import Run
from lightseek.training.settings import RunConfig, option

ROOT = Path(__file__).parents[2]
QUICK = ["--steps", "2", "--batch", "2", "--eval-documents", "2", "--train-documents", "4", "--max-new-tokens", "8"]


def program(name, *argv, code=0):
    done = subprocess.run(
        [sys.executable, str(ROOT / name), *argv], capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture
def called(capsys):
    """Call a program's `main` in this process, which has imported everything already. Returns stdout and stderr."""

    def call(name, *argv, code=0):
        main = runpy.run_path(str(ROOT / name))["main"]
        try:
            ended = main(list(argv))
        except SystemExit as stopped:
            ended = stopped.code
        shown = capsys.readouterr()
        assert (ended or 0) == code, shown.out + shown.err
        return shown

    return call


def test_a_grid_runs_every_cell_once_and_a_rerun_skips_them(called, tmp_path):
    argv = ["--tokens", "64", "--freeze", "encoder", "all-but-projector", *QUICK, "--out", str(tmp_path)]
    shown = program("ablate.py", *argv).stdout
    assert "ROUGE" in shown and "lead-3" in shown
    listed = json.loads((tmp_path / "grid.json").read_text())
    cells = [tmp_path / name for name in listed["cells"]]
    assert len(cells) == 2 and len(listed["before"]) == 1  # both cells start from the same weights
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == sorted(
        listed["cells"] + listed["before"]
    )
    assert "before training" in shown and "One seed" in shown
    for cell in cells:
        results = json.loads((cell / "results.json").read_text())
        assert results["vision_tokens"] == 64
        assert {"cer", "rouge1", "rouge2", "rougeL", "train_loss", "eval_loss", "peak_bytes"} <= results.keys()
        assert len((cell / "metrics.jsonl").read_text().splitlines()) == 2
        assert Image.open(cell / "page.png").size == (512, 512)
        assert Image.open(cell / "curve.png").size[0] > 0
        assert "**reference**" in (cell / "samples.md").read_text()
        assert not (cell / "checkpoint.safetensors").exists()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results.json")}
    assert called("ablate.py", *argv).out.count("finished before, skipped") == 3
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results.json")}
    # `evaluate` can compare the predictions of the cells, and it finds the same scores as the table.
    compared = report([score(cell / "predictions.jsonl") for cell in cells])
    for cell, model in zip(cells, compared["models"], strict=True):
        results = json.loads((cell / "results.json").read_text())
        assert model["scores"]["rouge1"]["value"] == pytest.approx(results["rouge1"])
    assert compared["lead3"]["rouge1"]["value"] == pytest.approx(results["lead3"]["rouge1"])


def test_a_changed_checkpoint_gives_another_cell(tmp_path):
    """A cell does not resume in its old folder if the weights that it starts from have changed."""

    def folder() -> Path:
        (cell,), _ = grid(RunConfig(model=str(tmp_path / "model")), {}, tmp_path)
        return cell.folder

    weights = tmp_path / "model" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"one")
    first = folder()
    assert folder() == first
    weights.write_bytes(b"another")
    assert folder() != first


def test_every_decoder_of_a_grid_is_checked_before_its_first_cell(tmp_path):
    """Each model is built from its config alone. The folders in this test have no weights."""
    gpt2, bart = gpt2_folder(tmp_path / "gpt2"), bart_folder(tmp_path / "bart")
    for weights in [*gpt2.glob("*.safetensors"), *bart.glob("*.safetensors")]:
        weights.unlink()

    def check(**settings):
        lists = {"model": [str(tiny_checkpoint(tmp_path / "tiny"))], **{name: [v] for name, v in settings.items()}}
        check_cells(grid(RunConfig(), lists, tmp_path / "grid")[0])

    for decoder, context in ((f"hf:{gpt2}", "vision"), (f"seq2seq:{bart}", "text"), ("dense", "vision")):
        check(decoder=decoder, context=context, freeze="embeddings")
        check(decoder=decoder, context=context, lora="all-linear")
        with pytest.raises(ValueError, match="layers, so N is 1 to "):
            check(decoder=decoder, context=context, freeze="all-but-decoder-last-9")
    with pytest.raises(ValueError, match="this decoder has no experts of its own"):
        check(decoder=f"hf:{gpt2}", freeze="experts")
    with pytest.raises(ValueError, match="transformers can't load this"):
        check(decoder=f"hf:{tmp_path}")


def test_the_folder_of_a_cell_names_the_settings_that_decide_its_result(tmp_path):
    def folders(base=None, **lists):
        return [cell.folder for cell in grid(base or RunConfig(), lists, tmp_path)[0]]

    plain = folders()
    assert plain == folders(freeze=[None], mode=["small"]) == folders(accumulate=[2], save_seconds=[1.0])
    assert plain[0].name.startswith("defaults-")
    first, second = folders(freeze=[None, "encoder"])
    assert first == plain[0] and second.name.startswith("freeze=encoder-")
    assert (
        folders(freeze=["encoder"], lr=[RunConfig.lr, 5e-3])[0] == second
    )  # the other cells of the grid do not matter
    assert folders(epochs=[1.0], steps=[5]) == folders(epochs=[1.0], steps=[6])  # epochs decide the steps
    assert len(folders(lr=[5e-3], seed=[0, 1, 1])) == 2


def test_a_setting_of_a_later_release_leaves_every_cell_where_it_was(tmp_path):
    @dataclass(frozen=True)
    class Later(RunConfig):
        brightness: float = option(1.0, "a setting that is new in a release")

    old, _ = grid(RunConfig(), {"mode": ["tiny", "small"], "lr": [1e-3]}, tmp_path)
    new, _ = grid(Later(), {"mode": ["tiny", "small"], "lr": [1e-3]}, tmp_path)
    assert [cell.folder for cell in old] == [cell.folder for cell in new]
    assert grid(Later(brightness=2.0), {"mode": ["tiny"], "lr": [1e-3]}, tmp_path)[0][0].folder != old[0].folder
    write_json(old[0].folder / "results.json", {"settings": asdict(old[0].config)})
    assert new[0].finished() == old[0].finished() != None  # noqa: E711
    assert new[1].finished() is None


def test_a_finished_cell_with_other_settings_is_refused(tmp_path):
    """This happens when a default has changed since the cell ran, because the folder's name leaves out defaults."""
    (cell,), _ = grid(RunConfig(), {"mode": ["tiny"]}, tmp_path)
    stored = asdict(cell.config)
    write_json(cell.folder / "results.json", {"settings": stored | {"accumulate": 4}})
    assert cell.finished() is not None
    write_json(cell.folder / "results.json", {"settings": stored | {"warmup": 0.5}})
    with pytest.raises(ValueError, match=r"other settings \(warmup was 0.5 and is 0.05\)"):
        cell.finished()


def test_a_killed_grid_continues_with_another_number_of_parts(tmp_path, monkeypatch):
    """The out-of-memory message promises this: with accumulate=2 the cell continues from its checkpoint."""
    model = tiny_checkpoint(tmp_path / "tiny")
    lists = {name: [value] for name, value in vars(tiny_run(model, save_seconds=0.0)).items()}
    (cell,), _ = grid(RunConfig(), lists, tmp_path / "grid")

    class Killed(Exception):
        pass

    def kill(progress):
        if progress.step == 2:
            raise Killed

    with pytest.raises(Killed):
        run_cell(cell, kill)
    (again,), _ = grid(RunConfig(), lists | {"accumulate": [2]}, tmp_path / "grid")
    assert again.folder == cell.folder and again.config.accumulate == 2 and again.finished() is None
    check_cells([again])
    steps = []
    results = run_cell(again, lambda progress: steps.append(progress.step))
    assert steps[0] in (2, 3) and steps[-1] == 4 and results["settings"]["accumulate"] == 2
    assert cell.finished() == results == run_cell(cell)


def test_documents_of_a_user_and_a_config_file(called, tmp_path):
    rows = [{"body": f"Number {i} stands in a long enough text.", "gist": f"It is {i}."} for i in range(12)]
    data = tmp_path / "mine.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = tmp_path / "x.json"
    config.write_text(json.dumps({"data": str(data), "text_column": "body", "summary_column": "gist", "tokens": 64}))
    out = tmp_path / "run"
    quick = ["steps=1", "batch=2", "max_new_tokens=4", "--save-model"]
    model = tiny_checkpoint(tmp_path / "tiny")
    called("train.py", "--config", str(config), *quick, "--model", str(model), "--out", str(out))
    settings = json.loads((out / "results.json").read_text())["settings"]
    assert settings["text_column"] == "body" and settings["steps"] == 1
    assert (out / "model" / "model.safetensors.index.json").is_file()
    # The saved model can be the start of another run.
    again = ["--model", str(out / "model"), "--data", str(data), "--text-column", "body", "--summary-column", "gist"]
    called("train.py", *again, "tokens=64", "steps=1", "batch=1", "max_new_tokens=4", "--out", str(tmp_path / "again"))


@pytest.mark.parametrize(
    ("name", "argv", "message"),
    [
        ("ablate.py", ["--tokens", "64", "63"], "unknown mode '63'"),
        ("ablate.py", ["--freeze", "encoder", "encodr", "steps=1"], "unknown freeze policy 'encodr'"),
        ("ablate.py", ["--freeze", "none", "decoder-last-9"], "the decoder has 4 layers"),
        ("ablate.py", ["--lora", "none", "atention"], "nothing here is called 'atention'"),
        ("ablate.py", ["--lr-boxes", "none", "encoder=1e-5", "--freeze", "encoder"], "nothing in encoder learns"),
        ("ablate.py", ["--quantize", "none", "int8"], "every layer learns"),
        ("ablate.py", ["--font", "DejaVuSans", "Nope"], "no font 'Nope'"),
        ("ablate.py", ["--data", "synthetic", "nowhere"], "unknown source of documents 'nowhere'"),
        ("ablate.py", ["--device", "cpu", "quantum"], "device 'quantum' cannot be used"),
        ("ablate.py", ["--precision", "none", "fp16", "--device", "cpu"], "precision=fp16 needs a GPU"),
        ("ablate.py", ["--cache-vision", "false", "true"], "the encoder learns"),
        ("ablate.py", ["--accumulate", "1", "2"], "accumulate changes no result"),
        ("ablate.py", ["--freeze", "nothing"], "unknown freeze policy"),
        ("train.py", ["--data", "no/such/folder"], "there is no such file or folder"),
        ("train.py", ["--model", "no/such/model/here"], "no/such/model/here"),
        ("train.py", ["stepz=1"], "unknown setting"),
        ("train.py", ["quantize=int8", "--lora", "attention", "--save-model"], "leave out one or the other"),
    ],
)
def test_bad_input_is_one_clear_line(called, name, argv, message, tmp_path):
    shown = called(name, *argv, "--out", str(tmp_path / "out"), code=2)
    assert message in shown.err and "Traceback" not in shown.err
    assert len(shown.err.splitlines()) == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["ablate.py", "train.py"])
def test_help_does_not_wait_for_pytorch(name):
    check = (
        f"import runpy, sys; sys.argv = [{name!r}, '--help']\n"
        f"try: runpy.run_path({str(ROOT / name)!r}, run_name='__main__')\n"
        "except SystemExit: assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0 and "--tokens" in done.stdout, done.stderr


def test_overfit_learns_one_document_and_reads_its_page(tmp_path):
    """The sanity check works on a page of 64 tokens: the page gives the target, and two other pages do not."""
    done = program("train.py", "--overfit", "--task", "ocr", "--tokens", "64", "--out", str(tmp_path))
    assert "reads after" in done.stdout and "for a blank page" in done.stdout
    outcome = json.loads((tmp_path / "results.json").read_text())
    assert outcome["learned"] and outcome["output"] == outcome["target"] != outcome["before"]
    assert outcome["verdict"] == "reads" and outcome["document"].startswith("unseen-")
    assert [control["recited"] for control in outcome["controls"]] == [False, False]
    assert all(control["output"] != outcome["target"] for control in outcome["controls"])
    assert (tmp_path / "page.png").is_file() and (tmp_path / "config.json").is_file()


def test_a_model_that_recites_is_told_from_one_that_reads(tmp_path):
    """After so few steps, a model with random weights writes the target whatever it sees."""
    small_model().save_pretrained(tmp_path / "model")
    settings = overfit_config(tiny_run(tmp_path / "model", lr=1e-2, steps=60))
    run = Run(settings, tmp_path / "run")
    outcome = overfit(run)
    assert outcome.learned and outcome.output == outcome.target == outcome.example.document.summary
    assert outcome.verdict == "recites" and outcome.before != outcome.target
    assert outcome.controls[0].page == "a blank page" and outcome.controls[0].output == outcome.target
    assert "learned the text and not how to read the page" in outcome.advice
    assert "only one document" in replace(outcome, controls=outcome.controls[:1]).advice
    assert outcome.controls[1].page not in (outcome.example.document.name, "a blank page")

    # What the model can do already is passed over.
    run.documents.sort(key=lambda document: document != outcome.example.document)
    assert first_unknown(run)[0] == run.documents[1]
    del run.documents[1:]
    with pytest.raises(ValueError, match="already writes the targets of all 1 documents"):
        overfit(run)


def test_overfit_of_one_document_has_one_control_and_shows_it_as_it_is(called, tmp_path):
    """Two steps are too few to learn words that are not on the page. Brackets in a text are no markup."""
    document = {"text": "See here.", "summary": "[/b] [bold] 4711 lemons"}
    (tmp_path / "one.jsonl").write_text(json.dumps(document) + "\n")
    argv = ["--overfit", "--data", str(tmp_path / "one.jsonl"), "--tokens", "64", "--out", str(tmp_path / "out")]
    shown = called("train.py", *argv, "--steps", "2", code=1)
    assert "target  [/b] [bold] 4711 lemons" in shown.out and "not learned" in shown.out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [control["page"] for control in results["controls"]] == ["a blank page"]  # there is no other document


def test_overfit_keeps_the_dtype_of_the_weights_whatever_the_precision_of_the_run(tmp_path):
    """In this half-precision model only the last layer learns. Mixed precision would hold that layer in float32."""
    half = {"dtype": "bfloat16", "precision": "bf16", "freeze": "all-but-decoder-last-1", "steps": 1}
    config = tiny_run(tiny_checkpoint(tmp_path / "tiny"), **half)
    outcome = overfit(Run(overfit_config(config), tmp_path / "run"))
    assert outcome.steps == 1 and outcome.loss == pytest.approx(math.log(1024), abs=0.5)
