"""What the routes share: a request becomes prompts, the prompts go through the engine, and the answers come back."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, NamedTuple

from fastapi import File, UploadFile
from PIL import Image
from starlette.requests import Request

from lightseek.page.modes import Mode, find_mode
from lightseek.serve.documents import Document
from lightseek.serve.engine import Engine
from lightseek.serve.errors import Refused, bad, busy, too_large, too_late
from lightseek.serve.jobs import Answer, Job, Wish
from lightseek.serve.limits import Limits
from lightseek.serve.metrics import Metrics
from lightseek.serve.registry import Models
from lightseek.text.kinds import IMAGE_TAG, PROMPTS
from lightseek.text.schema import JsonSchema
from lightseek.tools.json_files import parse_json
from lightseek.tools.memory import process_memory

Upload = Annotated[UploadFile, File(description="a picture, a PDF, or a text in UTF-8")]
OpenDocument = Callable[..., Awaitable[Document]]
WATCH_SECONDS = 0.2  # how often a running request looks whether its client is still there


class Default(NamedTuple):
    """What a route takes if the client does not say it."""

    mode: str = "base"
    most: int = 512  # tokens


DEFAULT = Default()


@dataclass
class Service:
    """The models, the engine and the figures of one server."""

    models: Models
    limits: Limits = field(default_factory=Limits)
    metrics: Metrics = field(default_factory=Metrics)
    runs: Callable[..., Any] = Engine  # what runs the prompts
    inspector: bool = False  # whether it is mounted
    writer: Any = None  # a second model for /extract: a `Writer` of text/post.py
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)  # it writes one text at a time
    notes: int = 0  # texts that it writes, or that wait for it

    def __post_init__(self) -> None:
        self.engine = self.runs(self.models, self.limits, self.metrics)

    def wish(
        self, model: str | None, mode: str | None, most: int | None, default: Default = DEFAULT, **more: Any
    ) -> Wish:
        """Return what a client wants, with `default` for what it did not say. `more` are other fields of `Wish`.

        A wish for more tokens than the limit gets the limit. Raises Refused for a model or a mode that is not there.
        """
        base, adapter = self.models.find(model)
        modes = self.models.modes
        name = the_mode(mode).name if mode else default.mode if default.mode in modes else modes[0]
        if name not in modes:
            raise bad(f"this service reads in the mode {' or '.join(modes)} only, got {name}", "mode")
        most = min(most or default.most, self.limits.output_tokens)  # the answer says that it was cut off ("length")
        return Wish(model or self.models.first, base, adapter, name, most, **more)

    def job(self, wish: Wish, prompt: str, pages: Sequence[Any]) -> Job:
        """Return the job of one prompt. Raises Refused for what is out of the limits."""
        if len(pages) > self.limits.pictures:
            raise too_large(f"{len(pages)} pages in one prompt; the limit is {self.limits.pictures}", "pages")
        if len(prompt) > self.limits.prompt_characters:
            raise too_large(f"the prompt has {len(prompt)} characters; the limit is {self.limits.prompt_characters}")
        return Job(wish, prompt, pages, time.monotonic() + self.limits.deadline_s)

    async def pages(self, wish: Wish, pictures: Sequence[Image.Image]) -> list[Any]:
        """Return pictures as the engine takes them."""

        def prepared() -> list[Any]:
            try:
                return [self.engine.page(picture, wish.mode) for picture in pictures]
            except ValueError as error:
                raise bad(str(error), "file") from None

        return await in_thread(prepared)

    async def answers(self, request: Request, jobs: Sequence[Job]) -> list[Answer]:
        """Run the jobs of a request and return their answers, in order. Stop them if the client goes away."""
        loop = asyncio.get_running_loop()
        futures = []
        for job in jobs:
            future: asyncio.Future[Answer] = loop.create_future()
            future.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody waits after the first
            job.on_end = into(loop, future)
            futures.append(future)
        try:
            for job in jobs:
                self.engine.submit(job)
            waiting: set[asyncio.Future[Answer]] = set(futures)
            while waiting:
                done, waiting = await asyncio.wait(waiting, timeout=WATCH_SECONDS)
                for future in done:
                    outcome(future.exception() or future.result())
                if waiting and await request.is_disconnected():
                    raise Refused(499, "closed", "the client went away")
        except BaseException:
            for job in jobs:
                job.stopped.set()
            raise
        found = [future.result() for future in futures]
        for answer in found:
            self.metrics.answer(answer)
        return found

    async def pieces(self, request: Request, job: Job) -> AsyncIterator[str | Answer]:
        """Yield the text of a job piece by piece, and then its answer. Stop the job if the client goes away."""
        loop = asyncio.get_running_loop()
        coming: asyncio.Queue[str | Answer | Exception] = asyncio.Queue()
        job.on_text = job.on_end = lambda item: loop.call_soon_threadsafe(coming.put_nowait, item)
        self.engine.submit(job)
        try:
            while True:
                item = outcome(await coming.get())
                yield item
                if isinstance(item, Answer):
                    self.metrics.answer(item)
                    return
        finally:
            job.stopped.set()  # also if the client closed the stream

    async def read(self, request: Request, wish: Wish, prompt: str, document: Document) -> list[Answer]:
        """Read each page of a document on its own."""
        pages = await self.pages(wish, document.pages)
        return await self.answers(request, [self.job(wish, prompt, [page]) for page in pages])

    async def about(self, request: Request, wish: Wish, document: Document, prompt: str) -> Answer:
        """Ask one question about a document: all of its pages are in one prompt."""
        words, pages = prompt.removeprefix(IMAGE_TAG), await self.pages(wish, document.pages)
        (answer,) = await self.answers(request, [self.job(wish, IMAGE_TAG * len(pages) + words, pages)])
        return answer

    async def rewrite(self, request: Request, wish: Wish, document: Document, prompt: str) -> Answer:
        """Read each page of a document, and let the second model write about the text of all of them.

        Raises Refused at the deadline, if the client goes away, or if too many texts wait.
        """
        from lightseek.text.post import Written, write

        until, stopped = time.monotonic() + self.limits.deadline_s, threading.Event()
        reading = replace(wish, schema=None, guard=None)
        answers = await self.read(request, reading, PROMPTS["ocr"], document)
        whole, words = "\n".join(answer.text for answer in answers), prompt.removeprefix(IMAGE_TAG).strip()
        if self.notes >= self.limits.queue:
            raise busy(1)
        began = time.monotonic()

        async def in_turn() -> tuple[float, Written]:
            async with self.writing:
                given = (self.writer, words, whole, wish.schema, wish.max_new_tokens, stopped.is_set)
                return time.monotonic() - began, await in_thread(lambda: write(*given))

        self.notes, task = self.notes + 1, asyncio.create_task(in_turn())
        try:
            while not (await asyncio.wait([task], timeout=WATCH_SECONDS))[0]:
                if time.monotonic() > until:
                    raise too_late(self.limits.deadline_s)
                if await request.is_disconnected():
                    raise Refused(499, "closed", "the client went away")
            waited, written = outcome(task.exception() or task.result())
        finally:
            self.notes -= 1
            stopped.set()  # ends a text with its next token
            task.cancel()
        seconds = {stage: sum(answer.seconds[stage] for answer in answers) for stage in answers[0].seconds}
        seconds |= {"waiting": seconds["waiting"] + waited, "post": time.monotonic() - began - waited}
        tokens, positions = (sum(getattr(a, name) for a in answers) for name in ("tokens", "prompt_tokens"))
        reason = "eos" if written.ended else "length"
        return Answer(written.text, tokens + written.tokens, positions, reason, seconds)

    def health(self) -> dict[str, Any]:
        return {
            "status": "stopping" if self.engine.closing else "ready",
            "model": self.models.first,
            "device": self.models.device,
            "modes": self.models.modes,
            "memory_bytes": process_memory(),
            "waiting": self.engine.count,
            "inspector": self.inspector,
        }


def outcome(item: Any) -> Any:
    """Return what the engine gave, or raise it if it is an error. A ValueError says what the client can put right."""
    if isinstance(item, ValueError):
        raise bad(str(item))
    if isinstance(item, BaseException):
        raise item
    return item


def into(loop: asyncio.AbstractEventLoop, future: "asyncio.Future[Answer]") -> Any:
    """Return a function that gives an outcome to a future from another thread."""

    def settle(outcome: Answer | Exception) -> None:
        if future.done():
            return
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    return lambda outcome: loop.call_soon_threadsafe(settle, outcome)


def the_mode(name: str) -> Mode:
    try:
        return find_mode(name)
    except ValueError as error:
        raise bad(str(error), "mode") from None


def the_schema(schema: str | dict[str, Any]) -> JsonSchema:
    """Return a JSON schema, given as a text or as an object. Raises Refused if it can't be used."""
    try:
        return JsonSchema.of(parse_json(schema, "") if isinstance(schema, str) else schema)
    except ValueError as error:
        raise bad(str(error), "schema") from None


async def in_thread(work: Any) -> Any:
    """Run work that would block the server's loop, such as decoding a picture, in a thread."""
    from starlette.concurrency import run_in_threadpool

    return await run_in_threadpool(work)
