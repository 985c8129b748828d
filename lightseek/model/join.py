"""How the compressor's features and the global stage's tokens become the encoder's vision tokens.

A global stage names the join that goes with it (`Clip.join`), so that swapping the one brings the other. `width` tells
the projector how many channels come out. In the shapes, r is the side of the feature map and t = r * r.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lightseek.model.config import OCRConfig


class Concat(nn.Module):
    """Joins the channels of CLIP and of the compressor for each token, in this order, and drops CLIP's class token."""

    @staticmethod
    def width(config: OCRConfig) -> int:
        return config.clip.width + config.compressor[-1]

    def forward(self, local: Float[Tensor, "b d r r"], clip: Float[Tensor, "b 1+r*r d"]) -> Float[Tensor, "b r*r 2*d"]:
        return torch.cat([clip[:, 1:], to_tokens(local)], dim=-1)


class ClipAlone(nn.Module):
    """Takes CLIP's tokens, without the class token. The compressor's features reach the decoder through CLIP only."""

    @staticmethod
    def width(config: OCRConfig) -> int:
        return config.clip.width

    def forward(self, local: Float[Tensor, "b d r r"], clip: Float[Tensor, "b 1+r*r d"]) -> Float[Tensor, "b r*r d"]:
        return clip[:, 1:]


class CompressorAlone(nn.Module):
    """Takes the compressor's features as they are, one token for each place of the map."""

    @staticmethod
    def width(config: OCRConfig) -> int:
        return config.compressor[-1]

    def forward(self, local: Float[Tensor, "b d r r"], same: Float[Tensor, "b d r r"]) -> Float[Tensor, "b r*r d"]:
        return to_tokens(local)


def to_tokens(features: Float[Tensor, "b d r r"]) -> Float[Tensor, "b r*r d"]:
    return rearrange(features, "b d r1 r2 -> b (r1 r2) d")
