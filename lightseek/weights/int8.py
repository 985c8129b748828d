"""Weights of 8 bits: integers with one scale for each output channel (LLM.int8: Dettmers et al. 2022).

A weight is `integer · scale`. There are three ways to multiply with it, and the device decides which one is taken:

- On a CPU with instructions for products of integers (VNNI), the rows of x become integers too, each with a scale of
  its own. The sum of the products is exact, so x is all that is rounded. This is the fastest way for any number of
  rows. It is used in inference only.
- On other CPUs, PyTorch's kernel for a few rows of half precision, or float32 by blocks (`model/cpu.py`).
- On other devices, the weight is widened to the dtype of x.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightseek.model.cpu import gradient_by_blocks, has_integer_instructions, linear_by_blocks
from lightseek.weights.quantized import QuantizedExperts, QuantizedLinear

ROWS = 4096  # rows that are converted to float32 at a time while quantizing
PACKED_ROWS = 16  # up to this many rows, PyTorch's int8 kernel (half precision only) is faster than float32 blocks


def quantize_int8(
    weight: Float[Tensor, "*e o i"],
) -> tuple[Int8[Tensor, "*e o i"], Float[Tensor, "*e o"]]:
    """Return integers from -127 to 127 and a scale per row, so that `integers · scale` is close to `weight`.

    No element differs by more than half a scale. The scale of a row is its largest absolute value divided by 127. It is
    rounded up in the dtype of the weight, so that no value is clipped (the vector-wise quantization of LLM.int8).
    """
    rows = weight.reshape(-1, weight.shape[-1])
    integers, scales = torch.empty_like(rows, dtype=torch.int8), rows.new_empty(len(rows))
    for block, out, scale in zip(rows.split(ROWS), integers.split(ROWS), scales.split(ROWS), strict=True):
        wide = block.float()
        exact = wide.abs().amax(dim=-1) / 127
        rounded = exact.to(weight.dtype)
        above = rounded.nextafter(torch.full_like(rounded, torch.inf))
        scale.copy_(torch.where(rounded.float() < exact, above, rounded))
        out.copy_((wide / scale.float().where(scale > 0, 1).unsqueeze(-1)).round())  # a row of zeros has scale 0
    return integers.view(weight.shape), scales.view(weight.shape[:-1])


def int8_linear(
    x: Float[Tensor, "*n i"],
    weight: Int8[Tensor, "o i"],
    scale: Float[Tensor, " o"],
    bias: Float[Tensor, " o"] | None = None,
) -> Float[Tensor, "*n o"]:
    """Return `x @ (weight · scale).T + bias` in the dtype of `x`. Gradients reach `x` and `bias`."""
    if torch.is_grad_enabled() and (x.requires_grad or (bias is not None and bias.requires_grad)):
        out = Int8Product.apply(x, weight, scale)
    elif x.device.type == "cpu" and has_integer_instructions():
        out = integer_product(x, weight, scale)
    else:
        out = int8_product(x, weight, scale)
    return out if bias is None else out + bias


def integer_product(
    x: Float[Tensor, "*n i"], weight: Int8[Tensor, "o i"], scale: Float[Tensor, " o"]
) -> Float[Tensor, "*n o"]:
    """Return `x @ (weight · scale).T` with each row of x rounded to integers, so that all products are of integers.

    A row's scale is its largest absolute value divided by 127. Rows do not influence each other.
    """
    rows = x.reshape(-1, x.shape[-1])
    steps = rows.abs().amax(dim=-1, keepdim=True).float().clamp(min=1e-30) / 127  # n 1
    integers = (rows / steps).round_().to(torch.int8)
    out = torch._int_mm(integers, weight.t()) * steps * scale
    return out.to(x.dtype).view(*x.shape[:-1], -1)


def int8_product(
    x: Float[Tensor, "*n i"], weight: Int8[Tensor, "o i"], scale: Float[Tensor, " o"]
) -> Float[Tensor, "*n o"]:
    if x.device.type != "cpu":
        return F.linear(x, dequantize(weight, scale, x.dtype))
    rows, packed = x.reshape(-1, x.shape[-1]), getattr(torch, "_weight_int8pack_mm", None)
    if packed and len(rows) <= PACKED_ROWS and x.dtype in (torch.bfloat16, torch.float16) and scale.dtype == x.dtype:
        return packed(rows.contiguous(), weight, scale).view(*x.shape[:-1], -1)
    return linear_by_blocks(x, weight, scale=scale)


class Int8Product(torch.autograd.Function):
    """The product of `int8_linear` with its own backward pass.

    It saves the integers for the backward pass. Autograd would save the dequantized weights, which need more memory.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(weight, scale)
        return int8_product(x, weight, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx, out: Tensor) -> tuple[Tensor | None, ...]:
        weight, scale = ctx.saved_tensors
        if out.device.type != "cpu":
            return out @ dequantize(weight, scale, out.dtype), None, None
        return gradient_by_blocks(out.float() * scale.float(), weight).to(out.dtype), None, None


def dequantize(
    weight: Int8[Tensor, "*e o i"], scale: Float[Tensor, "*e o"], dtype: torch.dtype
) -> Float[Tensor, "*e o i"]:
    """Return the weights that the integers and their scales stand for, as `dtype`."""
    return weight.to(dtype) * scale.to(dtype).unsqueeze(-1)


class Int8Linear(QuantizedLinear):
    """A linear layer with an int8 weight of shape `o i` and a scale of shape `o`."""

    pack, product, widen = map(staticmethod, (quantize_int8, int8_linear, dequantize))


class Int8Experts(QuantizedExperts):
    """Experts with int8 stacks `gate_up` and `down`, shaped as in `Experts`. Their scales are `e 2f` and `e d`."""

    pack, product, widen = map(staticmethod, (quantize_int8, int8_linear, dequantize))
