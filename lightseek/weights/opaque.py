"""Gradients through a product whose weight nobody can read, because it lies in the order of some kernel."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Product(torch.autograd.Function):
    """`multiply(x)` = x Wᵀ with a gradient for x. Nobody can slice W, but the product with ones on a diagonal is Wᵀ."""

    @staticmethod
    def forward(ctx, x: Tensor, multiply: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.multiply, ctx.inputs = multiply, x.shape[-1]
        return multiply(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, out: Tensor) -> tuple[Tensor, None]:
        diagonal = torch.eye(ctx.inputs, dtype=out.dtype, device=out.device)
        return out @ ctx.multiply(diagonal).t(), None


def with_gradient(multiply: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return `multiply(x)`, by `Product` if x wants a gradient."""
    return Product.apply(x, multiply) if torch.is_grad_enabled() and x.requires_grad else multiply(x)
