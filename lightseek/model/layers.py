"""What every box uses: matmuls that are fast on any CPU, position grids that resize, activation checkpointing.

Most CPUs have no bfloat16 instructions. There PyTorch falls back to slow loops: 20 GFLOP/s for a linear layer and less
than 1 for a convolution, where float32 reaches 150 (2 cores with AVX2, `benchmarks/cpu_bfloat16.py`). So half-precision
products of more than a few rows are computed in float32 there, a block at a time; weights stay in half precision.
"""

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

MIN_ROWS = 7  # with fewer, a product mostly streams the weight, and half precision has half the bytes
BLOCK = 1 << 20  # elements made float32 at a time: 4 MiB, which stay in cache and which malloc recycles


@cache
def cpu_multiplies(dtype: torch.dtype) -> bool:
    """Whether this CPU's matrix kernels have instructions for `dtype`."""
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if dtype == torch.float16:
        return torch.ops.mkldnn._is_mkldnn_fp16_supported()
    return True


def linear(
    x: Float[Tensor, "*n i"], weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"] | None = None
) -> Float[Tensor, "*n o"]:
    """`x @ weight.T + bias` in the dtype of `x`, by the fastest kernel this device has."""
    if x.device.type == "cpu" and x.numel() >= MIN_ROWS * x.shape[-1] and not cpu_multiplies(x.dtype):
        if torch.is_grad_enabled():
            return LinearByBlocks.apply(x, weight, bias)
        return linear_by_blocks(x, weight, bias)
    return F.linear(x, weight, bias)


def linear_by_blocks(
    x: Float[Tensor, "*n i"],
    weight: Float[Tensor, "o i"] | Int8[Tensor, "o i"],
    bias: Float[Tensor, " o"] | None = None,
    scale: Float[Tensor, " o"] | None = None,
) -> Float[Tensor, "*n o"]:
    """A product through float32, with no more than a block of each factor and of the result widened.

    `scale` multiplies the weight's rows (a weight of integers needs it).
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
    """`out @ weight`, what a linear layer's input gets, in the dtype of `out`.

    Added up in float32 over blocks of the weight's rows, as they lie in memory: the last layer's, 129280 x 1280, is 8
    times as fast as `linear_by_blocks` on its transpose.
    """
    rows = out.reshape(-1, out.shape[-1])
    total = torch.zeros(len(rows), weight.shape[1], device=out.device)
    chunk = max(1, BLOCK // weight.shape[1])
    for part, block in zip(rows.split(chunk, dim=1), weight.split(chunk), strict=True):
        total.addmm_(part.float(), block.float())
    return total.to(out.dtype).view(*out.shape[:-1], weight.shape[1])


class LinearByBlocks(torch.autograd.Function):
    """`linear_by_blocks` with gradients. It keeps the weight as it is; autograd alone would keep a float32 copy."""

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


class Linear(nn.Linear):
    """`nn.Linear` through `linear` above. Weight `o i`."""

    def forward(self, x: Float[Tensor, "*n i"]) -> Float[Tensor, "*n o"]:
        return linear(x, self.weight, self.bias)


class Conv2d(nn.Conv2d):
    """`nn.Conv2d`, in float32 where the CPU has no instructions for the dtype. Weight `o i k k`."""

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h2 w2"]:
        if x.device.type == "cpu" and not cpu_multiplies(x.dtype):
            bias = None if self.bias is None else self.bias.float()
            return self._conv_forward(x.float(), self.weight.float(), bias).to(x.dtype)
        return super().forward(x)


def resize_grid(grid: Float[Tensor, "h w d"], side: int) -> Float[Tensor, "side side d"]:
    """A learned grid of position vectors at another resolution: bicubic, antialiased, always computed in float32."""
    if grid.shape[:2] == (side, side):
        return grid
    channels_first = grid.float().permute(2, 0, 1).unsqueeze(0)  # 1 d h w
    resized = F.interpolate(channels_first, size=(side, side), mode="bicubic", antialias=True, align_corners=False)
    return resized.squeeze(0).permute(1, 2, 0).to(grid.dtype)


def run_block(block: Callable, *inputs, recompute: bool):
    """Call `block`; with `recompute`, keep only its inputs and run it again in the backward pass (Chen et al. 2016)."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(block, *inputs, use_reentrant=False)
    return block(*inputs)
