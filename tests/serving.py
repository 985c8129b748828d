"""A service of the small model for tests, what clients send to it, and a real server on a free port."""

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from PIL import Image

from lightseek.serve.limits import Limits
from lightseek.serve.registry import Models
from lightseek.serve.service import Service
from tests.tiny_models import small_model

SHORT = {"mode": "tiny", "max_length": "6"}
FORM = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 5}, "kind": {"enum": ["bill", "letter"]}},
    "required": ["name", "kind"],
    "additionalProperties": False,
}


def loaded(source: str | None, **options: Any):
    return small_model()


def service_of(limits: Limits | None = None, adapters=None, sources=()) -> Service:
    return Service(Models(sources, adapters, load=loaded), limits or Limits())


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """Serve an application on a free port and give its address. At the end, stop it as SIGTERM does."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the application does not start"
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


def png(colour="white", size=(300, 200)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def chat(text="Free OCR.", picture: bytes | None = None, **more: Any) -> dict[str, Any]:
    part = {"type": "image_url", "image_url": {"url": uri(picture or png())}}
    content = [part, {"type": "text", "text": text}]
    return {"messages": [{"role": "user", "content": content}], "mode": "tiny", "max_tokens": 6} | more


def extracted(client: Any, schema: Any, **more: Any):
    text = schema if isinstance(schema, str) else json.dumps(schema)
    return client.post("/extract", files={"file": ("a", png())}, data={"mode": "tiny", "schema": text} | more)


def talk(client: Any, mode: str = "tiny") -> list[str]:
    """Let OpenAI's client read a picture at once and as a stream, with each model. Returns the names of the models."""
    names = [model.id for model in client.models.list()]
    body = chat(temperature=0.0)  # vLLM draws if it is not told
    del body["mode"]
    more = {"extra_body": {"mode": mode}}
    for name in names:
        whole = client.chat.completions.create(model=name, **body, **more)
        assert whole.model == name
        assert 0 < whole.usage.completion_tokens <= body["max_tokens"] < whole.usage.prompt_tokens
        assert whole.choices[0].finish_reason in ("stop", "length")
        counted = {"stream": True, "stream_options": {"include_usage": True}}
        pieces = list(client.chat.completions.create(model=name, **body, **counted, **more))
        text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
        assert text == whole.choices[0].message.content
        assert pieces[-1].usage.completion_tokens == whole.usage.completion_tokens
    return names
