"""A grid of runs: every combination of the settings that have several values, each in a folder of its own.

A finished cell is skipped when the grid is run again; a killed one goes on where it was. A cell's folder is named after
the settings that change its result and differ from their defaults. So the folder stays the same when settings that only
save memory change, when other settings are swept beside it, and when a release brings new settings.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightseek.data.kinds import PAGELESS
from lightseek.model.kinds import BOXES
from lightseek.tools.files import fingerprint
from lightseek.training.settings import LearningSettings, ModelSettings, RunConfig, check, decisive, differences

if TYPE_CHECKING:
    from lightseek.weights.loading import LightSeekOCR

ALWAYS_SHOWN = ("mode", "freeze")


@dataclass(frozen=True)
class Cell:
    config: RunConfig
    folder: Path

    def finished(self) -> dict[str, Any] | None:
        """Its results, if it ran to the end before. Raises ValueError if it did so with other settings."""
        path = self.folder / "results.json"
        if not path.is_file():
            return None
        results = json.loads(path.read_text(encoding="utf-8"))
        if changes := differences(results["settings"], self.config):
            raise ValueError(
                f"{path} is from a run with other settings ({', '.join(changes[:3])}). "
                "Perhaps a default has changed: choose another --out or delete it"
            )
        return results


def grid(base: RunConfig, lists: dict[str, list[Any]], out: Path) -> tuple[list[Cell], list[str]]:
    """(cells, names of the settings that tell them apart).

    Raises ValueError for a cell that cannot work, and for several values of a setting that changes no result.
    """
    lists = {name: list(dict.fromkeys(values)) for name, values in lists.items()}  # a value given twice is one
    for name, values in lists.items():
        if len(values) > 1 and RunConfig.__dataclass_fields__[name].metadata["free"]:
            raise ValueError(f"{name} changes no result, so a grid cannot compare its values: give it one value")
    swept = list(dict.fromkeys([*ALWAYS_SHOWN, *(name for name, values in lists.items() if len(values) > 1)]))
    cells: dict[Path, Cell] = {}
    for values in itertools.product(*lists.values()):
        config = without_idle(replace(base, **dict(zip(lists, values, strict=True))), lists)
        check(config)  # all cells before the first starts
        folder = out / cell_name(config)
        cells.setdefault(folder, Cell(config, folder))
    return list(cells.values()), swept


def without_idle(config: RunConfig, lists: dict[str, list[Any]]) -> RunConfig:
    """Give settings that change nothing the same value in all cells, so that no cell runs twice."""
    if config.decoder and config.decoder.startswith("seq2seq:"):
        config = replace(config, context="text")
    if config.context in PAGELESS:
        boxes = {axis: None for axis in BOXES if hasattr(config, axis)}
        config = replace(config, cache_vision=False, **boxes)
    if config.context == "text":  # a mode is a budget for the others
        config = replace(config, mode=lists.get("mode", [config.mode])[0])
    if config.epochs is not None:  # the steps follow from it
        config = replace(config, steps=RunConfig.steps)
    return config


def cell_name(config: RunConfig) -> str:
    """The name of a cell's folder: the settings that it is known by, and a hash of them and of the files it reads."""
    from lightseek.weights.loading import NANO

    settings = decisive(config)
    files = [fingerprint(path) for path in (config.data, config.model or NANO)]
    digest = hashlib.sha256(json.dumps([settings, files], sort_keys=True).encode()).hexdigest()[:8]
    name = ",".join(f"{name}={value}" for name, value in settings.items()) or "defaults"
    return f"{_safe(name)}-{digest}"


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "=,.+-_" else "_" for c in name)[:120]


def check_cells(cells: Sequence[Cell]) -> None:
    """Check all that can be known before the first step of the first cell.

    Looks at the device, the packages, the fonts and the documents of each cell that is not finished, and builds each
    distinct model without memory for its weights, to see whether its settings fit it. Raises ValueError,
    FileNotFoundError or ImportError for the first cell that cannot work.
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

    from lightseek.data.sources.load import check_source
    from lightseek.model.kinds import FLASH_PACKAGE
    from lightseek.page.typeset.fonts import font_files
    from lightseek.tools.devices import find_device
    from lightseek.training.kinds import LOGS
    from lightseek.weights.kinds import QUANTIZERS

    for name, packages in {"attention": {"flash": FLASH_PACKAGE}, "quantize": QUANTIZERS, "log": LOGS}.items():
        value = getattr(config, name)
        package = value and packages.get(value)
        if package and find_spec(package) is None:
            raise ImportError(f"{name}={value} needs the package {package}, which is not installed")
    if config.device != "auto":
        find_device(config.device)
    font_files(config.font)
    check_source(config.data)


def check_model(config: RunConfig) -> None:
    """Raise ValueError when the model cannot learn as the settings say. Its weights are neither read nor allocated."""
    from lightseek.data.context.vision_cache import check_frozen
    from lightseek.training.build import choose_what_learns, freeze_eyes
    from lightseek.training.optimizer import parameter_groups

    if config.decoder and config.decoder.startswith("seq2seq:"):
        return  # its sizes are only known when it is loaded
    model = skeleton(config)
    choose_what_learns(model, replace(config, quantize=config.quantize and "int8"))  # bitsandbytes needs weights
    if config.context in PAGELESS:
        freeze_eyes(model)
    else:
        model.config.arithmetic.check(config.mode)
    parameter_groups(model, config)
    if config.cache_vision:
        check_frozen(model.encoder)


def skeleton(config: RunConfig) -> "LightSeekOCR":
    """The model of a run on the meta device: it has all parameters, and no values in them."""
    import torch

    from lightseek.model.decoders.hf import HFDecoder, describe
    from lightseek.training.build import swap_boxes
    from lightseek.weights.hub import find_folder
    from lightseek.weights.loading import NANO, LightSeekOCR, read_config
    from lightseek.weights.swap import attach, hf_source, swap_decoder, with_decoder

    sizes = read_config(find_folder(config.model or NANO))
    with torch.device("meta"):
        model = LightSeekOCR(sizes)
        swap_boxes(model, config)
        if config.decoder in ("moe", "dense"):
            swap_decoder(model, config.decoder)
        elif config.decoder:
            source = hf_source(config.decoder)
            theirs = empty_language_model(source)
            decoder = HFDecoder(describe(theirs, source), theirs)
            attach(model, decoder, with_decoder(model.config, decoder.config, {}))
    return model


def empty_language_model(source: str) -> Any:
    """A causal language model of transformers as its config describes it. Raises ValueError if it has none."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source, trust_remote_code=False))
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{source}: transformers can't load this ({str(error).splitlines()[0]})") from error


def run_cell(
    cell: Cell,
    train_report: Callable[..., None] | None = None,
    eval_tick: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Train and evaluate one cell, or give back what it found before."""
    if (found := cell.finished()) is not None:
        return found
    from lightseek.lab.results import finish
    from lightseek.tools.memory import release_memory
    from lightseek.training.run import Run
    from lightseek.training.state import remove_states

    release_memory()  # or the figure for this cell would hold what is left of the one before
    run = Run(cell.config, cell.folder)
    results = finish(run, run.fit(train_report), eval_tick)
    remove_states(cell.folder)
    return results
