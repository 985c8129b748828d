"""One step of gradient descent: parts that add up, clipping, and when processes exchange gradients."""

from contextlib import contextmanager

import pytest
import torch
from accelerate import Accelerator
from tiny_run import tiny_checkpoint, tiny_run
from torch import nn

from lightseek.training.processes import backward
from lightseek.training.run import Run
from lightseek.training.step import gradient_step


@pytest.mark.parametrize("max_norm", [0.5, 1e9])
def test_the_gradients_of_all_parts_are_added_and_clipped_together(max_norm):
    torch.manual_seed(0)
    model, parts = nn.Linear(4, 1), [torch.randn(2, 4), torch.randn(3, 4)]
    model.bias.requires_grad_(False)
    before, gradient = model.weight.detach().clone(), torch.cat(parts).sum(0, keepdim=True)
    assert 0.5 < gradient.norm() < 1e9  # or one of the cases would prove nothing
    gradient_step(model, torch.optim.SGD(model.parameters(), lr=0.1), parts, lambda part: model(part).sum(), max_norm)
    expected = gradient * min(1.0, max_norm / gradient.norm().item())
    torch.testing.assert_close(before - model.weight, 0.1 * expected, rtol=1e-4, atol=1e-6)
    assert model.weight.grad is None  # nothing is left for the next step


def test_processes_exchange_gradients_after_the_last_part_only(tmp_path, monkeypatch):
    run = Run(tiny_run(tiny_checkpoint(tmp_path / "tiny"), accumulate=3), tmp_path / "run")
    run.wrap()
    alone, inside = [], []

    @contextmanager
    def no_sync(self, model):
        alone.append(model)
        yield
        alone.pop()

    forward = Run.forward
    monkeypatch.setattr(Accelerator, "no_sync", no_sync)
    monkeypatch.setattr(
        Run, "forward", lambda self, model, part: (inside.append(list(alone)), forward(self, model, part))[1]
    )
    run.train_step(0)
    assert inside == [[run.wrapped], [run.wrapped], []]


def test_deepspeed_takes_its_step_after_the_last_part_only(monkeypatch):
    """Its engine, here a record of what it is told, clips and steps by itself."""

    class Engine(nn.Module):
        def __init__(self):
            super().__init__()
            self.told = []

        def set_gradient_accumulation_boundary(self, is_boundary):
            self.told.append(is_boundary)

        def backward(self, loss):
            self.told.append(loss.item())

        def step(self):
            self.told.append("step")

    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    engine, accelerator = Engine(), Accelerator.__new__(Accelerator)
    for number in (1, 2):
        backward(torch.tensor(float(number)), engine, accelerator, last=number == 2)
    assert engine.told == [False, 1.0, True, 2.0, "step"]
