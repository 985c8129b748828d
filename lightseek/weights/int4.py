"""Weights of 4 bits: two in each byte, with a scale and a zero point for each group of 64 inputs of an output channel.

    weight = (q - 8) · scale + zero        with q from 0 to 15

These are the numbers of PyTorch's kernels for weights of 4 bits, on CPUs and on CUDA devices (`pack.py`). Here, any
device widens a block of rows at a time and multiplies with that. So a layer can train adapters and be saved as it is.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lightseek.model.cpu import BLOCK
from lightseek.model.layers import linear, run_block
from lightseek.weights.quantized import QuantizedExperts, QuantizedLinear

GROUP = 64  # inputs that share a scale: nano's perplexity grows by 1.1 %, with groups of 32 by 0.4 %


def quantize_int4(
    weight: Float[Tensor, "*e o i"],
) -> tuple[UInt8[Tensor, "*e o i//2"], Float[Tensor, "*e o i//64 2"]]:
    """Return the bytes, and the scale and zero point of each group, that stand for `weight`.

    The first of two neighbours is in the upper half of a byte. A group's scale is a fifteenth of the distance between
    its smallest and its largest value. The number of inputs must be a multiple of `GROUP`.
    """
    rows = weight.reshape(-1, weight.shape[-1])
    count, inputs = rows.shape
    packed = rows.new_empty(count, inputs // 2, dtype=torch.uint8)
    scales = rows.new_empty(count, inputs // GROUP, 2)
    chunk = max(1, BLOCK // inputs)
    for block, out, scale in zip(rows.split(chunk), packed.split(chunk), scales.split(chunk), strict=True):
        groups = block.float().unflatten(-1, (-1, GROUP))
        low, high = groups.aminmax(dim=-1)
        scale[..., 0] = (high - low) / 15
        scale[..., 1] = low + 8 * (high - low) / 15
        step, zero = scale.float().unsqueeze(-2).unbind(-1)  # as they were rounded
        q = (groups - zero).div_(step.where(step > 0, 1)).add_(8).round_().clamp_(0, 15).to(torch.uint8).flatten(-2)
        torch.bitwise_or(q[:, ::2] << 4, q[:, 1::2], out=out)
    return packed.view(*weight.shape[:-1], -1), scales.view(*weight.shape[:-1], -1, 2)


def unpack(weight: UInt8[Tensor, "*e o half"]) -> UInt8[Tensor, "*e o i"]:
    """Return the numbers q, 0 to 15, of the bytes."""
    return torch.stack([weight >> 4, weight & 15], dim=-1).flatten(-2)


def dequantize_int4(
    weight: UInt8[Tensor, "*e o half"], scale: Float[Tensor, "*e o g 2"], dtype: torch.dtype
) -> Float[Tensor, "*e o i"]:
    """Return the weights that the bytes stand for, as `dtype`."""
    step, zero = scale.float().unsqueeze(-2).unbind(-1)
    groups = unpack(weight).unflatten(-1, (-1, GROUP)).float()
    return ((groups - 8) * step + zero).to(dtype).flatten(-2)


def int4_linear(
    x: Float[Tensor, "*n i"],
    weight: UInt8[Tensor, "o half"],
    scale: Float[Tensor, "o g 2"],
    bias: Float[Tensor, " o"] | None = None,
) -> Float[Tensor, "*n o"]:
    """Return `x @ Wᵀ + bias` in the dtype of `x`, where W is what the bytes stand for.

    Gradients reach `x` and `bias`.
    """
    chunk = max(1, BLOCK // x.shape[-1])
    # The backward pass widens a block again, so that the wide blocks are not kept.
    parts = [
        run_block(widen_and_multiply, x, *block, recompute=True)
        for block in zip(weight.split(chunk), scale.split(chunk), strict=True)
    ]
    out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
    return out if bias is None else out + bias


def widen_and_multiply(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    return linear(x, dequantize_int4(weight, scale, x.dtype))


class Int4Linear(QuantizedLinear):
    """A linear layer with a weight of 4 bits. Two are in each of its bytes, `o i/2`; its scales are `o i/64 2`."""

    holds = 2
    pack, product, widen = map(staticmethod, (quantize_int4, int4_linear, dequantize_int4))


class Int4Experts(QuantizedExperts):
    """Experts with stacks of 4 bits: `gate_up` is `e 2f d/2`, `down` is `e d f/2`. Their scales have a row for each."""

    holds = 2
    pack, product, widen = map(staticmethod, (quantize_int4, int4_linear, dequantize_int4))
