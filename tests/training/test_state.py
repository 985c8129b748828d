"""Tests of a run's checkpoints after a kill, damaged files, a full disk and too little memory. The run can resume each
time, and ends like a run without trouble.
"""

import errno
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_run import ROOT, losses, tiny_checkpoint, tiny_run
from torch import nn

from lightseek import LightSeekOCR
from lightseek.data.document import Document
from lightseek.tools.errors import DiskFull, OutOfMemory
from lightseek.training.advice import lower
from lightseek.training.optimizer import MasterAdamW
from lightseek.training.origin import documents_state
from lightseek.training.run import Run
from lightseek.training.settings import differences, must_match
from lightseek.training.state import NEXT, PREVIOUS, STATE, load_state, newest_state, save_state


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


def learner(dtype: torch.dtype = torch.float32) -> tuple[nn.Module, MasterAdamW]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).to(dtype)
    model[0].bias.requires_grad_(False)
    groups = [{"params": [p for p in model.parameters() if p.requires_grad], "weight_decay": 0.0}]
    return model, MasterAdamW(groups, lr=0.1)


def learn(model: nn.Module, optimizer: MasterAdamW, steps: int) -> None:
    for step in range(steps):
        model(torch.full((1, 3), step + 1.0, dtype=next(model.parameters()).dtype)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_model_and_optimizer_come_back_bit_for_bit(dtype, tmp_path):
    """The functions take any model, optimizer and folder, and any JSON value as `place`."""
    model, optimizer = learner(dtype)
    learn(model, optimizer, 3)
    save_state(model, optimizer, tmp_path, {"step": 3, "note": "ä"})
    again, fresh = learner(dtype)
    assert load_state(again, fresh, newest_state(tmp_path)) == {"step": 3, "note": "ä"}
    learn(model, optimizer, 2)
    learn(again, fresh, 2)
    for ours, theirs in zip(again.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def saved_twice(tmp_path) -> None:
    model, optimizer = learner()
    for step in (1, 2):
        learn(model, optimizer, 1)
        save_state(model, optimizer, tmp_path, {"step": step})


def test_the_checkpoint_before_is_kept(tmp_path):
    saved_twice(tmp_path)
    assert [load_state(*learner(), tmp_path / name)["step"] for name in (STATE, PREVIOUS)] == [2, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == [PREVIOUS, STATE]


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


def empty(content: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [cut, flip, empty])
def test_a_torn_checkpoint_is_seen_and_the_one_before_it_used(damage, tmp_path):
    saved_twice(tmp_path)
    (tmp_path / STATE).write_bytes(damage((tmp_path / STATE).read_bytes()))
    with pytest.warns(UserWarning, match=r"checkpoint\.safetensors is damaged \(.*\): the checkpoint before it"):
        found = newest_state(tmp_path)
    assert found == tmp_path / PREVIOUS and load_state(*learner(), found)["step"] == 1
    # The next save must not replace the undamaged checkpoint by the damaged one.
    save_state(*learner(), tmp_path, {"step": 2})
    assert load_state(*learner(), tmp_path / PREVIOUS)["step"] == 1


def test_a_kill_between_writing_and_renaming_leaves_the_newest(tmp_path):
    saved_twice(tmp_path)
    (tmp_path / STATE).replace(tmp_path / NEXT)
    assert newest_state(tmp_path) == tmp_path / NEXT


def test_a_checkpoint_of_another_model_says_what_differs(tmp_path):
    saved_twice(tmp_path)
    wider = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    with pytest.raises(ValueError, match=r"model\.0\.weight is \(4, 3\), the model's is \(5, 3\)"):
        load_state(wider, None, tmp_path / STATE)


@pytest.fixture(autouse=True)
def save_after_every_step(monkeypatch):
    """With save_seconds=0, save after every step, even if a save takes longer than a step."""
    monkeypatch.setattr("lightseek.training.run.SAVING_SHARE", math.inf)


def same_threads() -> dict[str, str]:
    """Return an environment with the same number of threads. Otherwise sums would be added in another order."""
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}


KILLED = """
import os, signal, sys, json
from pathlib import Path
from lightseek.training.settings import RunConfig
from lightseek.training import run as training, state as run_state
from lightseek.training.origin import documents_state
from lightseek.training.run import Run
training.SAVING_SHARE = float("inf")
config, out, step, inside = RunConfig(**json.loads(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
def on_step(progress):
    if progress.step == step:
        if inside == "save":
            os.fsync = die  # the checkpoint is written but not yet renamed
        else:
            die()
Run(config, out).fit(on_step)
"""


@pytest.mark.parametrize("inside", ["step", "save"])
def test_kill_9_and_resume_end_as_an_unbroken_run(inside, folder, tmp_path):
    """Adapters with dropout also end the same, because the seed and the step decide the random numbers of a step."""
    adapters = dict(lora="attention", lora_dropout=0.5, lr=0.01) if inside == "step" else {}
    config = tiny_run(folder, save_seconds=0.0, batch=2, **adapters)
    unbroken = Run(config, tmp_path / "unbroken")
    unbroken.fit()
    argv = [json.dumps(vars(config)), str(tmp_path / "killed"), "2", inside]
    done = subprocess.run([sys.executable, "-c", KILLED, *argv], cwd=ROOT, env=same_threads())
    assert done.returncode == -9
    second = Run(config, tmp_path / "killed")
    second.fit()
    learned = [(name, p) for name, p in unbroken.model.named_parameters() if p.requires_grad]
    for (name, theirs), (_, ours) in zip(learned, [x for x in second.model.named_parameters() if x[1].requires_grad],
                                         strict=True):  # fmt: skip
        assert torch.equal(ours, theirs), name
    for key in ("train_loss", "eval_loss"):
        assert losses(tmp_path / "killed", key) == losses(tmp_path / "unbroken", key)
    assert len(losses(tmp_path / "killed")) == config.steps


def test_a_line_of_metrics_that_a_kill_cut_is_run_again(folder, tmp_path):
    config = tiny_run(folder, batch=2)
    run = Run(config, tmp_path)
    run.fit()
    before = losses(tmp_path)
    (tmp_path / "metrics.jsonl").open("a").write('{"step": 5, "train_lo')
    Run(config, tmp_path).fit()
    assert losses(tmp_path) == before


def stories(path: Path, count: int = 30) -> Path:
    """Write a data file of short documents, and replace the one that was there."""
    rows = [{"text": f"Ferry {i} left the pier at noon.", "summary": f"Ferry {i} left."} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def stopped_run(config, out: Path) -> None:
    """A run that ends by Ctrl-C after its second step, with a checkpoint of the first."""

    def stop(progress):
        if progress.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Run(config, out).fit(stop)
    assert newest_state(out)


def test_a_run_does_not_go_on_with_other_documents(folder, tmp_path):
    """Its order, its epochs and its splits follow from the documents, so it would be another run."""
    data, out = stories(tmp_path / "data.jsonl"), tmp_path / "run"
    config = tiny_run(folder, data=str(data), save_seconds=0.0, batch=2)
    stopped_run(config, out)
    stories(data, count=28)
    with pytest.raises(ValueError, match=r"data=.*data\.jsonl changed since .*checkpoint.* cannot go on") as refused:
        Run(config, out).fit()
    assert "model=" not in str(refused.value)
    stories(data)  # the same documents in a file that was written again
    run = Run(config, out)
    run.fit()
    assert run.step == config.steps


def test_a_run_does_not_go_on_with_another_model(folder, tmp_path):
    model, out = shutil.copytree(folder, tmp_path / "model"), tmp_path / "run"
    config = tiny_run(model, save_seconds=0.0, batch=2, freeze="encoder")
    stopped_run(config, out)
    changed = LightSeekOCR.from_pretrained(model)
    with torch.no_grad():
        changed.encoder.clip.pre_layernorm.weight.mul_(2.0)
    changed.save_pretrained(model)
    with pytest.raises(ValueError, match=r"^model=.*model changed since"):
        Run(config, out).fit()


def test_a_run_does_not_go_on_with_other_initial_weights_of_a_part(folder, tmp_path):
    part, out = shutil.copytree(folder, tmp_path / "part"), tmp_path / "run"
    config = tiny_run(folder, save_seconds=0.0, batch=2, init=f"encoder:{part}", freeze="encoder")
    stopped_run(config, out)
    LightSeekOCR.from_pretrained(part).save_pretrained(part)
    with pytest.raises(ValueError, match=r"^init=encoder:.*part changed since"):
        Run(config, out).fit()


def test_documents_are_told_apart_by_all_that_a_run_uses_of_them(tmp_path):
    picture = tmp_path / "page.png"
    picture.write_bytes(b"one")
    documents = [
        Document("text", "summary", "name"),
        Document("text", "another summary", "name"),
        Document("text", "summary", "name", ("fact",)),
        Document("text", "summary", "name", question="what?"),
        Document("text", "summary", "name", images=(b"one",)),
        Document("text", "summary", "name", images=(b"two",)),
        Document("text", "summary", "name", images=(picture,)),
    ]
    states = [documents_state([document]) for document in documents]
    picture.write_bytes(b"other")
    states.append(documents_state(documents[-1:]))
    assert len(set(states)) == len(states)
    assert documents_state(documents[:2]) != documents_state(documents[1::-1])


def test_a_full_disk_ends_with_advice_and_loses_no_checkpoint(folder, tmp_path, monkeypatch):
    config = tiny_run(folder, save_seconds=0.0, batch=2)

    def fill_disk(progress):
        if progress.step == 2:  # step 1 was saved before this
            monkeypatch.setattr("lightseek.tools.files.os.fsync", no_space)

    def no_space(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskFull, match=r"is full .* let less learn .* checkpoint of step 2 is complete"):
        Run(config, tmp_path).fit(fill_disk)
    monkeypatch.undo()
    assert load_step(newest_state(tmp_path)) == 2 and load_step(tmp_path / PREVIOUS) == 1
    run = Run(config, tmp_path)
    run.fit()
    assert run.step == config.steps


def load_step(path) -> int:
    from lightseek.training.state import read_place

    return read_place(path)["step"]


def no_memory_cpu():
    torch.empty(1 << 50)  # PyTorch raises its own error


def no_memory_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ...\nmore")


def no_memory_python():
    raise MemoryError


@pytest.mark.parametrize("trouble", [no_memory_cpu, no_memory_gpu, no_memory_python])
def test_out_of_memory_ends_with_advice_that_the_run_goes_on_with(trouble, folder, tmp_path, monkeypatch):
    config = tiny_run(folder, save_seconds=0.0, batch=2)
    forward = Run.forward

    def large(run, model, examples):
        if run.step == 2 and len(examples) > 1:
            trouble()
        return forward(run, model, examples)

    monkeypatch.setattr(Run, "forward", large)
    monkeypatch.setattr(Run, "evaluate", lambda run, log: {"eval_loss": 0.0})
    with pytest.raises(OutOfMemory) as stopped:
        Run(config, tmp_path).fit()
    message = str(stopped.value)
    assert "set accumulate=2 (now 1) or gradient_checkpointing=true, with the same results" in message
    assert "the checkpoint of step 2 is complete" in message and "\n" not in message
    run = Run(replace(config, accumulate=2), tmp_path)
    run.fit()
    assert run.step == config.steps and len(losses(tmp_path)) == config.steps


@pytest.mark.parametrize(
    ("settings", "free"),
    [
        ({}, True),
        ({"lora": "attention", "lora_dropout": 0.0}, True),
        ({"lora": "attention", "lora_dropout": 0.05}, False),
        ({"decoder": "dense"}, True),
        ({"decoder": "gpt2"}, False),  # it has dropout of its own
    ],
)
def test_accumulate_may_change_unless_there_is_dropout(settings, free):
    """Each part of a batch draws its own dropout, so another number of parts is another run."""
    before, after = tiny_run("tiny", **settings), tiny_run("tiny", accumulate=2, **settings)
    changed = differences(must_match(before), after)
    assert changed == ([] if free else ["accumulate was 1 and is 2"])
    assert differences({"steps": 4} | must_match(before) | {"accumulate": 2}, after) == []
    older = {name: value for name, value in must_match(before).items() if name != "accumulate"}
    assert differences(older, after) == []  # checkpoints of older releases do not have it
    same, other = lower(before).split(", with the same results; ")
    assert ("accumulate=2" in same) == free and ("accumulate=2" in other) != free


def test_without_dropout_the_number_of_parts_changes_nothing(folder, tmp_path):
    found = {}
    for accumulate in (1, 2, 4):
        config = tiny_run(folder, lora="attention", lora_dropout=0.0, accumulate=accumulate, lr=0.01)
        Run(config, tmp_path / str(accumulate)).fit()
        found[accumulate] = losses(tmp_path / str(accumulate))
    assert found[2] == pytest.approx(found[1], rel=1e-5) and found[4] == pytest.approx(found[1], rel=1e-5)
