"""A prompt on its way through the service: what a client wishes, the job, its place in a batch, and the answer."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lightseek.text.decoding import Timings
from lightseek.text.sampling import Row
from lightseek.text.schema import JsonSchema
from lightseek.text.tokenizer import StreamDecoder

Finish = Literal["eos", "length", "stopped"]


@dataclass
class Answer:
    """What the model wrote for one job."""

    text: str
    tokens: int  # of the text
    prompt_tokens: int  # positions of the prompt, the pages included
    finish_reason: Finish
    seconds: dict[str, float]  # waiting, encode, prefill, decode
    ids: list[int] = field(default_factory=list)  # the tokens of the text, if they are known


@dataclass(frozen=True)
class Wish:
    """How a client wants its text: the fields that all routes share. `Service.wish` checks them."""

    model: str  # the name that was asked for
    base: str
    adapter: str | None
    mode: str
    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    guard: str | None = None  # a name of text/kinds.GUARDS or a number; None is the model's default
    schema: JsonSchema | None = None  # the text is JSON of this schema


@dataclass(eq=False)
class Job:
    """One prompt of one client."""

    wish: Wish
    prompt: str
    pages: Sequence[Any]  # as the engine's `page` returns them
    deadline: float  # a time of `time.monotonic`
    on_text: Callable[[str], None] = lambda piece: None  # called from the engine's thread, with each piece of text
    on_end: Callable[["Answer | Exception"], None] = lambda outcome: None  # called once
    stopped: threading.Event = field(default_factory=threading.Event)  # set it when the client is gone
    sent: bool = False  # whether the client has a part of the text
    ended: bool = False
    born: float = field(default_factory=time.monotonic)

    @property
    def kind(self) -> tuple[Any, ...]:
        """Jobs of one kind may share a batch. A sampled text draws with its own seed, so it runs alone."""
        wish = self.wish
        return wish.base, wish.adapter, wish.guard, wish.schema, id(self) if wish.temperature else None


@dataclass(eq=False)
class Seat:
    """A job while its text is written."""

    job: Job
    row: Row
    limit: int  # tokens
    stream: StreamDecoder
    prompt_tokens: int
    began: float
    timings: Timings  # of the prompts that were read with this one
    pieces: list[str] = field(default_factory=list)

    def push(self, token: int) -> None:
        self.say(self.stream.push(token))

    def say(self, piece: str) -> None:
        if piece:
            self.pieces.append(piece)
            self.job.sent = True
            self.job.on_text(piece)

    def answer(self) -> Answer:
        read = {"encode": self.timings.encode, "prefill": self.timings.prefill}
        seconds = {"waiting": self.began - self.job.born, **read}
        seconds["decode"] = max(0.0, time.monotonic() - self.began - sum(read.values()))
        ids = self.row.tokens
        return Answer("".join(self.pieces), len(ids), self.prompt_tokens, self.row.finish_reason, seconds, ids)
