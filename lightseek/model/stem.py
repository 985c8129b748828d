"""A convolutional stem, which takes the place of SAM's one patch convolution in nano (Xiao et al. 2021).

SAM turns each patch of 16 x 16 pixels into a vector with a single linear map. Small models learn to read sooner when
four 3x3 convolutions of stride 2 look at strokes first (docs/nano.md). The official model has no stem.
"""

from jaxtyping import Float
from torch import Tensor, nn

from lightseek.model.layers import Conv2d


class ConvStem(nn.Sequential):
    """Turns pixels into patches: four halvings, each normalised over the page, then a 1x1 convolution to SAM's width.

    `channels` are those after each halving. Input and output have the shapes of the convolution that it replaces.
    """

    def __init__(self, channels: tuple[int, ...], width: int) -> None:
        before, layers = (3, *channels), []
        for c, d in zip(before, channels, strict=False):
            layers += [Conv2d(c, d, kernel_size=3, stride=2, padding=1, bias=False), nn.GroupNorm(1, d), nn.GELU()]
        super().__init__(*layers, Conv2d(channels[-1], width, kernel_size=1))

    def forward(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b d s//16 s//16"]:
        return super().forward(pixels)
