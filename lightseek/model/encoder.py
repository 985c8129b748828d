"""DeepEncoder: SAM sees details, the compressor cuts the tokens, CLIP sees the whole (paper section 3.2, figure 3).

    pixels b 3 s s -> sam b 256 g g -> compressor b 1024 r r -> clip b 1+t 1024 -> concat b t 2048

Here b is the batch and s the side of the image in pixels. Along a side, SAM sees g = s / 16 patches, and CLIP sees
r = s / 64. An image becomes t = r² vision tokens.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lightseek.model.boxes import build_box
from lightseek.model.config import OCRConfig
from lightseek.model.sam import Sam


class DeepEncoder(nn.Module):
    """Turns square images into vision tokens. The side s must be a multiple of 64 pixels. Every part can learn."""

    def __init__(self, config: OCRConfig) -> None:
        super().__init__()
        self.sam = Sam(config.sam)
        self.compressor = build_box("compressor", config)
        self.clip = build_box("global_stage", config)
        self.concat = Concat()

    def forward(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b t d"]:
        local = self.compressor(self.sam(pixels))  # b 1024 r r
        return self.concat(local, self.clip(local))


class Concat(nn.Module):
    """Joins the channels of CLIP and of the compressor for each token, in this order, and drops CLIP's class token."""

    def forward(self, local: Float[Tensor, "b d r r"], clip: Float[Tensor, "b 1+r*r d"]) -> Float[Tensor, "b r*r 2*d"]:
        return torch.cat([clip[:, 1:], rearrange(local, "b d r1 r2 -> b (r1 r2) d")], dim=-1)
