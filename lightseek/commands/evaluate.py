"""`python -m lightseek evaluate`: scores the predictions of one model, or of several models on the same documents."""

import argparse
from pathlib import Path
from typing import Any

from lightseek.commands.common import add, say, show
from lightseek.data.kinds import TASKS


def evaluate(arguments: argparse.Namespace) -> None:
    """Score each file of predictions, compare the others with the first, and print the tables."""
    from lightseek.scores.compare import distinct_names, report, score
    from lightseek.scores.tables import tables
    from lightseek.tools.console import bars

    names = distinct_names(arguments.files)
    if arguments.answers:
        evaluate_fields(arguments, names)
        return
    models = []
    with bars() as progress:
        for path, name in zip(arguments.files, names, strict=True):
            bar = progress.add_task(f"score {name}", total=None, figures="")
            tick = lambda done, of, bar=bar: progress.update(bar, completed=done, total=of)  # noqa: E731
            models.append(score(path, arguments.task, name, tick))
    for model in models:
        if len(model.predictions) < model.pages:
            say(f"{model.name} has {len(model.predictions)} of {model.pages} predictions: `generate` was stopped")
    found = report(models, arguments.bins)
    if arguments.out:
        write(arguments.out, models, found)
        say(f"figures and plots: {arguments.out}")
    for table in tables(found):
        show(table)


def evaluate_fields(arguments: argparse.Namespace, names: list[str]) -> None:
    """Score files that `extract` wrote against the right answers, field by field."""
    from lightseek.scores.fields import compare_fields, read_answers
    from lightseek.scores.tables import fields_tables
    from lightseek.tools.files import write_json

    models = [(name, read_answers(path)) for path, name in zip(arguments.files, names, strict=True)]
    found = compare_fields(read_answers(arguments.answers), models)
    if arguments.out:
        write_json(arguments.out / "evaluation.json", found)
    for table in fields_tables(found):
        show(table)


def write(out: Path, models: list[Any], found: dict[str, Any]) -> None:
    """Write `evaluation.json` and the plots to a folder."""
    from lightseek.scores.compare import paired
    from lightseek.scores.kinds import headlines
    from lightseek.scores.plots import plot_differences, plot_lengths, plot_scores
    from lightseek.tools.files import write_json

    plot_scores(out / "scores.png", found)
    if found["models"][0]["bins"]:
        plot_lengths(out / "lengths.png", found)
    metric = headlines(found["task"], found["models"][0]["scores"])[0]
    for number, other in enumerate(models[1:]):
        name = "differences.png" if len(models) == 2 else f"differences-{number + 2}.png"
        tally = paired(models[0], other, metric)
        pages = tally.amounts[tally.sizes > 0] / tally.sizes[tally.sizes > 0]
        plot_differences(out / name, pages.tolist(), found["comparisons"][number], metric)
    write_json(out / "evaluation.json", found)


def edges(text: str) -> list[int]:
    """Return the bounds of the bins in `600,700,800`. Raises ArgumentTypeError if they are not rising numbers."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = [0]
    if found != sorted(set(found)) or found[0] < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: bins are rising numbers of tokens, such as 600,700,800")
    return found


def add_parser(commands: Any) -> None:
    command = add(commands, evaluate, "score predictions, and compare models on the same pages")
    command.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="files of predictions; the others are compared with the first",
    )
    command.add_argument(
        "--answers",
        type=Path,
        metavar="FILE",
        help="the files are those of `extract`, and these are the right answers in the same form: score each field",
    )
    command.add_argument("--out", type=Path, metavar="DIR", help="a folder for evaluation.json and the plots")
    command.add_argument(
        "--task", choices=list(TASKS), help="the task to score (default: the task in the file, or summarize)"
    )
    command.add_argument(
        "--bins",
        type=edges,
        metavar="N,N,...",
        help="the bounds of the ranges of text tokens (default: at most 8 ranges)",
    )
