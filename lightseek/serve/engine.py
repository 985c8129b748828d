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
Finish = Literal["eos", "length", "stopped"]


@dataclass
class Answer:
    """What the model wrote for one job."""

    text: str
    ids: list[int]  # the tokens of the text
    prompt_tokens: int  # positions of the prompt, the pages included
    finish_reason: Finish
    seconds: dict[str, float]  # waiting, encode, prefill, decode

    @property
    def tokens(self) -> int:
        return len(self.ids)


@dataclass(eq=False)
class Job:
    """One prompt of one client."""

    base: str
    adapter: str | None
    prompt: str
    views: Sequence[PageViews]
    mode: str
    max_new_tokens: int
    deadline: float  # a time of `time.monotonic`
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    schema: JsonSchema | None = None  # the text is JSON of this schema
    guard: str | None = None  # a name of text/kinds.GUARDS or a number; None is the model's default
    on_text: Callable[[str], None] = lambda piece: None  # called from the engine's thread, with each piece of text
    on_end: Callable[["Answer | Exception"], None] = lambda outcome: None  # called once
    stopped: threading.Event = field(default_factory=threading.Event)  # set it when the client is gone
    sent: bool = False  # whether the client has a part of the text
    born: float = field(default_factory=time.monotonic)

    @property
    def kind(self) -> tuple[Any, ...]:
        """Jobs of one kind may share a batch. A sampled text draws with its own seed, so it runs alone."""
        alone = id(self) if self.temperature else None
        return self.base, self.adapter, self.guard, self.schema, alone


class Engine:
    """The queue and the thread. `start` and `stop` may each be called once."""

    def __init__(self, models: Models, limits: Limits, metrics: Any = None) -> None:
        self.models, self.limits, self.metrics = models, limits, metrics
        self.waiting: queue.SimpleQueue[Job | Callable[[], None] | None] = queue.SimpleQueue()
        self.left_over: list[Job] = []  # jobs of another kind than the last batch
        self.running: list[Job] = []
        self.closing = False
        self.lock = threading.Lock()
        self.count = 0  # jobs that wait
        self.tidied = time.monotonic()
        self.thread = threading.Thread(target=self._work, name="lightseek-engine", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def stop(self, timeout: int | float | None = None) -> None:
        """Finish what runs, refuse what waits, and end the thread."""
        self.closing = True
        self.waiting.put(None)
        self.thread.join(timeout)

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
        if self.closing:
            raise stopping()
        done: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                done.put((work(), None))
            except BaseException as error:
                done.put((None, error))

        self.waiting.put(run)
        value, error = done.get()
        if error is not None:
            raise error
        return value

    def confidence(
        self, name: str | None, picture: Any, mode: str, prompt: str, answer: Answer
    ) -> list[dict[str, Any]]:
        """Return the confidence of each token of an answer (`inspect/logits.py`)."""

        def look() -> list[dict]:
            model = self.models.use(*self.models.find(name))
            views = page_views(picture, mode)
            return confidence(reread(model, picture, views, mode, prompt, answer.ids, answer.finish_reason)).rows()

        return self.call(look) if answer.ids or answer.finish_reason == "eos" else []

    def _work(self) -> None:
        while True:
            batch = self._next_batch()
            if batch is None:
                break
            if batch:
                self._run(batch)
            if time.monotonic() - self.tidied > TIDY_SECONDS and not torch.cuda.is_available():
                release_memory()
                self.tidied = time.monotonic()
        for job in [*self.left_over, *self._drain()]:
            self._end(job, stopping())

    def _drain(self) -> list[Job]:
        found = []
        while True:
            try:
                job = self.waiting.get_nowait()
            except queue.Empty:
                return found
            if isinstance(job, Job):
                found.append(job)
            elif job is not None:
                job()

    def _next_batch(self) -> list[Job] | None:
        """Return jobs that may run together, the one that waited longest among them. None ends the thread."""
        if self.closing:
            return None
        while not self.left_over:
            job = self.waiting.get()
            if job is None:
                return None
            if isinstance(job, Job):
                self.left_over.append(job)
            else:
                job()
        until = time.monotonic() + self.limits.wait_ms / 1000
        kind = self.left_over[0].kind
        while sum(job.kind == kind for job in self.left_over) < self.limits.rows:
            try:
                job = self.waiting.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if job is None:
                return None
            if isinstance(job, Job):
                self.left_over.append(job)
            else:
                job()
        batch = [job for job in self.left_over if job.kind == kind][: self.limits.rows]
        self.left_over = [job for job in self.left_over if job not in batch]
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
        self.running = batch
        try:
            self._write(batch)
        except Exception as error:  # one bad job must not end the thread; alone, the others may still succeed
            for job in batch:
                if len(batch) == 1 or job.sent:
                    self._end(job, error)
                else:
                    self._run([job])
        finally:
            self.running = []

    def _write(self, batch: list[Job]) -> None:
        """Run the jobs of one batch. Tokens go to their clients as they come."""
        first, began = batch[0], time.monotonic()
        model = self.models.use(first.base, first.adapter)
        tokenizer, config = the_tokenizer(model), model.config
        prompts, pages, modes = zip(*((job.prompt, list(job.views), job.mode) for job in batch), strict=True)
        inputs = prepare(config, tokenizer, prompts, pages, list(modes))
        rows, streams = [Row([]) for _ in batch], [tokenizer.stream(keep_special=True) for _ in batch]
        texts: list[list[str]] = [[] for _ in batch]
        ended: set[int] = set()
        guard = find_guard(first.guard, tokenizer)
        rule = bind(first.schema, model) if first.schema else None
        sampler = Sampler(first.temperature, first.top_p)

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
            answer = Answer("".join(texts[row]), rows[row].tokens, prompt, rows[row].finish_reason, seconds)
            self._end(batch[row], too_late(self.limits.deadline_s) if row in late else answer)

        late: set[int] = set()
        with evaluating(model), torch.inference_mode():
            longest = max(job.max_new_tokens for job in batch)
            state = Continuation(model, inputs.input_ids, inputs.pages, inputs.mask, longest)
            state.limits = [min(most, job.max_new_tokens) for most, job in zip(state.limits, batch, strict=True)]
            for row, token in sample(state, sampler, guard, as_stops(model, None), first.seed, rows, rule):
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
