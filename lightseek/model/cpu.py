"""The fast paths of a CPU. The other files say what is computed; this one says how, where PyTorch is slow on a CPU.

You can understand the model without this file. Each function gives the numbers of a plain formula, up to rounding.

Half precision. Most CPUs have no instructions for bfloat16 or float16. PyTorch then runs slow loops: they reach 20
GFLOP/s in a linear layer and less than 1 in a convolution, where float32 reaches 150 (2 cores with AVX2, measured by
`benchmarks/cpu_bfloat16.py`). On such a CPU `linear` and `conv2d` compute in float32 and round the result. The weights
stay in half precision, because 3.3 B parameters in float32 would fill 13 GB. So `linear` widens the weight a block at a
time, in the forward and in the backward pass. A product of fewer than 7 rows stays in half precision: reading the
weight takes most of its time, and half precision has half the bytes.

SAM's attention. `grid_attention.py` folds the relative position into the queries and keys, so that no bias matrix
exists. In inference on a CPU the wider heads cost more than the matrix would. `attend_with_bias` therefore builds the
matrix, but for 256 queries at a time: 50 MB of it instead of 800 at 1024 pixels. With 64 x 64 patches and 12 heads of
64 channels this is 1.3 (float32) to 3.7 (bfloat16) times as fast as folding, on 2 x86 cores.

Who calls what:

    linear, conv2d                         layers.py, for every tensor on a CPU
    page_parts                             ocr.py, for a batch of pages in generation
    faster_with_bias, attend_with_bias     grid_attention.py
    linear_by_blocks, gradient_by_blocks   weights/int8.py, for weights that are integers
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

MIN_ROWS = 7  # from here on float32 by blocks is faster than half precision; the benchmark shows where the two cross
MANY_ROWS = 96  # the same where there are instructions for half precision, but slow ones
BLOCK = 1 << 20  # elements widened at a time: 4 MiB of float32, which stay in the cache and which malloc reuses
PIXELS = 3 << 20  # numbers of pages, 3 for each pixel, that the encoder takes at a time
QUERIES = 256  # queries whose bias exists at the same time


@cache
def has_instructions(dtype: torch.dtype) -> bool:
    """Return whether this CPU's matrix kernels have instructions for `dtype`."""
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if dtype == torch.float16:
        return torch.ops.mkldnn._is_mkldnn_fp16_supported()
    return True


@cache
def has_fast(dtype: torch.dtype) -> bool:
    """Return whether large products in `dtype` are at least as fast as in float32 on this CPU.

    Intel's cores since Sapphire Rapids have two instructions for bfloat16. Their tiles (AMX) are fast. Without tiles,
    as in some virtual machines, the other one is half as fast as float32: 170 GFLOP/s for 340 on two cores.
    """
    known = getattr(torch.cpu, "get_capabilities", dict)()
    half_as_fast = known.get("avx512_fp16", False) and not known.get("amx_tile", False)
    return has_instructions(dtype) and not (dtype == torch.bfloat16 and half_as_fast)


@cache
def has_integer_instructions() -> bool:
    """Return whether this CPU has instructions for products of 8-bit integers (AVX512-VNNI)."""
    return torch.cpu._is_vnni_supported()


def linear(
    x: Float[Tensor, "*n i"], weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"] | None = None
) -> Float[Tensor, "*n o"]:
    """Return `x @ weight.T + bias` in the dtype of `x`, by this CPU's fastest kernel."""
    few = MANY_ROWS if has_instructions(x.dtype) else MIN_ROWS
    if has_fast(x.dtype) or x.numel() < few * x.shape[-1]:
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled():
        return LinearByBlocks.apply(x, weight, bias)
    return linear_by_blocks(x, weight, bias)


def conv2d(layer: nn.Conv2d, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h2 w2"]:
    """Return what `layer` gives for `x`, in the dtype of `x`, by this CPU's fastest kernel."""
    weight, bias = layer.weight, layer.bias
    if has_fast(x.dtype):
        return layer._conv_forward(x, weight, bias)
    return layer._conv_forward(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)


def linear_by_blocks(
    x: Float[Tensor, "*n i"],
    weight: Float[Tensor, "o i"] | Int8[Tensor, "o i"],
    bias: Float[Tensor, " o"] | None = None,
    scale: Float[Tensor, " o"] | None = None,
) -> Float[Tensor, "*n o"]:
    """Return `x @ weight.T + bias` in the dtype of `x`, computed in float32.

    At most one block of each factor and of the result is float32 at a time. `scale` multiplies the rows of the weight:
    a weight of integers needs it.
    """
    rows = x.reshape(-1, x.shape[-1])
    out, chunk = x.new_empty(len(rows), len(weight)), max(1, BLOCK // weight.shape[1])
    for first in range(0, len(weight), chunk):
        columns = slice(first, first + chunk)
        wide, wide_bias = weight[columns].float(), None if bias is None else bias[columns].float()
        if scale is not None:
            wide = wide * scale[columns, None].float()
        step = max(1, BLOCK // max(wide.shape))
        for start in range(0, len(rows), step):
            out[start : start + step, columns] = F.linear(rows[start : start + step].float(), wide, wide_bias)
    return out.view(*x.shape[:-1], len(weight))


def gradient_by_blocks(
    out: Float[Tensor, "*n o"], weight: Float[Tensor, "o i"] | Int8[Tensor, "o i"]
) -> Float[Tensor, "*n i"]:
    """Return `out @ weight` in the dtype of `out`: the gradient of a linear layer's input.

    The sum runs in float32 over blocks of the weight's rows, in the order in which they lie in memory. For the last
    layer, 129280 x 1280, this is 8 times as fast as `linear_by_blocks` on the transpose.
    """
    rows = out.reshape(-1, out.shape[-1])
    total = torch.zeros(len(rows), weight.shape[1], device=out.device)
    chunk = max(1, BLOCK // weight.shape[1])
    for part, block in zip(rows.split(chunk, dim=1), weight.split(chunk), strict=True):
        total.addmm_(part.float(), block.float())
    return total.to(out.dtype).view(*out.shape[:-1], weight.shape[1])


class LinearByBlocks(torch.autograd.Function):
    """`linear_by_blocks` with gradients. It keeps the weight as it is, where autograd would keep a float32 copy."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x if weight.requires_grad else None, weight)
        return linear_by_blocks(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, out: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        rows = out.flatten(0, -2)
        return (
            gradient_by_blocks(out, weight) if of_x else None,
            linear_by_blocks(rows.t(), x.flatten(0, -2).t()) if of_weight else None,
            rows.float().sum(0).to(out.dtype) if of_bias else None,
        )


def page_parts(pages: Sequence[Any]) -> list[list[Any]]:
    """Split a batch of pages into parts that the encoder can take at a time without leaving the caches.

    A page stays whole. With nano, 16 pages of 640 pixels took 78 ms each in parts and 115 ms each at once (one core).
    """
    parts: list[list[Any]] = []
    room = 0
    for page in pages:
        views = (getattr(page, "global_view", None), getattr(page, "tiles", None))  # a text has none
        size = sum(view.numel() for view in views if view is not None)
        if not parts or size > room:
            parts.append([])
            room = PIXELS
        parts[-1].append(page)
        room -= size
    return parts


def faster_with_bias(q: Float[Tensor, "b h gg k"], rows: Float[Tensor, "b h gg g"]) -> bool:
    """Return whether `attend_with_bias` beats folding: in inference on a CPU, if folding more than doubles the width.

    A frozen encoder counts as inference, also while the decoder learns, so it gives the same numbers in both.
    """
    learns = q.requires_grad or rows.requires_grad  # then autograd would keep the whole bias for the backward pass
    return q.device.type == "cpu" and not learns and 2 * rows.shape[-1] > q.shape[-1]


def attend_with_bias(
    attend: nn.Module,
    q: Float[Tensor, "b h gg k"],
    k: Float[Tensor, "b h gg k"],
    v: Float[Tensor, "b h gg k"],
    rows: Float[Tensor, "b h gg g"],
    columns: Float[Tensor, "b h gg g"],
) -> Float[Tensor, "b h gg k"]:
    """Return softmax(q kᵀ / √d + bias) v with bias[query, key] = rows[query, key's row] + columns[query, key's column].

    `attend` is the attention core that computes it, for `QUERIES` queries at a time.
    """
    out, side = [], rows.shape[-1]
    room = q.new_empty(*q.shape[:2], min(QUERIES, q.shape[2]), side, side)  # one for all: new memory must be cleared
    for some, row, column in zip(*(x.split(QUERIES, dim=2) for x in (q, rows, columns)), strict=True):
        bias = torch.add(row.unsqueeze(-1), column.unsqueeze(-2), out=room[:, :, : row.shape[2]])  # b h 256 g g
        out.append(attend(some, k, v, bias.flatten(-2)))
    return torch.cat(out, dim=2)
