"""The compressor: it turns SAM's many tokens into a 16th of them for CLIP (paper section 3.2.1).

It has two 3x3 convolutions of stride 2 with nothing between them. Each halves both sides, so 4096 patches become 256
tokens. To ablate it, put any module of the same signature at `model.encoder.compressor`.
"""

from jaxtyping import Float
from torch import Tensor, nn

from lightseek.model.layers import Conv2d


class Compressor(nn.Module):
    """Turns a feature map of g x g patches into one of g/4 x g/4. `channels` are c0, c1 and c2: 256, 512 and 1024."""

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv1 = Conv2d(channels[0], channels[1], kernel_size=3, stride=2, padding=1, bias=False)
        self.conv2 = Conv2d(channels[1], channels[2], kernel_size=3, stride=2, padding=1, bias=False)

    def forward(self, x: Float[Tensor, "b c0 g g"]) -> Float[Tensor, "b c2 g//4 g//4"]:
        return self.conv2(self.conv1(x))
