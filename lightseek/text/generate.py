"""Generate text from pages: `read` takes pictures, `generate` and `stream` take tensors.

    from lightseek.text.generate import read
    print(read(model, [PIL.Image.open("page.png")], mode="base")[0].text)

Nothing is printed. The model is in evaluation mode during generation and afterwards as it was. Greedy decoding and
sampling are in `sampling.py`, beam search is in `beam.py`, and the guard against repetition is in `ngrams.py`.
"""

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from PIL import Image
from torch import Tensor

from lightseek.model.ocr import DocumentModel
from lightseek.page.modes import Mode
from lightseek.page.views import Page
from lightseek.text.beam import beam_search
from lightseek.text.decoding import Continuation, Timings
from lightseek.text.kinds import PROMPTS
from lightseek.text.ngrams import NgramGuard
from lightseek.text.prompts import prepare
from lightseek.text.sampling import Sampler, Writer
from lightseek.text.schema import JsonSchema, Rule
from lightseek.text.tokenizer import Tokenizer

__all__ = ["PROMPTS", "Generation", "NgramGuard", "Timings", "generate", "read", "stream"]


@dataclass
class Generation:
    """The text that the model wrote after one prompt."""

    tokens: list[int]  # without the stop token
    text: str | None  # with special tokens such as <|ref|> or <td>; None if the model has no tokenizer
    finish_reason: Literal["eos", "length"]  # it ended with a stop token, or at max_new_tokens or the last position
    logprob: float  # log P(tokens, stop token) of the model itself, without temperature and guard
    timings: Timings = field(repr=False)  # of the whole batch


def generate(
    model: DocumentModel,
    input_ids: Int[Tensor, "b n"],
    pages: Sequence[Sequence[Page]] | None = None,
    mask: Bool[Tensor, "b n"] | Int[Tensor, "b n"] | None = None,
    *,
    max_new_tokens: int = 1024,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int | None = None,
    beams: int = 1,
    length_penalty: float = 1.0,
    no_repeat_ngram: NgramGuard | int | None = None,
    schema: JsonSchema | None = None,
    seed: int | None = None,
    stop: Collection[int] | None = None,
    on_token: Callable[[int, int], None] | None = None,
) -> list[Generation]:
    """Continue each prompt until a stop token (EOS unless `stop` names others) or for `max_new_tokens`.

    A text also ends where the decoder has no positions left after its own prompt. A `Note` (a warning) says so if
    `max_new_tokens` is more than that.

    Prompts of different lengths are padded on the left, and `mask` is false at the padding. `prepare` makes
    `input_ids`, `pages` and `mask`. Each row gets the text that it would get alone. Temperature 0 is greedy decoding.
    Above 0, row r draws with seed `seed + r`. With more than one beam, beam search (`beam.py`) takes the place of both.
    `no_repeat_ngram` is a guard or its n. With a `schema`, each text is JSON that satisfies it, unless its
    finish_reason is "length". `on_token(row, token)` is called for each new token; beam search cannot do
    this.

    Raises ValueError for options that contradict each other, or prompts too long for the decoder.
    """
    sampler, guard = Sampler(temperature, top_p, top_k), as_guard(no_repeat_ngram)
    if beams < 1 or (beams > 1 and (temperature > 0 or on_token or schema)):
        raise ValueError(
            f"beams is {beams}: use 1 to sample, for a schema, or to get tokens as they come, more to search"
        )
    if not math.isfinite(length_penalty):
        raise ValueError(f"length_penalty is {length_penalty}: it must be a finite number")
    stops = as_stops(model, stop)
    with evaluating(model), torch.inference_mode():
        state = Continuation(model, input_ids, pages, mask, max_new_tokens)
        began = time.perf_counter()
        if beams > 1:
            rows = beam_search(state, beams, length_penalty, guard, stops)
        else:
            writer = Writer(sampler, guard, stops, bind(schema, model) if schema else None)
            rows = writer.join(state, seed)
            for row, token in writer.write():
                if on_token:
                    on_token(row.number, token)
        state.timings.decode = time.perf_counter() - began
    return [
        Generation(row.tokens, as_text(model.tokenizer, row.tokens), row.finish_reason, row.logprob, state.timings)
        for row in rows
    ]


def stream(
    model: DocumentModel,
    input_ids: Int[Tensor, "1 n"],
    pages: Sequence[Sequence[Page]] | None = None,
    mask: Bool[Tensor, "1 n"] | Int[Tensor, "1 n"] | None = None,
    *,
    max_new_tokens: int = 1024,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int | None = None,
    no_repeat_ngram: NgramGuard | int | None = None,
    seed: int | None = None,
    stop: Collection[int] | None = None,
) -> Iterator[str]:
    """Yield the text after one prompt in pieces of whole characters. Together they are the text of `generate`.

    The model is in evaluation mode until the iterator ends, is closed or is deleted.
    Raises ValueError as `generate` does, and also for more than one prompt or a model without a tokenizer. All errors
    come before the first piece.
    """
    if len(input_ids) != 1:
        raise ValueError(f"stream takes one prompt, not {len(input_ids)}: use generate(..., on_token=...) for a batch")
    decoder = the_tokenizer(model).stream(keep_special=True)
    sampler, guard, stops = Sampler(temperature, top_p, top_k), as_guard(no_repeat_ngram), as_stops(model, stop)

    def tokens() -> Iterator[int]:
        writer = Writer(sampler, guard, stops)
        writer.join(Continuation(model, input_ids, pages, mask, max_new_tokens), seed)
        for _, token in writer.write():
            yield token

    def pieces() -> Iterator[str]:
        coming = tokens()
        with evaluating(model):
            while True:
                with torch.inference_mode():  # not around the yield, where the caller's code runs
                    token = next(coming, None)
                if piece := decoder.flush() if token is None else decoder.push(token):
                    yield piece
                if token is None:
                    return

    return pieces()


Picture = Image.Image | Page


def read(
    model: DocumentModel,
    images: Picture | Sequence[Picture | Sequence[Picture]],
    prompt: str | Sequence[str] = PROMPTS["ocr"],
    mode: str | int | Mode | Sequence[str | int | Mode] = "base",
    batch_size: int = 4,
    **options: Any,
) -> list[Generation]:
    """Read pictures and return one Generation for each item of `images`, in order.

    An item is one page, or a list of pages for a prompt with the same number of `<image>`. `prompt` and `mode` are one
    for all items, or a list with one for each. `options` go to `generate`. The guard against repetition is
    `NgramGuard.default` unless `no_repeat_ngram` is given.

    Raises ValueError as `generate` and `prepare` do, and also for a model without a tokenizer.
    """
    tokenizer = the_tokenizer(model)
    items = [images] if isinstance(images, Picture) else list(images)
    rows = [[item] if isinstance(item, Picture) else list(item) for item in items]
    prompts = [prompt] * len(rows) if isinstance(prompt, str) else list(prompt)
    modes = [mode] * len(rows) if isinstance(mode, str | int | Mode) else list(mode)
    if not len(rows) == len(prompts) == len(modes):
        raise ValueError(f"{len(rows)} pictures, {len(prompts)} prompts and {len(modes)} modes: give one for each")
    options = {"no_repeat_ngram": NgramGuard.default(tokenizer)} | options
    seed, found = options.pop("seed", None), []
    for start in range(0, len(rows), batch_size):
        part = slice(start, start + batch_size)
        inputs = prepare(model.config, tokenizer, prompts[part], rows[part], modes[part])
        seeds = None if seed is None else seed + start  # a picture's text must not depend on the batch size
        found += generate(model, inputs.input_ids, inputs.pages, inputs.mask, seed=seeds, **options)
    return found


@contextmanager
def evaluating(model: DocumentModel) -> Iterator[None]:
    """Put the model into evaluation mode, and restore the mode of each module afterwards.

    The modes can differ: a frozen box may be in evaluation mode while the others train.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def bind(schema: JsonSchema, model: DocumentModel) -> Rule:
    config = model.config
    return schema.bind(the_tokenizer(model), config.decoder.vocabulary, config.eos_token_id)


def as_guard(guard: NgramGuard | int | None) -> NgramGuard | None:
    return NgramGuard(guard) if isinstance(guard, int) and guard else guard or None


def as_stops(model: DocumentModel, stop: Collection[int] | None) -> frozenset[int]:
    return frozenset([model.config.eos_token_id] if stop is None else stop)


def as_text(tokenizer: Tokenizer | None, tokens: list[int]) -> str | None:
    return tokenizer.decode(tokens, keep_special=True) if tokenizer else None


def the_tokenizer(model: DocumentModel) -> Tokenizer:
    if model.tokenizer is None:
        raise ValueError(
            "this model has no tokenizer, so it cannot read or write text: load it with from_pretrained, "
            "or set model.tokenizer (Tokenizer.nano() for the nano preset)"
        )
    return model.tokenizer
