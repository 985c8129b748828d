"""Runs the steps of the Dockerfile without Docker: in a new virtual environment, and then the service itself.

    python container/steps.py           # the build for CPUs
    python container/steps.py TORCH=    # PyTorch as pip finds it

RUN, COPY, ARG, ENV and WORKDIR are done in a temporary folder. `useradd` is left out, because it would change this
machine. Then the ENTRYPOINT is started, the HEALTHCHECK must succeed, and a page is read. The exit code tells.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from urllib.request import urlopen

ROOT = Path(__file__).parents[1]
SECONDS = 300  # for the service to become healthy


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """Return (instruction, rest) of each line. Continued lines are joined, and comments are dropped."""
    lines = re.sub(r"^\s*#.*\n", "", dockerfile, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [(name, " ".join(rest.split())) for name, _, rest in (line.strip().partition(" ") for line in lines) if name]


def build(steps: list[tuple[str, str]], folder: Path, given: dict[str, str]) -> dict[str, str]:
    """Do the steps in `folder/app` and return the environment that the image would have."""
    venv.create(folder / "venv", with_pip=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = f"{folder / 'venv/bin'}:{environment['PATH']}"
    work = folder / "app"
    work.mkdir()
    for name, rest in steps:
        if name == "ARG":
            key, _, value = rest.partition("=")
            environment[key] = given.get(key, value)
        elif name == "ENV":
            environment |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif name == "COPY":
            *sources, target = rest.split()
            for source in map(ROOT.joinpath, sources):
                place = work / target / (source.name if target.endswith("/") else "")
                (shutil.copytree if source.is_dir() else shutil.copy)(source, place)
        elif name == "RUN" and not rest.startswith("useradd "):
            print(f"RUN {rest}", flush=True)
            subprocess.run(rest, shell=True, cwd=work, env=environment, check=True)
    shutil.rmtree(work)  # what the service needs is installed
    work.mkdir()
    return environment


def try_service(steps: list[tuple[str, str]], folder: Path, environment: dict[str, str]) -> None:
    """Start the service, wait for its health check, and let it read a text."""
    steps_by_name = dict(steps)
    start = json.loads(steps_by_name["ENTRYPOINT"])
    check = json.loads(steps_by_name["HEALTHCHECK"].partition(" CMD ")[2])
    server = subprocess.Popen([*start, "--port", "5000"], cwd=folder / "app", env=environment)
    try:
        until = time.monotonic() + SECONDS
        while subprocess.run(check, env=environment, stderr=subprocess.DEVNULL).returncode:
            if server.poll() is not None or time.monotonic() > until:
                raise SystemExit("the service does not become healthy")
            time.sleep(1)
        answer = urlopen("http://127.0.0.1:5000/metrics", timeout=60).read().decode()
        print("healthy;", next(line for line in answer.splitlines() if "memory_bytes{" in line))
        fields = {"text": "Three boats left.", "mode": "tiny", "max_length": 8}
        curl = ["curl", "-sf", "-H", "content-type: application/json", "-d", json.dumps(fields)]
        print(subprocess.run([*curl, "http://127.0.0.1:5000/summarize/text"], check=True, capture_output=True).stdout)
    finally:
        server.terminate()
        print("stopped with", server.wait(60))


def main() -> None:
    steps = instructions((ROOT / "container/Dockerfile").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="lightseek-") as folder:
        environment = build(steps, Path(folder), dict(word.split("=", 1) for word in sys.argv[1:]))
        try_service(steps, Path(folder), environment)


if __name__ == "__main__":
    main()
