"""Two processes on this CPU take the steps of one: DDP and FSDP2, launched as a user launches them."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_run import flags, launch, losses, tiny_checkpoint, tiny_run

from lightseek.batches import deal
from lightseek.checkpoint import WEIGHTS
from lightseek.run_state import STATE, newest_state
from lightseek.training import Run


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A run of one process, and its settings."""
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


@pytest.mark.parametrize("launcher", ["cpu-2.yaml", "cpu-2-fsdp2.yaml"])
def test_two_processes_give_the_losses_of_one(launcher, one, tmp_path):
    """Five documents a step, two parts each: unlike numbers of documents and of tokens in every part."""
    config, alone = one
    launch(launcher, *flags(config), "--out", str(tmp_path), "--save-model")
    for key in ("train_loss", "eval_loss"):
        assert losses(tmp_path, key) == pytest.approx(losses(alone, key), rel=1e-5)
    assert json.loads((tmp_path / "results.json").read_text())["processes"] == 2
    ours, theirs = load_file(tmp_path / "model" / WEIGHTS), load_file(alone / "model" / WEIGHTS)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], atol=1e-4, rtol=1e-3, msg=name)


def test_a_checkpoint_of_one_process_goes_on_with_two(one, tmp_path):
    """Its tensors are whole, whoever wrote it. Here: half of the run alone, the rest by two that share the model."""
    config, alone = one

    class Killed(Exception):
        pass

    def stop(progress):
        if progress.step == 2:
            run.save()
            raise Killed

    run = Run(config, tmp_path)
    with pytest.raises(Killed):
        run.fit(stop)
    assert newest_state(tmp_path) == tmp_path / STATE
    launch("cpu-2-fsdp2.yaml", *flags(config), "--out", str(tmp_path))
    assert losses(tmp_path) == pytest.approx(losses(alone), rel=1e-5)
    assert losses(tmp_path)[:2] == losses(alone)[:2]  # bit for bit: these were not run again


def test_more_processes_than_documents_are_refused(one, tmp_path):
    config, _ = one
    done = launch("cpu-2.yaml", *flags(config), "accumulate=3", "--out", str(tmp_path), code=None)
    assert "batch=5 documents a step cannot be dealt to 2 process(es) in accumulate=3" in done.stderr
    assert done.returncode != 0 and not tmp_path.joinpath(STATE).exists()
