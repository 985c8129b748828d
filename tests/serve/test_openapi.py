"""Random requests that follow the OpenAPI description, and some that do not: none of them is an error of the server."""

import collections
import threading
import time

import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings

from lightseek.serve.app import create_app
from lightseek.serve.limits import Limits
from lightseek.serve.registry import Models
from lightseek.serve.service import Service
from tests.tiny_models import small_model

pytestmark = pytest.mark.slow
EXAMPLES = 25  # for each route
DESCRIBED = {200, 400, 401, 404, 405, 413, 415, 422, 429, 503, 504}


@pytest.fixture(scope="module")
def server():
    limits = Limits(output_tokens=8, prompt_characters=5000, pictures=2)
    app = create_app(Service(Models(load=lambda *_, **__: small_model()), limits))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield app, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(20)


def test_no_request_is_an_error_of_the_server(server):
    schemathesis = pytest.importorskip("schemathesis")
    app, address = server
    counts: collections.Counter = collections.Counter()
    schema = schemathesis.openapi.from_dict(app.openapi())
    for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
        for operation in schema.get_all_operations():
            found = operation.ok()
            try:
                cases = found.as_strategy(generation_mode=mode)
            except Exception as error:  # a route without fields has no wrong requests
                counts[type(error).__name__] += 1
                continue

            @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
            @given(case=cases)
            def ask(case):
                answer = case.call(base_url=address, timeout=60)
                counts[answer.status_code] += 1
                assert answer.status_code in DESCRIBED, (case.method, case.path, answer.text[:300])
                if answer.status_code >= 400:
                    assert set(answer.json()["error"]) == {"type", "message", "param", "code"}

            try:
                ask()
            except Exception as error:
                if type(error).__name__ not in ("Unsatisfiable", "SkipTest"):
                    raise
    print(dict(counts))
    assert counts[200] > 20
    assert counts[422] > 20
