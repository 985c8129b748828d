"""Tests of `train.py --push-to-hub`: the card, with the run's own numbers, and the upload to a hub on this machine."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from hub_server import serving
from tiny_run import ROOT, flags, tiny_checkpoint, tiny_run

from lightseek import LightSeekOCR
from lightseek.lab.publish import card, create_repository, upload
from lightseek.lab.summary import summarise
from lightseek.lab.tables import results_table
from lightseek.scores.compare import report, score
from lightseek.scores.plots import plot_scores
from lightseek.scores.tables import tables
from lightseek.tools.files import write_json

ID = "someone/tiny-reader"


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """The run's folder and the folder of the repository's files, after a run with --push-to-hub."""
    folder = tmp_path_factory.mktemp("push")
    config = tiny_run(tiny_checkpoint(folder / "checkpoint"), batch=2, steps=2, log="tensorboard", samples=1)
    with serving(folder / "hub") as hub:
        argv = [sys.executable, "train.py", *flags(config), "--out", str(folder / "run"), "--push-to-hub", ID]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **hub.environment}
        done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=300, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        created = [i for i, (method, path, _) in enumerate(hub.requests) if path == "api/repos/create"]
        assert created == [0]  # the repository is created before the training starts
    return folder / "run", folder / "hub" / ID / "main"


def test_the_hub_has_the_model_and_its_card(pushed):
    run, repository = pushed
    files = {path.name for path in repository.iterdir()}
    assert files == {path.name for path in (run / "model").iterdir()} >= {"README.md", "config.json", "tokenizer.json"}
    assert LightSeekOCR.from_pretrained(repository).tokenizer is not None


def test_the_card_says_what_the_run_found(pushed):
    run, repository = pushed
    card, results = (repository / "README.md").read_text(), json.loads((run / "results.json").read_text())
    assert card.startswith("---\nlibrary_name: lightseek\n")
    for line in (
        f'from_pretrained("{ID}")',
        f"| rouge1 | {results['rouge1']:.1f} | {results['lead3']['rouge1']:.1f} |",
        f"| validation | {results['eval_loss']:.3f} |",
        "| setting | value |\n| --- | --- |",
        "| `steps` | `2` |",
        f"{results['train_tokens']:,} target tokens",
    ):
        assert line in card
    projector = next(box for box in results["parameters"] if box["box"] == "projector")
    assert f"| projector | {projector['trainable']:,} | 0 |" in card


def test_the_run_left_samples_and_a_tensorboard(pushed):
    run, _ = pushed
    text = (run / "samples" / "step-000002.md").read_text()
    assert "![its first page](page-1.png)" in text and "**output**" in text
    assert (run / "samples" / "page-1.png").read_bytes().startswith(b"\x89PNG")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run / "tensorboard")).Reload()
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [event.value for event in board.Scalars("train_loss")] == pytest.approx(
        [row["train_loss"] for row in logged]
    )
    assert board.Images("page-1") and board.Tags()["tensors"] == ["sample-1/text_summary"]


def test_what_the_hub_refuses_is_one_line(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise OSError("401 Client Error\nUnauthorized")

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", refuse)
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", refuse)
    with pytest.raises(ValueError, match=r"someone/tiny-reader: 401 Client Error Unauthorized; log in with"):
        create_repository(ID)
    with pytest.raises(ValueError, match=r"the model is in .*: `hf upload someone/tiny-reader"):
        upload(tmp_path, ID)


def test_tables_and_cards_can_be_made_if_a_figure_is_missing(pushed, tmp_path):
    """A run on text has no compression ratio, and a run on pictures has no lead-3. A missing figure leaves a gap."""
    results = json.loads((pushed[0] / "results.json").read_text())
    for missing in [{name} for name in results if name != "settings"] + [results.keys() - {"settings"}]:
        less = {name: value for name, value in results.items() if name not in missing}
        assert "| setting | value |" in card(less, ID)
        write_json(tmp_path / "results.json", less)
        assert results_table(summarise(tmp_path)).row_count == 1
    shutil.copy(pushed[0] / "predictions.jsonl", tmp_path)
    summary = summarise(tmp_path)  # the settings alone, and the outputs
    assert [row.kind for row in summary.rows] == ["cell", "lead-3"] and summary.rows[0].figures


def test_comparisons_can_be_made_if_a_metric_is_missing(pushed, tmp_path):
    scored = score(pushed[0] / "predictions.jsonl")
    for missing in scored.tallies:
        fewer = replace(scored, tallies={name: tally for name, tally in scored.tallies.items() if name != missing})
        for models in ([fewer], [fewer, scored], [scored, fewer]):
            found = report(models)
            assert len(tables(found)) >= 1 + len(found["comparisons"])
            plot_scores(tmp_path / "scores.png", found)
