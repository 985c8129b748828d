"""Lays out the plots of a report. The template draws them as SVG, so every position here is in the units of the SVG.

Rows of a summary -> `looks`, the colour, shape and size of each row's marks
                  -> `chart`, one plot with marks, intervals, lines, ticks and labels
                  -> `strip`, one interval on a small axis, for a cell of a table
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lightseek.lab.summary import Interval, Row
from lightseek.scores.kinds import METRICS

COLOURS, SHAPES = 8, 8  # how many the style sheet and the template have
LEFT, RIGHT, TOP, BOTTOM = 52, 372, 12, 240  # the edges of the plotting area
STRIP = 130  # the width of a strip
DODGE, DODGES = 7.0, 56.0  # between marks that have the same x, and between the first and the last of them


@dataclass(frozen=True)
class Look:
    """How the marks of a row look. Rows before training are hollow."""

    colour: int = 0
    shape: int = 0
    radius: float = 4.5
    hollow: bool = False


@dataclass(frozen=True)
class Legend:
    """What one property of the marks means: the settings, and the look of each of their values."""

    title: str
    entries: list[tuple[str, Look]]


@dataclass(frozen=True)
class Mark:
    """One row in a chart."""

    row: int
    x: float
    y: float
    low: float  # y of the ends of the interval; equal to y if there is none
    high: float
    look: Look
    title: str  # shown when the pointer rests on it


@dataclass(frozen=True)
class Level:
    """A horizontal line through a chart, such as lead-3."""

    y: float
    label: str


@dataclass(frozen=True)
class Chart:
    """One plot. Ticks are (position, label)."""

    x_label: str
    y_label: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    marks: list[Mark]
    lines: list[tuple[int, str]]  # colour, and points as SVG writes them
    levels: list[Level]


@dataclass(frozen=True)
class Axis:
    """What is drawn from left to right."""

    label: str
    values: dict[int, float]  # row -> value
    exact: bool = False  # few values: each gets a tick
    si: bool = False  # ticks such as 10 G


def looks(rows: Sequence[Row], swept: Sequence[str]) -> tuple[list[Look], list[Legend]]:
    """Choose colour, shape and size of each row's marks so that all can be told apart, and explain the choice.

    If vision tokens vary beside other settings, they are the size. One setting gets colours and shapes, and two get one
    of them each. Otherwise each combination gets its own pair of a colour and a shape; there are 64 pairs.
    """
    shown = [row for row in rows if row.kind == "cell" and row.figures] or [row for row in rows if row.kind == "cell"]
    values = {name: list(dict.fromkeys(row.settings.get(name, "") for row in shown)) for name in swept}
    varied = [name for name in swept if len(values[name]) > 1]
    legends: list[Legend] = []
    radii: dict[str, float] = {}
    if "mode" in varied and len(varied) > 1:
        tokens = {row.settings.get("mode", ""): row.cost.get("vision_tokens", 0.0) for row in shown}
        values["mode"].sort(key=lambda mode: tokens[mode])
        step = min(1.2, 4.0 / (len(values["mode"]) - 1))
        radii = {mode: 3.2 + step * place for place, mode in enumerate(values["mode"])}
        varied.remove("mode")
    colours = varied[:1] if len(varied) <= 2 else varied
    shapes = varied[-1:] if len(varied) <= 2 else varied
    if any(len(values[name]) > COLOURS for name in varied):
        colours = shapes = varied
    key = lambda row, names: tuple(row.settings.get(name, "") for name in names)  # noqa: E731
    kinds = list(dict.fromkeys((key(row, colours), key(row, shapes)) for row in shown))
    if colours == shapes:
        places = {pair: (i % COLOURS, (i + i // COLOURS) % SHAPES) for i, pair in enumerate(kinds)}
        if varied:
            legends.append(_legend(varied, [(pair[0], Look(*places[pair])) for pair in kinds]))
    else:
        first, second = values[colours[0]], values[shapes[0]]
        places = {(a, b): (first.index(a[0]), second.index(b[0])) for a, b in kinds}
        legends.append(_legend(colours, [((value,), Look(i, 0)) for i, value in enumerate(first)]))
        legends.append(_legend(shapes, [((value,), Look(-1, i)) for i, value in enumerate(second)]))
    if radii:
        legends.append(_legend(["mode"], [((mode,), Look(-1, 0, radius)) for mode, radius in radii.items()]))
    if any(row.kind == "before" for row in rows):
        legends.append(Legend("", [("before training", Look(-1, 0, hollow=True))]))
    found = []
    for row in rows:
        colour, shape = places.get((key(row, colours), key(row, shapes)), (-1, 0))
        found.append(Look(colour, shape, radii.get(row.settings.get("mode", ""), 4.5), row.kind == "before"))
    return found, legends


def _legend(names: Sequence[str], entries: Sequence[tuple[tuple[str, ...], Look]]) -> Legend:
    return Legend(", ".join(names), [(", ".join(values), look) for values, look in entries])


def chart(rows: Sequence[Row], looks: Sequence[Look], metric: str, axis: Axis) -> Chart | None:
    """Lay out the plot of a metric against an axis. Returns None if there is no row with both values."""
    there = [i for i, row in enumerate(rows) if metric in row.figures and i in axis.values]
    if not there:
        return None
    leads = [row.figures[metric].value for row in rows if row.kind == "lead-3" and metric in row.figures]
    bounds = [bound for i in there for bound in _ends(rows[i].figures[metric])]
    y_low, y_high, y_ticks = _linear([*bounds, *leads], 5)
    to_y = lambda value: BOTTOM - (BOTTOM - TOP) * (value - y_low) / (y_high - y_low)  # noqa: E731
    xs = [axis.values[i] for i in there]
    logarithmic = min(xs) > 0 and max(xs) / min(xs) >= 4
    scale = math.log if logarithmic else float
    x_low, x_high, x_ticks = _logarithmic(xs) if logarithmic else _linear(xs, 5)
    if axis.exact:
        x_ticks = sorted(set(xs))
        margin = 0.12 * (scale(x_ticks[-1]) - scale(x_ticks[0])) or 1.0
        edges = scale(x_ticks[0]) - margin, scale(x_ticks[-1]) + margin
    else:
        edges = scale(x_low), scale(x_high)
    to_x = lambda value: LEFT + (RIGHT - LEFT) * (scale(value) - edges[0]) / (edges[1] - edges[0])  # noqa: E731
    marks = []
    for i in there:
        figure, x = rows[i].figures[metric], to_x(axis.values[i])
        same = [j for j in there if abs(to_x(axis.values[j]) - x) < 1]
        x += min(DODGE, DODGES / len(same)) * (same.index(i) - (len(same) - 1) / 2)
        high, low = (to_y(bound) for bound in reversed(_ends(figure)))
        title = (
            f"{i + 1}. {rows[i].name}: {METRICS[metric].title} {interval(figure)}, {axis.label} {axis.values[i]:,.4g}"
        )
        marks.append(Mark(i, x, to_y(figure.value), low, high, looks[i], title))
    lines = []
    for look in dict.fromkeys((m.look.colour, m.look.shape) for m in marks if not m.look.hollow):
        joined = sorted(
            (m for m in marks if (m.look.colour, m.look.shape) == look and not m.look.hollow), key=lambda m: m.x
        )
        if len({m.x for m in joined}) > 1 and look[0] >= 0:
            lines.append((look[0], " ".join(f"{m.x:.1f},{m.y:.1f}" for m in joined)))
    metric_label = f"{METRICS[metric].title} ({'lower' if METRICS[metric].lower_is_better else 'higher'} is better)"
    labels = [(to_x(tick), si(tick) if axis.si else f"{tick:,.4g}") for tick in x_ticks]
    return Chart(
        axis.label + " (logarithmic)" * logarithmic,
        metric_label,
        _thinned(labels),
        [(to_y(tick), f"{tick:g}") for tick in y_ticks],
        marks,
        lines,
        [Level(to_y(lead), "lead-3") for lead in leads],
    )


def strip(figure: Interval, low: float, high: float) -> tuple[float, float, float] | None:
    """Return x of the value and of the ends of its interval on an axis of `STRIP` units from `low` to `high`."""
    if not math.isfinite(figure.value) or high <= low:
        return None
    to_x = lambda value: 5 + (STRIP - 10) * (value - low) / (high - low)  # noqa: E731
    left, right = _ends(figure)
    return to_x(figure.value), to_x(left), to_x(right)


def interval(figure: Interval, signed: bool = False) -> str:
    """Return `84.5 [80.1, 88.0]`, or only the value if there is no interval."""
    sign = "+" if signed else ""
    if not math.isfinite(figure.value):
        return "–"
    ends = f" [{figure.low:{sign}.1f}, {figure.high:{sign}.1f}]" if math.isfinite(figure.low + figure.high) else ""
    return f"{figure.value:{sign}.1f}{ends}".replace("-", "−")


def si(value: float) -> str:
    """Return a large number with three digits and a prefix: `2.5 G`."""
    for exponent, prefix in ((15, " P"), (12, " T"), (9, " G"), (6, " M"), (3, " k")):
        if abs(value) >= 0.9995 * 10**exponent:
            return f"{value / 10**exponent:.3g}{prefix}"
    return f"{value:.3g}"


def _ends(figure: Interval) -> tuple[float, float]:
    low, high = figure.low, figure.high
    return (low if math.isfinite(low) else figure.value, high if math.isfinite(high) else figure.value)


def _linear(values: Sequence[float], count: int) -> tuple[float, float, list[float]]:
    """Return the ends of an axis that holds the values with a small margin, and round ticks on it."""
    low, high = min(values), max(values)
    if high == low:
        low, high = low - (abs(low) * 0.1 or 1), high + (abs(high) * 0.1 or 1)
    margin = 0.06 * (high - low)
    low, high = low - margin if low < 0 or low > margin else min(low, 0.0) - margin / 3, high + margin
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(digit * power for digit in (1, 2, 5, 10) if digit * power >= rough)
    first = math.ceil(low / step)
    return low, high, [round(step * place, 10) for place in range(first, math.floor(high / step) + 1)]


def _logarithmic(values: Sequence[float]) -> tuple[float, float, list[float]]:
    low, high = min(values) / 1.2, max(values) * 1.2
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    return low, high, [tick for tick in ticks if low <= tick <= high]


def _thinned(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Leave out ticks whose labels would touch the one before."""
    kept: list[tuple[float, str]] = []
    for x, label in ticks:
        if not kept or x - kept[-1][0] >= 4 * (len(label) + len(kept[-1][1])):
            kept.append((x, label))
    return kept
