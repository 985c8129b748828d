"""The metrics by name: how tables and plots call them, and which tasks they belong to. This file loads no PyTorch.

`scores/metrics.py` computes them. All tables, plots and cards take their metrics from here, in this order.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

from lightseek.tools.registry import Registry


@dataclass(frozen=True)
class Metric:
    """One metric of predictions."""

    label: str  # in tables, plots and help texts
    unit: str = "%"
    lower_is_better: bool = False
    column: str = ""  # its title in the table of a grid; "" leaves it out of that table
    table: tuple[str, ...] = ("ocr", "summarize", "answer")  # the tasks whose table of a grid has that column
    headline: tuple[str, ...] = ()  # the tasks that are judged by it
    plotted: tuple[str, ...] = ()  # the tasks whose plot shows it
    reading: bool = True  # also computed for the task ocr
    latin: bool = False  # not defined for references in other scripts
    spaced: bool = False  # not defined for references without spaces between words
    most: float = 100.0  # the largest value that it can have

    @property
    def title(self) -> str:
        return f"{self.label} {self.unit}".strip()


METRICS = Registry(
    "metric",
    {
        # of the true continuation, see `likelihood.py`
        "bits": Metric(
            "bits per character", "", True, "bits/\nchar", ("continue",), ("continue",), ("continue",), most=math.inf
        ),
        "exact": Metric("exact answers", "%", False, "exact\n%", ("recall",), ("recall",), ("recall",)),
        "rouge1": Metric(
            "ROUGE-1",
            "",
            False,
            "ROUGE\n1",
            headline=("summarize", "answer"),
            plotted=("summarize", "answer"),
            reading=False,
            latin=True,
        ),
        "rouge2": Metric(
            "ROUGE-2", "", False, "ROUGE\n2", headline=("summarize",), plotted=("summarize",), reading=False, latin=True
        ),
        "rougeL": Metric(
            "ROUGE-L", "", False, "ROUGE\nL", headline=("summarize",), plotted=("summarize",), reading=False, latin=True
        ),
        "rougeLsum": Metric("ROUGE-Lsum", "", plotted=("summarize",), reading=False, latin=True),
        "facts": Metric("facts stated", column="facts\n%", plotted=("summarize",), reading=False),
        "ocr_precision": Metric(
            "OCR precision", column="OCR\nprec. %", headline=("ocr",), plotted=("ocr",), table=("ocr",)
        ),
        "word_precision": Metric(
            "word precision", column="word\nprec. %", plotted=("ocr",), table=("ocr",), spaced=True
        ),
        "cer": Metric(
            "CER", "%", True, "CER\n%", headline=("ocr", "answer", "recall"), plotted=("ocr", "answer"), most=math.inf
        ),
        "wer": Metric("WER", lower_is_better=True, plotted=("ocr", "answer"), most=math.inf, spaced=True),
        "novel1": Metric("novel words", reading=False),
        "novel2": Metric("novel 2-grams", reading=False),
        "novel3": Metric("novel 3-grams", reading=False),
        "novel4": Metric("novel 4-grams", reading=False),
        "repetition": Metric("repeated 4-grams", lower_is_better=True),
        "words": Metric("words", "", most=math.inf),
    },
)


def headlines(task: str, known: Collection[str] | None = None) -> list[str]:
    """The metrics that a task is judged by, the most important one first.

    `known` are the metrics that are defined for the texts. If none of the task's is among them, the CER is judged.
    """
    names = [name for name, metric in METRICS.items() if task in metric.headline]
    return names if known is None else [name for name in names if name in known] or ["cer"]


def plotted(task: str) -> list[str]:
    """The metrics that a plot of a task shows."""
    return [name for name, metric in METRICS.items() if task in metric.plotted]
