"""A grid of runs: one run, called a cell, for each combination of the values of the settings. Each cell has a folder.

When a grid is started again, finished cells are skipped, and a cell that was killed continues from its checkpoint. The
folder of a cell is named after the settings that change its result and differ from their defaults. So its name stays
the same if settings change that only save memory, if the grid compares more settings, and if a release adds settings.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from lightseek.data.kinds import PAGELESS
from lightseek.lab.stored import read_results
from lightseek.model.kinds import BOXES
from lightseek.tools.files import fingerprint, write_json
from lightseek.training.settings import (
    AT_TEST,
    PAGE_SETTINGS,
    LearningSettings,
    ModelSettings,
    OptimizerSettings,
    RunConfig,
    WatchingSettings,
    as_tested,
    as_trained,
    check,
    decisive,
    differences,
    page_spec,
)

ALWAYS_SHOWN = ("mode", "freeze")
GRID = "grid.json"
FIXED_CONTEXTS = ("vision", "text", "truncated", "meantext")  # they bring no weights of their own


@dataclass(frozen=True)
class Cell:
    """One run of a grid, and its folder."""

    config: RunConfig
    folder: Path
    training: Path | None = None  # the folder of its training, which cells that differ only in evaluation share
    group: tuple[Path, ...] = ()  # the folders of the cells of the grid that share it

    def __post_init__(self) -> None:
        object.__setattr__(self, "training", self.training or self.folder)
        object.__setattr__(self, "group", self.group or (self.folder,))

    def finished(self) -> dict[str, Any] | None:
        """Return the results of the cell, or None if it has not run to its end.

        Raises ValueError if the results in the folder are from other settings.
        """
        path = self.folder / "results.json"
        if not path.is_file():
            return None
        results = read_results(path)
        if changes := differences(results["settings"], self.config):
            raise ValueError(
                f"{path} is from a run with other settings ({', '.join(changes[:3])}). "
                "Perhaps a default has changed: choose another --out or delete it"
            )
        return results


def grid(
    base: RunConfig, lists: dict[str, list[Any]], out: Path, match: str | None = None
) -> tuple[list[Cell], list[str]]:
    """Return (cells, names of the settings whose values the tables show).

    `base` gives the settings that `lists` does not name, and `out` is the folder of all cells. With `match`
    "parameters", the kinds of a box get about as many parameters as the first one (`match.py`).
    Raises ValueError for a cell that cannot work, and for several values of a setting that changes no result.
    """
    lists = {name: list(dict.fromkeys(values)) for name, values in lists.items()}  # without repeated values
    for name, values in lists.items():
        if len(values) > 1 and RunConfig.__dataclass_fields__[name].metadata["free"]:
            raise ValueError(f"{name} changes no result, so a grid cannot compare its values: give it one value")
    swept = list(dict.fromkeys([*ALWAYS_SHOWN, *(name for name, values in lists.items() if len(values) > 1)]))
    cells: dict[Path, RunConfig] = {}
    for values in itertools.product(*lists.values()):
        config = without_idle(replace(base, **dict(zip(lists, values, strict=True))), lists)
        if match is not None:
            from lightseek.lab.match import match_parameters

            config = match_parameters(config, lists)
        check(config)
        folder = out / cell_name(config)
        cells.setdefault(folder, config)
    trainings = {folder: out / cell_name(as_trained(config)) for folder, config in cells.items()}
    return [
        Cell(config, folder, trainings[folder], tuple(f for f in cells if trainings[f] == trainings[folder]))
        for folder, config in cells.items()
    ], swept


def groups(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Return the cells in groups that train once, in the order of their first cells.

    One process must run all cells of a group, one after the other: the first trains, and the others take its weights.
    """
    found: dict[Path, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.training, []).append(cell)
    return list(found.values())


def without_idle(config: RunConfig, lists: dict[str, list[Any]]) -> RunConfig:
    """Return the settings of a cell, where settings that have no effect in it get the same value in all such cells.

    So two cells that would do the same become one.
    """
    if config.decoder and config.decoder.startswith("seq2seq:"):
        config = replace(config, context="text")
    if config.context in PAGELESS:
        boxes = {axis: None for axis in BOXES if hasattr(config, axis)}
        config = replace(config, cache_vision=None, **boxes, **dict.fromkeys(PAGE_SETTINGS))
    if config.context == "text":  # a mode is a budget for the others
        config = replace(config, mode=lists.get("mode", [config.mode])[0])
    usual = {"clean": None, "fit": None}  # other words for the default
    config = replace(
        config, noise=usual.get(config.noise, config.noise), letters=usual.get(config.letters, config.letters)
    )
    for name, of_training in AT_TEST.items():
        value = getattr(config, name)
        if usual.get(value, value) == getattr(config, of_training):
            config = replace(config, **{name: None})
    if all(getattr(config, axis, None) is None for axis in BOXES):
        config = replace(config, warm_start=RunConfig.warm_start)  # no box is new
    if config.epochs is not None:  # the steps follow from it
        config = replace(config, steps=RunConfig.steps)
    elif config.steps == 0:
        config = replace(config, **{name: getattr(RunConfig, name) for name in _learning_only(config)})
    return config


def _learning_only(config: RunConfig) -> list[str]:
    """Return the names of the settings that have no effect if there is no step."""
    groups = (OptimizerSettings, WatchingSettings)
    names = {setting.name for group in groups for setting in fields(group)} - {"steps", "max_new_tokens"}
    names |= {"precision", "accumulate", "gradient_checkpointing", "cache_vision"}
    if not config.quantize:  # which needs frozen weights
        names |= {setting.name for setting in fields(LearningSettings)}
    fixed = config.init == RunConfig.init and config.decoder in (None, "moe") and config.context in FIXED_CONTEXTS
    if not any(getattr(config, axis, None) for axis in BOXES):
        names.add("train_documents")  # a warm start looks at them
        if fixed:
            names.add("seed")  # no weight of the start is random
    return [name for name in names if hasattr(config, name)]


def before_training(cells: Sequence[Cell], out: Path) -> list[Cell]:
    """Return the cells that evaluate the weights that `cells` start from. Cells with equal weights share one.

    A cell of `cells` that has no step itself is left out, because it is one of its own.
    """
    found: dict[Path, Cell] = {}
    for cell in cells:
        config = without_idle(replace(cell.config, steps=0, epochs=None), {})
        folder = out / cell_name(config)
        if folder not in [cell.folder for cell in cells]:
            found.setdefault(folder, Cell(config, folder))
    return list(found.values())


def save_grid(
    out: Path,
    argv: Sequence[str],
    cells: Sequence[Cell],
    before: Sequence[Cell],
    swept: Sequence[str],
    baseline: Path | None = None,
    question: str | None = None,
) -> None:
    """Write OUT/grid.json. With it and the folders of the cells, `lab/summary.py` can remake all tables and plots."""
    grid = {
        "command": list(argv),
        "question": question,
        "swept": list(swept),
        "baseline": (baseline or cells[0].folder).name,
        "cells": [cell.folder.name for cell in cells],
        "before": [cell.folder.name for cell in before],
    }
    write_json(out / GRID, grid)


def cell_name(config: RunConfig) -> str:
    """Return the name of a cell's folder: its decisive settings, and a hash of them and of the files that it reads."""
    from lightseek.training.origin import file_states
    from lightseek.weights.loading import NANO

    settings = decisive(config)
    files = [fingerprint(path) for path in (config.data, config.model or NANO)]
    files += [state for name, state in file_states(config).items() if name != "model"]
    digest = hashlib.sha256(json.dumps([settings, files], sort_keys=True).encode()).hexdigest()[:8]
    name = ",".join(f"{name}={value}" for name, value in settings.items()) or "defaults"
    return f"{_safe(name)}-{digest}"


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "=,.+-_" else "_" for c in name)[:120]


def check_cells(cells: Sequence[Cell]) -> None:
    """Check the unfinished cells before the first one starts, so that the last one does not fail after hours.

    The checks look for the device, packages, fonts and documents. Each different model is built without memory for its
    weights, to see whether the settings fit it. Raises ValueError, FileNotFoundError or ImportError for the first cell
    that cannot work.
    """
    todo = [cell.config for cell in cells if cell.finished() is None]
    for config in todo:
        check_surroundings(config)
    groups = [setting.name for group in (ModelSettings, LearningSettings) for setting in fields(group)]
    seen = set()
    for config in todo:
        names = (*groups, "context", "mode", "lr_boxes", "cache_vision")
        if (key := tuple(getattr(config, name) for name in names)) not in seen:
            seen.add(key)
            check_model(config)


def check_surroundings(config: RunConfig) -> None:
    """Raise ImportError, ValueError or FileNotFoundError if a package, the device, the font or the data is missing."""
    from importlib.util import find_spec

    from lightseek.data.context.pages import PageMaker
    from lightseek.data.corruption import corrupt
    from lightseek.data.sources.load import check_source
    from lightseek.model.kinds import FLASH_PACKAGE
    from lightseek.tools.devices import find_device
    from lightseek.training.kinds import LOGS
    from lightseek.training.processes import check_precision
    from lightseek.weights.kinds import QUANTIZERS

    for name, packages in {"attention": {"flash": FLASH_PACKAGE}, "quantize": QUANTIZERS, "log": LOGS}.items():
        value = getattr(config, name)
        package = value and packages.get(value)
        if package and find_spec(package) is None:
            raise ImportError(f"{name}={value} needs the package {package}, which is not installed")
    if config.device != "auto":
        find_device(config.device)
    check_precision(config)
    for seen in (config, as_tested(config)):
        PageMaker(page_spec(seen))
        corrupt("", seen.corrupt)  # raises for settings that the kind does not have
    check_source(config.data)


def check_model(config: RunConfig) -> None:
    """Raise ValueError if the model cannot learn as the settings say. Its weights are neither read nor allocated."""
    from lightseek.data.context.vision_cache import check_frozen
    from lightseek.lab.skeleton import skeleton
    from lightseek.training.build import choose_what_learns, freeze_eyes
    from lightseek.training.optimizer import parameter_groups

    model = skeleton(config)
    # int8 stands for every quantizer here: those of bitsandbytes need real weights.
    choose_what_learns(model, replace(config, quantize=config.quantize and "int8"))
    if config.context in PAGELESS:
        freeze_eyes(model)
    else:
        model.config.arithmetic.check(config.mode)
    parameter_groups(model, config)
    if config.cache_vision:
        check_frozen(model.encoder)


def run_cell(
    cell: Cell,
    train_report: Callable[..., None] | None = None,
    eval_tick: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Train and evaluate one cell and return its results. A finished cell is not run again.

    The trained state stays until all cells of the group are finished. It is in the folder of the cell whose evaluation
    settings have their defaults, even if the grid does not have that cell.
    """
    if (results := cell.finished()) is None:
        from lightseek.lab.results import finish
        from lightseek.tools.memory import release_memory
        from lightseek.training.run import Run

        release_memory()  # otherwise the peak memory of this cell would include memory of the cell before
        run = Run(cell.config, cell.folder, cell.training)
        results = finish(run, run.fit(train_report), eval_tick)
    left = any(cell.training.glob("*.safetensors"))  # also of a cell that was killed after its results were written
    if left and all((folder / "results.json").is_file() for folder in cell.group):
        from lightseek.training.state import remove_states

        remove_states(cell.training)
    return results
