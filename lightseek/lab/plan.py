"""Estimates how long the cells of a grid take and how much memory they need, before any of them runs.

Cells that do the same work are of one *kind*: they differ at most in their seed, their number of steps or documents,
or the like. One cell of each kind is tried out for some seconds: its model is loaded, it takes a few steps on its own
documents, and it writes a few tokens. The rest is arithmetic:

    load + steps * step + evaluations * (loss + samples) + batches of test documents * tokens of the longest summary

If there are too many kinds for the time, the kinds that were not tried are estimated from those that were. A fit on
the logarithm gives a factor for each value of each setting.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from lightseek.lab.grid import Cell
from lightseek.lab.run_cells import one_line
from lightseek.tools.memory import PeakMemory, release_memory
from lightseek.training.run import Run
from lightseek.training.settings import RunConfig, must_match

SECONDS = 45.0  # no kind is tried any more after this time
STEPS = 3  # the first one is slower, and does not count
TOKENS = 8  # written to see how long a token takes
# These settings change how often something is done, or which numbers are in it, but not how long one of it takes.
COUNTS = (
    "seed", "steps", "epochs", "lr", "lr_boxes", "schedule", "warmup", "weight_decay", "max_grad_norm",
    "train_documents", "eval_documents", "eval_every", "samples", "best", "patience", "max_new_tokens",
)  # fmt: skip


@dataclass(frozen=True)
class Costs:
    """What the parts of a cell cost. Times are in seconds, memory in bytes."""

    load: float  # the model, the documents and the imports of a worker
    page: float  # one document into the vision cache; 0 without a cache
    step: float
    loss: float  # the loss on one batch
    prompt: float  # the pages and the prompts of one batch
    token: float  # one more token of each text of a batch
    memory: float

    def total(self, config: RunConfig, longest: int) -> float:
        """Return the seconds of a cell whose longest reference has `longest` tokens."""
        longest = min(longest, config.max_new_tokens or longest)
        documents = config.train_documents
        steps = config.steps if config.epochs is None else np.ceil(config.epochs * documents / config.batch)
        write = self.prompt + longest * self.token
        evaluations = np.ceil(steps / config.eval_every)
        cached = min(documents, steps * config.batch) + 2 * config.eval_documents
        return float(
            self.load
            + cached * self.page
            + steps * self.step
            + evaluations * (batches(config.eval_documents, config) * self.loss + bool(config.samples) * write)
            + batches(config.eval_documents, config) * write
        )


@dataclass(frozen=True)
class Estimate:
    """What a cell will probably take."""

    cell: Cell
    how: str  # "timed", "fitted", "finished", or why it cannot be estimated
    seconds: float = 0.0  # 0 if it is finished
    memory: float = 0.0  # bytes


def batches(documents: int, config: RunConfig) -> int:
    return -(-documents // config.batch)


def kind(config: RunConfig) -> tuple[tuple[str, Any], ...]:
    """Return the settings on which the costs of a cell depend."""
    return tuple((name, value) for name, value in must_match(config).items() if name not in COUNTS)


def plan(
    cells: Sequence[Cell], threads: int | None = None, tick: Callable[[int, int], None] | None = None
) -> list[Estimate]:
    """Return an estimate for each cell. This writes nothing, and takes about a minute on an idle machine.

    `threads` is the number of threads that each cell will have; None is as many as now. `tick(done, of)` is called
    after each kind of cells.
    """
    began = time.monotonic()
    todo = {kind(cell.config): cell.config for cell in cells if cell.finished() is None}
    costs: dict[tuple, Costs] = {}
    longest, flaws = 0, {}
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        for number, (key, config) in enumerate(spread(todo).items(), 1):
            if costs and time.monotonic() - began > SECONDS:
                break
            try:
                costs[key], tokens = try_out(config)
                longest = max(longest, tokens)
            except Exception as error:  # the cell will fail too, and the others will not
                flaws[key] = one_line(error)
            if tick:
                tick(number, len(todo))
    finally:
        torch.set_num_threads(before)
    fitted = fit(costs, [key for key in todo if key not in costs and key not in flaws])
    found = []
    for cell in cells:
        key = kind(cell.config)
        if key not in todo or cell.finished() is not None:
            found.append(Estimate(cell, "finished"))
        elif key in flaws:
            found.append(Estimate(cell, flaws[key]))
        else:
            cost = costs.get(key) or fitted[key]
            how = "timed" if key in costs else "fitted"
            found.append(Estimate(cell, how, cost.total(cell.config, longest), cost.memory))
    return found


def spread(todo: dict[tuple, RunConfig]) -> dict[tuple, RunConfig]:
    """Order the kinds so that the first ones already have most values of each setting, for the fit."""
    left, ordered, seen = list(todo), {}, set()
    while left:
        best = max(left, key=lambda key: sum(pair not in seen for pair in key))
        left.remove(best)
        seen |= set(best)
        ordered[best] = todo[best]
    return ordered


def try_out(config: RunConfig) -> tuple[Costs, int]:
    """Return the costs of a cell, measured on its model and documents, and the tokens of its longest reference."""
    release_memory()
    with TemporaryDirectory() as folder:
        began = time.monotonic()
        run = Run(replace(config, cache_dir=folder), Path(folder))  # it writes nothing but the pages that it encodes
        with PeakMemory(run.model.device) as memory:
            _ = run.validation, run.test
            load = time.monotonic() - began
            steps = np.linspace(0, run.config.steps - 1, min(STEPS, max(run.config.steps, 1))).astype(int).tolist()
            chosen = [run.documents[index] for step in steps for index in run.order(step)]
            batch = run.test[: config.batch]
            page = 0.0
            if run.cache is not None:
                documents = [*chosen, *batch]
                page = timed(lambda: run.make.context.fill(documents)) / len(documents)
            run.wrap()
            spent = [timed(lambda step=step: run.train_step(step)) for step in steps]
            run.validation = batch
            loss = timed(run.eval_loss)
            prompt = timed(lambda: write(run, 1))
            token = max(0.0, (timed(lambda: write(run, TOKENS)) - prompt) / (TOKENS - 1))
            longest = max(len(run.make(document).target_text) for document in run.test)
            peak = memory.peak
    return Costs(load, page, float(np.mean(spent[1:] or spent)), loss, prompt, token, float(peak)), longest


def write(run: Run, tokens: int) -> None:
    """Write this many tokens about each document of the first test batch."""
    from lightseek.scores.predictions import predict

    list(predict(run.model, run.make, run.validation, batch=run.config.batch, max_new_tokens=tokens))


def timed(work: Callable[[], Any]) -> float:
    began = time.monotonic()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic() - began


def fit(costs: dict[tuple, Costs], missing: Sequence[tuple]) -> dict[tuple, Costs]:
    """Estimate the costs of the missing kinds: a product of a factor for each value of each setting.

    The factors are the smallest that fit the known kinds (least squares on the logarithm of each cost).
    """
    if not missing or not costs:
        return {}
    pairs = list(dict.fromkeys(pair for key in [*costs, *missing] for pair in key))
    changing = [pair for pair in pairs if not all(pair in key for key in [*costs, *missing])]

    def rows(keys: Sequence[tuple]) -> np.ndarray:
        return np.array([[1.0, *(float(pair in key) for pair in changing)] for key in keys])

    floor = 1e-6
    known = np.log([[max(value, floor) for value in vars(cost).values()] for cost in costs.values()])
    mean = known.mean(axis=0)
    factors = np.linalg.lstsq(rows(list(costs)), known - mean, rcond=None)[0]
    found = np.exp(rows(missing) @ factors + mean)
    return {key: Costs(*map(float, values)) for key, values in zip(missing, found, strict=True)}


def finish_time(groups: Sequence[Sequence[Cell]], estimates: Sequence[Estimate], workers: int) -> float:
    """Return the seconds until the last of some workers ends, if each takes the next group when it is free."""
    seconds = {estimate.cell.folder: estimate.seconds for estimate in estimates}
    free = [0.0] * workers
    for group in groups:
        first = free.index(min(free))
        free[first] += sum(seconds[cell.folder] for cell in group)
    return max(free)
