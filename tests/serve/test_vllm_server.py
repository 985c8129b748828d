"""A vLLM that is up (experiments/serve/vllm.md): the client test of our own server, directly and through our server."""

import os

import pytest
from fastapi.testclient import TestClient

from lightseek.serve.app import create_app
from tests.serve.test_upstream import in_front_of
from tests.serving import png, running, talk

pytestmark = pytest.mark.gpu
ADDRESS = os.environ.get("LIGHTSEEK_VLLM")


@pytest.mark.skipif(not ADDRESS, reason="LIGHTSEEK_VLLM has no address of a running vLLM")
def test_the_client_of_openai_and_our_server_in_front():
    openai = pytest.importorskip("openai")
    names = talk(openai.OpenAI(base_url=f"{ADDRESS}/v1", api_key="none"))
    with running(create_app(in_front_of(ADDRESS))) as url:
        assert talk(openai.OpenAI(base_url=f"{url}/v1", api_key="none"), "gundam") == names
    with TestClient(create_app(in_front_of(ADDRESS))) as client:
        found = client.post("/ocr", files={"file": ("a.png", png(size=(900, 700)))}, data={"max_length": "8"}).json()
        assert found["mode"] == "gundam"
        assert found["usage"]["prompt_tokens"] > 273  # the global view alone has so many positions
