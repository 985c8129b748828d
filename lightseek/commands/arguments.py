"""Reads the settings of a run from a command line: from `--config file.json`, from `key=value` and from flags.

It uses argparse and not tyro or jsonargparse, because neither of them reads `key=value` or turns several values into a
grid. They would need most of this file around them, and they take longer to import.
"""

import argparse
import difflib
import re
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, NoReturn

from lightseek.page.modes import find_mode
from lightseek.tools.json_files import JsonError, read_json
from lightseek.tools.streams import escape_unknown_characters
from lightseek.training.settings import ALIASES, GROUPS, RunConfig, check_value, shown

OVERRIDE = re.compile(r"[A-Za-z][\w-]*=")
PAIRS = "lr_boxes"  # the only setting whose values have the form KEY=VALUE


class Parser(argparse.ArgumentParser):
    """An argument parser that reports an error in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """End the program with exit code 2 and this message."""
        from lightseek.tools.console import fail

        raise SystemExit(fail(ValueError(f"{message} (see {self.prog} --help)")))

    def refuse(self, unknown: list[str]) -> NoReturn:
        """End the program because of unknown arguments, and suggest a flag that is similar to the first of them."""
        close = did_you_mean(unknown[0].partition("=")[0], self._option_string_actions)
        self.error(f"unrecognized arguments: {' '.join(unknown)}{close}")


class CommandParser(Parser):
    """The parser of one command. It reports unknown arguments itself, because it knows the command's flags."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[argparse.Namespace, list[str]]:
        arguments, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.refuse(unknown)
        return arguments, []


def parse_run(
    program: str,
    description: str,
    argv: list[str],
    extra: Callable[[argparse.ArgumentParser], object],
    grid: bool = False,
) -> tuple[dict[str, Any], argparse.Namespace]:
    """Return (settings, arguments): the settings that `argv` gives, and the values of the program's own flags.

    With `grid`, each setting has the list of its values. `extra(parser)` adds the program's own flags.
    A flag replaces `key=value`, which replaces `--config`, which replaces the default.
    `key=value` may stand anywhere, also after the values of a flag: `--freeze encoder none steps=6`.
    Bad input ends the program with a one-line message and exit code 2.
    """
    escape_unknown_characters()
    description += " Several values of a setting make a grid." * grid
    parser = Parser(prog=program, description=description, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="any setting below, written without dashes")
    parser.add_argument("--config", type=Path, metavar="FILE", help="a JSON object of settings")
    extra(parser)
    for group in GROUPS:
        title, _, about = group.__doc__.partition(": ")
        section = parser.add_argument_group(title, about)
        for setting in group.__annotations__:
            add_setting(section, group.__dataclass_fields__[setting], grid)
    arguments, unknown = parser.parse_known_intermixed_args(argv)
    if unknown:
        parser.refuse(unknown)
    try:
        chosen = _read_config(arguments.config) if arguments.config else {}
        named = {setting.name for setting in fields(RunConfig)}
        given = {name: value for name, value in vars(arguments).items() if name in named}
        overrides = list(arguments.overrides)
        if grid:
            given = {name: _split(name, values, overrides) for name, values in given.items()}
        for override in overrides:
            key, equals, text = override.partition("=")
            if not equals:
                raise ValueError(f"{override!r} is neither a flag nor key=value")
            chosen[key.replace("-", "_")] = text
        chosen = {_known(name): value for name, value in chosen.items()} | given
        return {name: _convert(name, value, grid) for name, value in chosen.items()}, arguments
    except ValueError as error:
        parser.error(str(error))


def add_setting(section: Any, setting: Field, grid: bool = False) -> None:
    """Add the flag of a setting to the parser of a run, with its aliases and its help text."""
    if setting.type in (bool, bool | None) and not setting.default and not grid:
        how: dict[str, Any] = {"action": "store_const", "const": "true"}
    else:
        how = {"metavar": "X", "nargs": "+" if grid else None}
    section.add_argument(
        *flags(setting.name),
        dest=setting.name,
        default=argparse.SUPPRESS,
        help=help_of(setting, setting.default),
        **how,
    )


def add_settings(command: Parser, **defaults: Any) -> None:
    """Add the flags of some settings of a run to the parser of a command. `defaults` gives their names and defaults."""
    for name, default in defaults.items():
        setting = RunConfig.__dataclass_fields__[name]

        def read(text: str, setting: Field = setting) -> Any:
            try:
                value = _convert(setting.name, text, grid=False)
                check_value(setting.name, value, setting.metadata)
                return find_mode(value).name if setting.name == "mode" else value
            except ValueError as error:
                raise argparse.ArgumentTypeError(str(error)) from None

        command.add_argument(
            *flags(name), dest=name, type=read, default=default, metavar="X", help=help_of(setting, default)
        )


def flags(name: str) -> list[str]:
    """Return the flags of a setting: `--mode` and `--tokens` for the setting `mode`."""
    names = [name, *(alias for alias, setting in ALIASES.items() if setting == name)]
    return ["--" + each.replace("_", "-") for each in names]


def help_of(setting: Field, default: Any) -> str:
    """Return the help text of a setting: what it is, its possible kinds, and its default."""
    kinds = setting.metadata["kinds"]
    choices = f": {'none, ' * (setting.default is None)}{kinds.choices}" if kinds is not None else ""
    return f"{setting.metadata['help']}{choices} (default: {shown(setting.name, default)})"


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return the end of a message, `; did you mean NAME?`, or an empty text if no name is similar."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _split(name: str, values: list[str], overrides: list[str]) -> list[str]:
    """Return the values of a flag of a grid. Words of the form key=value after the first are moved to `overrides`."""
    rest = [word for word in values[1:] if OVERRIDE.match(word)]
    if name == PAIRS:  # encoder=1e-5 is a value of this setting, and steps=6 is another setting
        rest = [word for word in rest if _name_of(word.partition("=")[0]) is not None]
    overrides += rest
    return [values[0], *(word for word in values[1:] if word not in rest)]


def _name_of(key: str) -> str | None:
    """Return the setting that a key names by its name or its alias, or None if there is no such setting."""
    name = key.replace("-", "_")
    name = ALIASES.get(name, name)
    return name if name in RunConfig.__dataclass_fields__ else None


def _known(key: str) -> str:
    """Return the setting that a key names. Raises ValueError for an unknown key, and suggests or lists settings."""
    if (name := _name_of(key)) is not None:
        return name
    names = [setting.name for setting in fields(RunConfig)]
    close = did_you_mean(key, [*names, *ALIASES])
    raise ValueError(f"unknown setting {key!r}{close or '; the settings are ' + ', '.join(names)}")


def _read_config(path: Path) -> dict[str, Any]:
    """Return the settings in a JSON file. Raises ValueError if it cannot be read or holds no JSON object."""
    try:
        values = read_json(path)
    except OSError as error:
        raise ValueError(f"--config {path}: {error.strerror}") from None
    except JsonError as error:
        raise ValueError(f"--config {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"--config {path}: expected a JSON object of settings, found {type(values).__name__}")
    return values


def _convert(name: str, value: Any, grid: bool) -> Any:
    """Return a value from a command line or a JSON file in the type of the setting, or a list of them with `grid`.

    Raises ValueError if it cannot be converted.
    """
    if grid:
        values = value if isinstance(value, list) else [value]
        return [_convert(name, item, grid=False) for item in values]
    setting = RunConfig.__dataclass_fields__[name]
    kind, optional = setting.type, False
    if isinstance(kind, types.UnionType):
        kind, optional = typing.get_args(kind)[0], True
    if optional and (value is None or value == "none" or (name == "precision" and value == "no")):
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
    except (ValueError, TypeError, KeyError, OverflowError):  # the last for 1e400, which JSON has
        raise ValueError(f"{name}={value!r}: expected {'true or false' if kind is bool else kind.__name__}") from None
