"""A grid of runs: every combination of the settings that have several values, each in a folder of its own.

A finished cell is skipped when the grid is run again; a killed one goes on where it was.
"""

import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightseek.tools.files import fingerprint
from lightseek.training.settings import RunConfig, check

ALWAYS_SHOWN = ("tokens", "freeze")


@dataclass(frozen=True)
class Cell:
    config: RunConfig
    folder: Path

    def finished(self) -> dict[str, Any] | None:
        """Its results, if it ran to the end before."""
        path = self.folder / "results.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def grid(base: RunConfig, lists: dict[str, list[Any]], out: Path) -> tuple[list[Cell], list[str]]:
    """(cells, names of the settings that tell them apart). ValueError for a cell that cannot work."""
    swept = list(dict.fromkeys([*ALWAYS_SHOWN, *(name for name, values in lists.items() if len(values) > 1)]))
    cells = []
    lists = {name: list(dict.fromkeys(values)) for name, values in lists.items()}  # a value given twice is one
    for values in itertools.product(*lists.values()):
        config = without_idle(replace(base, **dict(zip(lists, values, strict=True))), lists)
        check(config)  # all cells before the first starts
        if config in [cell.config for cell in cells]:
            continue
        shown = ",".join(f"{name}={getattr(config, name)}" for name in swept)
        cells.append(Cell(config, out / f"{_safe(shown)}-{_digest(config)}"))
    return cells, swept


def without_idle(config: RunConfig, lists: dict[str, list[Any]]) -> RunConfig:
    """One value for settings that change nothing, so that a cell does not run twice: what reads text has no pages."""
    if config.decoder and config.decoder.startswith("seq2seq:"):
        config = replace(config, context="text")
    if config.context == "text":
        config = replace(config, tokens=lists.get("tokens", [config.tokens])[0], cache_vision=False)
    return config


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "=,.+-_" else "_" for c in name)[:120]


def _digest(config: RunConfig) -> str:
    """Short hash of all that matters to the result, so that other settings, or changed files, are another cell."""
    from lightseek.weights.loading import NANO

    settings = {name: value for name, value in vars(config).items() if name != "save_seconds"}
    files = [fingerprint(path) for path in (config.data, config.model or NANO)]
    return hashlib.sha256(json.dumps([settings, files], sort_keys=True).encode()).hexdigest()[:8]


def run_cell(
    cell: Cell,
    train_report: Callable[..., None] | None = None,
    eval_tick: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Train and evaluate one cell, or give back what it found before."""
    if (found := cell.finished()) is not None:
        return found
    from lightseek.lab.results import finish
    from lightseek.tools.memory import release_memory
    from lightseek.training.run import Run
    from lightseek.training.state import remove_states

    release_memory()  # or the figure for this cell would hold what is left of the one before
    run = Run(cell.config, cell.folder)
    results = finish(run, run.fit(train_report), eval_tick)
    remove_states(cell.folder)
    return results
