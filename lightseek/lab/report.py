"""Writes `report.html`: what a grid found, in one file that opens anywhere without a network.

    Summary, folders of the cells -> tables, plots (`figures.py`), sample pages (`samples.py`) -> templates/report.html

Nothing from the data can become markup or a script: the template escapes every value, and the page's
Content-Security-Policy allows only the style sheet and the script of the template, by their hashes, and pictures that
are part of the file.
"""

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lightseek import __version__
from lightseek.lab.figures import STRIP, Axis, chart, interval, looks, si, strip
from lightseek.lab.samples import sample_documents
from lightseek.lab.summary import BEFORE, ERROR, RESULTS, Difference, Row, Summary, summarise
from lightseek.scores.kinds import METRICS, headlines, plotted
from lightseek.tools.files import write_text
from lightseek.tools.json_files import parse_json, read_json
from lightseek.training.settings import current, shown

REPORT = "report.html"
MOST_BYTES = 5_000_000  # of the report
# How many sample documents and how many letters of each text are tried in turn, until the report is small enough.
SAMPLE_SIZES = ((4, 1500), (3, 1000), (2, 700), (1, 500), (0, 0))
MOST_PICTURES = 3_000_000  # bytes of all pages together
# Key of `Row.cost` -> title, unit, factor, digits after the point (None: a prefix such as M).
COSTS: dict[str, tuple[str, str, float, int | None]] = {
    "parameters": ("parameters", "", 1.0, None),
    "trainable_parameters": ("parameters that learn", "", 1.0, None),
    "flops_page": ("FLOPs a page", "", 1.0, None),
    "flops_token": ("FLOPs a token", "", 1.0, None),
    "train_loss": ("training loss", "", 1.0, 3),
    "eval_loss": ("validation loss", "", 1.0, 3),
    "seconds": ("time", "s", 1.0, 0),
    "peak_bytes": ("peak memory", "MB", 1 / 2**20, 0),
    "vision_tokens": ("vision tokens a document", "", 1.0, 0),
    "compression_ratio": ("text tokens per vision token", "", 1.0, 2),
    "official_ratio": ("the same in tokens of the official vocabulary", "", 1.0, 2),
}


def write_report(folder: Path, baseline: str | None = None) -> Path:
    """Make the report of a grid from its folder alone, and return the path of the file.

    `baseline` is the row that the others are compared with, as `summarise` takes it. Raises what `summarise` raises.
    """
    return save_report(folder, summarise(folder, baseline))


def save_report(folder: Path, summary: Summary) -> Path:
    """Write the report of a summary to the grid's folder, and return the path of the file."""
    write_text(folder / REPORT, render(summary))
    return folder / REPORT


def render(summary: Summary) -> str:
    """Return the report as HTML. It has at most 5 MB for a grid of 60 cells, whatever the size of their pages."""
    page = Page(summary)
    for documents, letters in SAMPLE_SIZES:
        html = page.html(documents, letters)
        if len(html.encode()) <= MOST_BYTES:
            break
    return html


class Page:
    """Everything that the template shows, collected once."""

    def __init__(self, summary: Summary) -> None:
        self.summary, self.rows = summary, summary.rows
        self.records = [_records(row) for row in self.rows]
        self.settings = [_settings(row, records) for row, records in zip(self.rows, self.records, strict=True)]
        present = [name for name in summary.metrics if any(name in row.figures for row in self.rows)]
        judged = headlines(summary.task)
        in_table = lambda name: METRICS[name].column and summary.task in METRICS[name].table  # noqa: E731
        self.main = [name for name in present if name in judged or in_table(name)]
        self.plotted = [name for name in present if name in judged or name in plotted(summary.task)]
        self.all = present
        self.looks, self.legends = looks(self.rows, summary.swept)

    def html(self, documents: int, letters: int) -> str:
        """Return the page with this number of sample documents, and with so many letters of each text at most."""
        contexts = [str(settings.get("context", "vision")) for settings in self.settings]
        samples = sample_documents(self.rows, contexts, documents, letters, MOST_PICTURES)
        style, script = (_file(name) for name in ("report.css", "report.js"))
        environment = Environment(
            loader=PackageLoader("lightseek.lab", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {"interval": interval, "p": p_value, "figure": figure, "metric": METRICS.__getitem__}
        charts = self.charts()
        html = environment.get_template("report.html").render(
            title=self.summary.question or f"What changes with {_listed(self.summary.swept)}?",
            summary=self.summary,
            version=__version__,
            style=style,
            script=script,
            policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
            "base-uri 'none'; form-action 'none'",
            main=self.main,
            rest=[name for name in self.all if name not in self.main],
            looks=self.looks,
            legends=self.legends,
            strips=self.strips(),
            strip_width=STRIP,
            charts=charts,
            has_lines=any(drawn.lines for metric in charts.values() for drawn in metric),
            findings=self.findings(),
            differences=self.differences(),
            costs=self.costs(),
            totals=self.totals(),
            samples=samples,
            differing=self.differing(),
            shared=self.shared(),
            warnings=self.warnings(),
            machines=self.machines(),
        )
        return html.encode("utf-8", "replace").decode()  # half of a surrogate pair may come from an output

    def charts(self) -> dict[str, list[Any]]:
        """Return the plots of each metric: against vision tokens, FLOPs and time."""
        cost = lambda key: {i: row.cost[key] for i, row in enumerate(self.rows) if row.cost.get(key)}  # noqa: E731
        seconds, tokens = cost("seconds"), cost("vision_tokens")
        minutes = max(seconds.values(), default=0) >= 300
        axes = [
            Axis("vision tokens a document", tokens, exact=len(set(tokens.values())) <= 8),
            Axis("FLOPs a page", cost("flops_page"), si=True),
            Axis(
                f"time to train and evaluate, {'minutes' if minutes else 'seconds'}",
                {i: value / 60 if minutes else value for i, value in seconds.items()},
            ),
        ]
        found = {
            name: [drawn for axis in axes if (drawn := chart(self.rows, self.looks, name, axis))]
            for name in self.plotted
        }
        return {name: drawn for name, drawn in found.items() if drawn}

    def strips(self) -> list[Any]:
        """Return the strip of each row for the first metric, all on one axis."""
        if not self.main:
            return [None] * len(self.rows)
        there = [row.figures[self.main[0]] for row in self.rows if self.main[0] in row.figures]
        ends = [end for figure in there for end in (figure.value, figure.low, figure.high) if math.isfinite(end)]
        low, high = min(ends, default=0.0), max(ends, default=0.0)
        return [
            strip(row.figures[self.main[0]], low, high) if self.main[0] in row.figures else None for row in self.rows
        ]

    def differences(self) -> list[dict[str, Any]]:
        """Return the differences with their strips, whose axis is the same for all differences of a metric."""
        places = {row.name: place for place, row in enumerate(self.rows)}
        found = []
        for difference in self.summary.differences:
            same = [other.figure for other in self.summary.differences if other.metric == difference.metric]
            ends = [abs(end) for other in same for end in (other.value, other.low, other.high) if math.isfinite(end)]
            reach = max(ends, default=0.0) or 1.0
            found.append(
                {
                    "of": difference,
                    "place": places.get(difference.row),
                    "strip": strip(difference.figure, -reach, reach),
                    "verdict": verdict(difference),
                }
            )
        return found

    def findings(self) -> list[str]:
        """Return what the first metric of the task tells, in sentences. A winner is named only if it is resolved."""
        if not self.main:
            return []
        name = self.main[0]
        metric, said = METRICS[name], []
        cells = [row for row in self.rows if row.kind == "cell" and name in row.figures]
        compared = [difference for difference in self.summary.differences if difference.metric == name]
        if len(cells) == 1:
            said.append(f"{metric.title} is {interval(cells[0].figures[name])} after training.")
        elif cells:
            best = (min if metric.lower_is_better else max)(cells, key=lambda row: row.figures[name].value)
            extreme = "lowest" if metric.lower_is_better else "highest"
            found = f"the {extreme} {metric.title}, {interval(best.figures[name])}"
            if best.name == self.summary.winner:
                said.append(f"{best.name} has {found}, and is better than each other row.")
            else:
                said.append(f"No row is better than all others. {best.name} has {found}.")
            said += [_about(difference) for difference in compared if difference.row == best.name]
        short = lambda row: row.name.removeprefix(f"{BEFORE}, ")  # noqa: E731
        for kind in ("before", "lead-3"):
            others = [row for row in self.rows if row.kind == kind and name in row.figures]
            listed = [f"{interval(row.figures[name])}{f' ({short(row)})' * (len(others) > 1)}" for row in others[:3]]
            if listed:
                what = (
                    "Before training it was" if kind == "before" else "The first three sentences of the document have"
                )
                said.append(f"{what} {_listed(listed)}.")
        among = [difference for difference in compared if self._kind(difference.row) == "cell"]
        if among:
            resolved = sum(difference.resolved for difference in among)
            least = [difference.detectable for difference in among if math.isfinite(difference.detectable)]
            said.append(
                f"{resolved} of {len(among)} differences to the baseline, {among[0].baseline}, are resolved: their "
                "p-value after Holm's correction is below 0.05."
            )
            if not least:
                said.append("So few documents and seeds cannot show any difference: run more of them.")
            else:
                reach = f"{min(least):.1f}" + f" to {max(least):.1f}" * (max(least) - min(least) >= 0.05)
                said.append(
                    f"This number of documents and seeds could have shown a difference of {reach} points or more; "
                    "smaller ones may exist and stay unseen."
                )
        return said

    def _kind(self, name: str) -> str:
        return next((row.kind for row in self.rows if row.name == name), "cell")

    def costs(self) -> dict[str, Any]:
        """Return the columns of the table of costs, and for each row the (value, text) of each column."""
        keys = [key for key in COSTS if any(key in row.cost for row in self.rows)]
        cells = [[(row.cost.get(key), figure(row.cost.get(key), *COSTS[key][2:])) for key in keys] for row in self.rows]
        titles = [f"{COSTS[key][0]}{f', {COSTS[key][1]}' if COSTS[key][1] else ''}" for key in keys]
        return {"titles": titles, "cells": cells}

    def totals(self) -> dict[str, str]:
        """Return what the whole grid took."""
        results = [results for records in self.records for results, _ in records if results]
        seconds = sum(float(each.get("seconds", 0.0)) for each in results)
        peaks = [each["peak_bytes"] for each in results if each.get("peak_bytes")]
        return {
            "cells that ran to their end": str(len(results)),
            "time of all cells": f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.1f} min",
            **({"largest peak memory of a process": f"{max(peaks) / 2**20:,.0f} MB"} if peaks else {}),
        }

    def differing(self) -> dict[str, Any]:
        """Return the settings that differ between the rows, beside the seed, and each row's values."""
        names = [name for name in self._setting_names() if name != "seed" and len(self._values(name)) > 1]
        known = [place for place, settings in enumerate(self.settings) if settings]
        values = {place: [shown(name, self.settings[place].get(name)) for name in names] for place in known}
        warm = {
            place: next((r["warm_start"] for r, _ in self.records[place] if r.get("warm_start")), {}) for place in known
        }
        if any(warm.values()):  # what swapped boxes learned before the task
            names = [*names, "warm start"]
            for place, found in warm.items():
                values[place].append(
                    f"{found['steps']} steps, loss {found['loss_before']:.3g} to {found['loss_after']:.3g}"
                    if found
                    else "none"
                )
        return {"names": names, "rows": list(values.items())}

    def shared(self) -> list[tuple[str, str]]:
        """Return the settings that are the same in all rows."""
        names = [name for name in self._setting_names() if name != "seed" and len(self._values(name)) == 1]
        return [(name, shown(name, next(s[name] for s in self.settings if name in s))) for name in names]

    def _setting_names(self) -> list[str]:
        return list(dict.fromkeys(name for settings in self.settings for name in settings))

    def _values(self, name: str) -> set[str]:
        return {json.dumps(settings.get(name)) for settings in self.settings if settings}

    def warnings(self) -> list[str]:
        """Return what makes figures of a row doubtful: cut outputs, text that was dropped, and missing glyphs."""
        told: dict[str, list[str]] = {}
        for row, records in zip(self.rows, self.records, strict=True):
            results = [results for results, _ in records if results]
            dropped = sum(each.get("truncated", {}).get("documents", 0) for each in results)
            glyphs = list(dict.fromkeys(glyph for each in results for glyph in each.get("missing_glyphs", {})))
            if row.cut:
                of = f" of {row.documents * row.seeds}" if row.documents else ""
                told.setdefault("outputs were cut off at the length limit (max_new_tokens)", []).append(
                    f"{row.cut}{of} of {row.name}"
                )
            if dropped:
                told.setdefault("documents lost text for which there was no room (max_pages)", []).append(
                    f"{dropped} of {row.name}"
                )
            if glyphs:
                told.setdefault("characters have no glyph in the font", []).append(
                    f"{' '.join(glyphs[:20])} of {row.name}"
                )
        most = 5
        return [
            f"{what.capitalize()}: {'; '.join(cases[:most])}"
            + (f"; and in {len(cases) - most} more rows." if len(cases) > most else ".")
            for what, cases in told.items()
        ]

    def machines(self) -> list[dict[str, Any]]:
        """Return each different machine and set of versions, with the number of its cells."""
        counts: dict[str, int] = {}
        for results in (results for records in self.records for results, _ in records if results):
            found = results.get("machine") or {"device": results.get("device", "unknown")}
            known = json.dumps({**found, "processes": results.get("processes", 1)})
            counts[known] = counts.get(known, 0) + 1
        return [{**_described(parse_json(known, "")), "cells": str(count)} for known, count in counts.items()]


def verdict(difference: Difference) -> str:
    """Return better, worse or not resolved."""
    if not difference.resolved:
        return "not resolved"
    return "better" if (difference.figure.value > 0) != METRICS[difference.metric].lower_is_better else "worse"


def p_value(p: float) -> str:
    """Return a p-value with two digits, and a small one as `< 0.001`."""
    return "–" if not math.isfinite(p) else "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def figure(value: float | None, factor: float = 1.0, digits: int | None = 1) -> str:
    """Return a number as the tables show it: multiplied by `factor`, and with a prefix if `digits` is None."""
    if value is None or not math.isfinite(value):
        return "–"
    return si(value * factor) if digits is None else f"{value * factor:,.{digits}f}"


def _about(difference: Difference) -> str:
    """Return a sentence about the difference of the best row to the baseline."""
    what = "Its difference to the baseline" if difference.resolved else "Even its difference to the baseline"
    told = "is resolved" if difference.resolved else "is not resolved"
    of = f"{interval(difference.figure, signed=True)} against {difference.baseline}"
    return f"{what} {told}: {of} (adjusted p {p_value(difference.adjusted)})."


def _records(row: Row) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return (results, error) of each cell of a row. Both are empty for a cell that has not run."""
    return [tuple(_json(folder / name) for name in (RESULTS, ERROR)) for folder in row.folders]  # type: ignore


def _settings(row: Row, records: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """Return the settings of a row's first cell, from whichever of its files there is."""
    for folder, (results, error) in zip(row.folders, records, strict=True):
        found = results.get("settings") or error.get("settings") or _json(folder / "config.json")
        if found:
            return current(found)
    return {}


def _json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. It is empty if there is no such file or if a kill left only a part of it."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _described(machine: dict[str, Any]) -> dict[str, str]:
    memory, packages = machine.pop("memory_bytes", None), machine.pop("packages", {})
    described = {name: str(value) for name, value in machine.items()}
    if memory:
        described["memory"] = f"{memory / 2**30:.1f} GiB"
    if packages:
        described["packages"] = ", ".join(f"{name} {version}" for name, version in packages.items())
    return described


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _file(name: str) -> Markup:
    return Markup(files("lightseek.lab").joinpath("templates", name).read_text(encoding="utf-8"))


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
