"""From a run's settings to the model it trains: weights, swapped parts, what is frozen.

load -> public towers -> attention kind -> what learns
"""

import torch

from lightseek.freeze import BoxCount, freeze
from lightseek.loading import load_model
from lightseek.model.attention import set_attention
from lightseek.model.ocr import LightSeekOCR
from lightseek.options import RunConfig


def build_model(config: RunConfig, device: str | torch.device | None = None) -> tuple[LightSeekOCR, list[BoxCount]]:
    """The model of a run, and what learns in each of its boxes. Raises ValueError for settings that cannot work."""
    model = load_model(config.model, device=device, dtype=config.dtype, seed=config.seed, progress=True)
    if config.init == "sam+clip":
        from lightseek.public_weights import init_from_public, public_towers

        init_from_public(model, *public_towers())
    if model.tokenizer is None:
        raise ValueError(f"{config.model}: tokenizer.json is missing, and training on text needs it")
    set_attention(model, config.attention)
    model.set_gradient_checkpointing(config.gradient_checkpointing)
    return model, freeze(model, config.freeze)
