"""Text encoders: they shorten a text to as many vectors as a page would have, in the place of the page.

    embeddings of the text b n d -> text encoder -> b t d

They are what the vision tokens of an ablation are compared with: the same budget of positions, but no page.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lightseek.model.config import OCRConfig


class NoText(nn.Module):
    """The official model shortens no texts."""

    def __init__(self, config: OCRConfig) -> None:
        super().__init__()

    def forward(self, x: Float[Tensor, "b n d"], vectors: int) -> Float[Tensor, "b t d"]:
        raise ValueError("this model has no text encoder: give it one with the setting context=meantext or conv1d")


class MeanText(nn.Module):
    """Takes the mean of equal runs of the embeddings. If there are fewer than `vectors`, some are repeated."""

    def __init__(self, config: OCRConfig) -> None:
        super().__init__()

    def forward(self, x: Float[Tensor, "b n d"], vectors: int) -> Float[Tensor, "b t d"]:
        return F.adaptive_avg_pool1d(x.mT, vectors).mT


class ConvText(nn.Module):
    """Halves the text `layers` times, each time by a mean and what a convolution adds to it, and then takes means."""

    def __init__(self, config: OCRConfig, layers: int = 2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ConvBlock(config.decoder.width) for _ in range(layers))

    def forward(self, x: Float[Tensor, "b n d"], vectors: int) -> Float[Tensor, "b t d"]:
        for block in self.blocks:
            x = block(x)
        return F.adaptive_avg_pool1d(x.mT, vectors).mT


class ConvBlock(nn.Module):
    """Makes one vector of two neighbours. The convolution also sees the vector before them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b m d"]:
        mean = F.avg_pool1d(x.mT, 2, ceil_mode=True)
        return (mean + F.gelu(self.conv(self.norm(x).mT))).mT
