"""The compressor: it turns SAM's many tokens into fewer for CLIP (paper section 3.2.1).

The official one, `conv`, has two 3x3 convolutions of stride 2 with nothing between them. Each halves both sides, so
4096 patches become 256 tokens: 16 times fewer. `meanpool` is the simplest alternative.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lightseek.model.config import OCRConfig
from lightseek.model.layers import Conv2d


class Compressor(nn.Module):
    """Turns a feature map of g x g patches into one of g/4 x g/4. The channels go from 256 to 512 to 1024."""

    def __init__(self, config: OCRConfig) -> None:
        super().__init__()
        c0, (c1, c2) = config.sam.neck, config.compressor
        self.conv1 = Conv2d(c0, c1, kernel_size=3, stride=2, padding=1, bias=False)
        self.conv2 = Conv2d(c1, c2, kernel_size=3, stride=2, padding=1, bias=False)

    def forward(self, x: Float[Tensor, "b c0 g g"]) -> Float[Tensor, "b c2 g//4 g//4"]:
        return self.conv2(self.conv1(x))


class MeanPool(nn.Module):
    """Takes the mean of each square of f x f patches, then maps its channels to CLIP's width. f is the `factor`."""

    def __init__(self, config: OCRConfig, factor: int = 4) -> None:
        super().__init__()
        self.factor = factor
        self.widen = Conv2d(config.sam.neck, config.compressor[-1], kernel_size=1, bias=False)

    def forward(self, x: Float[Tensor, "b c0 g g"]) -> Float[Tensor, "b c2 r r"]:
        return self.widen(F.avg_pool2d(x, self.factor))
