"""The models and adapters that a service offers: which there are, which are loaded, and which one goes for another.

A model is loaded when it is first asked for. If the loaded models need more memory than the limit, the least recently
used one goes. An adapter belongs to a base model: to switch it, the base is not loaded again.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightseek.model.config import OCRConfig
from lightseek.page.modes import MODES
from lightseek.serve.errors import unknown_model
from lightseek.weights.hub import find_folder
from lightseek.weights.loading import NANO as NANO_FOLDER
from lightseek.weights.loading import LightSeekOCR, load_model, read_config
from lightseek.weights.lora import use_adapter
from lightseek.weights.lora_files import load_adapter
from lightseek.weights.pack import pack

NANO = "nano"


@dataclass
class Entry:
    """A base model of the service, loaded or not."""

    name: str
    source: str | None  # a folder or a hub id; None is nano
    model: LightSeekOCR | None = None
    loaded_adapters: set[str] = field(default_factory=set)

    @property
    def bytes(self) -> int:
        """The memory of the weights; 0 if the model is not loaded."""
        if self.model is None:
            return 0
        return sum(t.numel() * t.element_size() for t in (*self.model.parameters(), *self.model.buffers()))


class Models:
    """All models of a service. Only the engine's thread calls `use`, so a model is never switched while it writes."""

    modes: tuple[str, ...] = tuple(MODES)  # that a request may ask for

    def __init__(
        self,
        sources: Sequence[str] = (),
        adapters: dict[str, str] | None = None,
        memory_gb: int | float = 64,
        load: Callable[..., LightSeekOCR] = load_model,
        compile: bool = True,
        **options: Any,
    ) -> None:
        """`sources` are folders or hub ids; without any, the model is nano. `adapters` maps names to folders.

        An adapter belongs to the first model. `compile` is that of `pack`, and `options` go to `load_model`. Raises
        ValueError for a name that two models or adapters share.
        """
        names = [NANO if source == NANO else source.rstrip("/").rsplit("/", 1)[-1] for source in sources or (NANO,)]
        self.entries = OrderedDict(
            (name, Entry(name, None if source == NANO else source))
            for name, source in zip(names, sources or (NANO,), strict=True)
        )
        self.adapters = dict(adapters or {})
        taken = [*names, *self.adapters]
        if twice := {name for name in taken if taken.count(name) > 1}:
            raise ValueError(f"two models or adapters are named {', '.join(sorted(twice))}: give them different names")
        self.first, self.memory_gb, self.options, self.load = names[0], memory_gb, options, load
        self.compile = compile
        self.lock = threading.Lock()  # for `entries`, which other threads list

    @property
    def names(self) -> list[str]:
        """The names that a request may ask for: base models first, then adapters."""
        return [*sorted(self.entries, key=lambda name: name != self.first), *self.adapters]

    @property
    def bytes(self) -> int:
        """The memory of all loaded weights."""
        with self.lock:
            return sum(entry.bytes for entry in self.entries.values())

    @property
    def device(self) -> str:
        """Where the first model is."""
        model = self.entries[self.first].model
        return "not loaded" if model is None else str(model.device)

    def find(self, name: str | None) -> tuple[str, str | None]:
        """Return (base, adapter) for a name; without a name it is the first model.

        Raises Refused with the status 404 for an unknown name.
        """
        if name is None or name in self.entries:
            return name or self.first, None
        if name in self.adapters:
            return self.first, name
        raise unknown_model(name, self.names)

    def use_config(self, base: str) -> OCRConfig:
        """Return the config of a model, without loading its weights."""
        entry = self.entries[base]
        if entry.model is not None:
            return entry.model.config
        return read_config(NANO_FOLDER if entry.source is None else find_folder(entry.source))

    def use(self, base: str, adapter: str | None) -> LightSeekOCR:
        """Return the model with this adapter switched on and the others off. Load what is not loaded."""
        with self.lock:
            entry = self.entries[base]
            self.entries.move_to_end(base)
        if entry.model is None:
            entry.model = self.load(entry.source, **self.options)
            if not (self.adapters and base == self.first):  # adapters are put on plain layers
                pack(entry.model, self.compile)
            self._make_room(base)
        if adapter is not None and adapter not in entry.loaded_adapters:
            load_adapter(entry.model, self.adapters[adapter], name=adapter)
            entry.loaded_adapters.add(adapter)
        if entry.loaded_adapters:
            use_adapter(entry.model, adapter, learns=False)
        return entry.model

    def _make_room(self, keep: str) -> None:
        """Let go of the least recently used models until the others fit into the limit."""
        for name in list(self.entries):
            if self.bytes <= self.memory_gb * 1e9:
                return
            if name != keep:
                self.entries[name].model = None
                self.entries[name].loaded_adapters.clear()

    def listing(self) -> list[dict[str, Any]]:
        """Return one row for each model and adapter: name, kind, size in bytes, and whether it is loaded."""
        with self.lock:
            entries = list(self.entries.values())
        rows = [
            {"id": e.name, "kind": "base", "base": None, "loaded": e.model is not None, "bytes": e.bytes}
            for e in sorted(entries, key=lambda e: e.name != self.first)
        ]
        loaded = self.entries[self.first].loaded_adapters
        return rows + [
            {"id": name, "kind": "adapter", "base": self.first, "loaded": name in loaded, "bytes": 0}
            for name in self.adapters
        ]
