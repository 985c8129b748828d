"""Tests of a run while it trains: its evaluations and samples, the choice of the best weights, and early stopping."""

import io
import json
import re

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from tiny_run import tiny_checkpoint, tiny_run

from lightseek.commands import progress
from lightseek.tools import console as screen
from lightseek.training.run import Progress, Run
from lightseek.training.settings import RunConfig, check
from lightseek.training.state import BEST


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


def evaluations(monkeypatch, values: list[float], key: str = "eval_loss") -> None:
    """Make the evaluations of a run return `values`, one after the other."""
    found = iter(values)
    monkeypatch.setattr(Run, "evaluate", lambda run, log: {"eval_loss": 1.0} | {key: next(found)})


def test_the_run_ends_with_the_best_weights_and_stops_when_it_finds_no_better(folder, tmp_path, monkeypatch):
    evaluations(monkeypatch, [3.0, 2.0, 2.5, 2.0, 1.0])
    config = tiny_run(folder, steps=8, batch=1, eval_every=1, best="eval_loss", patience=2, lr=0.01)
    run = Run(config, tmp_path)
    seen = {}

    def remember(progress):
        seen[progress.step] = run.model.projector.layers.weight.detach().clone()

    found = run.fit(remember)
    assert list(seen) == [1, 2, 3, 4]  # 2.5 and 2.0 are no better than 2.0
    assert (found["chosen_step"], found["steps_taken"], found["eval_loss"]) == (2, 4, 2.0)
    assert torch.equal(run.model.projector.layers.weight, seen[2]) and not torch.equal(seen[2], seen[4])
    assert torch.equal(load_file(tmp_path / BEST)["model.projector.layers.weight"], seen[2])


def test_a_stopped_run_stays_stopped_when_it_is_started_again(folder, tmp_path, monkeypatch):
    evaluations(monkeypatch, [1.0, 2.0, 2.0])
    config = tiny_run(folder, batch=1, eval_every=1, best="eval_loss", patience=1)
    first = Run(config, tmp_path)
    first.fit()
    again = Run(config, tmp_path)
    assert again.fit()["steps_taken"] == first.step == 2
    assert torch.equal(again.model.projector.layers.weight, first.model.projector.layers.weight)


def test_scores_are_better_when_they_are_higher(folder, tmp_path, monkeypatch):
    evaluations(monkeypatch, [10.0, 30.0, 20.0], "rougeL")
    run = Run(tiny_run(folder, steps=3, batch=1, eval_every=1, best="rougeL", samples=1), tmp_path)
    assert run.fit()["chosen_step"] == 2


def test_each_evaluation_scores_and_writes_down_samples(folder, tmp_path):
    run = Run(tiny_run(folder, batch=2, steps=2, samples=2, eval_every=1, best="cer"), tmp_path)
    run.fit()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all({"eval_loss", "rouge1", "rougeL", "cer"} <= row.keys() for row in rows)
    written = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert written == ["page-1.png", "page-2.png", "step-000001.md", "step-000002.md"]


def test_epochs_decide_the_steps(folder, tmp_path):
    """There are 6 documents and 4 per step. One and a half epochs are 2.25 steps, which are rounded up to 3."""
    assert Run(tiny_run(folder, epochs=1.5), tmp_path).config.steps == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patience": 2}, "patience needs best"),
        ({"best": "rouge1", "samples": 0}, "best=rouge1 is measured on samples"),
        ({"best": "taste"}, "choose one of eval_loss, rouge1"),
        ({"epochs": 0.0}, "epochs must be greater than 0"),
        ({"lr_boxes": "encoder"}, "expected PART=RATE"),
        ({"lr_boxes": "encoder=-1"}, "expected PART=RATE"),
        ({"schedule": "stairs"}, "choose one of cosine, linear"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(ValueError, match=message):
        check(RunConfig(**settings))


def test_the_bar_has_loss_speed_memory_and_the_time_left(monkeypatch):
    written = io.StringIO()
    for module in (screen, progress):
        monkeypatch.setattr(module, "console", Console(file=written, force_terminal=True, width=150))
    with progress.running() as (on_step, _):
        for step in (1, 2):
            on_step(Progress(step, 8, loss=1.25, tokens_per_second=640.0, peak_bytes=3 << 20, eval_loss=2.5))
    assert "loss 1.250  eval 2.500  640 tok/s  3 MB" in written.getvalue()
    assert "2/8" in written.getvalue() and re.search(r"\d:\d\d:\d\d|-:--:--", written.getvalue())
