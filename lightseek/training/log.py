"""Writes the log of a run while it trains.

metrics.jsonl            one line per step: the losses and the learning rate, and the scores if the step was evaluated
samples/step-000100.md   the outputs for a few validation documents, with the references and the first pages
tensorboard/             the same for `tensorboard --logdir OUT`, if the settings ask for it

`log=wandb` and `log=trackio` give the same to these trackers, which keep it in places of their own.
"""

import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from PIL import Image

from lightseek.scores.predictions import Prediction
from lightseek.tools.files import atomic_write, check_still_there, write_text
from lightseek.tools.json_files import check_fields, parse_json
from lightseek.tools.markdown import block, code
from lightseek.training.kinds import LOGS, MEASURES
from lightseek.training.settings import RunConfig

METRICS = "metrics.jsonl"
SAMPLES = "samples"
ROW = {"step": "a whole number", "train_loss": "a number", "lr": "a number"}


class RunLog:
    """The log of a run, used as `with RunLog(folder, rows, config) as log:`.

    `rows` are the rows of the steps that are already done. New rows are written after them.
    """

    def __init__(self, folder: Path, rows: Sequence[dict[str, Any]], config: RunConfig) -> None:
        """Raises ImportError if the tracker's package is missing, and ValueError if the tracker cannot start."""
        self.folder = folder
        self.tracker = None if config.log == "jsonl" else start_tracker(folder, rows, config)
        write_text(folder / METRICS, "".join(json.dumps(row) + "\n" for row in rows))

    def __enter__(self) -> "RunLog":
        self.file = (self.folder / METRICS).open("a", encoding="utf-8")
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()
        if self.tracker:
            self.tracker.finish()

    def row(self, row: dict[str, Any]) -> None:
        """Write the metrics of one step. `row` must have the key `step`."""
        print(json.dumps(row), file=self.file, flush=True)
        if self.tracker:
            figures = {name: value for name, value in row.items() if isinstance(value, int | float) and name != "step"}
            self.tracker.log(figures, step=row["step"])

    def sync(self) -> None:
        """Make sure that the rows are on disk. Call this before the checkpoint that relies on them is written."""
        check_still_there(self.folder / METRICS)
        os.fsync(self.file.fileno())

    def samples(self, step: int, predictions: Sequence[Prediction], pages: Sequence[Image.Image]) -> None:
        """Write the outputs and the references of one evaluation. `pages` are the first pages of the documents."""
        parts = [f"# Validation documents after step {step}"]
        for number, (prediction, page) in enumerate(zip(predictions, pages, strict=True), 1):
            picture = self.folder / SAMPLES / f"page-{number}.png"
            if not picture.exists():
                write_page(picture, page)
            parts.append(f"## {code(prediction.id)}\n\n![its first page]({picture.name})")
            parts.append(f"**reference**\n\n{block(prediction.reference)}")
            parts.append(f"**output**\n\n{block(prediction.prediction)}")
            if self.tracker:
                show_page(self.tracker, f"page-{number}", page, step)
                self.tracker.log({f"sample-{number}": "\n\n".join(parts[-2:])}, step=step)
        write_text(self.folder / SAMPLES / f"step-{step:06}.md", "\n\n".join(parts) + "\n")


def start_tracker(folder: Path, rows: Sequence[dict[str, Any]], config: RunConfig) -> GeneralTracker:
    """Start accelerate's tracker of the name `config.log` and give it the settings.

    A run with the folder GRID/CELL is called GRID/CELL, in the group GRID of the project "lightseek". A run that
    continues from a checkpoint continues there too. Raises ImportError and ValueError as `RunLog` does.
    """
    package = LOGS.find(config.log)
    try:
        import_module(package)
    except ImportError:
        raise ImportError(f"--log {config.log} needs the package: pip install {package}") from None
    group, name = folder.resolve().parts[-2:]
    options: dict[str, Any] = {"name": f"{group}/{name}", "group": group, "resume": "allow" if rows else "never"}
    place: tuple[str, ...] = ("lightseek",)
    if config.log == "tensorboard":
        place = (config.log, str(folder))
        options = {"purge_step": (rows[-1]["step"] if rows else 0) + 1}
    elif config.log == "wandb":  # it knows a run by its id, and keeps files in a folder
        options |= {"id": wandb_id(folder / "wandb" / "lightseek-id", bool(rows)), "dir": str(folder)}
    try:
        tracker = LOGGER_TYPE_TO_CLASS[config.log](*place, **options)
        tracker.start()
        if config.log != "tensorboard" or not rows:  # TensorBoard would show them once for each start
            tracker.store_init_configuration(asdict(config))
    except Exception as error:  # each tracker has its own kinds of errors
        told = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"log={config.log}: it cannot start ({told})") from error
    return tracker


def wandb_id(file: Path, resumed: bool) -> str:
    """Return the id under which wandb knows a run. It is kept in a file of the run's folder, for a later start."""
    if not (resumed and file.is_file()):
        write_text(file, uuid.uuid4().hex[:16])
    return file.read_text(encoding="utf-8")


def show_page(tracker: GeneralTracker, name: str, page: Image.Image, step: int) -> None:
    """Give a page to a tracker. accelerate's `log_images` passes on pictures in the tracker's own form."""
    page = page.convert("RGB")
    if tracker.name == "tensorboard":
        tracker.log_images({name: np.asarray(page)[None]}, step=step, dataformats="NHWC")
    elif hasattr(type(tracker), "log_images"):
        tracker.log_images({name: [page]}, step=step)


def read_rows(folder: Path, last: int) -> list[dict[str, Any]]:
    """Return the rows of the steps 1 to `last`, which is the step of a checkpoint. Later lines are not read.

    A kill damages later lines only, because `RunLog.sync` comes before a checkpoint. Raises ValueError, which names the
    line, if one of these rows is missing or damaged.
    """
    path, rows = folder / METRICS, []
    lines = path.read_bytes().splitlines() if path.is_file() else []
    scores = dict.fromkeys(MEASURES, "a number or NaN")
    for number in range(1, last + 1):
        where = f"{path}, line {number}"
        try:
            if number > len(lines):
                raise ValueError(f"{where} is missing")
            row = check_fields(parse_json(lines[number - 1], where), ROW, scores, where)
            if row["step"] != number:
                raise ValueError(f"{where} is of step {row['step']}")
        except ValueError as error:
            raise ValueError(
                f"{error}, but the checkpoint beside it is of step {last}: put the file back, choose another --out or "
                "delete the checkpoint"
            ) from None
        rows.append(row)
    return rows


def write_page(path: Path, page: Image.Image) -> None:
    """Write a page, as the model sees it, to a PNG file."""
    with atomic_write(path) as temporary:
        page.save(temporary, format="PNG")
