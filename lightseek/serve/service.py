"""What the routes share: a request becomes prompts, the prompts go through the engine, and the answers come back."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import File, UploadFile
from starlette.requests import Request

from lightseek.page.modes import Mode, find_mode
from lightseek.page.views import PageViews, page_views
from lightseek.serve.documents import Document
from lightseek.serve.engine import Answer, Engine, Job
from lightseek.serve.errors import Refused, bad, too_large
from lightseek.serve.limits import Limits
from lightseek.serve.metrics import Metrics
from lightseek.serve.registry import Models
from lightseek.text.kinds import IMAGE_TAG
from lightseek.text.schema import JsonSchema
from lightseek.tools.memory import process_memory

Upload = Annotated[UploadFile, File(description="a picture, a PDF, or a text in UTF-8")]
OpenDocument = Callable[..., Awaitable[Document]]
WATCH_SECONDS = 0.2  # how often a running request looks whether its client is still there


@dataclass
class Wish:
    """How a client wants its text: the fields that all routes share."""

    model: str | None = None
    mode: str = "base"
    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    guard: str | None = None
    schema: JsonSchema | None = None


@dataclass
class Service:
    """The models, the engine and the figures of one server."""

    models: Models
    limits: Limits = field(default_factory=Limits)
    metrics: Metrics = field(default_factory=Metrics)
    inspector: bool = False  # whether it is mounted

    def __post_init__(self) -> None:
        self.engine = Engine(self.models, self.limits, self.metrics)

    def job(self, wish: Wish, prompt: str, views: Sequence[PageViews]) -> Job:
        """Return the job of one prompt. Raises Refused for what is out of the limits."""
        base, adapter = self.models.find(wish.model)
        if len(views) > self.limits.pictures:
            raise too_large(f"{len(views)} pages in one prompt; the limit is {self.limits.pictures}", "pages")
        if len(prompt) > self.limits.prompt_characters:
            raise too_large(f"the prompt has {len(prompt)} characters; the limit is {self.limits.prompt_characters}")
        if wish.max_new_tokens > self.limits.output_tokens:
            raise bad(f"at most {self.limits.output_tokens} tokens can be asked for, got {wish.max_new_tokens}")
        return Job(
            base,
            adapter,
            prompt,
            views,
            the_mode(wish.mode).name,
            wish.max_new_tokens,
            time.monotonic() + self.limits.deadline_s,
            wish.temperature,
            wish.top_p,
            wish.seed if wish.seed is not None else 0,
            guard=wish.guard,
            schema=wish.schema,
        )

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
        views = await in_thread(lambda: [the_views(page, wish.mode) for page in document.pages])
        return await self.answers(request, [self.job(wish, prompt, [view]) for view in views])

    async def about(self, request: Request, wish: Wish, document: Document, prompt: str) -> Answer:
        """Ask one question about a document: all of its pages are in one prompt."""
        words = prompt.removeprefix(IMAGE_TAG)
        views = await in_thread(lambda: [the_views(page, wish.mode) for page in document.pages])
        (answer,) = await self.answers(request, [self.job(wish, IMAGE_TAG * len(views) + words, views)])
        return answer

    def health(self) -> dict[str, Any]:
        first = self.models.entries[self.models.first].model
        return {
            "status": "stopping" if self.engine.closing else "ready",
            "model": self.models.first,
            "device": str(first.device) if first is not None else "not loaded",
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


def the_views(picture: Any, mode: str) -> PageViews:
    try:
        return page_views(picture, the_mode(mode))
    except ValueError as error:
        raise bad(str(error), "file") from None


async def in_thread(work: Any) -> Any:
    """Run work that would block the server's loop, such as decoding a picture, in a thread."""
    from starlette.concurrency import run_in_threadpool

    return await run_in_threadpool(work)
