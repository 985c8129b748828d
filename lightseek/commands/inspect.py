"""`python -m lightseek inspect`: a page in the browser that shows what happens when a model reads a page."""

import argparse
from importlib.util import find_spec
from typing import Any

from lightseek.commands.common import add, add_model, open_model


def inspect(arguments: argparse.Namespace) -> None:
    """Serve the inspector until Ctrl-C. Raises ValueError if Gradio is not installed."""
    if find_spec("gradio") is None:
        raise ValueError('the inspector needs Gradio: pip install -e ".[inspect]"')
    model = open_model(arguments)
    from lightseek.serve.inspector import launch

    launch(model, arguments.model or "nano", arguments.host, arguments.port, not arguments.no_browser)


def add_parser(commands: Any) -> None:
    command = add(commands, inspect, "look inside a model in the browser: attention, layers, interventions")
    add_model(command)
    command.add_argument(
        "--host", default="127.0.0.1", metavar="X", help="the address to listen on (default: this machine only)"
    )
    command.add_argument("--port", type=int, metavar="N", help="the port (default: the first free one from 7860)")
    command.add_argument("--no-browser", action="store_true", help="do not open the page in a browser")
