"""`python -m lightseek prepare`: a data set, or your own documents, as a folder to train from."""

import argparse
import os
from pathlib import Path
from typing import Any

from lightseek.commands.common import add, mode_name, say

SHOWN = 20  # bad rows


def prepare(arguments: argparse.Namespace) -> None:
    """Shards, pages and a card in `--out`; then, if asked for, on the hub."""
    from lightseek.data.prepare.card import write_card
    from lightseek.data.prepare.folder import prepare as write
    from lightseek.data.prepare.shards import Job
    from lightseek.data.sources.registry import DATA_SETS
    from lightseek.tools.console import bars

    if arguments.pages < 1 or arguments.processes < 1 or (arguments.limit or 1) < 1:
        raise ValueError("--pages, --processes and --limit must be at least 1")
    source = arguments.source
    job = Job(
        source=source,
        task=arguments.task or (DATA_SETS[source].tasks[0] if source in DATA_SETS else "summarize"),
        images=arguments.images,
        tokens=arguments.tokens,
        font=arguments.font,
        pages=arguments.pages,
        format=arguments.format,
        limit=arguments.limit,
        shares=arguments.split,
        seed=arguments.seed,
        skip_bad=arguments.skip_bad,
        text_column=arguments.text_column,
        summary_column=None if arguments.summary_column == "none" else arguments.summary_column,
    )
    said = 0

    def on_bad(error: ValueError) -> None:
        nonlocal said
        said += 1
        if said <= SHOWN:
            say(f"left out: {error}")

    with bars() as progress:
        task = progress.add_task(f"prepare {job.source}", total=None, figures="documents")
        prepared = write(job, arguments.out, arguments.processes, lambda n: progress.update(task, completed=n), on_bad)
    write_card(job, arguments.out, prepared)
    if said > SHOWN:
        say(f"left out: {said:,} rows in all")
    total = prepared.total
    if total.truncated:
        dropped = f": {total.dropped:,} characters are on none" if job.images else ""
        say(f"{total.truncated:,} documents need more than {job.pages} pages{dropped} (--pages)")
    counts = ", ".join(f"{len(figures.text):,} {split}" for split, figures in prepared.splits.items())
    print(f"{arguments.out}: {counts} documents; train with --data {arguments.out} --task {job.task}")
    if arguments.push_to_hub:
        print(push(arguments.out, arguments.push_to_hub, arguments.private))


def push(folder: Path, repo: str, private: bool = False) -> str:
    """Put the folder on the hub as a data set; returns its address. Raises ValueError with what the hub said."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    try:
        url = api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, repo_type="dataset", ignore_patterns=[".*", ".*/**"])
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise ValueError(f"can't push {folder} to {repo}: {error}; `hf auth login` or HF_TOKEN gives access") from error
    return str(url)


def shares(text: str) -> tuple[float, float, float]:
    """`0.9/0.05/0.05` as numbers."""
    try:
        train, validation, test = (float(part) for part in text.split("/"))
        if min(train, validation, test) < 0 or abs(train + validation + test - 1) > 1e-6:
            raise ValueError
        return train, validation, test
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: the shares of train, validation and test, together 1, as 0.9/0.05/0.05"
        ) from None


def add_parser(commands: Any) -> None:
    from lightseek.data.sources.registry import DATA_SETS

    command = add(commands, prepare, "make a folder to train from, of a data set or your own documents")
    names = ", ".join(name for name in DATA_SETS if not name.startswith("document_haystack-"))
    command.epilog = f"Data sets: {names}, document_haystack-5 to -200."
    command.add_argument("source", metavar="NAME|PATH", help="a data set, synthetic, pydoc, or your file or folder")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="an empty or new folder")
    command.add_argument("--task", choices=("ocr", "summarize", "answer"), help="(the data set's own, or summarize)")
    command.add_argument("--images", action="store_true", help="draw the pages now, as PNG files")
    command.add_argument("--tokens", type=mode_name, default="small", help="vision tokens a page, or a mode (100)")
    command.add_argument("--font", default="DejaVuSans", help="a DejaVu face or a font file (DejaVuSans)")
    command.add_argument("--pages", type=int, default=8, metavar="N", help="most pages a document (8)")
    command.add_argument("--split", type=shares, metavar="A/B/C", help="shares of train/validation/test, all anew")
    command.add_argument("--limit", type=int, metavar="N", help="most documents of a split; with --split, in all")
    command.add_argument("--format", choices=("jsonl", "parquet"), default="jsonl", help="of the rows (jsonl)")
    command.add_argument("--skip-bad", action="store_true", help="leave out rows that can't be used, and say so")
    command.add_argument("--text-column", default="text", metavar="X", help="of your files (text)")
    command.add_argument("--summary-column", default="summary", metavar="X", help="none: the first sentence (summary)")
    command.add_argument("--seed", type=int, default=0, help="of what a limit draws (0)")
    command.add_argument("--processes", type=int, default=min(8, os.cpu_count() or 1), metavar="N", help="at a time")
    command.add_argument("--push-to-hub", metavar="ID", help="then upload it as the data set ID")
    command.add_argument("--private", action="store_true", help="make a new data set on the hub private")
