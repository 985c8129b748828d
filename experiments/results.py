"""Keeps the results of a grid in small files that can be committed: no weights, no predictions, no paths of a machine.

GRID.csv     a line for each cell, as `ablate.py` writes it
GRID.json    what the tables show: rows with intervals, and the differences from the baseline
"""

import json
import math
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightseek.tools.files import write_json, write_text

DIGITS = 5  # significant digits of a stored figure


def collect(grid: Path, results: Path, name: str) -> None:
    """Write the summary of the finished grid in the folder `grid` to `results`, as NAME.json and NAME.csv."""
    import torch

    from lightseek.lab.summary import summarise

    summary = compact(asdict(summarise(grid)))
    del summary["command"]  # it names folders of this machine; the README has the command
    for row in summary["rows"]:
        row["cells"] = [folder.name for folder in row.pop("folders")]
    summary["made"] = {"torch": torch.__version__.partition("+")[0], "machine": platform.machine()}
    write_json(results / f"{name}.json", summary)
    write_text(results / f"{name}.csv", (grid / "results.csv").read_text(encoding="utf-8"))


def compact(value: Any) -> Any:
    """Return the value with rounded numbers, and None for those that are not finite, which JSON does not have."""
    if isinstance(value, dict):
        return {key: compact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [compact(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def stored(folder: Path, name: str) -> dict[str, Any] | None:
    """Return the stored summary of a grid, or None if it was never run."""
    path = folder / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
