"""Draws the scores of a grid: a dot with its 95 % interval for each row of the summary."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from textwrap import fill

from lightseek.lab.summary import Interval, Row, Summary
from lightseek.scores.kinds import METRICS
from lightseek.scores.plots import interval_bars, save_figure

COLOURS = {"cell": "C0", "before": "grey", "lead-3": "C1"}


def plot_grid(path: Path, summary: Summary) -> None:
    """Draw the metric that the task is judged by, and beside it the facts if they are known.

    Rows that share the setting that changes least from row to row stand together, with a gap before the next group.
    """
    from matplotlib.figure import Figure

    metrics = list(dict.fromkeys([*summary.metrics[:1], *(name for name in summary.metrics if name == "facts")]))
    rows = [row for row in summary.rows if row.figures]
    if not rows or not metrics:
        return
    places, labels, y, last = [], [], 0.0, None
    outer = grouping([row for row in rows if row.kind == "cell"], summary.swept)
    for row in rows:
        group = row.settings[outer] if row.kind == "cell" and outer else row.kind
        y += 0.5 if last not in (None, group) else 0.0
        places.append(y)
        labels.append(fill(row.name, 34))
        y, last = y + 1, group
    lines = sum(max(1, label.count("\n") + 1) for label in labels)
    figure = Figure(figsize=(3.6 + 3.4 * len(metrics), 1.3 + 0.3 * max(lines, 1.3 * y)), layout="constrained")
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        shown = [(place, row) for place, row in zip(places, rows, strict=True) if metric in row.figures]
        right = max((_high(row.figures[metric]) for _, row in shown), default=1.0)
        for place, row in shown:
            one = row.figures[metric]
            bars = interval_bars([{"value": one.value, "low": _low(one), "high": _high(one)}])
            axes.errorbar([one.value], [place], xerr=bars, fmt="o", capsize=3, color=COLOURS[row.kind])
            axes.annotate(f"{one.value:.1f}", (_high(one), place), (6, 0), textcoords="offset points", va="center")
        lower = METRICS[metric].lower_is_better
        axes.set(
            xlabel=f"{METRICS[metric].title} ({'lower' if lower else 'higher'} is better)", xlim=(0, 1.18 * right or 1)
        )
        axes.set_yticks(places, labels)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", alpha=0.3)
    panels[0].set_ylim(y - 0.4, -0.6)
    figure.suptitle(title(rows, summary.task), fontsize="medium", x=0.01, ha="left")
    save_figure(figure, path)


def grouping(cells: Sequence[Row], swept: Sequence[str]) -> str | None:
    """Return the setting that changes least from row to row, or None if fewer than two settings vary."""
    changes = {name: sum(a.settings[name] != b.settings[name] for a, b in pairwise(cells)) for name in swept}
    varied = [name for name in swept if changes[name]]
    return min(varied, key=changes.__getitem__) if len(varied) > 1 else None


def title(rows: Sequence[Row], task: str) -> str:
    """Say what the dots are: the task, the mode if it is one, and over what the interval is."""
    modes = {row.settings["mode"] for row in rows if "mode" in row.settings}
    mode = f", mode {modes.pop()}" if len(modes) == 1 else ""
    documents, seeds = max(row.documents for row in rows), max(row.seeds for row in rows)
    chance = f"{documents} documents" + f" and {seeds} seeds" * (seeds > 1)
    return f"{task}{mode}\nmean with 95 % interval over {chance}"


def _low(figure: Interval) -> float:
    return figure.value if math.isnan(figure.low) else figure.low


def _high(figure: Interval) -> float:
    return figure.value if math.isnan(figure.high) else figure.high
