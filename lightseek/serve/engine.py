"""Runs the prompts of all clients on one model, many at a time: a queue, one thread, and batches.

    client -> submit(job) -> queue -> the engine's thread: wait a moment for others -> batch -> tokens to each client

Prompts that may share a batch (the same model, adapter and way of decoding) run together. One that comes later joins
between two steps, when a row is free ("continuous batching", Yu et al. 2022). So a short text need not wait for the end
of a long one. Each gets the text that it would get alone. A client that goes away stops its row; the others go on.
"""

import math
import queue
import threading
import time
from collections.abc import Callable
from itertools import takewhile
from typing import Any

import torch
from PIL import Image

from lightseek.inspect.logits import confidence
from lightseek.inspect.reading import reread
from lightseek.model.ocr import DocumentModel
from lightseek.page.views import PageViews, page_views
from lightseek.serve.errors import Refused, busy, stopping, too_late
from lightseek.serve.jobs import Answer, Job, Seat, Wish
from lightseek.serve.limits import Limits
from lightseek.serve.registry import Models
from lightseek.text.decoding import Continuation
from lightseek.text.generate import as_stops, bind, evaluating, the_tokenizer
from lightseek.text.ngrams import find_guard
from lightseek.text.prompts import prepare
from lightseek.text.sampling import Sampler, Writer
from lightseek.tools.memory import release_memory

TIDY_SECONDS = 10  # batches differ in size, so glibc would keep more and more freed blocks that fit none
RECORDED = 2  # steps after a join; they belong to it, because a GPU records a graph in them (`text/cuda_graph.py`)
WRITING = 2  # times as long as a join took until the next one, so that the texts in work go on


class Engine:
    """The queue and the thread. `start` and `stop` may each be called once."""

    def __init__(self, models: Models, limits: Limits, metrics: Any = None) -> None:
        self.models, self.limits, self.metrics = models, limits, metrics
        self.waiting: queue.SimpleQueue[Job | Callable[[], None] | None] = queue.SimpleQueue()
        self.left_over: list[Job] = []  # jobs that no batch had a place for yet
        self.calls: list[Callable[[], None]] = []  # that came during a batch
        self.closing = False
        self.lock = threading.Lock()
        self.count = 0  # jobs that wait
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
                self._run(batch)
            self._tidy()
        while self._take(until=0.0):
            self._make_calls()
        for job in self.left_over:
            self._end(job, stopping())

    def _take(self, until: float | None = None) -> bool:
        """Move an item of the queue to `left_over` or `calls`. Returns whether one came before the time `until`."""
        try:
            item = self.waiting.get(timeout=None if until is None else max(0.0, until - time.monotonic()))
        except queue.Empty:
            return False
        if isinstance(item, Job):
            self.left_over.append(item)
        elif item is not None:
            self.calls.append(item)
        return True

    def _make_calls(self) -> None:
        while self.calls:
            self.calls.pop(0)()

    def _next_batch(self) -> list[Job] | None:
        """Return jobs that may run together, the one that waited longest among them. None ends the thread."""
        self._make_calls()
        while not self.left_over and not self.closing:
            self._take()
            self._make_calls()
        until = time.monotonic() + self.limits.wait_ms / 1000
        while not self.closing and sum(job.kind == self.left_over[0].kind for job in self.left_over) < self.limits.rows:
            if not self._take(until):
                break
            self._make_calls()
        if self.closing:
            return None
        return self._accept([job for job in self.left_over if job.kind == self.left_over[0].kind][: self.limits.rows])

    def _joining(self, writer: Writer, kind: tuple[Any, ...]) -> list[Job]:
        """Return waiting jobs that may join a batch of this kind: those that came before any job of another kind."""
        while self._take(until=0.0):
            pass
        if self.closing or self.calls or not writer.state.cache.joins:
            return []
        first = list(takewhile(lambda job: job.kind == kind, self.left_over))
        return self._accept(first[: max(0, self.limits.rows - writer.running)])

    def _accept(self, batch: list[Job]) -> list[Job]:
        """Take jobs out of `left_over`. Return those that somebody still waits for."""
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

    def _run(self, batch: list[Job], alone: bool = False) -> None:
        try:
            self._write(batch, alone)
        except Exception as error:  # one bad job must not end the thread; alone, the others may still succeed
            for job in batch:
                if job.ended:
                    continue
                if alone or len(batch) == 1 or job.sent:
                    self._end(job, error)
                else:
                    self._run([job], alone=True)

    def _write(self, batch: list[Job], alone: bool) -> None:
        """Run the jobs of a batch, and add those that join it, unless it must stay `alone`."""
        wish, kind = batch[0].wish, batch[0].kind
        model = self.models.use(wish.base, wish.adapter)
        guard = find_guard(wish.guard, the_tokenizer(model))
        rule = bind(wish.schema, model) if wish.schema else None
        with evaluating(model), torch.inference_mode():
            writer = Writer(Sampler(wish.temperature, wish.top_p), guard, as_stops(model, None), rule)
            began, steps, until = time.monotonic(), 0, math.inf
            seats = self._seat(model, writer, batch)
            while writer.running:
                for row, token in writer.step():
                    seats[row.number].push(token)
                for seat in seats.values():
                    self._look_after(seat)
                steps += 1
                if steps == RECORDED:
                    until = time.monotonic() + WRITING * (time.monotonic() - began)
                if alone or time.monotonic() < until:
                    continue
                if more := self._joining(writer, kind):
                    began, steps, until = time.monotonic(), 0, math.inf
                    batch[:] = [*(job for job in batch if not job.ended), *more]  # under load this may go on for days
                    seats = {number: seat for number, seat in seats.items() if not seat.job.ended}
                    seats |= self._seat(model, writer, more)
                self._tidy()

    def _tidy(self) -> None:
        if time.monotonic() - self.tidied > TIDY_SECONDS and not torch.cuda.is_available():
            release_memory()
            self.tidied = time.monotonic()

    def _seat(self, model: DocumentModel, writer: Writer, jobs: list[Job]) -> dict[int, Seat]:
        """Read the prompts of jobs and let their texts join the writer. Return their seats, by the numbers of the rows.

        A job whose prompt cannot be read ends here.
        """
        began, tokenizer = time.monotonic(), the_tokenizer(model)
        prompts, pages, modes = zip(*((job.prompt, list(job.pages), job.wish.mode) for job in jobs), strict=True)
        mosts = [job.wish.max_new_tokens for job in jobs]
        try:
            inputs = prepare(model.config, tokenizer, prompts, pages, list(modes))
            state = Continuation(model, inputs.input_ids, inputs.pages, inputs.mask, max(mosts))
        except Exception as error:
            if len(jobs) > 1:
                return {number: seat for job in jobs for number, seat in self._seat(model, writer, [job]).items()}
            self._end(jobs[0], error)
            return {}
        state.limits = [min(room, most) for room, most in zip(state.limits, mosts, strict=True)]
        rows = writer.join(state, jobs[0].wish.seed)
        if self.metrics:
            self.metrics.batch(writer.running)
        lengths = inputs.mask.sum(1).tolist()
        return {
            row.number: Seat(job, row, limit, tokenizer.stream(keep_special=True), length, began, state.timings)
            for job, row, limit, length in zip(jobs, rows, state.limits, lengths, strict=True)
        }

    def _look_after(self, seat: Seat) -> None:
        """End the job of a text that is finished, that comes too late, or that nobody waits for."""
        job, row = seat.job, seat.row
        if job.ended:
            return
        late = time.monotonic() > job.deadline
        if late or job.stopped.is_set():
            row.finish_reason = "stopped"
        if row.finish_reason != "length" or len(row.tokens) >= seat.limit:
            seat.say(seat.stream.flush())
            self._end(job, too_late(self.limits.deadline_s) if late else seat.answer())

    def _end(self, job: Job, outcome: "Answer | Exception") -> None:
        job.ended = True
        job.on_end(outcome)
