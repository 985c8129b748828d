"""Put another box into a loaded model: `swap_box` for what `kinds.BOXES` lists, `swap_decoder` for the decoder.

    model = load_model(...)
    swap_box(model, "compressor", "meanpool")
    swap_decoder(model, "hf:openai-community/gpt2")

With a new decoder the projector and the layout's two vectors start again from random weights, at its width: the old
ones had learned the embedding space of another decoder. Everything else stays.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
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
from lightseek.text.tokenizer import Tokenizer

# Without the second, transformers asks on the terminal whether it may run a checkpoint's own code.
SAFE = {"use_safetensors": True, "trust_remote_code": False}


def swap_box(model: DeepSeekOCR, axis: str, kind: str, settings: dict[str, Any] | None = None, seed: int = 0) -> None:
    """Put a box of another kind into a loaded model. Its weights are drawn from `seed`.

    `axis` and `kind` are names in `lightseek.model.kinds.BOXES`, such as `"compressor"` and `"meanpool"`. A box of the
    kind and the settings that the model has already stays as it is, with its weights.
    Raises ValueError for an axis, a kind or settings that are unknown, and for a box that does not fit.
    """
    config = model.config.with_box(axis, kind, settings)
    if config.box(axis) == model.config.box(axis):
        return
    parent, _, name = BOXES[axis].path.rpartition(".")
    with torch.random.fork_rng():  # the caller's own random numbers stay as they were
        torch.manual_seed(seed)
        fresh = build_box(axis, config)
        reset_parameters(fresh)
    setattr(model.get_submodule(parent), name, fresh.to(model.device, model.dtype).train(model.training))
    model.config = config


def swap_decoder(model: DeepSeekOCR, decoder: str, seed: int = 0) -> None:
    """Put another decoder into `model`. New weights that no checkpoint gives are drawn from `seed`.

    decoder: `moe` (the one it has), `dense` (a random twin of it, without experts, of equal active size), `gpt2`,
    `qwen3`, or `hf:` and the folder or hub id of a causal language model, which comes with its tokenizer.

    Raises ValueError for a decoder that is unknown or that does not fit.
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
            fresh, model.tokenizer, tokens = load_hf(hf_source(decoder), model.dtype)
            attach(model, fresh, with_decoder(model.config, fresh.config, tokens))
            model.folder = None  # the files there do not fit any more


def hf_source(decoder: str) -> str:
    """Return the folder or hub id that a `--decoder` names. Raises ValueError for a kind that has none."""
    DECODERS.check(decoder)
    name = HF_DECODERS.get(decoder, decoder)
    if not name.startswith("hf:"):
        raise ValueError(f"--decoder {decoder} is not a causal language model of transformers")
    return name.removeprefix("hf:")


def attach(model: DeepSeekOCR, decoder: nn.Module, config: OCRConfig) -> None:
    """Put `decoder` into `model`, with a new projector and layout: the old ones lead into another embedding space."""
    projector, layout = Projector(config), Layout(config.decoder.width)
    for part in (projector, layout):
        reset_parameters(part)
    device, dtype, training = model.device, model.dtype, model.training
    model.projector, model.layout, model.decoder, model.config = projector, layout, decoder, config
    model.to(device, dtype).train(training)


def with_decoder(config: OCRConfig, decoder: HFDecoderConfig, tokens: dict[str, int]) -> OCRConfig:
    """Return the sizes of a model with this decoder."""
    return config.with_(decoder=decoder, projector=replace(config.projector, width=decoder.width), **tokens)


def load_hf(source: str, dtype: torch.dtype) -> tuple[nn.Module, Tokenizer, dict[str, int]]:
    """A causal language model, its tokenizer, and the ids that our config needs, from a folder or the hub.

    Raises ValueError for what can't be had, has other weights than its config says, or needs code of its own.
    """
    from transformers import AutoModelForCausalLM

    from lightseek.model.decoders.hf import HFDecoder, check_adapter, describe

    model = load_weights(AutoModelForCausalLM, source, dtype)
    decoder = HFDecoder(describe(model, source), model)
    check_adapter(decoder.eval())
    tokenizer, tokens = load_tokenizer(source, model.config)
    # No text and no row of the embedding has this id: it marks the positions that pages fill.
    tokens["image_token_id"] = max(decoder.config.vocabulary, tokenizer.vocab_size)
    return decoder, tokenizer, tokens


def load_weights(kind: Any, source: str, dtype: torch.dtype) -> Any:
    """`kind.from_pretrained`: safetensors only, no code from the checkpoint, no weight left to chance."""
    if not Path(source).is_dir():
        if Path(source).exists():
            raise ValueError(f"{source} is a file: give the folder that holds config.json and the weights")
        if not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", source):
            raise ValueError(f"{source}: there is no such folder, and a hub id looks like 'openai-community/gpt2'")
    try:
        with quiet():
            model, report = kind.from_pretrained(source, dtype=dtype, output_loading_info=True, **SAFE)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise ValueError(f"{source}: transformers can't load this ({first_line(error)})") from error
    if report["missing_keys"] or report["mismatched_keys"]:
        wrong = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        raise ValueError(f"{source}: {wrong[0]} and {len(wrong) - 1} more weights are missing or of another shape")
    return model


def load_tokenizer(source: str, config: Any) -> tuple[Tokenizer, dict[str, int]]:
    """A checkpoint's own tokenizer, and its begin, end and padding tokens.

    GPT-2 has no token that begins a text and none for padding, Qwen3 none that begins: then the model's config says,
    or the token that ends texts also stands between them. Padding is masked, so any token will do.
    """
    from transformers import AutoTokenizer

    try:
        theirs = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        definition = theirs.backend_tokenizer.to_str()
    except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
        raise ValueError(f"{source}: no tokenizer that can be used ({first_line(error)})") from error
    try:
        tokenizer = Tokenizer(definition)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    end = first(theirs.eos_token_id, config.eos_token_id)
    if end is None:
        raise ValueError(f"{source}: neither its tokenizer nor its config has a token that ends a text (eos_token)")
    begin = first(theirs.bos_token_id, config.bos_token_id, end)
    pad = first(theirs.pad_token_id, config.pad_token_id, end)
    return tokenizer, {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": pad}


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of transformers' own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def first(*ids: int | list[int] | None) -> int | None:
    """The first id there is."""
    flat = [i for some in ids for i in (some if isinstance(some, list) else [some])]
    return next((i for i in flat if i is not None), None)


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"
