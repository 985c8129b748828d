"""What several boxes share: linear and convolution layers, position grids that resize, activation checkpointing."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightseek.model import cpu


def linear(
    x: Float[Tensor, "*n i"], weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"] | None = None
) -> Float[Tensor, "*n o"]:
    """Return `x @ weight.T + bias` in the dtype of `x`."""
    if x.device.type == "cpu":  # the same product; few CPUs compute it fast in half precision
        return cpu.linear(x, weight, bias)
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """A linear layer, y = x Wᵀ + b. The weight is `o i`, the bias `o`."""

    def forward(self, x: Float[Tensor, "*n i"]) -> Float[Tensor, "*n o"]:
        return linear(x, self.weight, self.bias)


class Conv2d(nn.Conv2d):
    """A convolution: y = b + Σ W x over a window of k x k pixels. The weight is `o i k k`, the bias `o`."""

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h2 w2"]:
        if x.device.type == "cpu":  # as in `linear`
            return cpu.conv2d(self, x)
        if x.is_cuda and self.kernel_size == self.stride and not any(self.padding):
            return self.multiply_patches(x)
        return super().forward(x)

    def multiply_patches(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h2 w2"]:
        """Return what `forward` returns if the windows lie side by side: the product of each patch with the weight.

        cuDNN takes three times as long for SAM's patches of 16 x 16 pixels, which have only 3 channels.
        """
        height, width = self.kernel_size
        x = x[:, :, : x.shape[2] // height * height, : x.shape[3] // width * width]
        patches = rearrange(x, "b i (h2 y) (w2 x) -> b h2 w2 (i y x)", y=height, x=width)
        return F.linear(patches, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def resize_grid(grid: Float[Tensor, "h w d"], side: int) -> Float[Tensor, "side side d"]:
    """Return a learned grid of position vectors at another resolution, in its own dtype.

    The resizing is bicubic with antialiasing, as in the reference code, and always computed in float32. A grid that has
    this side already comes back as it is.
    """
    if grid.shape[:2] == (side, side):
        return grid
    channels_first = grid.float().permute(2, 0, 1).unsqueeze(0)  # 1 d h w
    resized = F.interpolate(channels_first, size=(side, side), mode="bicubic", antialias=True, align_corners=False)
    return resized.squeeze(0).permute(1, 2, 0).to(grid.dtype)


def count_parameters(module: nn.Module) -> int:
    """Return the number of weights. A layer that packs several of them into an element says how many: `layer.holds`."""
    found = {}  # each tensor once
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            found[id(parameter)] = parameter.numel() * (1 if name.endswith("bias") else getattr(part, "holds", 1))
    return sum(found.values())


def run_block(block: Callable, *inputs, recompute: bool):
    """Return `block(*inputs)`.

    With `recompute`, training keeps only the inputs of the block and runs it again in the backward pass. This trades
    time for memory (activation checkpointing, Chen et al. 2016).
    """
    if recompute and torch.is_grad_enabled():
        return checkpoint(block, *inputs, use_reentrant=False)
    return block(*inputs)
