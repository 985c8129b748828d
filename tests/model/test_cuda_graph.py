"""Tests of `Replayed` with a stand-in for CUDA graphs. `tests/test_gpu.py` has real ones."""

import torch
from torch import nn

from lightseek.model.cuda_graph import KEPT, LARGEST, Replayed, needs_python


class Rerun:
    """A CUDA graph without CUDA: each replay runs the work again. `made` counts the graphs."""

    made = 0

    def __init__(self, work):
        Rerun.made += 1
        self.replay = work


def replayed() -> nn.Module:
    Rerun.made = 0
    module = nn.Linear(3, 2)
    module.forward = Replayed(module, Rerun)
    return module


@torch.inference_mode()
def test_a_shape_is_recorded_when_it_comes_again_and_the_oldest_graph_goes():
    module = replayed()
    for turn in range(3):
        for rows in (1, 2, LARGEST, LARGEST + 1):
            x = torch.randn(rows, 3)
            torch.testing.assert_close(module(x), x @ module.weight.T + module.bias)
        assert Rerun.made == (0, 3, 3)[turn]  # never for more rows than LARGEST
    for rows in range(KEPT + 2):
        for _ in range(2):
            module(torch.randn(1, 5 + rows, 3))
    assert Rerun.made == 3 + KEPT + 2 and len(module.forward.graphs) == KEPT


@torch.inference_mode()
def test_an_output_stays_after_the_next_replay():
    module = replayed()
    first, second = torch.randn(2, 1, 3)
    module(first)
    kept, other = module(first), module(second)
    torch.testing.assert_close(kept, first @ module.weight.T + module.bias)
    assert not torch.equal(kept, other)


def test_a_module_that_has_a_hook_or_learns_runs_as_it_is():
    module, seen = replayed(), []
    module(torch.randn(1, 3)).sum().backward()
    assert module.weight.grad is not None
    handle = module.register_forward_hook(lambda *_: seen.append(1))
    with torch.inference_mode():
        for _ in range(3):
            module(torch.randn(1, 3))
    handle.remove()
    assert len(seen) == 3 and Rerun.made == 0


@torch.inference_mode()
def test_weights_that_were_moved_are_recorded_again():
    module = replayed().requires_grad_(False)
    for _ in range(2):
        for _ in range(3):
            x = torch.randn(1, 3)
            torch.testing.assert_close(module(x), x @ module.weight.T + module.bias)
        module.weight.data = torch.randn(2, 3)
    assert Rerun.made == 2


def test_a_layer_of_another_library_is_never_recorded():
    class Foreign(nn.Identity):
        __module__ = "bitsandbytes.nn.modules"

    assert needs_python(nn.Sequential(nn.Linear(3, 2), Foreign())) and not needs_python(nn.Linear(3, 2))


def test_a_frozen_module_is_recorded_in_training_and_in_inference():
    """A graph of one mode is not replayed in the other: a tensor of inference cannot be written to in training."""
    module = replayed().requires_grad_(False)
    for _ in range(3):
        x = torch.randn(1, 3)
        assert not module(x).requires_grad
        with torch.inference_mode():
            torch.testing.assert_close(module(x), x @ module.weight.T + module.bias)
    assert Rerun.made == 2
