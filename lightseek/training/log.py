"""Writes the log of a run while it trains.

metrics.jsonl            one line per step: the losses and the learning rate, and the scores if the step was evaluated
samples/step-000100.md   the outputs for a few validation documents, with the references and the first pages
tensorboard/             the same for `tensorboard --logdir OUT`, if the settings ask for it
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from lightseek.scores.predictions import Prediction
from lightseek.tools.files import atomic_write, check_still_there, write_text
from lightseek.tools.json_files import check_fields, parse_json
from lightseek.tools.markdown import block, code
from lightseek.training.kinds import MEASURES

METRICS = "metrics.jsonl"
SAMPLES = "samples"
ROW = {"step": "a whole number", "train_loss": "a number", "lr": "a number"}


class RunLog:
    """The log of a run, used as `with RunLog(folder, rows, tensorboard) as log:`.

    `rows` are the rows of the steps that are already done. New rows are written after them.
    """

    def __init__(self, folder: Path, rows: Sequence[dict[str, Any]], tensorboard: bool = False) -> None:
        """Raises ImportError, which says what to install, if TensorBoard is asked for but not installed."""
        self.folder, self.board = folder, None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise ImportError("--log tensorboard needs the package: pip install tensorboard") from None
            done = rows[-1]["step"] if rows else 0
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)
        write_text(folder / METRICS, "".join(json.dumps(row) + "\n" for row in rows))

    def __enter__(self) -> "RunLog":
        self.file = (self.folder / METRICS).open("a", encoding="utf-8")
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()
        if self.board:
            self.board.close()

    def row(self, row: dict[str, Any]) -> None:
        """Write the metrics of one step. `row` must have the key `step`."""
        print(json.dumps(row), file=self.file, flush=True)
        if self.board:
            for name, value in row.items():
                if name != "step" and isinstance(value, int | float):
                    self.board.add_scalar(name, value, row["step"])

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
            if self.board:
                import numpy as np

                pixels = np.asarray(page.convert("RGB"))
                self.board.add_image(f"page-{number}", pixels, step, dataformats="HWC")
                self.board.add_text(f"sample-{number}", "\n\n".join(parts[-2:]), step)
        write_text(self.folder / SAMPLES / f"step-{step:06}.md", "\n\n".join(parts) + "\n")


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
