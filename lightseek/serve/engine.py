"""Runs the prompts of all clients on one model, many at a time: a queue, one thread, and batches.

    client -> submit(job) -> queue -> the engine's thread: wait a moment for others -> batch -> tokens to each client

Prompts that wait together and may share a batch (the same model, adapter and way of decoding) run together. Each gets
the text that it would get alone. A client that goes away stops its row; the others go on.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from PIL import Image

from lightseek.inspect.logits import confidence
from lightseek.inspect.reading import reread
from lightseek.page.views import PageViews, page_views
from lightseek.serve.errors import Refused, busy, stopping, too_late
from lightseek.serve.limits import Limits
from lightseek.serve.registry import Models
from lightseek.text.decoding import Continuation
from lightseek.text.generate import as_stops, bind, evaluating, the_tokenizer
from lightseek.text.ngrams import find_guard
from lightseek.text.prompts import prepare
from lightseek.text.sampling import Row, Sampler, sample
from lightseek.text.schema import JsonSchema
from lightseek.tools.memory import release_memory

TIDY_SECONDS = 10  # batches differ in size, so glibc would keep more and more freed blocks that fit none
PATIENCE = 0.15  # of the time that the last batch took: how long to wait for as many prompts as it had
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
    born: float = field(default_factory=time.monotonic)

    @property
    def kind(self) -> tuple[Any, ...]:
        """Jobs of one kind may share a batch. A sampled text draws with its own seed, so it runs alone."""
        wish = self.wish
        return wish.base, wish.adapter, wish.guard, wish.schema, id(self) if wish.temperature else None


class Engine:
    """The queue and the thread. `start` and `stop` may each be called once."""

    def __init__(self, models: Models, limits: Limits, metrics: Any = None) -> None:
        self.models, self.limits, self.metrics = models, limits, metrics
        self.waiting: queue.SimpleQueue[Job | Callable[[], None] | None] = queue.SimpleQueue()
        self.left_over: list[Job] = []  # jobs of another kind than the last batch
        self.closing = False
        self.lock = threading.Lock()
        self.count = 0  # jobs that wait
        self.together, self.took = 1, 0.0  # jobs of the last batch, and its seconds
        self.tidied = time.monotonic()
        self.thread = threading.Thread(target=self._work, name="lightseek-engine", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def load(self) -> None:
        """Load the first model, so that the first request need not wait for it."""
        self.call(lambda: self.models.use(self.models.first, None))

    def stop(self, timeout: int | float | None = None) -> None:
        """Finish what runs, refuse what waits, and end the thread."""
        with self.lock:
            self.closing = True
            self.waiting.put(None)
        self.thread.join(timeout)

    def page(self, picture: Image.Image, mode: str) -> PageViews:
        """Return a page as `Job.pages` has it. Raises ValueError for a picture that is too thin."""
        return page_views(picture, mode)

    def submit(self, job: Job) -> None:
        """Put a job into the queue. Raises Refused if the queue is full or the service is stopping."""
        with self.lock:
            if self.closing:
                raise stopping()
            if self.count >= self.limits.queue:
                raise busy(max(1, round(self.limits.wait_ms / 1000)))
            self.count += 1
            self.waiting.put(job)

    def call(self, work: Callable[[], Any]) -> Any:
        """Run `work` in the engine's thread, between two batches, and return what it returns.

        Whatever touches a model outside a batch must go this way, because the thread switches adapters.
        Raises Refused if the service is stopping.
        """
        done: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                done.put((work(), None))
            except BaseException as error:
                done.put((None, error))

        with self.lock:  # after `stop` nobody would run it
            if self.closing:
                raise stopping()
            self.waiting.put(run)
        value, error = done.get()
        if error is not None:
            raise error
        return value

    def confidence(self, wish: Wish, picture: Image.Image, prompt: str, answer: Answer) -> list[dict[str, Any]]:
        """Return the confidence of each token of an answer (`inspect/logits.py`)."""

        def look() -> list[dict]:
            model = self.models.use(wish.base, wish.adapter)
            views = page_views(picture, wish.mode)
            again = reread(model, picture, views, wish.mode, prompt, answer.ids, answer.finish_reason)
            return confidence(again).rows()

        return self.call(look) if answer.ids or answer.finish_reason == "eos" else []

    def _work(self) -> None:
        while True:
            batch = self._next_batch()
            if batch is None:
                break
            if batch:
                began = time.monotonic()
                self._run(batch)
                self.took = time.monotonic() - began
            if time.monotonic() - self.tidied > TIDY_SECONDS and not torch.cuda.is_available():
                release_memory()
                self.tidied = time.monotonic()
        while self._take(until=0.0):
            pass
        for job in self.left_over:
            self._end(job, stopping())

    def _take(self, until: float | None = None) -> bool:
        """Take one item of the queue: keep a job, run a call. Returns whether there was one before the time `until`."""
        try:
            item = self.waiting.get(timeout=None if until is None else max(0.0, until - time.monotonic()))
        except queue.Empty:
            return False
        if isinstance(item, Job):
            self.left_over.append(item)
        elif item is not None:
            item()
        return True

    def _next_batch(self) -> list[Job] | None:
        """Return jobs that may run together, the one that waited longest among them. None ends the thread."""
        while not self.left_over and not self.closing:
            self._take()
        if self.closing:
            return None
        began, wait, kind = time.monotonic(), self.limits.wait_ms / 1000, self.left_over[0].kind
        while (count := sum(job.kind == kind for job in self.left_over)) < self.limits.rows:
            # The clients of the last batch often come back at once, and their pages must be decoded first.
            if not self._take(began + (wait if count >= self.together else max(wait, PATIENCE * self.took))):
                break
            if self.closing:
                return None
        batch = [job for job in self.left_over if job.kind == kind][: self.limits.rows]
        self.left_over = [job for job in self.left_over if job not in batch]
        self.together = len(batch)
        with self.lock:
            self.count -= len(batch)
        now = time.monotonic()
        ready = []
        for job in batch:
            if job.stopped.is_set():
                self._end(job, Refused(499, "closed", "the client went away"))
            elif now > job.deadline:
                self._end(job, too_late(self.limits.deadline_s))
            else:
                ready.append(job)
        return ready

    def _run(self, batch: list[Job]) -> None:
        try:
            self._write(batch)
        except Exception as error:  # one bad job must not end the thread; alone, the others may still succeed
            for job in batch:
                if len(batch) == 1 or job.sent:
                    self._end(job, error)
                else:
                    self._run([job])

    def _write(self, batch: list[Job]) -> None:
        """Run the jobs of one batch. Tokens go to their clients as they come."""
        wish, began = batch[0].wish, time.monotonic()
        model = self.models.use(wish.base, wish.adapter)
        tokenizer, config = the_tokenizer(model), model.config
        prompts, pages, modes = zip(*((job.prompt, list(job.pages), job.wish.mode) for job in batch), strict=True)
        inputs = prepare(config, tokenizer, prompts, pages, list(modes))
        rows, streams = [Row([]) for _ in batch], [tokenizer.stream(keep_special=True) for _ in batch]
        texts: list[list[str]] = [[] for _ in batch]
        ended: set[int] = set()
        guard = find_guard(wish.guard, tokenizer)
        rule = bind(wish.schema, model) if wish.schema else None
        sampler = Sampler(wish.temperature, wish.top_p)

        def push(row: int, piece: str) -> None:
            if piece:
                texts[row].append(piece)
                batch[row].sent = True
                batch[row].on_text(piece)

        def end(row: int) -> None:
            if row in ended:
                return
            ended.add(row)
            push(row, streams[row].flush())
            now = time.monotonic()
            timings = state.timings
            seconds = {"waiting": began - batch[row].born, "encode": timings.encode, "prefill": timings.prefill}
            seconds["decode"] = max(0.0, now - began - timings.encode - timings.prefill)
            prompt = int(inputs.mask[row].sum())
            ids, reason = rows[row].tokens, rows[row].finish_reason
            answer = Answer("".join(texts[row]), len(ids), prompt, reason, seconds, ids)
            self._end(batch[row], too_late(self.limits.deadline_s) if row in late else answer)

        late: set[int] = set()
        with evaluating(model), torch.inference_mode():
            mosts = [job.wish.max_new_tokens for job in batch]
            state = Continuation(model, inputs.input_ids, inputs.pages, inputs.mask, max(mosts))
            state.limits = [min(room, most) for room, most in zip(state.limits, mosts, strict=True)]
            for row, token in sample(state, sampler, guard, as_stops(model, None), wish.seed, rows, rule):
                push(row, streams[row].push(token))
                for other, job in enumerate(batch):
                    if other not in ended and time.monotonic() > job.deadline:
                        late.add(other)
                        job.stopped.set()
                    if other not in ended and (job.stopped.is_set() or rows[other].finish_reason == "eos"):
                        if job.stopped.is_set():
                            rows[other].finish_reason = "stopped"
                        end(other)
                if len(rows[row].tokens) >= state.limits[row]:
                    end(row)
        for row in range(len(batch)):
            end(row)
        if self.metrics:
            self.metrics.batch(len(batch), state.timings)

    def _end(self, job: Job, outcome: "Answer | Exception") -> None:
        job.on_end(outcome)
