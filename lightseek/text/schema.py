"""Holds the text that a model writes to a JSON schema: in each step, only tokens that can still become valid JSON stay.

    schema = JsonSchema.of({"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]})
    generate(model, ..., schema=schema)

llguidance turns the schema into a grammar and finds the tokens that the grammar allows, on the CPU. So the text is
valid whatever the weights are, unless the token limit cuts it. Then its `finish_reason` is "length".
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lightseek.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

COMPACT = {"whitespace_flexible": False, "lenient": False}  # white space is no information, and a model may loop in it


class SchemaError(ValueError):
    """A schema that is wrong, that the grammar does not know in all parts, or that is too large."""


@dataclass(frozen=True)
class JsonSchema:
    """A JSON schema as a grammar. It belongs to no model. Schemas of the same content are equal."""

    grammar: str
    source: str  # the schema itself, as JSON

    @classmethod
    def of(cls, schema: Any) -> "JsonSchema":
        """Raises SchemaError, also for a keyword that llguidance does not know: none is ignored."""
        if find_spec("llguidance") is None:
            raise SchemaError('a JSON schema needs llguidance: pip install -e ".[extract]"')
        from llguidance import LLMatcher

        if not isinstance(schema, dict):
            raise SchemaError("a JSON schema is an object")
        source = json.dumps(schema)
        grammar = LLMatcher.grammar_from_json_schema(source, overrides=COMPACT)
        if wrong := LLMatcher.validate_grammar(grammar, limits=limits()):
            raise SchemaError(f"the schema can't be used: {' '.join(wrong.split()):.300}")
        return cls(grammar, source)

    def bind(self, tokenizer: Tokenizer, vocabulary: int, stop: int) -> "Rule":
        """Return the rule for a model with so many logits that ends a text with the token `stop`."""
        return Rule(self.grammar, tokens_of(tokenizer, stop), vocabulary, stop)


@dataclass(frozen=True)
class Rule:
    """A schema for one tokenizer: `start` begins a text, as a guard against repetition does."""

    grammar: str
    tokens: "LLTokenizer"
    vocabulary: int
    stop: int

    def start(self, prompt: Iterable[int] = ()) -> "Written":
        """Return the state of a text that has no token yet. The prompt does not matter."""
        from llguidance import LLMatcher

        return Written(LLMatcher(self.tokens, self.grammar, log_level=0, limits=limits()), self.vocabulary, self.stop)


class Written:
    """The JSON of one text so far."""

    def __init__(self, matcher: "LLMatcher", vocabulary: int, stop: int) -> None:
        self.matcher, self.vocabulary, self.stop = matcher, vocabulary, stop
        self._check()

    def push(self, token: int) -> None:
        """Add a token that was written. Raises SchemaError if the grammar is too large to go on."""
        self.matcher.consume_token(token)
        self._check()

    @property
    def complete(self) -> bool:
        """Whether the text is valid and nothing can follow it."""
        return self.matcher.is_stopped() and not self.matcher.is_error()

    def allowed(self) -> Bool[Tensor, " v"]:
        """Return which tokens may come next; at least one may. A complete text allows the stop token only."""
        found = torch.zeros(self.vocabulary, dtype=torch.bool)
        if self.complete:
            found[self.stop] = True
            return found
        bits = np.frombuffer(self.matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        known = np.unpackbits(bits, bitorder="little")[: self.vocabulary]
        found[: len(known)] = torch.from_numpy(known).bool()
        if not found.any():
            raise SchemaError("the schema can't be followed: no text satisfies it, or the model has no token for it")
        return found

    def _check(self) -> None:
        if self.matcher.is_error():
            raise SchemaError(f"the schema can't be followed: {' '.join(self.matcher.get_error().split()):.300}")


def keep(logits: Float[Tensor, "b v"], allowed: list[Bool[Tensor, " v"]]) -> Float[Tensor, "b v"]:
    """Return `logits` with minus infinity at all tokens but the allowed ones of each row.

    An allowed token stays possible even if its logit is NaN or minus infinity, as at a token that the guard against
    repetition forbids. So the guard gives way if the schema leaves no other token.
    """
    least = torch.finfo(logits.dtype).min
    finite = logits.nan_to_num(nan=least, neginf=least)
    return finite.masked_fill(~torch.stack(allowed).to(logits.device), -torch.inf)


def limits() -> Any:
    """Return limits that stop a hostile schema in about a second."""
    from llguidance import LLParserLimits

    return LLParserLimits(max_grammar_size=100_000, initial_lexer_fuel=1_000_000, verbose_errors=False)


@lru_cache(maxsize=4)
def tokens_of(tokenizer: Tokenizer, stop: int) -> "LLTokenizer":
    """Return the vocabulary for llguidance. It takes a second for the official one, so it is kept."""
    from llguidance import LLTokenizer, TokenizerWrapper

    return LLTokenizer(TokenizerWrapper(_Vocabulary(tokenizer, stop)))


class _Vocabulary:
    """What llguidance asks a tokenizer for. Added tokens, such as <|ref|>, are never part of the JSON."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, stop: int) -> None:
        self.tokenizer, self.eos_token_id = tokenizer, stop
        words = [tokenizer.bytes_of(i) for i in range(tokenizer.vocab_size)]
        added = tokenizer.added_ids
        self.special_token_ids = [i for i, word in enumerate(words) if i in added or not word]
        self.tokens = [b"\xff<%d>" % i if i in added or not word else word for i, word in enumerate(words)]

    def __call__(self, text: bytes) -> list[int]:
        return self.tokenizer.encode(text.decode("utf-8", "replace"))
