"""Shows the summary of a grid as rich tables: the figures of each row, and the differences to the baseline."""

import math
from collections.abc import Callable

from rich import box
from rich.markup import escape
from rich.table import Table

from lightseek.lab.summary import Difference, Interval, Row, Summary
from lightseek.scores.kinds import METRICS

# Key of `Row.cost` -> the title of the column and the format of the value.
COSTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "compression_ratio": ("tokens\nratio", "{:.1f}x".format),  # text tokens of the model per vision token
    "official_ratio": ("official\nratio", "{:.2f}x".format),  # the same in tokens of the official vocabulary
    "warm_start_explained": ("warm\nstart", "{:.0f}%".format),  # the variance of the old box that the new one explains
    "parameters": ("para-\nmeters", lambda value: f"{value / 1e6:.2f}M"),
    "trainable_parameters": ("train-\nable", lambda value: f"{value / 1e6:.2f}M"),
    "flops_page": ("GFLOP\npage", lambda value: f"{value / 1e9:.3g}"),
    "flops_token": ("GFLOP\ntoken", lambda value: f"{value / 1e9:.3g}"),
    "eval_loss": ("eval\nloss", "{:.2f}".format),
    "seconds": ("sec", "{:.0f}".format),
    "peak_bytes": ("peak\nMB", lambda value: f"{value / 2**20:.0f}"),
}
MANY = 0.1  # the share of outputs that are cut off above which the table warns
PLAIN = "[dim]"


def results_table(summary: Summary) -> Table:
    """Return a table with a row for each group of cells, for the weights before training and for lead-3.

    Each figure stands above its 95 % interval. `notes` tells the settings and costs that are equal in all rows.
    """
    cells = [row for row in summary.rows if row.kind == "cell"]
    table = Table(
        title=escape(_title(cells)), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    settings = _varied(summary, cells)
    table.add_column("", style="bold", overflow="fold")
    for name in settings[1:]:
        table.add_column(name.replace("_", "\n"), style="bold", vertical="top", overflow="fold")
    if settings:
        table.columns[0].header = settings[0].replace("_", "\n")
    metrics = [name for name in summary.metrics if METRICS[name].column]
    for name in metrics:
        table.add_column(METRICS[name].column, justify="right", no_wrap=True)
    equal = _equal_costs(cells)
    costs = [key for key in COSTS if key not in equal and any(key in row.cost for row in cells)]
    cut = any(row.cut for row in summary.rows)
    if cut:
        table.add_column("cut\noff", justify="right", no_wrap=True)
    for key in costs:
        table.add_column(COSTS[key][0], justify="right", no_wrap=True, style="dim")
    last = "cell"
    for row in summary.rows:
        if row.kind != last:
            table.add_section()
        last = row.kind
        first = [row.settings.get(name, "") for name in settings]
        if row.kind != "cell":
            first = [row.name.replace(", ", "\n"), *[""] * (len(settings) - 1)]
        if row.error:
            table.add_row(*map(escape, first or [row.name]), f"[red]failed[/] {PLAIN}(below)[/]")
            continue
        shown = [_figure(row.figures.get(name)) for name in metrics]
        shown += [f"{row.cut}/{row.documents * row.seeds}" if row.folders else ""] * cut
        shown += [COSTS[key][1](row.cost[key]) if key in row.cost else "" for key in costs]
        table.add_row(*map(escape, first or [row.name]), *shown)
    return table


def _title(cells: list[Row]) -> str:
    documents, seeds = ({getattr(row, name) for row in cells if row.seeds} or {0} for name in ("documents", "seeds"))
    counts = "-".join(map(str, sorted({min(documents), max(documents)})))
    several = "-".join(map(str, sorted({min(seeds), max(seeds)})))
    return f"{counts} test documents x {several} seed{'s' * (max(seeds) > 1)}: mean and 95 % interval"


def _varied(summary: Summary, cells: list[Row]) -> list[str]:
    """Return the settings that differ between the cells."""
    return [name for name in summary.swept if len({row.settings.get(name) for row in cells}) > 1]


def _equal_costs(cells: list[Row]) -> dict[str, float]:
    """Return the costs that follow from the settings alone and are shown as the same text in all rows."""
    done = [row for row in cells if row.seeds]
    found = {}
    for key in list(COSTS)[:7]:
        shown = {COSTS[key][1](row.cost[key]) if key in row.cost else "" for row in done}
        if len(shown) == 1 and "" not in shown:
            found[key] = done[0].cost[key]
    return found


def _figure(figure: Interval | None) -> str:
    if figure is None:
        return ""
    interval = "" if math.isnan(figure.low) else f"\n{PLAIN}{figure.low:.0f}-{figure.high:.0f}[/]"
    return f"{figure.value:.1f}{interval}"


def notes(summary: Summary) -> list[str]:
    """Return what a reader of the table must know, in sentences: what all rows have in common, what the intervals
    cover, which outputs were cut off, which cells failed, and what the ratio counts.
    """
    cells = [row for row in summary.rows if row.kind == "cell"]
    varied = _varied(summary, cells)
    common = [f"{name} {value}" for name, value in cells[0].settings.items() if name not in varied]
    common += [
        f"{COSTS[key][0].replace('-' + chr(10), '').replace(chr(10), ' ')} {COSTS[key][1](one)}"
        for key, one in _equal_costs(cells).items()
    ]
    found = [f"All rows: {', '.join(common)}."] if common else []
    if any(row.seeds == 1 for row in cells):
        found.append("One seed: the intervals cover other documents, but not other seeds (--seeds 3).")
    if cut := [row for row in summary.rows if row.cut > MANY * row.documents * row.seeds]:
        found.append(
            "Many outputs were cut off at the length limit (--max-new-tokens), so the figures of these rows are those "
            f"of unfinished texts: {'; '.join(row.name for row in cut)}."
        )
    found += [f"{row.name} failed: {row.error}" for row in summary.rows if row.error]
    if any("compression_ratio" in row.cost and "official_ratio" not in row.cost for row in cells):
        found.append(
            "The ratio counts tokens of the model's own vocabulary. After pip install 'lightseek[official]' new cells "
            "also tell it in tokens of the official one, which is the paper's unit."
        )
    return found


def differences_table(summary: Summary) -> Table | None:
    """Return the table of the differences to the baseline by the first metric, or None if there are none."""
    rows = [one for one in summary.differences if one.metric == summary.metrics[0]]
    if not rows:
        return None
    metric = METRICS[rows[0].metric]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    base = next(row for row in summary.rows if row.name == rows[0].baseline)
    n = f"{base.documents} documents and {base.seeds} seed{'s' * (base.seeds > 1)}"
    table.title = escape(f"{metric.title} minus that of {base.name}, {n}")
    table.add_column("", style="bold", overflow="fold")
    for title in ("difference", "95 % interval", "p (Holm)"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("verdict", overflow="fold")
    for one in rows:
        interval = "" if math.isnan(one.figure.low) else f"[{one.figure.low:+.1f}, {one.figure.high:+.1f}]"
        p = "<0.001" if one.adjusted < 0.001 else f"{one.adjusted:.3f}"
        name = escape(one.row.replace(", ", "\n"))
        table.add_row(name, f"{one.figure.value:+.1f}", escape(interval), p, verdict(one))
    if summary.winner:
        table.caption = f"{escape(summary.winner)} is better than each other row, resolved."
        table.caption_justify = "left"
    return table


def verdict(one: Difference) -> str:
    """Return in plain words whether a difference is resolved, and if not, how large it would have to be."""
    if one.resolved:
        better = (one.figure.value < 0) == METRICS[one.metric].lower_is_better
        return f"{'better' if better else 'worse'}, resolved"
    if math.isinf(one.detectable):
        return "not resolved: so few documents can't show any difference"
    if one.detectable == 0:
        return "the scores are equal on all documents"
    return f"not resolved: differences under {one.detectable:.1f} can't be seen"
