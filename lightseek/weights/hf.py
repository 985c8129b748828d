"""Loads checkpoints of transformers: a language model as the decoder, or a text-to-text model in place of our model.

Only safetensors files are read, and no code that comes with a checkpoint is run. Importing transformers is slow, so
other modules import this one inside the functions that need it.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.utils import logging

from lightseek.model.config import OCRConfig
from lightseek.model.decoders.hf import HFDecoder, check_adapter, describe
from lightseek.model.seq2seq import Seq2Seq
from lightseek.text.tokenizer import MAX_BYTES, Tokenizer
from lightseek.tools.json_files import read_json

# Without trust_remote_code, transformers would ask on the terminal whether it may run a checkpoint's own code.
SAFE = {"use_safetensors": True, "trust_remote_code": False}


class LightSeekSeq2Seq(Seq2Seq):
    """A text-to-text model that can be saved."""

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write the model in the layout of transformers, with its tokenizer. `seq2seq:FOLDER` loads it again."""
        weights = {name: tensor.to(dtype or self.dtype) for name, tensor in self.decoder.model.state_dict().items()}
        with quiet(), naming_disk_errors(folder):
            self.decoder.model.save_pretrained(folder, state_dict=weights)
        self.tokenizer.save(Path(folder) / "tokenizer.json")


def load_seq2seq(source: str, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> LightSeekSeq2Seq:
    """Load a text-to-text model and its tokenizer from a folder or the hub, in eval mode. The default dtype is float32.

    Raises ValueError for a source that cannot be loaded, and for a model with which our decoding does not work.
    """
    model = load_weights(AutoModelForSeq2SeqLM, source, dtype or torch.float32)
    tokenizer, tokens = load_tokenizer(source, model.config)
    decoder = describe(model, source)
    tokens["image_token_id"] = max(decoder.vocabulary, tokenizer.vocab_size)  # no prompt contains it
    usual = OCRConfig()
    config = usual.with_(decoder=decoder, projector=replace(usual.projector, width=decoder.width), **tokens)
    found = LightSeekSeq2Seq(config, model, tokenizer).eval()
    found.check_decoder()
    return found.to(device)


def load_hf(source: str, dtype: torch.dtype) -> tuple[nn.Module, Tokenizer, dict[str, int]]:
    """Load a causal language model from a folder or the hub.

    Returns (decoder, tokenizer, ids of the special tokens that our config needs).
    Raises ValueError for a source that cannot be loaded, weights that do not fit the config, or a model that our
    adapter does not fit.
    """
    model = load_weights(AutoModelForCausalLM, source, dtype)
    decoder = HFDecoder(describe(model, source), model)
    check_adapter(decoder.eval())
    tokenizer, tokens = load_tokenizer(source, model.config)
    # This id marks the positions that pages fill, so it is above the ids of all texts and all rows of the embedding.
    tokens["image_token_id"] = max(decoder.config.vocabulary, tokenizer.vocab_size)
    return decoder, tokenizer, tokens


def load_weights(kind: Any, source: str, dtype: torch.dtype) -> Any:
    """Call `kind.from_pretrained` for a folder or a hub id. Only safetensors files are read, and no code is run.

    Raises ValueError for a source that cannot be loaded, and if weights are missing: they would be random.
    """
    if not Path(source).is_dir():
        if Path(source).exists():
            raise ValueError(f"{source} is a file: give the folder that holds config.json and the weights")
        if not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", source):
            raise ValueError(f"{source}: there is no such folder, and a hub id looks like 'openai-community/gpt2'")
    check_json(Path(source))
    try:
        with quiet():
            model, report = kind.from_pretrained(source, dtype=dtype, output_loading_info=True, **SAFE)
    except MemoryError:
        raise
    except Exception as error:  # transformers has errors of its own, and those of the libraries that it uses
        raise ValueError(f"{source}: transformers can't load this ({first_line(error)})") from error
    if report["missing_keys"] or report["mismatched_keys"]:
        wrong = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        raise ValueError(f"{source}: {wrong[0]} and {len(wrong) - 1} more weights are missing or of another shape")
    return model


def check_json(folder: Path) -> None:
    """Read the JSON files of a folder within our limits: transformers has none. Raises JsonError for a bad file."""
    for path in sorted(folder.glob("*.json")):
        read_json(path, MAX_BYTES)


def load_tokenizer(source: str, config: Any) -> tuple[Tokenizer, dict[str, int]]:
    """Load the tokenizer of a checkpoint, and the ids of its begin, end and padding tokens.

    GPT-2 has no begin token and no padding token, and Qwen3 has no begin token. Such a token comes from the model's
    config, or else the end token takes its place. Padding is masked, so any token will do for it.
    Raises ValueError if there is no tokenizer that can be used, or no end token.
    """
    try:
        theirs = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        definition = theirs.backend_tokenizer.to_str()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # panics of the tokenizers library are no Exceptions
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
    """Hide the progress bars of transformers inside the `with` block."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def naming_disk_errors(folder: str | Path) -> Iterator[None]:
    """Turn the error of the safetensors library, such as one of a full disk, into an OSError that names the folder."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(f"{folder}: the weights cannot be written ({first_line(error)})") from error


def first(*ids: int | list[int] | None) -> int | None:
    """Return the first id that is not None. An argument may be a list of ids."""
    flat = [i for some in ids for i in (some if isinstance(some, list) else [some])]
    return next((i for i in flat if i is not None), None)


def first_line(error: Exception) -> str:
    """Return the type and the first line of an error."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]:.300}"
