"""All experts of a layer in two matrix products: what a GPU runs in the place of `moe.Experts.run_each`.

A loop over experts has to know how many tokens each expert got, and on a GPU the CPU waits for these numbers in every
layer. A grouped product takes them as a tensor, so they never leave the GPU.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lightseek.tools.devices import is_nvidia

grouped_mm = getattr(F, "grouped_mm", None) or torch._grouped_mm  # the second is the older name of the first


def has_kernel(x: Float[Tensor, "*n d"]) -> bool:
    """Return whether PyTorch has a kernel for grouped products of `x`. Without one, it may wait for the GPU.

    The kernel is for bfloat16 on NVIDIA's Hopper GPUs (H100) and later ones.
    """
    return is_nvidia(x) and computed_in(x) == torch.bfloat16 and torch.cuda.get_device_capability(x.device) >= (9, 0)


def computed_in(x: Float[Tensor, "*n d"]) -> torch.dtype:
    """Return the dtype of products with `x`. Autocast does not convert the inputs of a grouped product by itself."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def run_grouped(
    slots: Float[Tensor, "s d"],
    gate_up: Float[Tensor, "e f2 d"],
    down: Float[Tensor, "e d f"],
    ends: Int[Tensor, " e"],
) -> Float[Tensor, "s d"]:
    """Return down_e(silu(gate_e x) · up_e x) for each slot x of each expert e, as `moe.Experts.run_each` does.

    The slots are sorted by expert, and `ends[e]` is where those of expert e stop.
    """
    ends, dtype = ends.int(), computed_in(slots)
    slots, gate_up, down = (x.to(dtype) for x in (slots, gate_up, down))
    gate, up = grouped_mm(slots, gate_up.transpose(-2, -1), offs=ends).chunk(2, dim=-1)
    return grouped_mm(F.silu(gate) * up, down.transpose(-2, -1), offs=ends)
