"""What a device can do at most, measured, and what a piece of work needs at least: how far from the limit are we?

    bytes        read from memory, as in a step of one token, which reads the weights that it multiplies with
    operations   of matrix products, as in the encoder: a multiplication and an addition are two

`share` is the part of the limit that a piece of work reaches. It counts what the model's formula needs, so code that
does more than that gets a lower share.
"""

import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode


def measure_limits(device: str, dtype: torch.dtype) -> dict[str, float]:
    """Return the `bytes` that the device reads and the `operations` that it computes, both per second.

    It computes in `dtype` or in float32: some CPUs are faster in the wider one.
    """
    cuda = torch.device(device).type == "cuda"
    side, numbers = (8192, 2**30) if cuda else (2048, 2**27)
    pairs = [torch.randn(2, side, side, device=device).to(kind) for kind in {dtype, torch.float32}]
    x = torch.ones(numbers, device=device)
    return {
        "bytes": x.nbytes / best_seconds(lambda: x.sum(), device),
        "operations": 2 * side**3 / min(best_seconds(lambda pair=pair: pair[0] @ pair[1], device) for pair in pairs),
    }


def best_seconds(work: Callable[[], object], device: str, rounds: int = 5) -> float:
    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        result = work()
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
        del result
    return min(times[1:])


def count_operations(work: Callable[[], object]) -> int:
    """Return the operations of the matrix products and convolutions of `work`, by running it."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@torch.inference_mode()
def step_bytes(model, ids: torch.Tensor) -> int:
    """Return the bytes of the decoder's weights that a step after the prompts `ids` multiplies with.

    Of the routed experts, only those count that a row chooses.
    """
    decoder = model.decoder
    experts = {name for name, _ in decoder.named_parameters() if ".experts." in name}
    read = sum(p.nbytes for name, p in decoder.named_parameters() if name not in experts | {"embed.weight"})
    chosen = [routing.experts[:, -1].unique().numel() for routing in model(ids, logits="last").routing]
    mixtures = [layer.mlp.experts for layer in decoder.layers if hasattr(layer.mlp, "experts")]
    for count, mixture in zip(chosen, mixtures, strict=True):
        read += count * sum(p.nbytes for p in mixture.parameters()) // decoder.config.experts
    return read
