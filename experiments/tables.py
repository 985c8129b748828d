"""Fills the tables of a page from stored results. Everything between two marks is made; people write the rest.

<!-- table GRID metrics=cer,words -->              a line for each row of the grid, with intervals and differences
<!-- table GRID metrics=cer,words by=mode -->      a column for each value of a setting
<!-- claims -->                                    the claims of experiments/claims.json, and what came of them
<!-- end -->
"""

import json
import re
from pathlib import Path
from typing import Any

from experiments.results import stored
from lightseek.scores.kinds import METRICS

MARK = re.compile(r"(<!-- (table|claims)([^\n]*?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
MISSING = "*This grid was not run yet.*\n"
Summary = dict[str, Any]  # a stored summary, see results.py


def fill(text: str, folder: Path) -> str:
    """Return a page with its tables made from the results in `folder`. Raises ValueError for a mark it can't read."""

    def made(match: re.Match) -> str:
        start, kind, words, _, end = match.groups()
        if kind == "claims":
            return start + claims(folder) + end
        grid, *pairs = words.split()
        options = dict(pair.partition("=")[::2] for pair in pairs)
        if unknown := options.keys() - {"metrics", "by"}:
            raise ValueError(f"a table has no {', '.join(sorted(unknown))}: {match[1].strip()}")
        summary = stored(folder, grid)
        return start + (table(summary, **options) if summary else MISSING) + end

    return MARK.sub(made, text)


def table(summary: Summary, metrics: str, by: str = "") -> str:
    """Return a table of `metrics`, with a line for each row, or, with `by`, with a column for each of its values."""
    names = [name for name in metrics.split(",") if any(name in row["figures"] for row in summary["rows"])]
    return crossed(summary, names, by) if by else listed(summary, names)


def listed(summary: Summary, names: list[str]) -> str:
    """Return a table with a line for each row: each figure with its interval, and its difference from the baseline."""
    differences = {(found["row"], found["metric"]): found for found in summary["differences"]}
    first = next((found["baseline"] for found in summary["differences"]), None)
    lines = []
    for row in summary["rows"]:
        cells = [row["name"] + " (failed)" * bool(row["error"]), *(shown(row["figures"].get(name)) for name in names)]
        found = differences.get((row["name"], names[0])) if names else None
        cells.append("baseline" if row["name"] == first else gap(found) if found else "")
        cells.append(f"{row['documents']} x {row['seeds']}" if row["kind"] != "lead-3" else str(row["documents"] or ""))
        cells.append(str(row["cut"]) if row["kind"] != "lead-3" else "")
        lines.append(cells)
    head = ["", *(METRICS[name].title for name in names), "difference", "documents x seeds", "cut off"]
    return markdown(head, lines)


def crossed(summary: Summary, names: list[str], by: str) -> str:
    """Return a table with a column for each value of the setting `by`. A cell has the figures of all metrics."""
    rows = [row for row in summary["rows"] if row["kind"] != "lead-3" and by in row["settings"]]
    columns = list(dict.fromkeys(row["settings"][by] for row in rows))
    others = [name for name in summary["swept"] if name != by and len({row["settings"].get(name) for row in rows}) > 1]
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        key = tuple(row["settings"].get(name, "") for name in others)
        text = " / ".join(number(row["figures"].get(name, {}).get("value")) for name in names)
        ratio = row["cost"].get("official_ratio") or row["cost"].get("compression_ratio")
        text += f" ({ratio:.1f}x)" if ratio and "characters" in others else ""
        lines.setdefault(key, {})[row["settings"][by]] = text
    cells = [[*key, *(found.get(column, "") for column in columns)] for key, found in lines.items()]
    what = " / ".join(METRICS[name].title for name in names)
    return f"{what}, by {by}:\n" + markdown([*others, *columns], cells)


def markdown(head: list[str], lines: list[list[str]]) -> str:
    rows = [f"| {' | '.join(cells)} |" for cells in [head, *lines]]
    return "\n".join(["", rows[0], "|---" * len(head) + "|", *rows[1:], "", ""])


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def shown(figure: dict[str, float | None] | None) -> str:
    """Return a figure with its interval, if it has one."""
    if figure is None or figure["value"] is None:
        return ""
    if figure["low"] is None or figure["high"] is None:
        return number(figure["value"])
    return f"{number(figure['value'])} ({number(figure['low'])} to {number(figure['high'])})"


def gap(found: dict[str, Any]) -> str:
    """Return a difference with its interval and its adjusted p-value."""
    p = found["adjusted"]
    told = "" if p is None else ", p < 0.001" if p < 0.001 else f", p = {p:.3f}"
    return f"{shown(found['figure'])}{told}"


# ---------------------------------------------------------------------------------------------------------- claims


def claims(folder: Path) -> str:
    """Return the table of all claims. `folder` holds the experiments and `claims.json`."""
    entries = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    lines = [[entry["claim"], entry["source"], *verdict(entry, folder), entry["unknown"]] for entry in entries]
    return markdown(["claim", "source", "at nano's size", "how sure", "what nano can't tell"], lines)


def verdict(entry: dict[str, Any], folder: Path) -> tuple[str, str]:
    """Return (verdict, how sure) of one claim.

    A claim with a `test` says that `row` is higher or lower than `than` in a metric. It *held* if the difference has
    that direction and is resolved, and did *not hold* if the opposite is resolved. A claim without a test is open, and
    so is one whose `upper` line, the row that has all there is to know, is worse than one of the two: then the rows did
    not start as equals.
    """
    test = entry.get("test")
    if test is None:
        return "open", ""
    link = f"[{test['experiment']}](../experiments/{test['experiment']}/README.md)"
    summary = stored(folder / test["experiment"], test.get("grid", "config"))
    if summary is None:
        return "not run yet", link
    row, than = (find(summary, test[name]) for name in ("row", "than"))
    if row is None or than is None or test["metric"] not in row["figures"] or test["metric"] not in than["figures"]:
        return "open", f"{link}: a row failed"
    a, b = row["figures"][test["metric"]], than["figures"][test["metric"]]
    title = METRICS[test["metric"]].title
    if (upper := test.get("upper") and find(summary, test["upper"])) and worse(upper, [row, than], test["metric"]):
        limit = f"the upper line, {upper['name']}, has {shown(upper['figures'][test['metric']])}"
        return "open", f"{shown(a)} against {shown(b)} {title}, but {limit}; {link}"
    found = next(
        (
            one
            for one in summary["differences"]
            if (one["row"], one["baseline"], one["metric"]) == (row["name"], than["name"], test["metric"])
        ),
        None,
    )
    higher, resolved = a["value"] > b["value"], apart(a, b)
    sure = f"{shown(a)} against {shown(b)} {title}"
    if found:
        resolved = found["resolved"]
        sure = f"{title} differs by {gap(found)}"
    held = "held" if higher == (test["is"] == "higher") else "did not hold"
    n = f"{row['documents']} documents x {row['seeds']} seed{'s' * (row['seeds'] > 1)}"
    return held if resolved else "not resolved", f"{sure}; {n}; {link}"


def find(summary: Summary, wanted: dict[str, str]) -> dict[str, Any] | None:
    """Return the first row of which `wanted` gives some settings, or its kind. A text may be a part of the value."""
    for row in summary["rows"]:
        has = {"kind": row["kind"], **row["settings"]}
        if all(name in has and (has[name] == value or f"({value})" in has[name]) for name, value in wanted.items()):
            return row
    return None


def worse(row: dict[str, Any], others: list[dict[str, Any]], metric: str) -> bool:
    """Whether a row has a worse value than one of the others."""
    sign = -1 if METRICS[metric].lower_is_better else 1
    return any(sign * row["figures"][metric]["value"] < sign * other["figures"][metric]["value"] for other in others)


def apart(a: dict[str, float | None], b: dict[str, float | None]) -> bool:
    """Whether two intervals do not overlap, which is stricter than a test of the difference."""
    if None in (a["low"], a["high"], b["low"], b["high"]):
        return False
    return a["high"] < b["low"] or b["high"] < a["low"]
