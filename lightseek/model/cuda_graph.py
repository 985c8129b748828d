"""CUDA graphs start many small kernels with one call. Python needs longer to start a kernel than a GPU to run it.

A graph repeats the same kernels on the same memory. So it is right only for one shape, and as long as the weights stay
where they are. Python does not run in a replay: no hook is called.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

KEPT = 4  # graphs of one module, each with the memory that it works in
LARGEST = 4  # images of a batch; with more of them, the GPU does not wait for Python


def record(work: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """Return a graph of the kernels that `work` starts. Nothing is computed yet.

    `work` must have run before, because some kernels prepare themselves, and it must not wait for the GPU.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may use the GPU meanwhile
        work()
    return graph


def is_watched(module: nn.Module) -> bool:
    """Return whether Python has to run in `module`: a hook waits there, or autocast converts weights in each call."""
    hooked = any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    return hooked or torch.is_autocast_enabled("cuda")


class Replayed:
    """The `forward` of a module that only reads. On CUDA, it records a graph when an input has a shape again.

    `module.forward = Replayed(module)` puts it in place. The weights must not be moved or replaced afterwards.
    """

    def __init__(self, module: nn.Module, record: Callable = record) -> None:
        self.module, self.forward, self.record = module, module.forward, record
        self.seen: set[torch.Size] = set()
        self.graphs: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, list[Tensor]]] = {}

    def __call__(self, x: Tensor) -> Tensor:
        if len(x) > LARGEST or not torch.is_inference_mode_enabled() or is_watched(self.module):
            return self.forward(x)
        if x.shape not in self.seen:
            self.seen.add(x.shape)
            return self.forward(x)
        if x.shape not in self.graphs:
            given, found = x.clone(), []
            graph = self.record(lambda: found.append(self.forward(given)))
            if len(self.graphs) == KEPT:
                del self.graphs[next(iter(self.graphs))]
            self.graphs[x.shape] = graph, given, found
        graph, given, found = self.graphs[x.shape]
        given.copy_(x)
        graph.replay()
        return found[-1].clone()  # the next replay writes there
