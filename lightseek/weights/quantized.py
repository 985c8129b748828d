"""Layers whose weights have fewer bits: what those of 8 bits (`int8.py`) and of 4 bits (`int4.py`) have in common.

A weight W of a layer is held as two tensors with one row for each output channel: numbers of few bits, which have W's
name, and their scales, in the buffer `NAME_scale`. A kind gives three functions:

    pack(W) -> numbers, scales
    product(x, numbers, scales, bias=None) -> x Wᵀ + bias        gradients reach x and the bias
    widen(numbers, scales, dtype) -> W
"""

from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lightseek.model.grouped import run_grouped
from lightseek.model.layers import run_block
from lightseek.model.moe import Experts, Projection


class Quantized(nn.Module):
    """What quantized layers and experts share. A subclass sets the functions of its kind with `staticmethod`."""

    names: ClassVar[tuple[str, ...]]  # of the weights
    pack: ClassVar[Callable]
    product: ClassVar[Callable]
    widen: ClassVar[Callable]

    def hold(self, name: str, weight: Tensor) -> None:
        if weight.is_meta:  # a file will be read into it: only shapes count, and those of one row tell the others
            one = weight.detach().flatten(0, -2)[:1]
            numbers, scale = (x.new_empty(*weight.shape[:-1], *x.shape[1:]) for x in self.pack(one))
        else:
            numbers, scale = self.pack(weight.detach())
        setattr(self, name, nn.Parameter(numbers, requires_grad=False))
        self.register_buffer(f"{name}_scale", scale)

    def held(self, name: str) -> tuple[Tensor, Tensor]:
        """Return the numbers and the scales of a weight."""
        return getattr(self, name), getattr(self, f"{name}_scale")


class QuantizedLinear(Quantized, nn.Linear):
    """A linear layer whose `weight` has fewer bits."""

    names = ("weight",)

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)  # Linear's __init__ would allocate a second weight
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.hold("weight", linear.weight)
        self.bias = linear.bias

    def forward(self, x: Float[Tensor, "*n i"]) -> Float[Tensor, "*n o"]:
        return self.product(x, *self.held("weight"), self.bias)


class QuantizedExperts(Quantized, Experts):
    """Experts whose stacks `gate_up` and `down` have fewer bits."""

    names = ("gate_up", "down")

    def __init__(self, experts: Experts) -> None:
        nn.Module.__init__(self)
        for name in self.names:
            self.hold(name, getattr(experts, name))

    def projection(self, name: str) -> Projection:
        numbers, scales = self.held(name)
        return lambda expert, x: self.product(x, numbers[expert], scales[expert])

    def run(self, slots: Float[Tensor, "s d"], ends: Int[Tensor, " e"]) -> Float[Tensor, "s d"]:
        if not slots.is_cuda:
            return super().run(slots, ends)
        run = self.run_few if len(slots) < len(self.down) else self.run_widened
        return run_block(run, slots, ends, recompute=True)  # or training would keep the wide stacks

    def copies(self, name: str, experts: Int[Tensor, " s"], dtype: torch.dtype) -> Float[Tensor, "s o i"]:
        return self.widen(*(part.index_select(0, experts) for part in self.held(name)), dtype)

    def run_widened(self, slots: Float[Tensor, "s d"], ends: Int[Tensor, " e"]) -> Float[Tensor, "s d"]:
        gate_up, down = (self.widen(*self.held(name), slots.dtype) for name in self.names)
        return run_grouped(slots, gate_up, down, ends)
