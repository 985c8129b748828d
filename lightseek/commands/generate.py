"""`python -m lightseek generate`: writes a model's text about every document of a data set to a JSONL file."""

import argparse
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightseek.commands.arguments import Parser, add_settings
from lightseek.commands.common import Failures, add, add_guard, add_model, guard_of, open_model, say
from lightseek.data.kinds import PAGELESS, SOURCES
from lightseek.data.sources.registry import DATA_SET_NAMES
from lightseek.data.splits import SPLITS
from lightseek.page.spec import PageSpec

if TYPE_CHECKING:
    from lightseek.data.document import Document
    from lightseek.data.examples import ExampleMaker
    from lightseek.weights.loading import LightSeekOCR

BATCH = 8
DEFAULTS: dict[str, dict[str, Any]] = {
    "summarize": {"beams": 4, "length_penalty": 2.0, "max_new_tokens": 256},
    "ocr": {"beams": 1, "length_penalty": 1.0, "max_new_tokens": 1024},
    "answer": {"beams": 1, "length_penalty": 1.0, "max_new_tokens": 256},
    "continue": {"beams": 1, "length_penalty": 1.0, "max_new_tokens": 256},
    "recall": {"beams": 1, "length_penalty": 1.0, "max_new_tokens": 64},
}
# Arguments that do not change the texts, so a file of predictions can be continued with other values of them.
_NOT_SETTINGS = ("command", "run", "out", "batch", "device")


def generate(arguments: argparse.Namespace) -> int:
    """Write the predictions to --out. If the file has predictions already, they are kept and the rest is added.

    A document that the model cannot be shown, such as a broken picture, is named on stderr, and the others are done;
    the exit code is then 2.
    """
    from lightseek.tools.locks import locked_file

    with locked_file(arguments.out):
        return write(arguments)


def write(arguments: argparse.Namespace) -> int:
    from lightseek.commands.progress import tell_missing, tell_truncated
    from lightseek.scores.predictions import append_predictions, done_before, predict
    from lightseek.tools.console import bars
    from lightseek.tools.errors import is_out_of_memory
    from lightseek.tools.files import fingerprint
    from lightseek.training.origin import documents_state

    options = writing_options(arguments)
    documents = open_documents(arguments)
    settings = {name: value for name, value in vars(arguments).items() if name not in _NOT_SETTINGS}
    settings |= {f"{name}_files": fingerprint(settings[name]) for name in ("data", "model", "adapter")}
    settings["documents"] = documents_state(documents)  # the pictures that a table names may change, too
    done, left_out = done_before(arguments.out, settings, documents)
    failures = Failures()
    for name in left_out:
        failures.tell(ValueError(f"{arguments.out} has no prediction for {name}, which failed before"))
    if done == len(documents):
        say(f"{arguments.out} has all {done - failures.count} predictions already")
        return failures.code
    model, make = open_maker(arguments)
    guard = partial(guard_of, arguments)
    found = predict(model, make, documents[done:], guard=guard, on_bad=failures.tell, **options)
    if done:
        have = done - failures.count
        say(f"{arguments.out} has {have} of {len(documents)} predictions: the command continues with the rest")
    with bars() as progress:
        bar = progress.add_task("generate", total=len(documents), completed=done, figures="")
        try:
            for prediction in append_predictions(arguments.out, settings, len(documents), found):
                figures = f"{prediction.seconds:.2f} s a document  {prediction.peak_bytes / 2**20:,.0f} MB"
                progress.update(bar, advance=1, figures=figures)
        except KeyboardInterrupt:
            say("stopped: start the same command again to continue")
            raise
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise ValueError(f"out of memory ({error}): lower --batch or --beams, and start it again") from None
    tell_missing(make.missing_glyphs)
    tell_truncated(asdict(make.truncated))
    say(f"{len(documents) - failures.count} predictions; next: python -m lightseek evaluate {arguments.out}")
    return failures.code


def writing_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options of generation. Those that the user did not give get the task's defaults, in `arguments` too.

    Raises ValueError for a number below 1.
    """
    for name, value in DEFAULTS[arguments.task].items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    for name in ("beams", "batch", "max_new_tokens"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(arguments, name)}")
    return {name: getattr(arguments, name) for name in ("batch", "beams", "length_penalty", "max_new_tokens")}


def open_maker(arguments: argparse.Namespace) -> "tuple[LightSeekOCR, ExampleMaker]":
    """Return the model and its example maker. Raises ValueError if the model has no tokenizer, or no pages to edit."""
    from lightseek.data.examples import ExampleMaker

    if arguments.eval_vision is not None and arguments.context in PAGELESS:
        how = f"--eval-vision {arguments.eval_vision}"
        raise ValueError(f"{how} is for pages, and --context {arguments.context} shows the model none")
    model = open_model(arguments)
    if model.tokenizer is None:
        raise ValueError(f"{arguments.model} has no tokenizer.json, and text needs it: put the official one there")
    page = PageSpec(
        arguments.mode,
        arguments.font,
        arguments.noise,
        arguments.max_pages,
        seed=arguments.seed,
        letters=arguments.letters,
    )
    return model, ExampleMaker(model.config, model.tokenizer, arguments.task, page, context=arguments.context)


def open_documents(arguments: argparse.Namespace) -> "list[Document]":
    """Return the documents to write about, with corrupted texts if --corrupt says so."""
    from lightseek.data.corruption import corrupt_documents
    from lightseek.data.sources.load import load_documents

    documents = load_documents(
        arguments.data,
        arguments.split,
        arguments.limit,
        arguments.seed,
        text_column=arguments.text_column,
        summary_column=arguments.summary_column,
        max_characters=arguments.characters,
        task=arguments.task,
    )
    return corrupt_documents(documents, arguments.corrupt, arguments.seed)


def add_writing(command: Parser) -> None:
    """Add the flags of the model, of the pages and of generation."""
    add_settings(command, mode="base", context="vision", max_pages=8, font="DejaVuSans", letters=None, noise=None)
    add_settings(command, eval_vision=None)
    add_model(command)
    command.add_argument(
        "--batch", type=int, default=BATCH, metavar="N", help=f"the number of documents at once (default: {BATCH})"
    )
    beams, penalty, longest = (in_words(name) for name in ("beams", "length_penalty", "max_new_tokens"))
    command.add_argument("--beams", type=int, metavar="N", help=f"the number of texts that beam search keeps ({beams})")
    command.add_argument(
        "--length-penalty",
        type=float,
        metavar="X",
        help=f"a value above 1 favours long texts in beam search ({penalty})",
    )
    command.add_argument("--max-new-tokens", type=int, metavar="N", help=f"the longest text, in tokens ({longest})")
    add_guard(command)


def in_words(option: str) -> str:
    """Return the defaults of an option for each task, for a help text."""
    return "default: " + ", ".join(f"{values[option]:g} for {task}" for task, values in DEFAULTS.items())


def add_parser(commands: Any) -> None:
    command = add(commands, generate, "write a model's texts about every document of a data set to a JSONL file")
    sources = f"{SOURCES.choices}, {DATA_SET_NAMES}, or a file or a folder"
    command.add_argument("data", metavar="DATA", help=f"where the documents come from: {sources}")
    command.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="the file of predictions; the command continues an old one",
    )
    add_settings(command, task="summarize")
    command.add_argument("--split", choices=SPLITS, default="test", help="the part of the data (default: test)")
    command.add_argument("--limit", type=int, metavar="N", help="the largest number of documents (default: all)")
    add_settings(command, text_column="text", summary_column="summary", corrupt="natural")
    command.add_argument("--characters", type=int, metavar="N", help="leave out documents with more characters")
    add_writing(command)
