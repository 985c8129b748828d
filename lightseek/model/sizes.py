"""The sizes of each box, as dataclasses. `config.py` joins them, and `config_json.py` reads and writes them."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

PATCH = 16  # pixels per side: SAM's patch, in all modes


class ConfigError(ValueError):
    """Raised for a `config.json` that lacks a key or asks for something that this model does not have."""


@dataclass(frozen=True)
class SamConfig:
    """Sizes of SAM ViT-B (Kirillov et al. 2023), the window-attention half of the encoder, and of its neck."""

    width: int = 768
    layers: int = 12
    heads: int = 12
    global_blocks: tuple[int, ...] = (2, 5, 8, 11)  # these blocks attend globally, the others within windows
    patch: int = 16  # pixels
    window: int = 14  # patches
    grid: int = 64  # side of the stored position embedding, in patches: 1024 / 16
    mlp_ratio: int = 4
    neck: int = 256  # channels
    stem: tuple[int, ...] = ()  # channels after each halving of a convolutional stem; if empty, patch convolution


@dataclass(frozen=True)
class ClipConfig:
    """Sizes of CLIP-L (Radford et al. 2021), the global-attention half of the encoder."""

    width: int = 1024
    layers: int = 24
    heads: int = 16
    image_size: int = 224  # pixels; the stored position embedding has image_size / patch patches per side
    patch: int = 14
    mlp_ratio: int = 4

    @property
    def grid(self) -> int:
        return self.image_size // self.patch


@dataclass(frozen=True)
class ProjectorConfig:
    """Sizes of the projector, from the channels of CLIP and SAM together to the decoder's width."""

    kind: Literal["linear", "mlp"] = "linear"
    input_width: int = 2048
    width: int = 1280


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the mixture-of-experts decoder in the style of DeepSeek-V2 (3B-A570M in the paper)."""

    width: int = 1280
    layers: int = 12
    heads: int = 10
    dense_layers: int = 1  # this many first layers have one MLP instead of experts
    dense_width: int = 6848
    experts: int = 64
    chosen: int = 6  # experts per token
    shared: int = 2  # experts that every token uses, stored as one MLP
    expert_width: int = 896
    vocabulary: int = 129280
    max_positions: int = 8192
    rope_theta: float = 10000.0
    norm_eps: float = 1e-6
    balance_alpha: float = 0.001  # weight of the sequence-wise balance loss in training

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    def dense_twin(self) -> "DecoderConfig":
        """Return sizes with one MLP in every layer. Its width is the mean width per layer that a token uses here."""
        active = (self.chosen + self.shared) * self.expert_width
        widths = [self.dense_width] * self.dense_layers + [active] * (self.layers - self.dense_layers)
        return replace(self, dense_layers=self.layers, dense_width=round(sum(widths) / len(widths)))

    def rules(self) -> dict[str, bool]:
        """Return the rules that the sizes must obey, and whether they do."""
        return {
            "decoder width must be a multiple of its heads": self.width % self.heads == 0,
            "decoder head width must be even (rotary embedding)": self.head_width % 2 == 0,
            "experts per token must not exceed the experts": self.chosen <= self.experts,
            "dense layers must not exceed the layers": self.dense_layers <= self.layers,
        }


@dataclass(frozen=True)
class HFDecoderConfig:
    """The facts that the other boxes need about a model of transformers that is the decoder."""

    name: str  # the folder or hub id that it came from
    transformers: dict[str, Any]  # the contents of its config.json
    width: int
    layers: int
    vocabulary: int
    max_positions: int
    balance_alpha: float = 0.0  # there is no routing

    def rules(self) -> dict[str, bool]:
        return {}


@dataclass(frozen=True)
class BoxConfig:
    """A box of another kind than the official one: the name of the kind in its registry, and its settings.

    The settings are what the class of the kind takes besides the official sizes. They may be any values that JSON has.
    """

    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
