"""The service in front of another server: a LightSeek server, and a small stand-in for vLLM that can misbehave."""

import asyncio
import json
import threading

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.testclient import TestClient

from lightseek.serve.app import create_app
from lightseek.serve.limits import Limits
from lightseek.serve.service import Service
from lightseek.serve.upstream import Upstream, UpstreamModels
from tests.serving import FORM, chat, extracted, png, running, service_of

SHORT = {"max_length": "4"}
BASE = "deepseek-ai/DeepSeek-OCR"


class Stand:
    """A server that writes what it is told to, as vLLM streams it, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict] = []
        self.way, self.gone = "well", threading.Event()
        app = FastAPI()

        @app.get("/v1/models")
        def models():
            rows = [
                {"id": BASE, "parent": None},
                {"id": "news", "parent": BASE},
            ]
            return {"object": "list", "data": rows}

        @app.post("/v1/chat/completions")
        async def chat(request: Request):
            self.asked.append(await request.json())
            if self.way == "busy":
                return JSONResponse({"error": {"message": "come back"}}, 429, {"retry-after": "7"})
            if self.way == "broken":
                return JSONResponse({"detail": "a bug"}, 500)
            return StreamingResponse(self.events(request), media_type="text/event-stream")

        self.app = app

    async def events(self, request: Request):
        whole = False
        try:
            for piece in ("The ", "sea.") if self.way != "slow" else ("The ",) * 200:
                yield line({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]})
                await asyncio.sleep(0.05 if self.way == "slow" else 0)
            yield line({"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}]})
            yield line({"choices": [], "usage": {"prompt_tokens": 283, "completion_tokens": 2}})
            yield "data: [DONE]\n\n" if self.way == "well" else "data: {\n\n"
            whole = True
        finally:
            if not whole:
                self.gone.set()


def line(value) -> str:
    return f"data: {json.dumps(value)}\n\n"


@pytest.fixture(scope="module")
def stand():
    stand = Stand()
    with running(stand.app) as stand.url:
        yield stand


@pytest.fixture
def client(stand):
    stand.way = "well"
    stand.asked.clear()
    stand.gone.clear()
    with TestClient(create_app(in_front_of(stand.url))) as client:
        yield client


def in_front_of(url: str, **limits) -> Service:
    return Service(UpstreamModels(url), Limits(**limits), runs=Upstream)


def test_pages_go_to_the_other_server_and_its_text_comes_back(client, stand):
    found = client.post("/ocr", files={"file": ("a.png", png())}, data=SHORT).json()
    assert (found["text"], found["mode"], found["model"]) == ("The sea.", "gundam", BASE)
    assert found["usage"] == {"prompt_tokens": 283, "completion_tokens": 2, "total_tokens": 285}
    (asked,) = stand.asked
    picture, words = asked["messages"][0]["content"]
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    assert words == {"type": "text", "text": "Free OCR."}
    assert (asked["max_tokens"], asked["temperature"], asked["vllm_xargs"]["ngram_size"]) == (4, 0.0, 30)
    names = [(row["id"], row["kind"]) for row in client.get("/models").json()]
    assert names == [(BASE, "base"), ("news", "adapter")]
    told = client.get("/health").json()
    assert (told["device"], told["modes"]) == ("vllm", ["gundam"])
    assert 'tokens_total{kind="written"} 2.0' in client.get("/metrics").text


def test_the_limits_are_those_of_this_server(client, stand):
    wrong = client.post("/ocr", files={"file": ("a.png", png())}, data={"mode": "tiny"})
    assert (wrong.status_code, "gundam only" in wrong.json()["error"]["message"]) == (400, True)
    assert client.post("/ocr", files={"file": ("a.png", b"\0")}).status_code == 400
    assert client.post("/ocr", files={"file": ("a.png", png())}, data={"model": "gpt"}).status_code == 404
    sure = client.post("/ocr", files={"file": ("a.png", png())}, data={"confidence": "true"})
    assert "does not tell how sure" in sure.json()["error"]["message"]
    inside = client.post("/ocr", files={"file": ("a.png", png())}, data={"prompt": "Is <image> blue?"})
    assert inside.status_code == 400


def test_a_stream_and_a_schema_are_passed_on(client, stand):
    body = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        "model": "news",
        "stream": True,
    }
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        events = [json.loads(row[6:]) for row in answer.iter_lines() if row.startswith("data: {")]
    assert [e["choices"][0]["delta"].get("content") for e in events[1:3]] == ["The ", "sea."]
    assert stand.asked[-1]["model"] == "news"
    said = extracted(client, FORM, mode="gundam")
    assert (said.status_code, said.json()["error"]["type"]) == (422, "unreadable")  # the stand-in follows no schema
    assert stand.asked[-1]["response_format"]["json_schema"]["schema"] == FORM
    assert "vllm_xargs" not in stand.asked[-1]


@pytest.mark.parametrize(
    ("way", "status", "words"),
    [("busy", 429, "come back"), ("broken", 502, "a bug"), ("nonsense", 502, "OpenAI's API")],
)
def test_a_server_that_does_not_do_well(client, stand, way, status, words):
    stand.way = way
    answer = client.post("/ocr", files={"file": ("a.png", png())}, data=SHORT)
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, "backend")
    assert words in answer.json()["error"]["message"]
    assert answer.headers.get("retry-after") == ("7" if way == "busy" else None)


def test_a_deadline_ends_the_request_there(stand):
    stand.way = "slow"
    with TestClient(create_app(in_front_of(stand.url, deadline_s=0.3))) as client:
        assert client.post("/ocr", files={"file": ("a.png", png())}, data=SHORT).status_code == 504
    assert stand.gone.wait(10)


def test_no_server_is_one_line():
    with pytest.raises(ValueError, match="does not answer as a server of OpenAI's API"):
        UpstreamModels("http://127.0.0.1:1")


def test_a_lightseek_server_behind_a_lightseek_server_says_the_same():
    with running(create_app(service_of())) as url, TestClient(create_app(service_of())) as alone:
        service = in_front_of(url)
        service.models.modes = ("tiny",)  # a LightSeek server has all modes, and this one is fast
        with TestClient(create_app(service)) as through:
            for ask in (
                lambda client: client.post("/ocr", files={"file": ("a", png())}, data={**SHORT, "mode": "tiny"}),
                lambda client: client.post("/v1/chat/completions", json=chat()),
                lambda client: extracted(client, FORM),
            ):
                one, two = ask(alone), ask(through)
                assert one.status_code == 200
                assert without_times(one.json()) == without_times(two.json())


def without_times(told: dict) -> dict:
    return {name: value for name, value in told.items() if name not in ("seconds", "id", "created")}
