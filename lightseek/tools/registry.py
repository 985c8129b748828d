"""A registry: the kinds of something, by name. Help texts, checks and error messages are made from it."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from lightseek.tools.json_files import parse_json


class Registry(Mapping[str, Any]):
    """Name -> kind, in the order in which they are shown.

    A kind may be given as `"module:attribute"`. It is then imported when it is first asked for, so that a program can
    name all kinds without loading PyTorch. `open` lists prefixes that take a source after them, for example
    `{"hf:": "FOLDER_OR_ID"}`. With `settings` a name may bring the kind's own: `"meanpool:factor=8"`.

    >>> Registry("colour", {"red": 1, "blue": 2}).find("green")
    Traceback (most recent call last):
    ValueError: unknown colour 'green': choose one of red, blue
    """

    def __init__(
        self, what: str, kinds: Mapping[str, Any], open: Mapping[str, str] | None = None, settings: bool = False
    ) -> None:
        self.what, self.open, self.settings = what, dict(open or {}), settings
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
        kind = self.split(name)[0] if self.settings else name
        if kind not in self and not any(name.startswith(prefix) and name != prefix for prefix in self.open):
            raise ValueError(f"unknown {self.what} {name!r}: choose one of {self.choices}")

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
