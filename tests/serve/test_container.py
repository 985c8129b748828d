"""The container's files agree with the program and with each other. `container/steps.py` runs the steps themselves."""

import importlib.util
import json
import shlex
from pathlib import Path

import yaml

from lightseek.__main__ import parser

FOLDER = Path(__file__).parents[2] / "container"
spec = importlib.util.spec_from_file_location("steps", FOLDER / "steps.py")
steps = importlib.util.module_from_spec(spec)
spec.loader.exec_module(steps)
FOUND = steps.instructions((FOLDER / "Dockerfile").read_text())


def test_the_image_starts_the_service_as_a_user_without_rights():
    last = dict(FOUND)
    assert int(last["USER"]) >= 1000
    assert "HEALTHCHECK" in last
    start = json.loads(last["ENTRYPOINT"])
    assert start[:3] == ["python", "-m", "lightseek"]
    arguments = parser().parse_args(start[3:])
    assert (arguments.host, str(arguments.port)) == ("0.0.0.0", last["EXPOSE"])
    assert f":{arguments.port}/health" in last["HEALTHCHECK"]


def test_what_is_copied_is_not_ignored():
    shown = (FOLDER.parent / ".dockerignore").read_text().splitlines()
    copied = [word for name, rest in FOUND if name == "COPY" for word in shlex.split(rest)[:-1]]
    assert copied and all(f"!{name}" in shown and (FOLDER.parent / name).exists() for name in copied)


def test_prometheus_asks_the_service_of_the_compose_file():
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    assert (FOLDER / services["lightseek"]["build"]["context"] / services["lightseek"]["build"]["dockerfile"]).is_file()
    (job,) = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    assert target == f"lightseek:{dict(FOUND)['EXPOSE']}"
    assert all(volume.endswith(":ro") for volume in services["lightseek"]["volumes"])
