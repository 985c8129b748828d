"""Random requests that follow the OpenAPI description, and some that do not: none of them is an error of the server."""

from collections import Counter

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from lightseek.serve.app import create_app
from lightseek.serve.limits import Limits
from tests.serving import running, service_of

DESCRIBED = {200, 400, 401, 404, 405, 413, 415, 422, 429, 502, 503, 504}
SETTINGS = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("count", [2, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
def test_no_request_is_an_error_of_the_server(count, mode):
    """`count` requests to each route. With the mode NEGATIVE, a field is missing or wrong."""
    seen: Counter[int] = Counter()
    app = create_app(service_of(Limits(output_tokens=8, prompt_characters=5000, pictures=2)))
    with running(app) as address:
        for operation in schemathesis.openapi.from_dict(app.openapi()).get_all_operations():

            @settings(max_examples=count, **SETTINGS)
            @given(case=operation.ok().as_strategy(generation_mode=mode))
            def ask(case):
                answer = case.call(base_url=address, timeout=60)
                seen[answer.status_code] += 1
                assert answer.status_code in DESCRIBED, (case.method, case.path, answer.text[:300])
                if answer.status_code >= 400:
                    assert set(answer.json()["error"]) == {"type", "message", "param", "code"}

            try:
                ask()
            except Unsatisfiable:  # a route without fields has no wrong requests
                assert mode is GenerationMode.NEGATIVE
    assert seen[200 if mode is GenerationMode.POSITIVE else 422] >= count
