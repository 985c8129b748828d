"""Summarises a grid from its folder alone: a row for the cells that differ only in their seed, and differences.

OUT/grid.json and the cells' folders -> `summarise` -> `Summary`, from which the table, the plot, results.csv and the
report are made.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval. `low` and `high` are NaN if there is no interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One row of a table: the cells that differ only in their seed."""

    name: str
    kind: Literal["cell", "before", "lead-3"]
    settings: dict[str, str]  # swept setting -> its value as tables show it
    folders: list[Path]  # one for each seed; none for lead-3
    figures: dict[str, Interval]  # metric name (`scores.kinds.METRICS`) -> figure
    seeds: int
    documents: int  # test documents of each seed
    cut: int  # outputs of all seeds that ended at the length limit
    cost: dict[str, float]  # figures of results.json such as seconds and peak_bytes, as means over the seeds
    error: str | None  # one line, if a cell of the row failed


@dataclass(frozen=True)
class Difference:
    """How much better or worse a row is than the baseline, by one metric."""

    row: str
    baseline: str
    metric: str
    figure: Interval  # row minus baseline
    p: float
    adjusted: float  # p after Holm's correction for the number of comparisons
    detectable: float  # the smallest difference that would have been found in 80 % of such experiments
    resolved: bool  # whether `adjusted` is below 0.05


@dataclass(frozen=True)
class Summary:
    """Everything that the tables, the plot and the report of a grid show."""

    command: str
    question: str | None
    task: str
    metrics: list[str]  # headline metrics first
    swept: list[str]
    rows: list[Row]
    differences: list[Difference]


def summarise(folder: Path, baseline: str | None = None) -> Summary:
    """Return the summary of the grid in `folder`. `baseline` is a row's name or settings such as `freeze=none`."""
    raise NotImplementedError
