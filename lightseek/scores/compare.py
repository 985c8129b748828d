"""Predictions scored: figures with intervals, by length of text, and one model against another on the same pages.

files of predictions -> `Scored`, metrics page by page -> `report`, a dictionary of figures that goes to JSON,
the tables (`lightseek.scores.tables`) and the plots (`lightseek.scores.plots`)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from lightseek.scores.metrics import Tally, lead, tallies
from lightseek.scores.predictions import Prediction, read_predictions
from lightseek.scores.significance import intervals, p_values

LEAD = "lead-3"
MOST_BINS = 8
Figures = dict[str, dict[str, float]]  # metric -> value or difference, low, high


@dataclass(frozen=True)
class Scored:
    """One model's predictions, and every metric of every page."""

    name: str
    task: str
    settings: dict[str, Any]
    predictions: list[Prediction]
    tallies: dict[str, Tally]
    pages: int  # that there would be, had the program that predicts run to its end


def score(
    path: Path, task: str | None = None, name: str = "", tick: Callable[[int, int], None] | None = None
) -> Scored:
    """Score a file of predictions. The task is the file's own, or the one given, or else to summarize."""
    head, predictions = read_predictions(path)
    settings = head.get("settings", {})
    task = task or settings.get("task", "summarize")
    if not predictions:
        raise ValueError(f"{path} holds no predictions yet")
    texts = [prediction.prediction for prediction in predictions]
    found = _tallies(predictions, texts, task, tick)
    return Scored(name or path.stem, task, settings, predictions, found, head.get("pages", len(predictions)))


def score_lead(scored: Scored) -> Scored | None:
    """The first three sentences of each document instead of what the model wrote, if the documents are known."""
    if not all(prediction.source for prediction in scored.predictions):
        return None
    texts = [lead(prediction.source) for prediction in scored.predictions]
    found = _tallies(scored.predictions, texts, scored.task)
    return Scored(LEAD, scored.task, scored.settings, scored.predictions, found, scored.pages)


def _tallies(
    predictions: list[Prediction], texts: list[str], task: str, tick: Callable[[int, int], None] | None = None
) -> dict[str, Tally]:
    references = [prediction.reference for prediction in predictions]
    return tallies(texts, references, [prediction.document for prediction in predictions], task, tick)


def report(models: Sequence[Scored], edges: Sequence[int] | None = None) -> dict[str, Any]:
    """All figures of one or several models, each against the first; the only one against lead-3, where there is one.

    `edges` are the bounds of the bins of text tokens. Raises ValueError, naming the first page that differs, unless all
    models have read the same pages.
    """
    first, *others = models
    for other in others:
        check_same(first, other)
    baseline = score_lead(first) if first.task == "summarize" else None
    lengths = [prediction.text_tokens for prediction in first.predictions]  # the same bins for all
    edges = list(edges or nice_edges(lengths))
    pairs = [(first, other) for other in others] or [(baseline, first)] * (baseline is not None)
    return {
        "task": first.task,
        "models": [
            {
                "name": model.name,
                "pages": len(model.predictions),
                "of": model.pages,
                "scores": figures(model.tallies),
                "costs": costs(model.predictions),
                "bins": by_length(model, lengths, edges),
                "settings": model.settings,
            }
            for model in models
        ],
        "lead3": figures(baseline.tallies) if baseline else None,
        "comparisons": [{"of": b.name, "against": a.name, "scores": compare(a, b)} for a, b in pairs],
    }


def check_same(one: Scored, other: Scored) -> None:
    """Raise ValueError naming the first page that the two don't share.

    Another reference is another page too, unless the two were shown corrupted text of different kinds.
    """
    corrupted = one.settings.get("corrupt") != other.settings.get("corrupt")
    for number, (a, b) in enumerate(zip_longest(one.predictions, other.predictions), start=1):
        if a is None or b is None or a.id != b.id:
            ids = " and ".join(f"{x.id if x else 'missing'} in {m.name}" for x, m in ((a, one), (b, other)))
            raise ValueError(f"the models have read different documents: number {number} is {ids}")
        if a.reference != b.reference and not corrupted:
            raise ValueError(f"the models have read different documents: {a.id} has another reference in {other.name}")


def figures(found: dict[str, Tally]) -> Figures:
    """Value and interval of each metric."""
    low, high = intervals(*(np.stack([getattr(t, of) for t in found.values()], axis=1) for of in ("amounts", "sizes")))
    return {
        name: {"value": tally.value, "low": float(a), "high": float(b)}
        for (name, tally), a, b in zip(found.items(), low, high, strict=True)
    }


def paired(one: Scored, other: Scored, name: str) -> Tally:
    """What each page adds to how much higher the other's figure is, over the pages for which both are defined."""
    a, b = one.tallies[name], other.tallies[name]
    both = (a.sizes > 0) & (b.sizes > 0)
    return Tally((b.amounts - a.amounts) * both, a.sizes * both)


def compare(one: Scored, other: Scored) -> Figures:
    """How much higher each of the other's figures is, with its interval, and how likely so much would be by luck."""
    found = {name: paired(one, other, name) for name in one.tallies if name in other.tallies}
    found = {name: tally for name, tally in found.items() if tally.sizes.any()}
    luck = p_values(np.stack([tally.amounts for tally in found.values()], axis=1))
    return {
        name: {"difference": figure["value"], "low": figure["low"], "high": figure["high"], "p": float(p)}
        for (name, figure), p in zip(figures(found).items(), luck, strict=True)
    }


def costs(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Tokens and seconds a page, the most memory, and how many texts (%) did not end by themselves."""
    text, vision = (sum(getattr(p, name) for p in predictions) for name in ("text_tokens", "vision_tokens"))
    cut = sum(p.finish_reason == "length" for p in predictions)
    found = {
        "text_tokens": text / len(predictions),
        "vision_tokens": vision / len(predictions),
        "compression_ratio": text / vision if vision else 0.0,
        "seconds": sum(p.seconds for p in predictions) / len(predictions),
        "peak_bytes": max(p.peak_bytes for p in predictions),
        "cut_off": 100 * cut / len(predictions),
    }
    return {name: value for name, value in found.items() if value or name == "cut_off"}  # 0 is not known


def by_length(model: Scored, lengths: Sequence[int], edges: Sequence[int]) -> list[dict[str, Any]]:
    """The figures of the pages in each bin of lengths that has any, as in the paper's table 2.

    A bin is from one edge up to, not including, the next; pages below the first and from the last on are bins too.
    """
    found, tokens = [], np.array(lengths)
    for low, high in pairwise([1, *edges, math.inf]):  # 0 is not known
        inside = np.flatnonzero((tokens >= low) & (tokens < high))
        if len(inside):
            some = {name: tally.of(inside) for name, tally in model.tallies.items()}
            some = {name: tally for name, tally in some.items() if tally.sizes.any()}
            label = f"{low}+" if high == math.inf else f"<{high}" if low == 1 else f"{low}-{high}"
            ratio = costs([model.predictions[i] for i in inside]).get("compression_ratio")
            found.append({"bin": label, "pages": len(inside), "compression_ratio": ratio, "scores": figures(some)})
    return found


def nice_edges(tokens: Sequence[int]) -> list[int]:
    """Bounds of at most 8 bins, round and equally wide, for the middle 90 % of the texts; 600 to 1300: the paper's."""
    known = [count for count in tokens if count]
    if not known:
        return []
    low, high = np.quantile(known, [0.05, 0.95])
    for width in (digit * 10**power for power in range(1, 9) for digit in (1, 2, 5)):
        start, end = math.floor(low / width), math.ceil((high + 1) / width)
        if end - start <= MOST_BINS:
            return [width * place for place in range(start, end + 1) if place]
    raise AssertionError("no text has 10^9 tokens")


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """What tells the files apart: runs/a/predictions.jsonl and runs/b/predictions.jsonl are a and b."""
    whole = [path.with_suffix("").parts for path in paths]
    if len(set(whole)) < len(whole):
        raise ValueError(f"a file of predictions is given twice: {', '.join(map(str, paths))}")
    if len(whole) == 1:
        return [paths[0].stem]
    for end, rest in ((0, slice(1, None)), (-1, slice(-1))):  # what all have in common, from either end
        while min(map(len, whole)) > 1 and len({parts[end] for parts in whole}) == 1:
            whole = [parts[rest] for parts in whole]
    return ["/".join(parts) for parts in whole]
