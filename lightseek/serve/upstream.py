"""Sends prompts to another server that speaks OpenAI's API, such as vLLM, in the place of the engine.

    serve --backend vllm http://localhost:8000      routes, page, limits and metrics are here; the model runs there

The pages go there as PNG. vLLM reads every page in the mode gundam.
"""

import asyncio
import base64
import threading
import time
from io import BytesIO
from typing import Any

import httpx
from PIL import Image

from lightseek.model.config import OCRConfig
from lightseek.page.pictures import upright_rgb
from lightseek.serve.errors import Refused, bad, busy, stopping, too_late
from lightseek.serve.jobs import Answer, Job
from lightseek.serve.limits import Limits
from lightseek.serve.registry import Entry, Models
from lightseek.text.kinds import IMAGE_TAG
from lightseek.tools.json_files import JsonError, check_fields, parse_json

WATCH_SECONDS = 0.2  # how often a running prompt looks whether its client is still there
REASONS = {"stop": "eos", "length": "length"}
GUARD = {"ngram_size": 30, "window_size": 90, "whitelist_token_ids": [128821, 128822]}  # of vLLM's recipe; <td>, </td>
PASSED_ON = (400, 404, 413, 422, 429, 503)  # about what a client can change, or may try again


class UpstreamModels(Models):
    """The models that the other server offers, asked for once."""

    modes = ("gundam",)
    bytes = 0
    device = "vllm"

    def __init__(self, url: str, key: str | None = None, config: OCRConfig | None = None) -> None:
        """Ask the server at `url` for its models. `config` has the sizes for the arithmetic (default: the official).

        Raises ValueError if the server does not answer as OpenAI's API does.
        """
        self.url = url.rstrip("/").removesuffix("/v1")
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.config = config or OCRConfig.preset("deepseek-ocr")
        try:
            answer = httpx.get(f"{self.url}/v1/models", headers=self.headers, timeout=30, trust_env=False)
            told = check_fields(parse_json(answer.content, ""), {"data": "a list of objects"})["data"]
            rows = [check_fields(row, {"id": "a text"}, {"parent": "a text"}) for row in told]
        except (httpx.HTTPError, httpx.InvalidURL, JsonError) as error:
            raise ValueError(f"{self.url} does not answer as a server of OpenAI's API does: {error}") from None
        self.adapters = {row["id"]: row["parent"] for row in rows if row.get("parent")}
        bases = [row["id"] for row in rows if not row.get("parent")]
        if not bases:
            raise ValueError(f"{self.url} offers no model")
        self.entries = {name: Entry(name, None) for name in bases}
        self.first, self.lock = bases[0], threading.Lock()

    def use_config(self, base: str) -> OCRConfig:
        return self.config

    def listing(self) -> list[dict[str, Any]]:
        names = [(name, None) for name in self.entries] + list(self.adapters.items())
        return [
            {"id": name, "kind": "adapter" if base else "base", "base": base, "loaded": True, "bytes": 0}
            for name, base in names
        ]


class Upstream:
    """Has the methods of `Engine`. Each prompt is a request to the other server, which makes the batches."""

    def __init__(self, models: UpstreamModels, limits: Limits, metrics: Any = None) -> None:
        self.models, self.limits = models, limits
        self.closing = False
        self.count = 0  # jobs that wait
        self.lock = threading.Lock()
        self.places, self.running = asyncio.Semaphore(limits.rows), set[Job]()
        self.loop, self.end = asyncio.new_event_loop(), asyncio.Event()
        self.thread = threading.Thread(
            target=lambda: self.loop.run_until_complete(self._work()), name="lightseek-upstream", daemon=True
        )

    def start(self) -> None:
        self.thread.start()

    def load(self) -> None:
        """Do nothing: the other server has loaded its models."""

    def stop(self, timeout: int | float | None = None) -> None:
        """Finish what runs, refuse what waits, and end the thread."""
        with self.lock:
            self.closing = True
        self.loop.call_soon_threadsafe(self.end.set)
        self.thread.join(timeout)

    def page(self, picture: Image.Image, mode: str) -> str:
        """Return a page as a data URI."""
        file = BytesIO()
        upright_rgb(picture).save(file, "PNG", compress_level=1)
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()

    def submit(self, job: Job) -> None:
        """Send a job to the other server, or let it wait. Raises Refused if the queue is full or the service stops."""
        with self.lock:
            if self.closing:
                raise stopping()
            if self.count >= self.limits.queue:
                raise busy(1)
            self.count += 1
            asyncio.run_coroutine_threadsafe(self._run(job), self.loop)

    def confidence(self, *_: Any) -> list[dict[str, Any]]:
        raise bad("the server behind this one does not tell how sure it was", "confidence")

    async def _work(self) -> None:
        async with httpx.AsyncClient(headers=self.models.headers, timeout=None, trust_env=False) as self.http:
            await self.end.wait()
            while jobs := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(jobs)

    async def _run(self, job: Job) -> None:
        """Ask, and look in between whether to give up."""
        asking, outcome = asyncio.create_task(self._ask(job)), None
        while outcome is None:
            await asyncio.wait([asking], timeout=WATCH_SECONDS)
            outcome = (asking.exception() or asking.result()) if asking.done() else self._reason_to_give_up(job)
        asking.cancel()
        job.on_end(outcome)

    def _reason_to_give_up(self, job: Job) -> Refused | None:
        if job.stopped.is_set():
            return Refused(499, "closed", "the client went away")
        if time.monotonic() > job.deadline:
            return too_late(self.limits.deadline_s)
        return stopping() if self.closing and job not in self.running else None

    async def _ask(self, job: Job) -> Answer:
        """Wait for a place, send the prompt, pass on its text, and return the whole answer."""
        try:
            await self.places.acquire()
        finally:
            with self.lock:
                self.count -= 1
        self.running.add(job)
        try:
            return await self._answer(job)
        except httpx.HTTPError as error:
            raise failed(f"does not answer ({type(error).__name__})") from None
        except (JsonError, LookupError, TypeError, AttributeError) as error:
            raise failed(f"does not answer as OpenAI's API does ({error!s:.100})") from None
        finally:
            self.running.discard(job)
            self.places.release()

    async def _answer(self, job: Job) -> Answer:
        began = first = time.monotonic()
        text, reason, usage = "", "length", {"prompt_tokens": 0, "completion_tokens": 0}
        where = f"{self.models.url}/v1/chat/completions"
        async with self.http.stream("POST", where, json=request_of(job)) as answer:
            if answer.status_code != 200:
                raise refusal(answer.status_code, await answer.aread(), answer.headers.get("retry-after", ""))
            async for line in answer.aiter_lines():
                if not line.startswith("data:") or line.endswith("[DONE]"):
                    continue
                event = parse_json(line[5:], "")
                if told := event.get("error"):
                    raise failed(f"says: {told['message']!s:.300}")
                usage = event.get("usage") or usage
                for choice in event["choices"]:
                    reason = choice.get("finish_reason") or reason
                    if piece := choice["delta"].get("content"):
                        first = first if text else time.monotonic()
                        text += piece
                        job.on_text(piece)
        seconds = {"waiting": began - job.born, "prefill": first - began, "decode": time.monotonic() - first}
        end = REASONS.get(reason, "stopped")
        return Answer(text, usage["completion_tokens"], usage["prompt_tokens"], end, seconds)


def request_of(job: Job) -> dict[str, Any]:
    """Return the body of a request for OpenAI's chat completions. vLLM puts the pages in front of the words."""
    wish, words = job.wish, job.prompt.removeprefix(IMAGE_TAG * len(job.pages)).strip()
    if IMAGE_TAG in words:
        raise bad(f"the pages come first, so {IMAGE_TAG} can only begin the prompt", "prompt")
    content: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": page}} for page in job.pages]
    body = {
        "model": wish.model,
        "messages": [{"role": "user", "content": [*content, {"type": "text", "text": words}]}],
        "max_tokens": wish.max_new_tokens,
        "temperature": wish.temperature,
        "top_p": wish.top_p,
        "seed": wish.seed,
        "stream": True,
        "stream_options": {"include_usage": True},
        "mode": wish.mode,  # for a LightSeek server; vLLM ignores it
        "skip_special_tokens": False,  # grounding output consists of special tokens
    }
    if wish.guard is None:
        body["vllm_xargs"] = GUARD
    if wish.schema is not None:
        wanted = {"name": "answer", "schema": parse_json(wish.schema.source, "the schema")}
        body["response_format"] = {"type": "json_schema", "json_schema": wanted}
    return body


def failed(what: str) -> Refused:
    return Refused(502, "backend", f"the server behind this one {what}")


def refusal(status: int, body: bytes, retry_after: str) -> Refused:
    """Return the error of an answer that is no success."""
    try:
        message = parse_json(body, "")["error"]["message"]
    except (JsonError, LookupError, TypeError):
        message = body.decode("utf-8", "replace")
    error = failed(f"says: {message!s:.300}")
    if status in PASSED_ON:
        error.status, error.retry_after = status, int(retry_after) if retry_after.isdecimal() else None
    return error
