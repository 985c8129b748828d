"""Another decoder behind the same eyes: `--decoder dense`, `gpt2`, `qwen3`, or any causal language model.

The encoder stays. The projector and the layout's two vectors start anew, at the new decoder's width: what they learned
was another decoder's embedding space.

    model = load_model(...)
    swap_decoder(model, "hf:openai-community/gpt2")
"""

import torch
from torch import nn

from lightseek.model.config import DecoderConfig, HFDecoderConfig, OCRConfig
from lightseek.model.decoders import build_decoder
from lightseek.model.kinds import HF_DECODERS
from lightseek.model.layout import Layout
from lightseek.model.ocr import DeepSeekOCR, reset_parameters
from lightseek.model.projector import Projector


def swap_decoder(model: DeepSeekOCR, decoder: str, seed: int = 0) -> None:
    """Put another decoder into `model`. New weights that no checkpoint gives are drawn from `seed`.

    decoder: `moe` (the one it has), `dense` (a random twin of it, without experts, of equal active size), `gpt2`,
    `qwen3`, or `hf:` and the folder or hub id of a causal language model; that comes with its tokenizer.

    Raises ValueError for a decoder there is not, or that does not fit.
    """
    own = model.config.decoder
    if decoder in ("moe", "dense") and not (isinstance(own, DecoderConfig) and own.dense_layers < own.layers):
        raise ValueError(f"--decoder {decoder}: this model's decoder has no experts; leave --decoder out to keep it")
    if decoder == "moe":
        return
    with torch.random.fork_rng():  # the caller's own random numbers stay as they were
        torch.manual_seed(seed)
        if decoder == "dense":
            fresh = build_decoder(own.dense_twin())
            reset_parameters(fresh)
            attach(model, fresh, model.config.with_(decoder=fresh.config))
        else:
            from lightseek.weights.hf import load_hf

            fresh, model.tokenizer, tokens = load_hf(hf_source(decoder), model.dtype)
            attach(model, fresh, with_decoder(model.config, fresh.config, tokens))
            model.folder = None  # what lies there fits no more


def hf_source(decoder: str) -> str:
    """The folder or hub id that a `--decoder` names."""
    name = HF_DECODERS.get(decoder, decoder)
    if not name.startswith("hf:") or name == "hf:":
        raise ValueError(f"unknown decoder {decoder!r}: choose moe, dense, {', '.join(HF_DECODERS)} or hf:FOLDER_OR_ID")
    return name.removeprefix("hf:")


def attach(model: DeepSeekOCR, decoder: nn.Module, config: OCRConfig) -> None:
    """`decoder` into `model`, and what stands between it and the encoder anew."""
    projector, layout = Projector(config.projector), Layout(config.decoder.width)
    for part in (projector, layout):
        reset_parameters(part)
    device, dtype, training = model.device, model.dtype, model.training
    model.projector, model.layout, model.decoder, model.config = projector, layout, decoder, config
    model.to(device, dtype).train(training)


def with_decoder(config: OCRConfig, decoder: HFDecoderConfig, tokens: dict[str, int]) -> OCRConfig:
    """The sizes of a model with this decoder."""
    projector = type(config.projector)(config.projector.kind, config.projector.input_width, decoder.width)
    return config.with_(decoder=decoder, projector=projector, **tokens)
