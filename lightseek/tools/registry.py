"""A registry: the kinds of something, by name. Help texts, checks and error messages are made from it."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from inspect import signature
from typing import Any

from lightseek.tools.json_files import parse_json


class Registry(Mapping[str, Any]):
    """Name -> kind, in the order in which they are shown.

    A kind may be given as `"module:attribute"`. It is then imported when it is first asked for, so that a program can
    name all kinds without loading PyTorch. `open` lists prefixes that take a source after them, for example
    `{"hf:": "FOLDER_OR_ID"}`. With `settings` a name may bring the kind's own: `"meanpool:factor=8"`. With `joined` a
    name may be several kinds, one applied after the other: `"blur+rotate:degrees=3"`.

    >>> Registry("colour", {"red": 1, "blue": 2}).find("green")
    Traceback (most recent call last):
    ValueError: unknown colour 'green': choose one of red, blue
    """

    def __init__(
        self,
        what: str,
        kinds: Mapping[str, Any],
        open: Mapping[str, str] | None = None,
        settings: bool = False,
        joined: bool = False,
    ) -> None:
        self.what, self.open, self.settings, self.joined = what, dict(open or {}), settings, joined
        self._kinds = dict(kinds)

    def __getitem__(self, name: str) -> Any:
        kind = self._kinds[name]
        if isinstance(kind, str) and ":" in kind:
            module, _, attribute = kind.partition(":")
            kind = self._kinds[name] = getattr(import_module(module), attribute)
        return kind

    def __setitem__(self, name: str, kind: Any) -> None:
        """Add a kind of your own, or put another in the place of one."""
        self._kinds[name] = kind

    def __delitem__(self, name: str) -> None:
        del self._kinds[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    def __contains__(self, name: object) -> bool:  # the one of Mapping would import the kind
        return name in self._kinds

    @property
    def choices(self) -> str:
        """All names in a row, for a help text or a message."""
        return ", ".join([*self._kinds, *(prefix + source for prefix, source in self.open.items())])

    def check(self, name: str) -> None:
        """Raise ValueError, listing the choices, unless there is such a kind."""
        for part in self.parts(name):
            kind = self.split(part)[0] if self.settings else part
            if kind not in self and not any(part.startswith(prefix) and part != prefix for prefix in self.open):
                raise ValueError(f"unknown {self.what} {part!r}: choose one of {self.choices}")

    def parts(self, name: str) -> list[str]:
        """Return the kinds that are joined in a name, with their settings: one, unless this registry joins kinds."""
        return name.split("+") if self.joined else [name]

    @staticmethod
    def split(name: str) -> tuple[str, dict[str, Any]]:
        """Return the kind and its settings that a name such as `"meanpool:factor=8"` stands for.

        The values are JSON; what is not JSON is a text. Raises ValueError for settings that are not KEY=VALUE.
        """
        kind, _, texts = name.partition(":")
        settings = {}
        for text in filter(None, texts.split(",")):
            key, equals, value = text.partition("=")
            if not equals:
                raise ValueError(f"{name!r}: settings of a kind are KEY=VALUE, such as factor=8, and not {text!r}")
            try:
                settings[key] = parse_json(value, name)
            except ValueError:
                settings[key] = value
        return kind, settings

    def find(self, name: str) -> Any:
        """The kind of that name. Raises ValueError, listing the choices, when there is none."""
        self.check(name)
        return self[name]

    def call(self, name: str, *given: Any, **more: Any) -> Any:
        """Call the kind that a name such as `"drop:percent=50"` stands for, with its settings, and return the result.

        Raises ValueError if there is no such kind, or if it does not take these settings.
        """
        kind, settings = self.split(name)
        found = self.find(kind)
        try:
            signature(found).bind(*given, **more, **settings)
        except TypeError as error:
            raise ValueError(f"{self.what} {name!r}: {error}") from None
        return found(*given, **more, **settings)
