"""CUDA graphs start many small kernels with one call. Python needs longer to start a kernel than a GPU to run it.

A graph repeats the same kernels on the same memory. So it is right only for one shape, and as long as the weights stay
where they are in memory. Python does not run in a replay: no hook is called.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightseek.tools.devices import is_nvidia

KNOWN = ("lightseek", "torch", "peft")  # layers of other libraries may wait for the GPU
KEPT = 4  # graphs of one module, each with the memory that it works in
LARGEST = 16  # images of a batch; with more of them, the GPU does not wait for Python


def record(work: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """Return a graph of the kernels that `work` starts. Nothing is computed yet.

    `work` must have run before, because some kernels prepare themselves, and it must not wait for the GPU.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may use the GPU meanwhile
        work()
    return graph


def needs_python(module: nn.Module) -> bool:
    """Return whether Python has to run in each call of `module`, so that no graph can take its place.

    A hook may wait there, a layer of another library may do anything, and autocast converts weights in each call.
    """
    return torch.is_autocast_enabled("cuda") or any(
        part._forward_hooks or part._forward_pre_hooks or type(part).__module__.partition(".")[0] not in KNOWN
        for part in module.modules()
    )


def replay(module: nn.Module) -> None:
    """Let graphs repeat `module`, which takes one tensor, if it is on CUDA."""
    done = isinstance(module.forward, Replayed)
    if not done and any(is_nvidia(parameter) for parameter in module.parameters()):
        module.forward = Replayed(module)


class Replayed:
    """The `forward` of a module that only reads or is frozen. It records a graph when an input has a shape again."""

    def __init__(self, module: nn.Module, record: Callable = record) -> None:
        self.module, self.forward, self.record = module, module.forward, record
        self.device = next(module.parameters()).device
        self.seen: set[tuple] = set()
        self.graphs: dict[tuple, tuple[torch.cuda.CUDAGraph, Tensor, list[Tensor]]] = {}

    def __call__(self, x: Tensor) -> Tensor:
        if x.device != self.device or len(x) > LARGEST or self.learns(x) or needs_python(self.module):
            return self.forward(x)
        weights = tuple(parameter.data_ptr() for parameter in self.module.parameters())  # others after a move
        # A tensor that was made in inference mode can only be written to in inference mode.
        key = x.shape, x.dtype, torch.is_inference_mode_enabled(), weights
        if key not in self.seen:
            self.seen.add(key)
            return self.forward(x)
        if key not in self.graphs:
            given, found = x.clone(), []
            with torch.no_grad():
                graph = self.record(lambda: found.append(self.forward(given)))
            if len(self.graphs) == KEPT:
                del self.graphs[next(iter(self.graphs))]
            self.graphs[key] = graph, given, found
        graph, given, found = self.graphs[key]
        given.copy_(x)
        graph.replay()
        return found[-1].clone()  # the next replay writes there

    def learns(self, x: Tensor) -> bool:
        parameters = self.module.parameters()
        return torch.is_grad_enabled() and (x.requires_grad or any(weight.requires_grad for weight in parameters))
