"""The settings of a run: a dataclass for each group of them, and `RunConfig`, which has them all.

Each setting stands here once, with its default, its help text and, where it names a kind of something, the registry of
these kinds. The command line (`commands/arguments.py`), the help, the checks and the error messages are made from it.
`None` means "nothing" or "the usual one" everywhere; on a command line it is written `none`.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lightseek.data.kinds import CONTEXTS, CORRUPTIONS, PAGELESS, SOURCES, TASKS
from lightseek.model.kinds import (
    ATTENTION,
    BOXES,
    COMPRESSORS,
    DECODERS,
    GLOBAL_STAGES,
    LAYOUTS,
    PROJECTORS,
    VISION_EDITS,
)
from lightseek.page.kinds import NOISES
from lightseek.page.modes import MODES, find_mode
from lightseek.page.spec import PageSpec
from lightseek.tools.files import write_json
from lightseek.tools.registry import Registry
from lightseek.training.kinds import LOGS, MEASURES, PARTS, PRECISIONS, SCHEDULES
from lightseek.weights.kinds import DTYPES, INITS, LORA_EXPERTS, LORA_TARGETS, QUANTIZERS, split_init

# Other names that a command line and a JSON file may use for a setting.
ALIASES = {"tokens": "mode", "pages": "max_pages", "clip": "max_grad_norm"}


def option(
    default: Any,
    help: str,
    *,
    kinds: Registry | None = None,
    least: int | None = None,
    above: int | None = None,
    most: int = 10**9,
    free: bool = False,
) -> Any:
    """A setting. Its value must be one of `kinds`, at least `least` and greater than `above`, if these are given.

    A number must also be finite and at most `most`.

    A `free` setting changes no result beyond rounding, so a run may be resumed with another value of it. `is_free` has
    the one exception.
    """
    limits = {"kinds": kinds, "least": least, "above": above, "most": most}
    return field(default=default, metadata={"help": help, "free": free, **limits})


@dataclass(frozen=True)
class ModelSettings:
    """Model: which model is trained, and from which weights."""

    model: str | None = option(None, "folder or hub id of a checkpoint; none is nano, which comes with LightSeek")
    init: str = option(
        "pretrained",
        f"the weights that training starts from: {INITS.choices}, or PART:random or PART:FOLDER for some parts of the "
        "model, joined with +",
    )
    compressor: str | None = option(None, "another compressor; none keeps the model's own", kinds=COMPRESSORS)
    global_stage: str | None = option(
        None,
        "another global stage in the place of CLIP, which may also renew the projector's first layer, as the number of "
        "channels changes; none keeps the model's own",
        kinds=GLOBAL_STAGES,
    )
    projector: str | None = option(None, "another projector; none keeps the model's own", kinds=PROJECTORS)
    layout: str | None = option(
        None,
        "another order of the vision tokens in the sequence; plain leaves out newlines and separator; none keeps the "
        "model's own",
        kinds=LAYOUTS,
    )
    warm_start: bool = option(
        True,
        "first fit a new compressor, global stage or projector to the output of the box that it replaces; with false "
        "it starts from random weights",
    )
    decoder: str | None = option(None, "another decoder; none keeps the decoder of the model", kinds=DECODERS)
    attention: str = option("sdpa", "the implementation of attention", kinds=ATTENTION)


@dataclass(frozen=True)
class LearningSettings:
    """Learning: which parts of the model learn."""

    freeze: str | None = option(
        None,
        f"the parts that do not learn: {', '.join(PARTS)}, decoder-last-N, all-but-PART, or several joined with +",
    )
    lora: str | None = option(
        None,
        f"the layers that get LoRA adapters: {', '.join([*LORA_TARGETS, LORA_EXPERTS])}, names of layers, "
        "or several joined with +",
    )
    lora_r: int = option(16, "the rank of the adapters", least=1, most=2**16)
    lora_alpha: float = option(
        32.0, "the scale of the adapters: their output is multiplied by lora_alpha / lora_r", above=0
    )
    lora_dropout: float = option(0.05, "the dropout in front of the adapters during training", least=0)
    quantize: str | None = option(None, "hold the frozen weights in 8 or 4 bits", kinds=QUANTIZERS)


@dataclass(frozen=True)
class ContextSettings:
    """Context and pages: how a document is shown to the model."""

    context: str = option(
        "vision",
        "how the model gets a document: as pages, as text, or as text of as many tokens as a page has",
        kinds=CONTEXTS,
    )
    mode: str = option(
        "small",
        f"the vision tokens of each page, as the name of a mode or its number of tokens: "
        f"{', '.join(mode.label for mode in MODES.values())}",
    )
    font: str = option("DejaVuSans", "the font of the drawn pages: a DejaVu font or a font file")
    letters: str | None = option(
        None,
        "the size of the letters on drawn pages: pixels such as 20, or characters a line such as 60/line; none takes "
        "the largest letters with which the text fits",
    )
    noise: str | None = option(
        None, "the noise that is added to the pages, such as rotate:degrees=3 or blur+jpeg", kinds=NOISES
    )
    max_pages: int = option(8, "the largest number of pages of a document; text that does not fit is counted", least=1)


@dataclass(frozen=True)
class DataSettings:
    """Data: which documents are learned, and what the model writes about them."""

    task: str = option("summarize", "what the model learns to write about a document", kinds=TASKS)
    data: str = option(
        "unseen", f"where the documents come from: {SOURCES.choices}, a data set (docs/data.md), a file or a folder"
    )
    text_column: str = option("text", "the column of the text, for files")
    summary_column: str | None = option(
        "summary", "the column of the summary, for files; none takes the first sentence of the text as its summary"
    )
    characters: int | None = option(
        None, "leave out documents with more characters; none is 160 to 300, or no limit for files", least=1
    )
    corrupt: str = option(
        "natural", "how much language is taken out of the texts before they are drawn", kinds=CORRUPTIONS
    )
    train_documents: int = option(1200, "the number of documents to train on", least=1)
    eval_documents: int = option(48, "the number of held-out documents to evaluate on", least=1)
    seed: int = option(
        0,
        "the seed for the initial weights, for which training documents are drawn and for their order; all seeds have "
        "the same validation and test documents",
        least=0,
        most=2**62,
    )


@dataclass(frozen=True)
class EvaluationSettings:
    """Evaluation: how the trained model is tested. The training and its validation documents do not depend on it."""

    eval_vision: str | None = option(
        None,
        "change the vision tokens of the test pages, to see what the decoder leans on: all zeroed, permuted within "
        "their page, replaced by their mean, or the weakest zeroed (drop:percent=50)",
        kinds=VISION_EDITS,
    )
    eval_noise: str | None = option(
        None, "the noise of the test pages; none is that of the training, clean is no noise", kinds=NOISES
    )
    eval_corrupt: str | None = option(
        None,
        "how much language is taken out of the test documents; none is as in training",
        kinds=CORRUPTIONS,
    )
    eval_font: str | None = option(None, "the font of the test pages; none is that of the training")
    eval_letters: str | None = option(
        None, "the size of the letters on the test pages; none is that of the training, fit fits the text"
    )


# Evaluation setting -> the setting of the training that it replaces for the test documents.
AT_TEST = {"eval_noise": "noise", "eval_corrupt": "corrupt", "eval_font": "font", "eval_letters": "letters"}


@dataclass(frozen=True)
class OptimizerSettings:
    """Optimizer: steps, batches and learning rates."""

    steps: int = option(300, "the number of optimizer steps; 0 only evaluates", least=0)
    epochs: float | None = option(None, "the number of passes over the training documents; it replaces steps", above=0)
    batch: int = option(8, "the number of documents in a step, over all processes", least=1, most=2**20)
    bucket: int = option(
        50, "sort this many batches by length together, so that little is padded; 1 sorts nothing", least=1
    )
    lr: float = option(
        5e-4, "the highest learning rate (try 1e-3 for random weights and 2e-5 for the full-size model)", above=0
    )
    lr_boxes: str | None = option(None, "other highest learning rates for some parts: encoder=1e-5,projector=1e-4")
    schedule: str = option("cosine", "how the learning rate falls to a tenth", kinds=SCHEDULES)
    warmup: float = option(0.05, "the share of the steps in which the learning rate rises first", least=0)
    weight_decay: float = option(0.01, "the weight decay of AdamW, on matrices only", least=0)
    max_grad_norm: float = option(
        1.0, "the largest norm of the gradients; larger gradients are scaled down to it", above=0
    )


@dataclass(frozen=True)
class MachineSettings:
    """Machine: where and in which precision a run computes, and what it does to save memory."""

    device: str = option("auto", "the device: auto, cpu, cuda, cuda:1 or mps")
    precision: str | None = option(None, "train in mixed precision", kinds=PRECISIONS)
    dtype: str | None = option(None, "the dtype of the weights; none keeps that of the checkpoint", kinds=DTYPES)
    accumulate: int = option(1, "split the batch of each step into this many parts, to save memory", least=1, free=True)
    gradient_checkpointing: bool = option(
        False, "compute activations a second time in the backward pass, to save memory", free=True
    )
    cache_vision: bool | None = option(
        None, "encode each page once and keep the result on disk; none does so exactly if the encoder is frozen"
    )
    cache_dir: str | None = option(
        None, "the folder of the encoded pages; none is ~/.cache/lightseek/vision", free=True
    )
    cache_gb: float = option(50.0, "the largest size of that folder, in GB", above=0, free=True)


@dataclass(frozen=True)
class WatchingSettings:
    """Watching: evaluations, checkpoints and logs during training."""

    eval_every: int = option(100, "the number of steps between two evaluations on the validation documents", least=1)
    samples: int = option(2, "the number of validation documents whose outputs each evaluation writes down", least=0)
    best: str | None = option(
        None, "end with the weights that were best by this measure; none ends with the last", kinds=MEASURES
    )
    patience: int | None = option(None, "stop after this many evaluations in a row without a better one", least=1)
    log: str = option(
        "jsonl",
        "where the figures go while the run trains; all but jsonl write metrics.jsonl too",
        kinds=LOGS,
        free=True,
    )
    save_seconds: float = option(60.0, "the number of seconds between two checkpoints of a run", least=0, free=True)
    max_new_tokens: int | None = option(
        None,
        "the length of the longest text that the model may write, in tokens; none is 1.5 times the longest target of "
        "the first 1000 training documents, but at least 64",
        least=1,
    )


@dataclass(frozen=True)
class RunConfig(  # a dataclass takes the fields of its last base first
    WatchingSettings,
    MachineSettings,
    OptimizerSettings,
    EvaluationSettings,
    DataSettings,
    ContextSettings,
    LearningSettings,
    ModelSettings,
):
    """Everything that decides a run. Two runs with equal settings give equal results on one machine.

    `mode` is stored as the name of the mode: `RunConfig(mode="64")` has the mode "tiny". An unknown mode
    raises ValueError.
    """

    def __post_init__(self) -> None:
        object.__setattr__(self, "mode", find_mode(self.mode).name)

    def save(self, path: Path) -> None:
        write_json(path, asdict(self))


GROUPS = RunConfig.__bases__[::-1]


def check(config: RunConfig) -> None:
    """Raise ValueError for settings that cannot work, whatever the model and the data are."""
    for setting in fields(config):
        check_value(setting.name, getattr(config, setting.name), setting.metadata)
    if config.accumulate > config.batch:
        raise ValueError(
            f"accumulate={config.accumulate} is more than batch={config.batch}: each part needs at least one document"
        )
    if config.patience is not None and config.best is None:
        raise ValueError("patience needs best: by which measure is an evaluation better than those before it?")
    if config.best not in (None, "eval_loss"):
        if not config.samples:
            raise ValueError(f"best={config.best} is measured on samples, and samples=0 asks for none")
        if config.task == "ocr" and not MEASURES[config.best].reading:
            raise ValueError(f"best={config.best} is not measured for task=ocr: choose eval_loss or cer")
    learning_rates(config.lr_boxes)
    split_init(config.init)
    if config.warmup > 1:
        raise ValueError(f"warmup is a share of the steps, from 0 to 1, got {config.warmup}")
    if config.lora_dropout >= 1:
        raise ValueError(f"lora_dropout must be less than 1, got {config.lora_dropout}")
    if config.decoder and config.decoder.startswith("seq2seq:") and config.context != "text":
        raise ValueError(f"decoder={config.decoder} reads text, not pages: add context=text")
    for axis in BOXES:
        if (kind := getattr(config, axis, None)) is not None and config.context in PAGELESS:
            raise ValueError(f"{axis}={kind} is for pages, and context={config.context} has none: leave one out")
    if config.cache_vision and config.context in PAGELESS:
        raise ValueError(
            f"cache_vision keeps encoded pages, and context={config.context} has none: leave one of them out"
        )
    if config.context in PAGELESS:
        for name in PAGE_SETTINGS:
            if (value := getattr(config, name)) is not None:
                raise ValueError(
                    f"{name}={value} is for pages, and context={config.context} shows the model none: leave one out"
                )
    for seen in (config, as_tested(config)):
        page_spec(seen)
    if config.eval_vision is not None:
        VISION_EDITS.call(config.eval_vision, seed=config.seed)


def check_value(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    """Raise ValueError for a value of a setting that is no known kind or out of bounds."""
    if value is None:
        return
    if limits["kinds"] is not None:
        limits["kinds"].check(value)
    if limits["least"] is not None and not value >= limits["least"]:
        raise ValueError(f"{name} must be at least {limits['least']}, got {value}")
    if limits["above"] is not None and not value > limits["above"]:
        raise ValueError(f"{name} must be greater than {limits['above']}, got {value}")
    if isinstance(value, int | float) and not abs(value) <= limits["most"]:
        raise ValueError(f"{name} must be a number of at most {limits['most']:,}, got {value}")


PAGE_SETTINGS = ("noise", "letters", "eval_vision", "eval_noise", "eval_font", "eval_letters")


def page_spec(config: RunConfig) -> PageSpec:
    """Return what the pages of the training and the validation documents look like. Raises ValueError as it does."""
    return PageSpec(config.mode, config.font, config.noise, config.max_pages, seed=config.seed, letters=config.letters)


def as_tested(config: RunConfig) -> RunConfig:
    """Return the settings with those that the test documents have in the place of those of the training."""
    given = {name: getattr(config, name) for name in AT_TEST}
    found = replace(config, **{AT_TEST[name]: value for name, value in given.items() if value is not None})
    # The noise of test pages does not depend on the seed, so that runs with other seeds see the same pages.
    return replace(found, seed=0) if found.noise not in (None, "clean") else found


def as_trained(config: RunConfig) -> RunConfig:
    """Return the settings of the training alone: the evaluation settings have their defaults."""
    return replace(config, **{setting.name: setting.default for setting in fields(EvaluationSettings)})


def learning_rates(boxes: str | None) -> dict[str, float]:
    """`"encoder=1e-5,projector=1e-4"` as a dictionary. Raises ValueError for anything else."""
    rates = {}
    for item in (boxes or "").split(",") if boxes else ():
        part, equals, rate = item.partition("=")
        try:
            rates[part.strip()] = float(rate)
        except ValueError:
            equals = ""
        if not equals or not 0 < rates[part.strip()] < math.inf:
            raise ValueError(f"lr_boxes={boxes!r}: expected PART=RATE, like encoder=1e-5,projector=1e-4")
    return rates


def has_dropout(config: RunConfig) -> bool:
    """Whether training may draw random numbers for dropout: adapters do, and decoders of transformers may."""
    return bool(config.lora and config.lora_dropout) or config.decoder not in (None, "moe", "dense")


def is_free(name: str, config: RunConfig) -> bool:
    """Whether a setting changes no result. `accumulate` does with dropout, which each part of a batch draws itself."""
    free = config.__dataclass_fields__[name].metadata["free"]
    return free and not (name == "accumulate" and has_dropout(config))


def must_match(config: RunConfig) -> dict[str, Any]:
    """The settings that a result depends on: all but the free ones."""
    return {name: value for name, value in vars(config).items() if not is_free(name, config)}


def decisive(config: RunConfig) -> dict[str, Any]:
    """The settings that change a run's result and differ from their defaults: what a cell of a grid is known by."""
    defaults = {setting.name: setting.default for setting in fields(config)}
    return {name: value for name, value in must_match(config).items() if value != defaults[name]}


def current(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings, perhaps of an older release, with the names and the spelling of today.

    >>> current({"tokens": "64", "freeze": "none"})
    {'mode': 'tiny', 'freeze': None}
    """
    optional = {setting.name for setting in fields(RunConfig) if "None" in str(setting.type)}
    found = {ALIASES.get(name, name): value for name, value in settings.items()}
    found |= {name: None for name in optional if found.get(name) in ("none", "no")}
    return found | ({"mode": find_mode(found["mode"]).name} if "mode" in found else {})


def at_test(settings: Mapping[str, Any], name: str) -> Any:
    """Return the value of a setting. An evaluation setting that is not given has the value of the training.

    >>> at_test({"corrupt": "random", "eval_corrupt": None}, "eval_corrupt")
    'random'
    """
    value = settings.get(name)
    return settings.get(AT_TEST[name]) if value is None and name in AT_TEST else value


def shown(name: str, value: Any) -> str:
    """The value of a setting as tables show it: "none" for None, and "100 (small)" for the mode small."""
    if name == "mode":
        return find_mode(value).label
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def differences(stored: Mapping[str, Any], config: RunConfig) -> list[str]:
    """How the settings of a stored run differ from `config`, each as "lr was 0.1 and is 0.2".

    Free settings do not count. A setting that is not stored is newer than that run, which had its default. Only
    `accumulate` may be missing because an older release did not store it.
    """
    before, now = current(stored), must_match(config)
    if config.epochs is not None:  # a run stores the steps that follow from it
        now.pop("steps")
    if "accumulate" not in before:
        now.pop("accumulate", None)
    defaults = {setting.name: setting.default for setting in fields(config)}
    return [
        f"{name} was {before.get(name, defaults[name])!r} and is {value!r}"
        for name, value in now.items()
        if before.get(name, defaults[name]) != value
    ]
