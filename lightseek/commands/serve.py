"""`python -m lightseek serve`: reads and summarizes documents over HTTP."""

import argparse
import os
from dataclasses import fields
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from lightseek.commands.arguments import add_settings
from lightseek.commands.common import add, add_compile, add_post, writer_of
from lightseek.serve.limits import Limits

if TYPE_CHECKING:
    from lightseek.serve.service import Service

NEEDED = ("fastapi", "httpx", "multipart", "prometheus_client", "uvicorn")
KEY = "LIGHTSEEK_API_KEY"
BACKEND_KEY = "LIGHTSEEK_BACKEND_KEY"


def serve(arguments: argparse.Namespace) -> None:
    """Serve until Ctrl-C or SIGTERM; then finish what runs. Raises ValueError if a package is missing."""
    if missing := [
        name for name in ("fastapi", "httpx", "uvicorn", "prometheus_client", "multipart") if not find_spec(name)
    ]:
        raise ValueError(f'the service needs {", ".join(missing)}: pip install -e ".[serve]"')
    limits = Limits(**{entry.name: getattr(arguments, entry.name) for entry in fields(Limits)})
    adapters = dict(named(text) for text in arguments.adapter)
    import logging

    import uvicorn

    from lightseek.serve.app import create_app
    from lightseek.serve.registry import Models
    from lightseek.serve.service import Service

    key = os.environ.get(KEY) or None
    if arguments.backend:
        service = forwarding(arguments, limits)
    else:
        options = {"device": arguments.device, "dtype": arguments.dtype, "quantize": arguments.quantize}
        service = Service(
            Models(arguments.model, adapters, limits.memory_gb, compile=arguments.compile, **options), limits
        )
    service.writer = writer_of(arguments)
    app = create_app(service, key)
    # The inspector needs the model here, and a browser cannot send the key to its page.
    if not (key or arguments.no_inspect or arguments.backend) and find_spec("gradio"):
        from lightseek.serve.inspector import mount

        mount(app, service)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    print(f"LightSeek serves {', '.join(service.models.names)} at http://{arguments.host}:{arguments.port}", flush=True)
    uvicorn.run(app, host=arguments.host, port=arguments.port, log_level="warning", access_log=False)


def forwarding(arguments: argparse.Namespace, limits: Limits) -> "Service":
    """Return a service whose prompts run on another server. Raises ValueError if that does not answer."""
    kind, url = arguments.backend
    if kind != "vllm":
        raise ValueError(f"--backend {kind}: only vllm is known, as in --backend vllm http://localhost:8000")
    if arguments.model or arguments.adapter:
        raise ValueError("with --backend, the models are those of the other server: leave out --model and --adapter")
    from lightseek.serve.service import Service
    from lightseek.serve.upstream import Upstream, UpstreamModels

    return Service(UpstreamModels(url, os.environ.get(BACKEND_KEY)), limits, runs=Upstream)


def named(text: str) -> tuple[str, str]:
    """Return (name, folder) of `NAME=FOLDER`. Raises ValueError for anything else."""
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise ValueError(f"--adapter {text}: write NAME=FOLDER, such as news=runs/news/adapter")
    return name, folder


def add_parser(commands: Any) -> None:
    command = add(commands, serve, "read and summarize over HTTP, also for OpenAI's clients")
    command.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="DIR|HUB_ID",
        help="a model to offer; may be given several times, the first is the default (default: nano)",
    )
    command.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="a LoRA adapter of the first model, and the name by which requests ask for it; may be given several times",
    )
    command.add_argument(
        "--backend",
        nargs=2,
        metavar=("vllm", "URL"),
        help="let a running vLLM do the reading, such as: vllm http://localhost:8000 (its API key, if it has one, is "
        f"taken from the environment variable {BACKEND_KEY})",
    )
    command.add_argument("--host", default="127.0.0.1", metavar="X", help="the address to listen on (127.0.0.1)")
    command.add_argument("--port", type=int, default=5000, metavar="N", help="the port (5000)")
    command.add_argument("--device", metavar="X", help="the device (default: a CUDA device if there is one)")
    add_settings(command, quantize=None, dtype=None)
    add_compile(command)
    add_post(command)
    command.add_argument(
        "--no-inspect",
        action="store_true",
        help="leave out the inspector under /inspect (it is there if Gradio is installed and there is no API key)",
    )
    group = command.add_argument_group("limits", f"An API key is taken from the environment variable {KEY}.")
    for entry in fields(Limits):
        group.add_argument(
            f"--{entry.name.replace('_', '-')}",
            type=type(entry.default),
            default=entry.default,
            metavar="N",
            help=f"{entry.metadata['help']} ({entry.default})",
        )
