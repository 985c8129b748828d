"""The projector: it brings the encoder's channels to the decoder's width.

The official model has one linear layer. Two layers with a GELU between them, as in DeepSeek-VL, are the usual
alternative.
"""

from jaxtyping import Float
from torch import Tensor, nn

from lightseek.model.boxes import build_box, encoder_width
from lightseek.model.config import OCRConfig
from lightseek.model.layers import Linear


class Projector(nn.Module):
    """Maps each vision token from d2 = 2048 channels to the decoder's d = 1280, by `linear` or `mlp`."""

    def __init__(self, config: OCRConfig) -> None:
        super().__init__()
        self.layers = build_box("projector", config)

    def forward(self, features: Float[Tensor, "b t d2"]) -> Float[Tensor, "b t d"]:
        return self.layers(features)


def linear(config: OCRConfig) -> nn.Module:
    """Return the official projector: one linear layer."""
    return Linear(encoder_width(config), config.projector.width)


def mlp(config: OCRConfig, hidden: int | None = None) -> nn.Module:
    """Return two linear layers with a GELU between them. There they have `hidden` channels, or the decoder's width.

    Raises ValueError if `hidden` is below 1.
    """
    width = config.projector.width
    hidden = width if hidden is None else hidden
    if hidden < 1:
        raise ValueError(f"projector mlp: hidden must be at least 1, got {hidden}")
    return nn.Sequential(Linear(encoder_width(config), hidden), nn.GELU(), Linear(hidden, width))


mlp.sizes = lambda **settings: {"hidden": 1}  # see compressor.py
