"""Puts another box into a loaded model. `swap_box` swaps the boxes in `kinds.BOXES`, and `swap_decoder` the decoder.

    model = load_model(...)
    swap_box(model, "compressor", "meanpool")
    swap_decoder(model, "hf:openai-community/gpt2")

With a new decoder, the projector and the layout's two vectors start again from random weights at the width of the
decoder, because the old ones had learned the embedding space of another decoder. Everything else stays.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from lightseek.model.boxes import build_box
from lightseek.model.config import DecoderConfig, HFDecoderConfig, OCRConfig
from lightseek.model.decoders import build_decoder
from lightseek.model.kinds import BOXES, DECODERS, HF_DECODERS
from lightseek.model.layout import Layout
from lightseek.model.ocr import DeepSeekOCR, reset_parameters
from lightseek.model.projector import Projector


def swap_box(model: DeepSeekOCR, axis: str, kind: str, settings: dict[str, Any] | None = None, seed: int = 0) -> None:
    """Put a box of another kind into a loaded model, in place. The weights of the new box are drawn from `seed`.

    `axis` and `kind` are names in `lightseek.model.kinds.BOXES`, such as `"compressor"` and `"meanpool"`. If the model
    already has this kind with these settings, its box keeps its weights.
    Raises ValueError for an unknown axis, kind or setting, and for a box that does not fit.
    """
    config = model.config.with_box(axis, kind, settings)
    if config.box(axis) == model.config.box(axis):
        return
    parent, _, name = BOXES[axis].path.rpartition(".")
    with torch.random.fork_rng():  # the state of the caller's random numbers does not change
        torch.manual_seed(seed)
        fresh = build_box(axis, config)
        reset_parameters(fresh)
    setattr(model.get_submodule(parent), name, fresh.to(model.device, model.dtype).train(model.training))
    model.config = config


def swap_decoder(model: DeepSeekOCR, decoder: str, seed: int = 0) -> None:
    """Put another decoder into `model`, in place. New weights that come from no checkpoint are drawn from `seed`.

    decoder: `moe` keeps the decoder of the model. `dense` is a twin without experts, with random weights and as many
    active parameters. `gpt2`, `qwen3` and `hf:FOLDER_OR_ID` are causal language models, which bring their tokenizer.

    Raises ValueError for a decoder that is unknown or that does not fit.
    """
    own = model.config.decoder
    if decoder in ("moe", "dense") and not (isinstance(own, DecoderConfig) and own.dense_layers < own.layers):
        raise ValueError(f"--decoder {decoder}: this model's decoder has no experts; leave --decoder out to keep it")
    if decoder == "moe":
        return
    with torch.random.fork_rng():  # the state of the caller's random numbers does not change
        torch.manual_seed(seed)
        if decoder == "dense":
            fresh = build_decoder(own.dense_twin())
            reset_parameters(fresh)
            attach(model, fresh, model.config.with_(decoder=fresh.config))
        else:
            from lightseek.weights.hf import load_hf

            fresh, model.tokenizer, tokens = load_hf(hf_source(decoder), model.dtype)
            attach(model, fresh, with_decoder(model.config, fresh.config, tokens))
            model.folder = None  # the files in it are of another model now


def hf_source(decoder: str) -> str:
    """Return the folder or hub id that a `--decoder` names. Raises ValueError for a kind that has none."""
    DECODERS.check(decoder)
    name = HF_DECODERS.get(decoder, decoder)
    if not name.startswith("hf:"):
        raise ValueError(f"--decoder {decoder} is not a causal language model of transformers")
    return name.removeprefix("hf:")


def attach(model: DeepSeekOCR, decoder: nn.Module, config: OCRConfig) -> None:
    """Put `decoder` into `model`, with a new projector and layout, because the old ones fit another embedding space."""
    projector, layout = Projector(config), Layout(config.decoder.width)
    for part in (projector, layout):
        reset_parameters(part)
    device, dtype, training = model.device, model.dtype, model.training
    model.projector, model.layout, model.decoder, model.config = projector, layout, decoder, config
    model.to(device, dtype).train(training)


def with_decoder(config: OCRConfig, decoder: HFDecoderConfig, tokens: dict[str, int]) -> OCRConfig:
    """Return `config` with this decoder, a projector of its width, and the ids of the special `tokens`."""
    return config.with_(decoder=decoder, projector=replace(config.projector, width=decoder.width), **tokens)
