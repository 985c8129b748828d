"""Shows the figures of a comparison as rich tables."""

from collections.abc import Callable
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from lightseek.scores.kinds import METRICS, headlines

COSTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "text_tokens": ("text tokens a document", "{:.0f}".format),
    "vision_tokens": ("vision tokens a document", "{:.0f}".format),
    "compression_ratio": ("compression", "{:.1f}x".format),
    "cut_off": ("cut off %", "{:.1f}".format),
    "seconds": ("seconds a document", "{:.2f}".format),
    "peak_bytes": ("peak memory MB", lambda value: f"{value / 2**20:,.0f}"),
}


def tables(report: dict[str, Any]) -> list[Table]:
    """Return the tables of scores, of differences and of scores by length."""
    found = [scores_table(report), *(difference_table(comparison) for comparison in report["comparisons"])]
    return [*found, lengths_table(report)] if report["models"][0]["bins"] else found


def scores_table(report: dict[str, Any]) -> Table:
    models = report["models"]
    table = _table(f"{models[0]['pages']} documents, with 95 % intervals", "")
    columns = [(model["name"], model["scores"]) for model in models]
    if report["lead3"]:
        columns.append(("lead-3", report["lead3"]))
    for name, _ in columns:
        table.add_column(escape(name), justify="right")
    for metric, about in METRICS.items():
        if any(metric in scores for _, scores in columns):
            table.add_row(about.title, *(with_interval(scores.get(metric)) for _, scores in columns))
        elif (about.latin and report["unseen"]) or (about.spaced and report["unspaced"]):
            table.add_row(about.title, *("not computable" for _ in columns))
    told = []
    if report["unseen"]:
        told.append(
            f"ROUGE sees only words of a-z and 0-9. So it is not computable for {report['unseen']} of these documents, "
            "whose references are in other scripts."
        )
    if report["unspaced"]:
        told.append(
            f"WER and word precision count what stands between spaces. So they are not computable for "
            f"{report['unspaced']} of these documents, whose references have no spaces between words."
        )
    table.caption, table.caption_justify = "\n".join(told) or None, "left"
    table.add_section()
    for cost, (label, form) in COSTS.items():
        if any(cost in model["costs"] for model in models):
            shown = (form(model["costs"][cost]) if cost in model["costs"] else "" for model in models)
            table.add_row(label, *shown, style="dim")
    return table


def difference_table(comparison: dict[str, Any]) -> Table:
    table = _difference_table(comparison)
    for metric, about in METRICS.items():
        if found := comparison["scores"].get(metric):
            add_difference(table, about.title, found)
    return table


def add_difference(table: Table, title: str, found: dict[str, float]) -> None:
    interval = f"[{found['low']:+.1f}, {found['high']:+.1f}]"
    p = "<0.001" if found["p"] < 0.001 else f"{found['p']:.3f}"
    table.add_row(title, f"{found['difference']:+.1f}", interval, p, style="bold" if found["p"] < 0.05 else "")


def fields_tables(found: dict[str, Any]) -> list[Table]:
    """Return the tables of `compare_fields`: a row for each field, and one for the differences of each other model."""
    scores = _table(f"{found['documents']} documents, in %, with 95 % intervals", "field")
    for model in found["models"]:
        for measure in ("exact", "F1"):
            scores.add_column(escape(f"{model['name']}\n{measure}"), justify="right")
    for field in found["fields"]:
        figures = [model["scores"][f"{field}: {of}"] for model in found["models"] for of in ("exact", "F1")]
        scores.add_row(escape(field), *map(with_interval, figures))
    tables = [scores]
    for comparison in found["comparisons"]:
        tables.append(_difference_table(comparison))
        for name, difference in comparison["scores"].items():
            add_difference(tables[-1], escape(name), difference)
    return tables


def lengths_table(report: dict[str, Any]) -> Table:
    """Return a row for each range of text tokens, as in the paper's table 2. The compression is the first model's."""
    models, metrics = report["models"], headlines(report["task"], report["models"][0]["scores"])
    several = len(models) > 1
    columns = [(model, metric) for model in models for metric in (metrics[:1] if several else metrics)]
    table = _table("by text tokens on the pages of a document", "tokens")
    table.add_column("documents", justify="right")
    table.add_column("compression", justify="right")
    for model, metric in columns:
        table.add_column(
            f"{escape(model['name'])}\n{METRICS[metric].title}" if several else METRICS[metric].title, justify="right"
        )
    for place, row in enumerate(models[0]["bins"]):
        ratio = f"{row['compression_ratio']:.1f}x" if row["compression_ratio"] else ""
        cells = [with_interval(model["bins"][place]["scores"].get(metric)) for model, metric in columns]
        table.add_row(row["bin"], str(row["pages"]), ratio, *cells)
    return table


def with_interval(figure: dict[str, float] | None) -> str:
    if figure is None:
        return ""
    return f"{figure['value']:.1f} [dim][{figure['low']:.1f}, {figure['high']:.1f}][/]"


def _difference_table(comparison: dict[str, Any]) -> Table:
    table = _table(f"{comparison['of']} minus {comparison['against']}, document by document", "")
    for title in ("difference", "95 % interval", "p"):
        table.add_column(title, justify="right")
    return table


def _table(title: str, first: str) -> Table:
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first)
    return table
