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

from lightseek.model.boxes import build_box, encoder_width
from lightseek.model.config import DecoderConfig, HFDecoderConfig, OCRConfig
from lightseek.model.decoders import build_decoder
from lightseek.model.kinds import BOXES, DECODERS, HF_DECODERS
from lightseek.model.ocr import DeepSeekOCR, reset_parameters
from lightseek.model.projector import Projector


def swap_box(model: DeepSeekOCR, axis: str, kind: str, settings: dict[str, Any] | None = None, seed: int = 0) -> None:
    """Put a box of another kind into a loaded model, in place. The weights of the new box are drawn from `seed`.

    A layer that the old box has too, with the same name and shapes, keeps its weights: `clip-only` keeps all of CLIP.
    If the new box is a global stage that gives another number of channels, the projector's first layer is new as well.
    `axis` and `kind` are names in `lightseek.model.kinds.BOXES`, such as `"compressor"` and `"meanpool"`. A box of the
    kind and the settings that the model has already stays as it is, with its weights.
    Raises ValueError for an axis, a kind or settings that are unknown, and for a box that does not fit.
    """
    config = model.config.with_box(axis, kind, settings)
    if config.box(axis) == model.config.box(axis):
        return
    fresh = new_box(model, axis, config, seed)
    if axis == "global_stage":
        if encoder_width(config) != encoder_width(model.config):
            model.projector.layers = new_box(model, "projector", config, seed)
        model.encoder.set_global_stage(fresh)
    else:
        parent, _, name = BOXES[axis].path.rpartition(".")
        setattr(model.get_submodule(parent), name, fresh)
    model.config = config


def new_box(model: DeepSeekOCR, axis: str, config: OCRConfig, seed: int) -> nn.Module:
    """Return the box of `config` at `axis`, with the weights that `swap_box` describes."""
    with torch.random.fork_rng():  # the caller's own random numbers stay as they were
        torch.manual_seed(seed)
        fresh = build_box(axis, config)
        reset_parameters(fresh)
    fresh.to(model.device, model.dtype).train(model.training)
    old = dict(model.get_submodule(BOXES[axis].path).named_children())
    for name, layer in fresh.named_children():
        if name in old and shapes(layer) == shapes(old[name]):
            layer.load_state_dict(old[name].state_dict())
    return fresh


def shapes(module: nn.Module) -> dict[str, torch.Size]:
    """Return the shape of each of a module's tensors."""
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


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
    projector, layout, context = Projector(config), build_box("layout", config), build_box("text_encoder", config)
    for part in (projector, layout, context):
        reset_parameters(part)
    device, dtype, training = model.device, model.dtype, model.training
    model.projector, model.layout, model.context = projector, layout, context
    model.decoder, model.config = decoder, config
    model.to(device, dtype).train(training)


def with_decoder(config: OCRConfig, decoder: HFDecoderConfig, tokens: dict[str, int]) -> OCRConfig:
    """Return `config` with this decoder, a projector of its width, and the ids of the special `tokens`."""
    return config.with_(decoder=decoder, projector=replace(config.projector, width=decoder.width), **tokens)
