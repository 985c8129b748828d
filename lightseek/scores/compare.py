"""Scores files of predictions: figures with intervals, figures by length of text, and differences between models.

files of predictions -> `Scored`, which has every metric of every page
                     -> `report`, a dictionary of figures for JSON, tables (`tables.py`) and plots (`plots.py`)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from lightseek.data.kinds import TASKS
from lightseek.scores.likelihood import likelihood
from lightseek.scores.metrics import Tally, has_words, lead, tallies
from lightseek.scores.predictions import Prediction, read_predictions
from lightseek.scores.rouge import sees
from lightseek.scores.significance import intervals, p_values

LEAD = "lead-3"
MOST_BINS = 8
Figures = dict[str, dict[str, float]]  # metric -> value or difference, low, high


@dataclass(frozen=True)
class Scored:
    """One model's predictions, with every metric of every page."""

    name: str
    task: str
    settings: dict[str, Any]
    predictions: list[Prediction]
    tallies: dict[str, Tally]
    pages: int  # all pages of the data; there are fewer predictions if the program was stopped


def score(
    path: Path, task: str | None = None, name: str = "", tick: Callable[[int, int], None] | None = None
) -> Scored:
    """Score a file of predictions. `task` overrides the task in the file; if neither has one, it is summarize.

    `tick(done, of)` is called after each page. Raises ValueError if the file holds no predictions.
    """
    head, predictions = read_predictions(path)
    settings = head.get("settings", {})
    task = task or settings.get("task") or "summarize"
    try:
        TASKS.check(task)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not predictions:
        raise ValueError(f"{path} holds no predictions yet")
    texts = [prediction.prediction for prediction in predictions]
    found = likelihood(predictions) | _tallies(predictions, texts, task, tick)
    return Scored(name or path.stem, task, settings, predictions, found, head.get("pages", len(predictions)))


def score_lead(scored: Scored) -> Scored | None:
    """Score the first three sentences of each document as predictions. Returns None if a document is unknown."""
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
    """Return all figures of one or several models. Each model is compared with the first one.

    A single model is compared with lead-3, if its task is to summarize and the documents are known. `edges` are the
    bounds of the bins of text tokens. Raises ValueError, which names the first page that differs, unless all models
    have read the same pages.
    """
    first, *others = models
    for other in others:
        check_same(first, other)
    baseline = score_lead(first) if first.task == "summarize" else None
    lengths = [prediction.text_tokens for prediction in first.predictions]  # the same bins for all
    edges = list(edges or nice_edges(lengths))
    pairs = [(first, other) for other in others] or [(baseline, first)] * (baseline is not None)
    unseen = 0 if first.task == "ocr" else sum(not sees(prediction.reference) for prediction in first.predictions)
    return {
        "task": first.task,
        "unseen": unseen,  # documents for which ROUGE is not defined
        "unspaced": sum(not has_words(p.reference) for p in first.predictions),  # and those for which WER is not
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
    """Raise ValueError, which names the first different page, unless both models have read the same pages.

    A page with another reference is a different page, unless the models read corrupted text of different kinds.
    """
    corrupted = any(one.settings.get(name) != other.settings.get(name) for name in ("corrupt", "eval_corrupt"))
    for number, (a, b) in enumerate(zip_longest(one.predictions, other.predictions), start=1):
        if a is None or b is None or a.id != b.id:
            ids = " and ".join(f"{x.id if x else 'missing'} in {m.name}" for x, m in ((a, one), (b, other)))
            raise ValueError(f"the models have read different documents: number {number} is {ids}")
        if a.reference != b.reference and not corrupted:
            raise ValueError(f"the models have read different documents: {a.id} has another reference in {other.name}")


def figures(found: dict[str, Tally]) -> Figures:
    """Return the value and the 95 % interval of each metric."""
    low, high = intervals(*(np.stack([getattr(t, of) for t in found.values()], axis=1) for of in ("amounts", "sizes")))
    return {
        name: {"value": tally.value, "low": float(a), "high": float(b)}
        for (name, tally), a, b in zip(found.items(), low, high, strict=True)
    }


def paired(one: Scored, other: Scored, name: str) -> Tally:
    """Return the tally of the differences `other` minus `one`, over the pages for which both have the metric."""
    return minus(other.tallies[name], one.tallies[name])


def minus(b: Tally, a: Tally) -> Tally:
    both = (a.sizes > 0) & (b.sizes > 0)
    return Tally((b.amounts - a.amounts) * both, a.sizes * both)


def compare(one: Scored, other: Scored) -> Figures:
    """Return the difference `other` minus `one` of each metric, with its 95 % interval and its p-value."""
    return differences(one.tallies, other.tallies)


def differences(one: dict[str, Tally], other: dict[str, Tally]) -> Figures:
    """Return the same for tallies by the name of their metric."""
    found = {name: minus(other[name], one[name]) for name in one if name in other}
    found = {name: tally for name, tally in found.items() if tally.sizes.any()}
    luck = p_values(np.stack([tally.amounts for tally in found.values()], axis=1))
    return {
        name: {"difference": figure["value"], "low": figure["low"], "high": figure["high"], "p": float(p)}
        for (name, figure), p in zip(figures(found).items(), luck, strict=True)
    }


def costs(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Return mean tokens and seconds per page, peak memory, and the share (%) of texts cut off at the token limit."""
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
    return {name: value for name, value in found.items() if value or name == "cut_off"}  # 0 means unknown


def by_length(model: Scored, lengths: Sequence[int], edges: Sequence[int]) -> list[dict[str, Any]]:
    """Return the figures of the pages in each bin of lengths, as in the paper's table 2. Empty bins are left out.

    A bin contains its lower edge but not its upper edge. There is also a bin below the first edge and one from the
    last edge on.
    """
    found, tokens = [], np.array(lengths)
    for low, high in pairwise([1, *edges, math.inf]):  # from 1, because 0 means unknown
        inside = np.flatnonzero((tokens >= low) & (tokens < high))
        if len(inside):
            some = {name: tally.of(inside) for name, tally in model.tallies.items()}
            some = {name: tally for name, tally in some.items() if tally.sizes.any()}
            label = f"{low}+" if high == math.inf else f"<{high}" if low == 1 else f"{low}-{high}"
            ratio = costs([model.predictions[i] for i in inside]).get("compression_ratio")
            found.append({"bin": label, "pages": len(inside), "compression_ratio": ratio, "scores": figures(some)})
    return found


def nice_edges(tokens: Sequence[int]) -> list[int]:
    """Return round bounds of at most 8 bins of equal width that hold the middle 90 % of the texts.

    For texts of 600 to 1300 tokens these are the bins of the paper's table 2.
    """
    known = [count for count in tokens if count]
    if not known:
        return []
    low, high = np.quantile(known, [0.05, 0.95])
    for width in (digit * 10**power for power in range(1, 20) for digit in (1, 2, 5)):
        start, end = math.floor(low / width), math.ceil((high + 1) / width)
        if end - start <= MOST_BINS:
            return [width * place for place in range(start, end + 1) if place]
    raise AssertionError("no file of predictions has counts of 10^20 tokens")


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return short names that differ: runs/a/predictions.jsonl and runs/b/predictions.jsonl become a and b.

    Raises ValueError if a file is given twice.
    """
    whole = [path.with_suffix("").parts for path in paths]
    if len(set(whole)) < len(whole):
        raise ValueError(f"a file of predictions is given twice: {', '.join(map(str, paths))}")
    if len(whole) == 1:
        return [paths[0].stem]
    for end, rest in ((0, slice(1, None)), (-1, slice(-1))):  # drop the parts that all have in common, from both ends
        while min(map(len, whole)) > 1 and len({parts[end] for parts in whole}) == 1:
            whole = [parts[rest] for parts in whole]
    return ["/".join(parts) for parts in whole]
