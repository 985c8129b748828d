"""How a command line fills the settings of a run: `--config file.json`, `key=value`, or flags."""

import argparse
import json
import types
import typing
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from lightseek.training.settings import RunConfig


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line, like all our errors, and not the usage too."""

    def error(self, message: str) -> NoReturn:
        from lightseek.tools.console import fail

        raise SystemExit(fail(ValueError(f"{message} (see {self.prog} --help)")))


def parse_run(
    program: str,
    description: str,
    argv: list[str],
    extra: Callable[[argparse.ArgumentParser], object],
    grid: bool = False,
) -> tuple[dict[str, Any], argparse.Namespace]:
    """(settings, arguments): the settings named in `argv`, each with its list of values if `grid`, and the rest.

    `extra(parser)` adds the program's own flags. Later wins: defaults, then `--config`, then `key=value`, then flags.
    A grid takes flags only, since `--tokens 64 100` reads to the next flag.
    Bad input ends the program with a one-line message and exit code 2.
    """
    parser = Parser(prog=program, description=description, allow_abbrev=False)
    if not grid:
        parser.add_argument("overrides", nargs="*", metavar="key=value", help="any setting below, written short")
    parser.add_argument("--config", type=Path, metavar="FILE", help="JSON object of settings")
    extra(parser)
    settings = parser.add_argument_group("settings" + (" (several values make a grid)" if grid else ""))
    for setting in fields(RunConfig):
        switch = setting.type is bool and not grid
        settings.add_argument(
            "--" + setting.name.replace("_", "-"),
            default=argparse.SUPPRESS,
            help=f"{setting.metadata['help']} (default: {setting.default})",
            **(dict(action="store_const", const="true") if switch else dict(metavar="X", nargs="+" if grid else None)),
        )
    arguments = parser.parse_intermixed_args(argv)
    try:
        chosen = _read_config(arguments.config) if arguments.config else {}
        for override in getattr(arguments, "overrides", ()):
            key, equals, text = override.partition("=")
            if not equals:
                raise ValueError(f"{override!r} is neither a flag nor key=value")
            chosen[key.replace("-", "_")] = text
        names = {setting.name for setting in fields(RunConfig)}
        chosen.update({name: value for name, value in vars(arguments).items() if name in names})
        return {name: _convert(name, value, grid) for name, value in chosen.items()}, arguments
    except ValueError as error:
        parser.error(str(error))


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"--config {path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"--config {path}: not valid JSON ({error})") from None
    if not isinstance(values, dict):
        raise ValueError(f"--config {path}: expected a JSON object of settings, found {type(values).__name__}")
    return values


def _convert(name: str, value: Any, grid: bool) -> Any:
    kinds = {setting.name: setting.type for setting in fields(RunConfig)}
    if name not in kinds:
        raise ValueError(f"unknown setting {name!r}; the settings are {', '.join(kinds)}")
    if grid:
        values = value if isinstance(value, list) else [value]
        return [_convert(name, item, grid=False) for item in values]
    kind, optional = kinds[name], False
    if isinstance(kind, types.UnionType):
        kind, optional = typing.get_args(kind)[0], True
    if optional and (value is None or value == "none"):
        return None
    try:
        if kind is bool:
            return {"true": True, "false": False}[str(value).lower()]
        if kind is str and isinstance(value, int):  # tokens: 100 in a JSON file
            return str(value)
        converted = kind(value)
        if isinstance(value, bool | list | dict) or (kind is int and converted != float(value)):
            raise ValueError
        return converted
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"{name}={value!r}: expected {'true or false' if kind is bool else kind.__name__}") from None
