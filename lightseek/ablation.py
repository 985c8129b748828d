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

from lightseek.options import RunConfig

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
    """(cells, names of the settings that tell them apart)."""
    swept = list(dict.fromkeys([*ALWAYS_SHOWN, *(name for name, values in lists.items() if len(values) > 1)]))
    cells = []
    for values in itertools.product(*lists.values()):
        config = replace(base, **dict(zip(lists, values, strict=True)))
        shown = ",".join(f"{name}={getattr(config, name)}" for name in swept)
        cells.append(Cell(config, out / f"{_safe(shown)}-{_digest(config)}"))
    return cells, swept


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "=,.+-_" else "_" for c in name)[:120]


def _digest(config: RunConfig) -> str:
    """Short hash of all settings that matter to the result, so that other settings are another cell."""
    settings = {name: value for name, value in vars(config).items() if name != "save_seconds"}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def run_cell(
    cell: Cell,
    train_report: Callable[..., None] | None = None,
    eval_tick: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Train and evaluate one cell, or give back what it found before."""
    if (found := cell.finished()) is not None:
        return found
    from lightseek.results import finish
    from lightseek.training import STATE, Run

    run = Run(cell.config, cell.folder)
    results = finish(run, run.fit(train_report), eval_tick)
    (cell.folder / STATE).unlink(missing_ok=True)  # only needed to go on
    return results
