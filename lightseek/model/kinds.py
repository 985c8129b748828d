"""Every kind of every box that can be swapped, by name. A new kind is an entry here, its class, and a test.

This file loads no PyTorch, so that help texts and checks can name the kinds at once. Every kind is called with the
model's config and its own settings, `kind(config, **settings)`, and gives a module of the axis's signature:

    compressor     b c g g -> b c2 g/f g/f    the setting `factor` is f, 4 unless it is given; c2 is CLIP's width
    global_stage   b d r r -> b 1+r*r d       a class token comes first; its class names its `join`, see `join.py`,
                                              which makes the vision tokens, b t d2
    projector      b t d2  -> b t d           from the encoder's channels to the decoder's width
    layout         the views of an image, t d each -> p d; its class says how many `newlines` and `separators` it adds
    text_encoder   b n d, t -> b t d          shortens a text that is shown in the place of pages
    vision_edit    t d -> t d                 called with `seed` and its settings alone, see `vision_edit.py`
    decoder        see `decoders/__init__.py`
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from lightseek.tools.registry import Registry

COMPRESSORS = Registry(
    "compressor",
    {
        "conv": "lightseek.model.compressor:Compressor",
        "meanpool": "lightseek.model.compressor:MeanPool",
        "pixelshuffle": "lightseek.model.compressor:PixelShuffle",
        "resampler": "lightseek.model.compressor:Resampler",
    },
    settings=True,
)
GLOBAL_STAGES = Registry(
    "global stage",
    {
        "clip": "lightseek.model.clip:Clip",
        "clip-only": "lightseek.model.clip:ClipOnly",
        "compressor-only": "lightseek.model.clip:CompressorOnly",
    },
    settings=True,
)
PROJECTORS = Registry(
    "projector",
    {
        "linear": "lightseek.model.projector:linear",
        "mlp": "lightseek.model.projector:mlp",
    },
    settings=True,
)
LAYOUTS = Registry(
    "layout",
    {
        "rows": "lightseek.model.layout:Layout",
        "plain": "lightseek.model.layout:PlainLayout",
    },
    settings=True,
)
TEXT_ENCODERS = Registry(
    "text encoder",
    {
        "none": "lightseek.model.context:NoText",
        "meantext": "lightseek.model.context:MeanText",
        "conv1d": "lightseek.model.context:ConvText",
    },
    settings=True,
)
VISION_EDITS = Registry(
    "edit of the vision tokens",
    {
        "zeroed": "lightseek.model.vision_edit:Zeroed",
        "permuted": "lightseek.model.vision_edit:Permuted",
        "mean": "lightseek.model.vision_edit:Mean",
        "drop": "lightseek.model.vision_edit:Drop",
    },
    settings=True,
)
HF_DECODERS = {"gpt2": "hf:openai-community/gpt2", "qwen3": "hf:Qwen/Qwen3-0.6B"}  # names for the usual ones
DECODERS = Registry(
    "decoder",
    {
        "moe": "the model's own mixture of experts",
        "dense": "its twin without experts, with random weights",
        **HF_DECODERS,
    },
    open={"hf:": "FOLDER_OR_ID", "seq2seq:": "FOLDER_OR_ID"},
)
FLASH_PACKAGE = "flash_attn"  # what the kind `flash` needs beside PyTorch
ATTENTION = Registry(
    "attention",
    {
        "sdpa": "lightseek.model.attention:Sdpa",
        "eager": "lightseek.model.attention:Eager",
        "flash": "lightseek.model.attention:Flash",
    },
)


class Axis(NamedTuple):
    """A place in the model where one kind of box can stand instead of another."""

    path: str  # of the module in the model
    kinds: Registry
    official: str  # the kind of the official model
    settings: Mapping[str, Any] = {}  # what the official kind has even if it is not given


BOXES = {
    "compressor": Axis("encoder.compressor", COMPRESSORS, "conv", {"factor": 4}),
    "global_stage": Axis("encoder.clip", GLOBAL_STAGES, "clip"),
    "projector": Axis("projector.layers", PROJECTORS, "linear"),
    "layout": Axis("layout", LAYOUTS, "rows"),
    "text_encoder": Axis("context", TEXT_ENCODERS, "none"),
}
