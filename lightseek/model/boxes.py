"""Make the boxes of a config that come in several kinds: the registries in `kinds.py` say which class is which."""

from torch import nn

from lightseek.model.config import OCRConfig
from lightseek.model.kinds import BOXES


def encoder_width(config: OCRConfig) -> int:
    """Return the channels d2 of the encoder's vision tokens, which the projector takes: 2048 for the official boxes."""
    return BOXES["global_stage"].kinds.find(config.box("global_stage").kind).join.width(config)


def build_box(axis: str, config: OCRConfig) -> nn.Module:
    """Return a box of the kind and with the settings that `config` names at `axis`, with PyTorch's own random weights.

    Raises ValueError when the kind does not know a setting, or a setting cannot work.
    """
    box = config.box(axis)
    try:
        return BOXES[axis].kinds.find(box.kind)(config, **box.settings)
    except TypeError as error:
        raise ValueError(f"{axis} {box.kind} does not take the settings {box.settings}: {error}") from error
