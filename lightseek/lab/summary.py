"""Summarises a grid from its folder alone: a row for the cells that differ only in their seed, and differences.

OUT/grid.json and the cells' folders -> `summarise` -> `Summary`, from which the table, the plot, results.csv and the
report are made.
"""

import csv
import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lightseek.lab.grid import ALWAYS_SHOWN, GRID
from lightseek.lab.stored import read_results
from lightseek.page.modes import find_mode
from lightseek.scores.compare import LEAD, Scored, check_same, paired, score, score_lead
from lightseek.scores.kinds import METRICS, headlines, plotted
from lightseek.scores.metrics import Tally
from lightseek.scores.significance import Estimate, estimate, holm
from lightseek.tools.files import write_text
from lightseek.tools.json_files import check_fields, read_json
from lightseek.training.settings import ALIASES, RunConfig, at_test, current, shown

RESULTS, PREDICTIONS, ERROR = "results.json", "predictions.jsonl", "error.json"
BEFORE = "before training"
DOCUMENTS = ("data", "characters", "text_column", "summary_column", "task")  # settings that choose the documents
LEVEL = 0.05  # an adjusted p-value below it is resolved
COSTS = (
    "parameters",
    "trainable_parameters",
    "flops_page",
    "flops_token",
    "warm_start_explained",
    "train_loss",
    "eval_loss",
    "seconds",
    "peak_bytes",
    "vision_tokens",
    "compression_ratio",
    "official_ratio",
)


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
    winner: str | None = None  # the row that is better than each other one by the first metric, resolved


@dataclass(frozen=True)
class _Cell:
    """What the folder of a cell holds."""

    folder: Path
    settings: dict[str, Any]
    results: dict[str, Any]  # empty if it failed
    scored: Scored | None
    error: str | None


def summarise(folder: Path, baseline: str | None = None) -> Summary:
    """Return the summary of the grid in `folder`, or of the single run in it.

    `baseline` is the name of a row, the name of a cell's folder, or settings such as `freeze=none,lr=1e-4`. If it is
    None, the baseline is the one of `grid.json`. Cells that have neither results nor an error are left out.
    The p-values of each metric are adjusted for the number of rows that are compared with the baseline.
    Raises ValueError if no cell is finished, if no row is the baseline, or if the cells have read other documents.
    """
    folder = Path(folder)
    grid = _read_grid(folder)
    cells = [cell for name in grid["cells"] if (cell := _read_cell(folder / name))]
    before = [cell for name in grid["before"] if (cell := _read_cell(folder / name))]
    if not any(cell.results for cell in cells):
        told = f": {cells[0].error}" if cells else ""
        raise ValueError(f"{folder} has no finished cell to summarise{told}")
    swept = [name for name in grid["swept"] if name != "seed"]
    varied = [name for name in swept if len({_shown(cell, name) for cell in cells}) > 1]
    groups = _group(cells, varied, "trained")
    befores = _group(before, [name for name in varied if len({_shown(c, name) for c in before}) > 1], BEFORE)
    first = next(cell for cell in cells if cell.scored or cell.results)
    task = current(first.settings).get("task", "summarize")
    scored = {name: [cell.scored for cell in group if cell.scored] for name, group in groups.items()}
    metrics = _metrics(task, [one for group in scored.values() for one in group])
    rows = [_row(name, "cell", group, swept, metrics) for name, group in groups.items()]
    rows += [_row(name, "before", group, swept, metrics) for name, group in befores.items()]
    lead3 = score_lead(first.scored) if task == "summarize" and first.scored else None
    if lead3:
        figures = {
            name: _interval(lead3.tallies[name], most=METRICS[name].most) for name in metrics if name in lead3.tallies
        }
        rows.append(Row(LEAD, "lead-3", {}, [], figures, 1, len(lead3.predictions), 0, {}, None))
    chosen = _find_baseline(groups, baseline or grid["baseline"], baseline is not None)
    differences = _differences(scored, chosen, metrics) if chosen in scored else []
    winner = _winner(scored, metrics[0]) if metrics else None
    command = shlex.join(grid["command"])
    return Summary(command, grid["question"], task, metrics, swept, rows, differences, winner)


def _read_grid(folder: Path) -> dict[str, Any]:
    """Return the content of grid.json. The folder of a single run has none, and is its only cell."""
    single = {"command": [], "question": None, "swept": list(ALWAYS_SHOWN), "cells": ["."], "before": ["before"]}
    path = folder / GRID
    found: dict[str, Any] = {}
    if path.is_file():
        lists = dict.fromkeys(("command", "swept", "cells", "before"), "a list of texts")
        found = check_fields(read_json(path), lists, {"question": "a text", "baseline": "a text"}, path)
    grid = single | found
    return grid | {"baseline": found.get("baseline") or grid["cells"][0]}


def _read_cell(folder: Path) -> _Cell | None:
    """Return what a cell's folder holds, or None if the cell has not ended."""
    error = folder / ERROR
    if results := _read_results(folder):
        predictions = folder / PREDICTIONS
        task = current(results["settings"]).get("task")
        scored = score(predictions, task, folder.name) if predictions.is_file() else None
        return _Cell(folder, results["settings"], results, scored, None)
    if error.is_file():
        told = check_fields(read_json(error), {"settings": "an object", "error": "a text"}, name=error)
        return _Cell(folder, told["settings"], {}, None, told["error"])
    return None


def _read_results(folder: Path) -> dict[str, Any]:
    path = folder / RESULTS
    return read_results(path) if path.is_file() else {}


def _shown(cell: _Cell, name: str) -> str:
    """Return a cell's setting as tables show it. The mode is "text" if the documents are given as whole texts."""
    settings = current(cell.settings)
    if name == "mode" and settings.get("context") == "text":
        return "text"
    given = {name: entry.default for name, entry in RunConfig.__dataclass_fields__.items()} | settings
    return shown(name, at_test(given, name))


def _group(cells: Sequence[_Cell], varied: Sequence[str], alone: str) -> dict[str, list[_Cell]]:
    """Return the cells by the name of their row. Cells that differ only in their seed are in one row."""
    found: dict[str, list[_Cell]] = {}
    for cell in cells:
        parts = [f"{name}={_shown(cell, name)}" for name in varied]
        name = ", ".join([alone, *parts] if alone == BEFORE else parts or [alone])
        found.setdefault(name, []).append(cell)
    return {name: sorted(group, key=_seed) for name, group in found.items()}


def _seed(cell: _Cell) -> int:
    return cell.settings.get("seed", 0)


def _metrics(task: str, scored: Sequence[Scored]) -> list[str]:
    """Return the metrics of a table, the one that the task is judged by first."""
    known = {name for one in scored for name in one.tallies}
    columns = [name for name, metric in METRICS.items() if metric.column and task in metric.table]
    names = dict.fromkeys([*headlines(task, known), *columns, *plotted(task)])
    return [name for name in names if name in known]


def _row(
    name: str, kind: Literal["cell", "before"], cells: Sequence[_Cell], swept: Sequence[str], metrics: Sequence[str]
) -> Row:
    done = [cell for cell in cells if cell.results]
    scored = [cell.scored for cell in done if cell.scored]
    for other in scored[1:]:
        check_same(scored[0], other)
    figures = {}
    for metric in metrics:
        tallies = [one.tallies[metric] for one in scored if metric in one.tallies]
        if tallies:
            figures[metric] = _interval(*tallies, most=METRICS[metric].most)
    totals = [cell.results | {"parameters": _parameters(cell.results)} for cell in done]
    costs = {
        key: float(np.mean(values))
        for key in COSTS
        if (values := [total[key] for total in totals if total.get(key) is not None])
    }
    return Row(
        name=name,
        kind=kind,
        settings={setting: _shown(cells[0], setting) for setting in swept},
        folders=[cell.folder for cell in cells],
        figures=figures,
        seeds=len(done),
        documents=len(scored[0].predictions) if scored else 0,
        cut=sum(p.finish_reason == "length" for one in scored for p in one.predictions),
        cost=costs,
        error=next((cell.error for cell in cells if cell.error), None),
    )


def _parameters(results: Mapping[str, Any]) -> int | None:
    """Return the number of all parameters. `results.json` has it for each box."""
    parts = [results.get(f"{kind}_parameters") for kind in ("trainable", "frozen")]
    return None if None in parts else sum(parts)


def _interval(*tallies: Tally, most: float = np.inf) -> Interval:
    """Return the figure of one metric over seeds and documents. The interval stays in the metric's range."""
    found = _estimate(tallies, None)
    low, high = np.clip((found.low, found.high), 0.0, most)  # NaN stays
    return Interval(found.value, float(low), float(high))


def _estimate(tallies: Sequence[Tally], level: float | None = LEVEL) -> Estimate:
    """Return the mean over the seeds, one tally for each, and how sure it is."""
    return estimate(np.stack([tally.amounts for tally in tallies]), np.stack([tally.sizes for tally in tallies]), level)


def _differences(scored: Mapping[str, list[Scored]], baseline: str, metrics: Sequence[str]) -> list[Difference]:
    """Compare each row with the baseline, by each metric."""
    others = [name for name in scored if name != baseline]
    found = []
    for metric in metrics:
        pairs = {name: _pair(scored[baseline], scored[name], metric) for name in others}
        known = {name: tallies for name, tallies in pairs.items() if tallies}
        estimates = {name: _estimate(tallies, LEVEL / len(known)) for name, tallies in known.items()}
        adjusted = holm([one.p for one in estimates.values()])
        for (name, one), p in zip(estimates.items(), adjusted, strict=True):
            figure = Interval(one.value, one.low, one.high)
            found.append(Difference(name, baseline, metric, figure, one.p, p, one.detectable, p < LEVEL))
    return found


def _pair(one: Sequence[Scored], other: Sequence[Scored], metric: str) -> list[Tally]:
    """Return the differences `other` minus `one` on each document, for each seed that both have."""
    seeds = {scored.settings.get("seed", 0): scored for scored in one}
    found = []
    for scored in other:
        same = seeds.get(scored.settings.get("seed", 0))
        if same and metric in same.tallies and metric in scored.tallies and _meant_alike(same, scored):
            check_same(same, scored)
            tally = paired(same, scored, metric)
            found += [tally] * bool(tally.sizes.any())
    return found


def _meant_alike(one: Scored, other: Scored) -> bool:
    """Whether the settings ask for the same documents. Rows of other documents have no differences."""
    default = {name: RunConfig.__dataclass_fields__[name].default for name in DOCUMENTS}
    return all(one.settings.get(n, value) == other.settings.get(n, value) for n, value in default.items())


def _winner(scored: Mapping[str, list[Scored]], metric: str) -> str | None:
    """Return the row that is better than each other one. The p-values are adjusted for the number of all pairs."""
    names = [name for name, group in scored.items() if group]
    pairs = [pair for pair in combinations(names, 2) if _pair(scored[pair[0]], scored[pair[1]], metric)]
    estimates = [_estimate(_pair(scored[one], scored[other], metric)) for one, other in pairs]
    worse = -1 if METRICS[metric].lower_is_better else 1
    wins = dict.fromkeys(names, 0)
    for (one, other), found, p in zip(pairs, estimates, holm([e.p for e in estimates]), strict=True):
        if p < LEVEL:
            wins[other if worse * found.value > 0 else one] += 1
    return next((name for name, count in wins.items() if count == len(names) - 1 > 0), None)


def find_cell(settings: Sequence[Mapping[str, Any]], text: str) -> int | None:
    """Return the place of the first settings that agree with `text`, such as `freeze=none,mode=64`, or None."""
    wanted = {}
    for item in text.replace(";", ",").split(","):
        name, equals, value = item.strip().partition("=")
        name = name.replace("-", "_")
        name = ALIASES.get(name, name)
        if not equals or name not in RunConfig.__dataclass_fields__:
            return None
        wanted[name] = value
    for place, one in enumerate(settings):
        if all(_agrees(name, current(one).get(name), value) for name, value in wanted.items()):
            return place
    return None


def _agrees(name: str, value: Any, text: str) -> bool:
    """Return whether a text means the value of a setting: `small`, `100` and `100 (small)` are one mode."""
    try:
        if name == "mode":
            return text == shown(name, value) or find_mode(text).name == value
        return shown(name, value) == text or (isinstance(value, float) and float(text) == value)
    except ValueError:
        return False


def _find_baseline(groups: Mapping[str, Sequence[_Cell]], text: str, strict: bool) -> str:
    """Return the row that `text` names. Raises ValueError, with the rows, if there is none and `strict` is true."""
    for name, group in groups.items():
        if text == name or text in [cell.folder.name for cell in group]:
            return name
    owners = [(name, cell.settings) for name, group in groups.items() for cell in group]
    place = find_cell([settings for _, settings in owners], text)
    if place is not None:
        return owners[place][0]
    if strict:
        raise ValueError(f"no row is the baseline {text!r}: choose one of {'; '.join(groups)}")
    return next(iter(groups))


def write_csv(path: Path, summary: Summary) -> None:
    """Write a line for each cell: its settings, its own figures, and the mean and the interval of its row."""
    costs = [name for name in COSTS if any(name in row.cost for row in summary.rows)]
    head = ["row", "kind", "folder", "seed", *summary.swept, "seeds", "documents", "cut"]
    for metric in summary.metrics:
        head += [metric, f"{metric}_mean", f"{metric}_low", f"{metric}_high"]
    lines = []
    for row in summary.rows:
        for folder in row.folders or [None]:
            results = _read_results(folder) if folder else {}
            line = [row.name, row.kind, folder.name if folder else "", results.get("settings", {}).get("seed", "")]
            line += [row.settings.get(name, "") for name in summary.swept]
            line += [row.seeds, row.documents, results.get("cut", "")]
            for metric in summary.metrics:
                figure = row.figures.get(metric)
                line.append(_number(results.get(metric)))
                line += [_number(value) for value in (figure.value, figure.low, figure.high)] if figure else [""] * 3
            total = results | {"parameters": _parameters(results)} if results else {}
            lines.append([*line, *(_number(total.get(name)) for name in costs), row.error or ""])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([[*head, *costs, "error"], *lines])
    write_text(path, text.getvalue())


def _number(value: float | int | None) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.6g}"
