"""The service over HTTP: FastAPI with the routes of `docs/serving.md`.

POST /ocr  /summarize/text  /summarize/file  /summarize/image  /extract  /compare
POST /v1/chat/completions   GET /v1/models              as OpenAI's clients expect them (openai_api.py)
POST /pages   GET /  /prompts                           the page for people (web_page.py)
GET  /health  /models  /limits  /metrics
"""

import difflib
import hmac
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Form, Header, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lightseek import __version__
from lightseek.page.grounding import as_rows, find_regions
from lightseek.serve import openai_api, web_page
from lightseek.serve.documents import Document, open_document
from lightseek.serve.errors import Refused, bad, too_large
from lightseek.serve.jobs import Answer, Wish
from lightseek.serve.schemas import (
    MANY,
    MODE,
    MODEL,
    MOST,
    Comparison,
    Extraction,
    Fault,
    Health,
    ModelRow,
    Reading,
    Summary,
    TextRequest,
)
from lightseek.serve.service import DEFAULT, Default, Service, Upload, in_thread, the_schema
from lightseek.text.kinds import IMAGE_TAG, PROMPTS
from lightseek.tools.json_files import parse_json

LOG = logging.getLogger("lightseek.serve")
FAULTS: dict[int | str, dict[str, Any]] = {
    code: {"model": Fault, "description": about}
    for code, about in {
        400: "the request was wrong",
        401: "the API key is missing or wrong",
        404: "no such model",
        413: "more than a limit allows",
        422: "a field is missing or has a wrong type, or JSON was cut by its limit",
        429: "too many requests wait: see Retry-After",
        502: "the server behind this one does not answer (with --backend)",
        503: "the service is stopping: see Retry-After",
        504: "the deadline passed",
    }.items()
}
SCHEMA_CHARACTERS = 100_000
SUMMARY = Default(mode="small")
PROMPT = f"{PROMPTS.choices}, or words of your own"
BY = "who writes: the decoder, with all pages in one prompt, or the second model of --post, from the text of each page"


def create_app(service: Service, api_key: str | None = None) -> FastAPI:
    """Return the application. With an `api_key`, all routes but /, /health and /openapi.json ask for it."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        service.engine.start()
        await in_thread(service.engine.load)  # ready means loaded
        yield
        await in_thread(service.engine.stop)

    def allowed(authorization: Annotated[str | None, Header()] = None) -> None:
        given = (authorization or "").removeprefix("Bearer ")
        if api_key is not None and not hmac.compare_digest(given.encode(), api_key.encode()):
            raise Refused(401, "unauthorized", "the API key is missing or wrong: send Authorization: Bearer KEY")

    app = FastAPI(
        title="LightSeek",
        version=__version__,
        summary="Read and summarize documents with DeepSeek-OCR, through few vision tokens.",
        lifespan=life,
        responses=FAULTS,
        docs_url=None,  # its page would load scripts from other machines; /openapi.json has everything
        redoc_url=None,
    )
    app.add_middleware(Guard, service=service)
    app.exception_handler(Refused)(refused)
    app.exception_handler(RequestValidationError)(invalid)
    app.exception_handler(HTTPException)(plain)
    keyed = [Depends(allowed)]

    @app.get("/health", tags=["service"])
    def health() -> Health:
        """Say whether the service is ready, with which model and how much memory."""
        return Health(**service.health())

    @app.get("/models", tags=["service"], dependencies=keyed)
    def models() -> list[ModelRow]:
        """List the base models and the adapters, with their sizes, and whether they are loaded."""
        return [ModelRow(**row) for row in service.models.listing()]

    @app.get("/limits", tags=["service"], dependencies=keyed)
    def limits() -> dict[str, int | float]:
        """Tell the limits of this service."""
        return dict(vars(service.limits))

    @app.get("/metrics", tags=["service"], dependencies=keyed, response_class=Response)
    def metrics() -> Response:
        """Tell the figures of the service in the format of Prometheus."""
        service.metrics.queue.set(service.engine.count)
        service.metrics.memory.labels("process").set(service.health()["memory_bytes"])
        service.metrics.memory.labels("weights").set(service.models.bytes)
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    async def opened(file: UploadFile, wish: Wish, first: int = 1, last: int | None = None, **options: Any) -> Document:
        data, config = await file.read(), service.models.use_config(wish.base)
        options["markdown"] = (file.filename or "").lower().endswith((".md", ".markdown"))
        return await in_thread(
            lambda: open_document(data, service.limits, wish.mode, config, first=first, last=last, **options)
        )

    @app.post("/ocr", tags=["read"], dependencies=keyed)
    async def ocr(
        request: Request,
        file: Upload,
        wish: Annotated[Wish, asked(service)],
        prompt: Annotated[str, Form(description=PROMPT)] = "ocr",
        first_page: Annotated[int, Form(ge=1, le=MANY)] = 1,
        last_page: Annotated[int | None, Form(ge=1, le=MANY)] = None,
        password: Annotated[str | None, Form(max_length=1000, description="of an encrypted PDF")] = None,
        confidence: Annotated[bool, Form(description="tell how sure the model was of each token")] = False,
    ) -> Reading:
        """Read the pages of a picture, a PDF or a text."""
        document = await opened(file, wish, first_page, last_page, password=password)
        words = full_prompt(prompt)
        answers = await service.read(request, wish, words, document)
        reading = as_reading(wish, document, answers)
        if confidence:
            await in_thread(lambda: add_confidence(service, wish, words, document, answers, reading))
        return Reading(**reading)

    @app.post("/summarize/text", tags=["summarize"], dependencies=keyed)
    async def summarize_text(request: Request, body: TextRequest) -> Summary:
        """Draw a text on pages and summarize it."""
        wish = service.wish(body.model, body.mode, body.max_length, SUMMARY, temperature=body.temperature)
        config, data = service.models.use_config(wish.base), body.text.encode("utf-8", "replace")
        document = await in_thread(
            lambda: open_document(data, service.limits, wish.mode, config, markdown=body.markdown)
        )
        return await summary_of(request, wish, document)

    async def summary_of(request: Request, wish: Wish, document: Document) -> Summary:
        answer = await service.about(request, wish, document, PROMPTS["summarize"])
        return Summary(summary=answer.text, finish_reason=answer.finish_reason, **about(wish, document, answer))

    def add_summary(name: str, about: str, kinds: tuple[str, ...]) -> None:
        @app.post(f"/summarize/{name}", tags=["summarize"], dependencies=keyed, description=about)
        async def summarize(request: Request, file: Upload, wish: Annotated[Wish, asked(service, SUMMARY)]) -> Summary:
            document = await opened(file, wish)
            if document.kind not in kinds:
                raise bad(f"this route takes a {' or a '.join(kinds)}, and this is a {document.kind}", "file")
            return await summary_of(request, wish, document)

    add_summary("file", "Summarize a text, a Markdown file or a PDF.", ("text", "pdf"))
    add_summary("image", "Summarize a page that is a picture.", ("picture",))

    @app.post("/extract", tags=["extract"], dependencies=keyed)
    async def extract(
        request: Request,
        file: Upload,
        schema_text: Annotated[str, Form(alias="schema", description="a JSON schema", max_length=SCHEMA_CHARACTERS)],
        wish: Annotated[Wish, asked(service, Default(most=1024))],
        prompt: Annotated[str, Form(description=PROMPT)] = "extract",
        by: Annotated[Literal["decoder", "post"], Form(description=BY)] = "decoder",
    ) -> Extraction:
        """Answer with JSON that satisfies a schema."""
        if by == "post" and service.writer is None:
            raise bad("this service has no second model: start it with --post hf:ID", "by")
        wish = replace(wish, guard="none", schema=await in_thread(lambda: the_schema(schema_text)))
        document, words = await opened(file, wish), full_prompt(prompt)
        if not words.startswith(IMAGE_TAG):
            raise bad(f"the pages come first, so {IMAGE_TAG} can only begin the prompt", "prompt")
        answer = await (service.rewrite if by == "post" else service.about)(request, wish, document, words)
        if answer.finish_reason != "eos":
            cut = f"the JSON was not complete after {answer.tokens} tokens: raise max_length, or bound the schema"
            raise Refused(422, "cut", f"{cut} (maxLength, maxItems, maximum)", "max_length")
        try:
            value = parse_json(answer.text, "the answer")
        except ValueError as error:  # a number with hundreds of digits satisfies many schemas
            raise Refused(422, "unreadable", str(error)) from None
        return Extraction(value=value, text=answer.text, **about(wish, document, answer))

    @app.post("/compare", tags=["read"], dependencies=keyed)
    async def compare(
        request: Request,
        file: Upload,
        first: Annotated[str, Form(description="a model or an adapter")],
        second: Annotated[str, Form(description="another one")],
        mode: Annotated[str | None, Form(description=f"{MODE}; the default is base")] = None,
        prompt: Annotated[str, Form(description=PROMPT)] = "ocr",
        first_page: Annotated[int, Form(ge=1, le=MANY)] = 1,
        last_page: Annotated[int | None, Form(ge=1, le=MANY)] = None,
        max_length: Annotated[int | None, Form(ge=1, le=MANY, description=MOST.format(512))] = None,
    ) -> Comparison:
        """Read one document with two models or adapters, and mark where their texts differ."""
        readings = []
        for wish in [service.wish(name, mode, max_length) for name in (first, second)]:
            document = await opened(file, wish, first_page, last_page)
            await file.seek(0)
            answers = await service.read(request, wish, full_prompt(prompt), document)
            readings.append(as_reading(wish, document, answers))
        parts = differences(readings[0]["text"], readings[1]["text"])
        return Comparison(first=Reading(**readings[0]), second=Reading(**readings[1]), differences=parts)

    openai_api.add_routes(app, service, keyed)
    web_page.add_routes(app, service, keyed, opened)
    return app


def full_prompt(prompt: str) -> str:
    """Return the prompt with this name, or the client's own words behind the page."""
    words = PROMPTS.get(prompt, prompt)
    if words.count(IMAGE_TAG) > 1:
        raise bad(f"{IMAGE_TAG} stands for the page, so it may come only once", "prompt")
    return words if IMAGE_TAG in words else f"{IMAGE_TAG}\n{words}"


def asked(service: Service, default: Default = DEFAULT) -> Any:
    """Return the dependency that reads and checks the fields which all forms share."""

    async def read(
        mode: Annotated[str | None, Form(description=f"{MODE}; the default is {default.mode}")] = None,
        model: Annotated[str | None, Form(description=MODEL)] = None,
        max_length: Annotated[int | None, Form(ge=1, le=MANY, description=MOST.format(default.most))] = None,
    ) -> Wish:
        return service.wish(model, mode, max_length, default)

    return Depends(read)


def about(wish: Wish, document: Document, answer: Answer) -> dict[str, Any]:
    """Return what is told of an answer about all pages of a document."""
    return {
        "model": wish.model,
        "mode": wish.mode,
        "pages": len(document.pages),
        "usage": usage([answer]),
        "seconds": answer.seconds,
    }


def usage(answers: list[Answer]) -> dict[str, int]:
    prompt, written = sum(a.prompt_tokens for a in answers), sum(a.tokens for a in answers)
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def as_reading(wish: Wish, document: Document, answers: list[Answer]) -> dict[str, Any]:
    pages = [
        {
            "page": number,
            "text": answer.text,
            "tokens": answer.tokens,
            "finish_reason": answer.finish_reason,
            "regions": as_rows(find_regions(answer.text)[1], picture.size),
        }
        for number, picture, answer in zip(document.numbers, document.pages, answers, strict=True)
    ]
    seconds = {stage: sum(answer.seconds[stage] for answer in answers) for stage in answers[0].seconds}
    return {
        "model": wish.model,
        "mode": wish.mode,
        "text": "\n".join(answer.text for answer in answers),
        "pages": pages,
        "usage": usage(answers),
        "seconds": seconds,
    }


def add_confidence(
    service: Service, wish: Wish, prompt: str, document: Document, answers: list[Answer], reading: dict[str, Any]
) -> None:
    """Add the probability, the entropy and the candidates of each token to the pages of a reading."""
    for picture, answer, page in zip(document.pages, answers, reading["pages"], strict=True):
        page["confidence"] = service.engine.confidence(wish, picture, prompt, answer)


def differences(first: str, second: str) -> list[dict[str, str]]:
    """Return two texts as parts that are the same and parts that differ, word by word."""
    a, b = first.split(" "), second.split(" ")
    parts = []
    for kind, i, i2, j, j2 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if kind == "equal":
            parts.append({"same": " ".join(a[i:i2])})
        else:
            parts.append({"first": " ".join(a[i:i2]), "second": " ".join(b[j:j2])})
    return parts


async def refused(request: Request, error: Refused) -> JSONResponse:
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    request.scope["lightseek_error"] = error.kind
    return JSONResponse(error.body(), error.status, headers)


async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])
    fault = Refused(422, "invalid_request", f"{where}: {first['msg']}", where or None)
    return await refused(request, fault)


async def plain(request: Request, error: HTTPException) -> JSONResponse:
    if isinstance(error.__cause__, Refused):  # such as a body over the limit, found while its form was read
        return await refused(request, error.__cause__)
    kinds = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
    kind = kinds.get(error.status_code, "invalid_request")
    return await refused(request, Refused(error.status_code, kind, str(error.detail)))


class Guard:
    """Around every request: the limit on its body, an id, a line in the log, the figures, and no traceback outside.

    The log has the id, the route, the status and the time, and nothing of what was sent or answered.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, given = time.monotonic(), dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        number = given if 0 < len(given) <= 64 and given.isascii() and given.isprintable() else uuid.uuid4().hex
        status, started, most = [500], [False], self.service.limits.body_mb * 2**20
        received = [0]

        async def counted() -> Message:
            message = await receive()
            received[0] += len(message.get("body", b""))
            if received[0] > most:
                raise too_large(f"the body of a request may have {self.service.limits.body_mb} MB")
            return message

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0], started[0] = message["status"], True
                message["headers"] = [*message["headers"], (b"x-request-id", number.encode())]
            await send(message)

        try:
            length = dict(scope["headers"]).get(b"content-length", b"0")
            if length.isdigit() and int(length) > most:
                raise too_large(f"the body of a request may have {self.service.limits.body_mb} MB")
            await self.app(scope, counted, marked)
        except Refused as error:
            if not started[0]:
                await JSONResponse(error.body(), error.status)(scope, receive, marked)
            scope["lightseek_error"] = error.kind
        except Exception:
            LOG.exception("request %s failed", number)
            scope["lightseek_error"] = "internal"
            if not started[0]:
                fault = Refused(500, "internal", f"something went wrong here: request {number} is in the log")
                await JSONResponse(fault.body(), 500)(scope, receive, marked)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            seconds = time.monotonic() - began
            self.service.metrics.requests.labels(route, str(status[0])).inc()
            self.service.metrics.took.labels(route).observe(seconds)
            if kind := scope.get("lightseek_error"):
                self.service.metrics.errors.labels(kind).inc()
            told = {"id": number, "route": route, "status": status[0], "seconds": round(seconds, 4)}
            LOG.info(json.dumps(told | ({"error": kind} if kind else {})))
