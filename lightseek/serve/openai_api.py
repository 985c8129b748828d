"""OpenAI's chat completions, so that the clients that people have already can be used.

The pictures of the conversation become the pages of the prompt, in order, and its texts become the words behind them.
The model has no chat template: it reads pages and follows a short instruction, such as "Free OCR.".
"""

import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from PIL import Image

from lightseek.page.grounding import as_rows, find_regions, without_tags
from lightseek.serve.documents import data_uri, open_document
from lightseek.serve.errors import Refused, bad
from lightseek.serve.jobs import Answer
from lightseek.serve.schemas import ChatRequest
from lightseek.serve.service import Service, in_thread, the_schema
from lightseek.text.kinds import IMAGE_TAG

REASONS = {"eos": "stop", "length": "length", "stopped": "stop"}


def add_routes(app: FastAPI, service: Service, keyed: Sequence[Any]) -> None:
    """Add GET /v1/models and POST /v1/chat/completions."""

    @app.get("/v1/models", tags=["openai"], dependencies=keyed)
    def list_models() -> dict[str, Any]:
        """List the models and adapters as OpenAI's API does."""
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "lightseek"} for name in service.models.names]
        return {"object": "list", "data": data}

    @app.post("/v1/chat/completions", tags=["openai"], dependencies=keyed)
    async def chat(request: Request, body: ChatRequest) -> Any:
        """Answer a conversation with pictures. With `stream`, the answer comes as server-sent events."""
        most = body.max_completion_tokens or body.max_tokens
        wish = service.wish(
            body.model, body.mode, most, temperature=body.temperature, top_p=body.top_p, seed=body.seed or 0
        )
        if schema := wanted_schema(body):
            wish = replace(wish, schema=await in_thread(lambda: the_schema(schema)), guard="none")
        words, pictures = split(body)
        config = service.models.use_config(wish.base)

        def drawn() -> list[Image.Image]:
            documents = [open_document(data, service.limits, wish.mode, config) for data in pictures]
            return [page for document in documents for page in document.pages]

        pages = await in_thread(drawn)
        prompt = IMAGE_TAG * len(pages) + ("\n" if pages else "") + words
        job = service.job(wish, prompt, await service.pages(wish, pages))
        if body.confidence and len(pages) != 1:
            raise bad("the confidence is told for one page, not for several or none", "confidence")

        def details(answer: Answer) -> dict[str, Any]:
            if not body.details and not body.confidence:
                return {}
            regions = as_rows(find_regions(answer.text)[1], pages[0].size) if len(pages) == 1 else []
            told = {"seconds": answer.seconds, "regions": regions, "markdown": without_tags(answer.text)}
            if body.confidence:
                told["confidence"] = service.engine.confidence(wish, pages[0], prompt, answer)
            return {"lightseek": told}

        name, number = wish.model, f"chatcmpl-{uuid.uuid4().hex}"
        if not body.stream:
            (answer,) = await service.answers(request, [job])
            return JSONResponse(completion(number, name, answer) | await in_thread(lambda: details(answer)))
        pieces = service.pieces(request, job)
        first = await anext(pieces)  # an error before the first piece is a plain answer with a status
        counts = bool((body.stream_options or {}).get("include_usage"))
        return StreamingResponse(events(number, name, first, pieces, counts, details), media_type="text/event-stream")


def wanted_schema(body: ChatRequest) -> dict[str, Any] | None:
    """Return the JSON schema that a conversation asks for, or None if any text will do."""
    wanted = body.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return {"type": "object"}
    schema = (wanted.json_schema or {}).get("schema")
    if not isinstance(schema, dict):
        raise bad("response_format of the type json_schema needs json_schema.schema, an object", "response_format")
    return schema


def split(body: ChatRequest) -> tuple[str, list[bytes]]:
    """Return the words of a conversation and the bytes of its pictures, in order."""
    words, pictures = [], []
    for message in body.messages:
        parts = message.content if isinstance(message.content, list) else None
        if parts is None:
            words.append(str(message.content))
            continue
        for part in parts:
            if part.type == "text":
                words.append(part.text or "")
            elif part.image_url is None:
                raise bad("a part of the type image_url needs image_url", "messages")
            else:
                pictures.append(data_uri(part.image_url.url))
    text = "\n".join(words)
    if IMAGE_TAG in text:
        raise bad(f"{IMAGE_TAG} stands for a page and can't be in a text: send the page as image_url", "messages")
    return text, pictures


def completion(number: str, model: str, answer: Answer) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": REASONS[answer.finish_reason], "logprobs": None}
    return envelope(number, model, "chat.completion") | {"choices": [choice], "usage": counted(answer)}


def counted(answer: Answer) -> dict[str, int]:
    total = answer.prompt_tokens + answer.tokens
    return {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.tokens, "total_tokens": total}


def envelope(number: str, model: str, kind: str) -> dict[str, Any]:
    return {"id": number, "object": kind, "created": int(time.time()), "model": model}


async def events(
    number: str,
    model: str,
    first: str | Answer,
    pieces: AsyncIterator[str | Answer],
    usage: bool,
    details: Callable[[Answer], dict[str, Any]],
) -> AsyncIterator[str]:
    """Yield the server-sent events of a streamed answer."""

    def event(delta: dict[str, Any], reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return line(envelope(number, model, "chat.completion.chunk") | {"choices": [choice]})

    yield event({"role": "assistant", "content": ""})
    item: str | Answer = first
    try:
        while isinstance(item, str):
            yield event({"content": item})
            item = await anext(pieces)
        yield event({}, REASONS[item.finish_reason])
        if more := await in_thread(lambda: details(item)):
            yield line(envelope(number, model, "chat.completion.chunk") | {"choices": []} | more)
        if usage:
            empty = envelope(number, model, "chat.completion.chunk")
            yield line(empty | {"choices": [], "usage": counted(item)})
    except Refused as error:
        yield line(error.body())
    yield "data: [DONE]\n\n"


def line(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"
