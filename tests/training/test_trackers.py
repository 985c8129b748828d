"""Tests of `log=wandb` and `log=trackio`, with stand-ins for the two packages that keep what they are given."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
from accelerate import PartialState
from PIL import Image

from lightseek.scores.predictions import Prediction
from lightseek.training.log import RunLog
from lightseek.training.settings import RunConfig

ROWS = [{"step": 1, "train_loss": 2.5, "lr": 0.1}, {"step": 2, "train_loss": 2.0, "lr": 0.2, "eval_loss": 3.0}]


@pytest.fixture(params=["wandb", "trackio"])
def tracker(request, monkeypatch):
    """A module of that name. `calls` has what its functions are called with."""
    PartialState(cpu=True)  # a run has made it before its log
    module = ModuleType(request.param)
    module.calls = calls = []

    def init(**settings):
        calls.append(("init", settings))
        return SimpleNamespace(
            log=lambda values, step, **more: calls.append(("log", step, values)),
            finish=lambda: calls.append(("finish",)),
        )

    module.init = init
    module.config = SimpleNamespace(update=lambda values, **more: calls.append(("config", values)))
    module.Image = lambda page, **more: page
    monkeypatch.setitem(sys.modules, request.param, module)
    return module


def test_a_tracker_gets_the_settings_and_every_row_and_metrics_jsonl_is_written_too(tracker, tmp_path):
    config = RunConfig(log=tracker.__name__, steps=2)
    folder = tmp_path / "grid" / "cell"
    with RunLog(folder, [], config) as log:
        for row in ROWS:
            log.row(row)
    (_, started), (_, settings), *logged, finished = tracker.calls
    assert (started["project"], started["group"], started["name"]) == ("lightseek", "grid", "grid/cell")
    assert started["resume"] == "never" and settings["steps"] == 2 and finished == ("finish",)
    assert logged == [
        ("log", 1, {"train_loss": 2.5, "lr": 0.1}),
        ("log", 2, {k: v for k, v in ROWS[1].items() if k != "step"}),
    ]
    assert [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] == ROWS


def test_a_run_that_continues_is_the_same_run_of_the_tracker(tracker, tmp_path):
    for rows in ([], ROWS, []):
        with RunLog(tmp_path / "cell", rows, RunConfig(log=tracker.__name__)):
            pass
    first, second, third = [call[1] for call in tracker.calls if call[0] == "init"]
    assert [start["resume"] for start in (first, second, third)] == ["never", "allow", "never"]
    if tracker.__name__ == "wandb":
        assert first["id"] == second["id"] != third["id"] and first["dir"] == str(tmp_path / "cell")


def test_samples_and_their_pages_go_to_a_tracker(tracker, tmp_path):
    page = Image.new("L", (4, 4))
    prediction = Prediction(id="one", reference="ref", prediction="out")
    with RunLog(tmp_path, [], RunConfig(log=tracker.__name__)) as log:
        log.samples(3, [prediction], [page])
    values = {name: value for kind, *call in tracker.calls if kind == "log" for name, value in call[1].items()}
    assert "```text\nout\n```" in values["sample-1"]
    if tracker.__name__ == "wandb":  # accelerate's trackio has no pictures
        assert [picture.mode for picture in values["page-1"]] == ["RGB"]


def test_a_tracker_that_cannot_start_is_one_line(tracker, tmp_path, monkeypatch):
    def init(**settings):
        raise RuntimeError("api_key not configured\nmore")

    monkeypatch.setattr(tracker, "init", init)
    with pytest.raises(ValueError, match=r"cannot start \(api_key not configured\)$"):
        RunLog(tmp_path, [], RunConfig(log=tracker.__name__))
    monkeypatch.setitem(sys.modules, tracker.__name__, None)
    with pytest.raises(ImportError, match=f"pip install {tracker.__name__}"):
        RunLog(tmp_path, [], RunConfig(log=tracker.__name__))
