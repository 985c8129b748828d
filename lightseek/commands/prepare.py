"""`python -m lightseek prepare`: makes a folder to train from, of a data set or of your own documents."""

import argparse
import os
from pathlib import Path
from typing import Any

from lightseek.commands.arguments import add_settings
from lightseek.commands.common import add, say
from lightseek.data.kinds import DERIVED, FORMATS, SOURCES, TASKS
from lightseek.data.sources.registry import DATA_SET_NAMES, DATA_SETS

SHOWN = 20  # the largest number of bad rows that are printed


def prepare(arguments: argparse.Namespace) -> None:
    """Write shards, pages and a card to --out. With --push-to-hub, upload them too."""
    from lightseek.tools.locks import locked_folder

    if arguments.processes < 1 or (arguments.limit or 1) < 1:
        raise ValueError("--processes and --limit must be at least 1")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise ValueError(f"{arguments.out} is there already: give an empty or a new folder")
    with locked_folder(arguments.out):
        write(arguments)


def write(arguments: argparse.Namespace) -> None:
    from lightseek.data.prepare.card import write_card
    from lightseek.data.prepare.folder import write_folder
    from lightseek.data.prepare.shards import Job
    from lightseek.tools.console import bars

    source = arguments.source
    job = Job(
        source=source,
        task=arguments.task or (DATA_SETS[source].tasks[0] if source in DATA_SETS else "summarize"),
        images=arguments.images,
        mode=arguments.mode,
        font=arguments.font,
        max_pages=arguments.max_pages,
        format=arguments.format,
        limit=arguments.limit,
        shares=arguments.split,
        seed=arguments.seed,
        skip_bad=arguments.skip_bad,
        text_column=arguments.text_column,
        summary_column=arguments.summary_column,
    )
    said = 0

    def on_bad(error: ValueError) -> None:
        nonlocal said
        said += 1
        if said <= SHOWN:
            say(f"left out: {error}")

    with bars() as progress:
        task = progress.add_task(f"prepare {job.source}", total=None, figures="documents")
        prepared = write_folder(
            job, arguments.out, arguments.processes, lambda n: progress.update(task, completed=n), on_bad
        )
    write_card(job, arguments.out, prepared)
    if said > SHOWN:
        say(f"left out: {said:,} rows in all")
    total = prepared.total
    if total.truncated:
        dropped = f": {total.dropped:,} characters were dropped" if job.images else ""
        say(f"{total.truncated:,} documents need more than {job.max_pages} pages{dropped} (--max-pages)")
    counts = ", ".join(f"{len(figures.text):,} {split}" for split, figures in prepared.splits.items())
    print(f"{arguments.out}: {counts} documents; train with --data {arguments.out} --task {job.task}")
    if arguments.push_to_hub:
        print(push(arguments.out, arguments.push_to_hub, arguments.private))


def push(folder: Path, repo: str, private: bool = False) -> str:
    """Upload the folder to the hub as a data set and return its address. Raises ValueError with the hub's message."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    from lightseek.tools.files import NOT_UPLOADED

    api = HfApi()
    try:
        url = api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, repo_type="dataset", ignore_patterns=NOT_UPLOADED)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise ValueError(f"can't push {folder} to {repo}: {error}; `hf auth login` or HF_TOKEN gives access") from error
    return str(url)


def shares(text: str) -> tuple[float, float, float]:
    """Return the numbers in `0.9/0.05/0.05`. Raises ArgumentTypeError if they are not three shares of 1."""
    try:
        train, validation, test = (float(part) for part in text.split("/"))
        if min(train, validation, test) < 0 or abs(train + validation + test - 1) > 1e-6:
            raise ValueError
        return train, validation, test
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: give the shares of train, validation and test, such as 0.9/0.05/0.05; they must add up to 1"
        ) from None


def add_parser(commands: Any) -> None:
    command = add(commands, prepare, "make a folder to train from, of a data set or your own documents")
    command.epilog = f"Data sets: {DATA_SET_NAMES}."
    command.add_argument(
        "source",
        metavar="NAME|PATH",
        help=f"where the documents come from: a data set, {SOURCES.choices}, a file or a folder",
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="an empty or new folder")
    command.add_argument(
        "--task",
        choices=[task for task in TASKS if task not in DERIVED],  # the others make their documents when they load
        help="what a model shall learn (default: the first task of the data set, or summarize)",
    )
    command.add_argument("--images", action="store_true", help="draw the pages now and store them as PNG files")
    add_settings(command, mode="small", font="DejaVuSans", max_pages=8, text_column="text", summary_column="summary")
    command.add_argument(
        "--split", type=shares, metavar="A/B/C", help="put all documents together and split them into these shares"
    )
    command.add_argument(
        "--limit", type=int, metavar="N", help="the largest number of documents of each split, or of all with --split"
    )
    command.add_argument("--format", choices=FORMATS, default="jsonl", help="the format of the files (default: jsonl)")
    command.add_argument("--skip-bad", action="store_true", help="leave out rows that cannot be used, and name them")
    command.add_argument(
        "--seed", type=int, default=0, metavar="N", help="the seed for the choice of --limit (default: 0)"
    )
    command.add_argument(
        "--processes", type=int, default=min(8, os.cpu_count() or 1), metavar="N", help="the number of processes"
    )
    command.add_argument("--push-to-hub", metavar="ID", help="upload the folder as this data set of the hub")
    command.add_argument("--private", action="store_true", help="make a new data set on the hub private")
