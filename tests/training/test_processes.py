"""Tests that two processes on this CPU train like one, with DDP and FSDP2, launched as a user launches them."""

import json

import pytest
import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_run import flags, launch, losses, tiny_checkpoint, tiny_run

from lightseek.training.processes import deal, start
from lightseek.training.run import Run
from lightseek.training.state import STATE, newest_state
from lightseek.weights.official import WEIGHTS


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The settings and the folder of a run in one process."""
    folder = tmp_path_factory.mktemp("one")
    config = tiny_run(tiny_checkpoint(folder / "checkpoint"), batch=5, accumulate=2, samples=1, best="eval_loss")
    run = Run(config, folder / "run")
    run.fit()
    run.model.save_pretrained(folder / "run" / "model")
    return config, folder / "run"


def test_every_process_gets_as_many_parts_and_every_document_is_dealt_once():
    dealt = [deal(list(range(7)), 2, process, 3) for process in range(3)]
    assert [len(parts) for parts in dealt] == [2, 2, 2]
    assert sorted(i for parts in dealt for part in parts for i in part) == list(range(7))


def same_as(alone, folder):
    for key in ("train_loss", "eval_loss"):
        assert losses(folder, key) == pytest.approx(losses(alone, key), rel=1e-5)
    assert json.loads((folder / "results.json").read_text())["processes"] == 2
    ours, theirs = load_file(folder / "model" / WEIGHTS), load_file(alone / "model" / WEIGHTS)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], atol=1e-4, rtol=1e-3, msg=name)


def test_two_processes_with_a_model_each_give_the_losses_of_one(one, tmp_path):
    """This is DDP. Each process takes two parts of a step's five documents, so the parts have different numbers of
    documents and of tokens.
    """
    config, alone = one
    launch("cpu-2.yaml", *flags(config), "--out", str(tmp_path), "--save-model")
    same_as(alone, tmp_path)


def test_two_processes_that_share_a_model_go_on_with_the_checkpoint_of_one(one, tmp_path):
    """This is FSDP2 from the second step on. One process wrote the checkpoint, which always holds whole tensors."""
    config, alone = one

    class Killed(Exception):
        pass

    def stop(progress):
        if progress.step == 1:
            run.save_progress()
            raise Killed

    run = Run(config, tmp_path)
    with pytest.raises(Killed):
        run.fit(stop)
    assert newest_state(tmp_path) == tmp_path / STATE
    launch("cpu-2-fsdp2.yaml", *flags(config), "--out", str(tmp_path), "--save-model")
    same_as(alone, tmp_path)
    assert losses(tmp_path)[0] == losses(alone)[0]  # equal bit for bit, because this step was not run again
    assert newest_state(tmp_path) == tmp_path / STATE
    with safe_open(tmp_path / STATE, "pt") as file:
        assert file.get_slice("model.decoder.embed.weight").get_shape() == [1024, 16]


def test_more_processes_than_documents_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Accelerator, "num_processes", 2)
    with pytest.raises(
        ValueError, match=r"batch=5 documents a step cannot be split over 2 process\(es\) with accumulate=3"
    ):
        start(tiny_run(tmp_path, batch=5, accumulate=3))
