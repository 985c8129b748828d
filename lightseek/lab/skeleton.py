"""Builds the model of a run on the meta device: with the shapes of its parameters, but without memory for their values.

Checks and counts need no values, so they can look at each model of a grid before its first cell starts.
"""

from typing import Any

import torch

from lightseek.model.ocr import DocumentModel
from lightseek.training.build import swap_boxes
from lightseek.training.settings import RunConfig
from lightseek.weights.hub import find_folder
from lightseek.weights.loading import NANO, LightSeekOCR, read_config
from lightseek.weights.swap import attach, hf_source, swap_decoder, with_decoder


def skeleton(config: RunConfig) -> DocumentModel:
    """Return the model of a run on the meta device. Its parameters have shapes but no values."""
    if config.decoder and config.decoder.startswith("seq2seq:"):
        return empty_seq2seq(config.decoder.removeprefix("seq2seq:"))
    sizes = read_config(find_folder(config.model or NANO))
    with torch.device("meta"):
        model = LightSeekOCR(sizes)
        swap_boxes(model, config)
        if config.decoder in ("moe", "dense"):
            swap_decoder(model, config.decoder)
        elif config.decoder:
            from lightseek.model.decoders.hf import HFDecoder, describe

            source = hf_source(config.decoder)
            theirs = from_config("AutoModelForCausalLM", source)
            decoder = HFDecoder(describe(theirs, source), theirs)
            attach(model, decoder, with_decoder(model.config, decoder.config, {}))
    return model


def empty_seq2seq(source: str) -> DocumentModel:
    """Return a text-to-text model on the meta device. Raises ValueError if transformers cannot load its config."""
    from lightseek.model.config import OCRConfig
    from lightseek.model.decoders.hf import describe
    from lightseek.model.seq2seq import Seq2Seq

    with torch.device("meta"):
        theirs = from_config("AutoModelForSeq2SeqLM", source)
        return Seq2Seq(with_decoder(OCRConfig(), describe(theirs, source), {}), theirs, None)


def from_config(kind: str, source: str) -> Any:
    """Return a model of transformers, made from its config alone.

    `kind` is the name of one of the Auto classes. Raises ValueError if transformers cannot load the config.
    """
    import transformers

    from lightseek.weights.hf import first_line

    try:
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
        return getattr(transformers, kind).from_config(config, trust_remote_code=False)
    except MemoryError:
        raise
    except Exception as error:  # transformers has errors of its own, and those of the libraries that it uses
        raise ValueError(f"{source}: transformers can't load this ({first_line(error)})") from error
