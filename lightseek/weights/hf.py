"""Checkpoints of transformers: a language model behind the encoder, or a text-to-text model in the place of ours.

Only safetensors files are read, and no code that comes with a checkpoint is run. This module imports transformers, so
whoever needs it imports it at the last moment.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.utils import logging

from lightseek.model.config import OCRConfig
from lightseek.model.decoders.hf import HFDecoder, check_adapter, describe
from lightseek.model.seq2seq import Seq2Seq
from lightseek.text.tokenizer import Tokenizer

# Without the second, transformers asks on the terminal whether it may run a checkpoint's own code.
SAFE = {"use_safetensors": True, "trust_remote_code": False}


class LightSeekSeq2Seq(Seq2Seq):
    """A text-to-text model that saves itself, as `LightSeekOCR` does."""

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write transformers' own layout, and the tokenizer: `seq2seq:FOLDER` loads it again."""
        weights = {name: tensor.to(dtype or self.dtype) for name, tensor in self.decoder.model.state_dict().items()}
        with quiet():
            self.decoder.model.save_pretrained(folder, state_dict=weights)
        self.tokenizer.save(Path(folder) / "tokenizer.json")


def load_seq2seq(source: str, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> LightSeekSeq2Seq:
    """Load a text-to-text model and its tokenizer from a folder or the hub, in eval mode. The default is float32.

    Raises ValueError for a source that cannot be loaded, and for a model that our decoding does not fit.
    """
    model = load_weights(AutoModelForSeq2SeqLM, source, dtype or torch.float32)
    tokenizer, tokens = load_tokenizer(source, model.config)
    decoder = describe(model, source)
    tokens["image_token_id"] = max(decoder.vocabulary, tokenizer.vocab_size)  # in no prompt
    usual = OCRConfig()
    config = usual.with_(decoder=decoder, projector=replace(usual.projector, width=decoder.width), **tokens)
    found = LightSeekSeq2Seq(config, model, tokenizer).eval()
    found.check_decoder()
    return found.to(device)


def load_hf(source: str, dtype: torch.dtype) -> tuple[nn.Module, Tokenizer, dict[str, int]]:
    """A causal language model, its tokenizer, and the ids that our config needs, from a folder or the hub.

    Raises ValueError for what can't be had, has other weights than its config says, or needs code of its own.
    """
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
