"""The projector: it brings the encoder's channels to the decoder's width.

The official model has one linear layer. Two layers with a GELU between them, as in DeepSeek-VL, are the usual
alternative.
"""

from jaxtyping import Float
from torch import Tensor, nn

from lightseek.model.config import ProjectorConfig
from lightseek.model.layers import Linear


class Projector(nn.Module):
    """Maps each vision token from d2 = 2048 channels to the decoder's d = 1280. `config.kind` is `linear` or `mlp`."""

    def __init__(self, config: ProjectorConfig) -> None:
        super().__init__()
        build = {"linear": self.linear, "mlp": self.mlp}
        self.layers = build[config.kind](config.input_width, config.width)

    @staticmethod
    def linear(input_width: int, width: int) -> nn.Module:
        return Linear(input_width, width)

    @staticmethod
    def mlp(input_width: int, width: int) -> nn.Module:
        return nn.Sequential(Linear(input_width, width), nn.GELU(), Linear(width, width))

    def forward(self, features: Float[Tensor, "b t d2"]) -> Float[Tensor, "b t d"]:
        return self.layers(features)
