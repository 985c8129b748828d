"""Tests of `ablate.py` and `train.py`, run as a user runs them."""

import json
import math
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tiny_models import small_model
from tiny_run import tiny_checkpoint, tiny_run

from lightseek.lab.grid import grid
from lightseek.scores.compare import report, score
from lightseek.training.overfit import overfit, overfit_config
from lightseek.training.run import Run
from lightseek.training.settings import RunConfig

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
    cells = sorted(path for path in tmp_path.iterdir() if path.is_dir())
    assert len(cells) == 2
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
    assert called("ablate.py", *argv).out.count("finished before, skipped") == 2
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results.json")}
    # The predictions of the cells can be compared document by document, and give the scores of the table.
    compared = report([score(cell / "predictions.jsonl") for cell in cells])
    for cell, model in zip(cells, compared["models"], strict=True):
        results = json.loads((cell / "results.json").read_text())
        assert model["scores"]["rouge1"]["value"] == pytest.approx(results["rouge1"])
    assert compared["lead3"]["rouge1"]["value"] == pytest.approx(results["lead3"]["rouge1"])


def test_a_model_written_anew_is_another_cell(tmp_path):
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


def test_ones_own_documents_and_a_config_file(called, tmp_path):
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
        ("ablate.py", ["tokens=64"], "unrecognized arguments: tokens=64"),
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


def test_overfit_learns_one_sample_by_heart(tmp_path):
    """This is the usual sanity check, here on a page of 64 tokens: the greedy output equals the target."""
    done = program("train.py", "--overfit", "--task", "ocr", "--tokens", "64", "--out", str(tmp_path))
    assert "learned by heart" in done.stdout
    outcome = json.loads((tmp_path / "results.json").read_text())
    assert outcome["learned"] and outcome["output"] == outcome["target"]
    assert (tmp_path / "page.png").is_file() and (tmp_path / "config.json").is_file()


def test_a_summary_can_be_learned_by_heart_too(tmp_path):
    """The model has a 40th of nano's size, and all of its boxes learn."""
    small_model().save_pretrained(tmp_path / "model")
    settings = overfit_config(tiny_run(tmp_path / "model", lr=1e-2, steps=300))
    outcome = overfit(Run(settings, tmp_path / "run"))
    assert outcome.learned and outcome.output == outcome.target == outcome.example.document.summary


def test_overfit_needs_one_document_and_shows_it_as_it_is(called, tmp_path):
    """Two steps are too few to learn words that are not on the page. Brackets in a text are no markup."""
    document = {"text": "See here.", "summary": "[/b] [bold] 4711 lemons"}
    (tmp_path / "one.jsonl").write_text(json.dumps(document) + "\n")
    argv = ["--overfit", "--data", str(tmp_path / "one.jsonl"), "--tokens", "64", "--steps", "2"]
    shown = called("train.py", *argv, "--out", str(tmp_path / "out"), code=1)
    assert "target  [/b] [bold] 4711 lemons" in shown.out and "not learned" in shown.out


def test_overfit_holds_weights_as_they_are_whatever_the_precision_of_the_run(tmp_path):
    """In this half-precision model only the last layer learns. Mixed precision would hold that layer in float32."""
    half = {"dtype": "bfloat16", "precision": "bf16", "freeze": "all-but-decoder-last-1", "steps": 1}
    config = tiny_run(tiny_checkpoint(tmp_path / "tiny"), **half)
    outcome = overfit(Run(overfit_config(config), tmp_path / "run"))
    assert outcome.steps == 1 and outcome.loss == pytest.approx(math.log(1024), abs=0.5)
