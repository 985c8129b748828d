"""Settings of a run, and how a command line fills them: `--config file.json`, `key=value`, or flags.

One dataclass lists every setting once, with its default and its help. `train.py` reads one value for each; `ablate.py`
reads one or more for each and runs their grid.
"""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from lightseek.model.kinds import HF_DECODERS
from lightseek.page.modes import find_mode
from lightseek.tools.files import write_json


def option(default: Any, help: str, free: bool = False) -> Any:
    """A setting. A `free` one changes no result beyond rounding, so a run may be resumed with another value of it."""
    return field(default=default, metadata={"help": help, "free": free})


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run. Two runs with equal settings give equal results on one machine."""

    model: str | None = option(None, "a checkpoint folder or hub id; none is nano, which comes with LightSeek")
    init: str = option(
        "pretrained", "the model's weights (pretrained), random ones, or the encoder's from public towers (sam+clip)"
    )
    decoder: str | None = option(
        None, "moe, dense, gpt2, qwen3, hf:FOLDER_OR_ID or seq2seq:FOLDER_OR_ID; none is the model's own"
    )
    context: str = option("vision", "the document as pages (vision), or as its own tokens (text)")
    tokens: str = option("100", "vision tokens a page (64, 100, 256, 400) or a mode's name (tiny ... gundam-m)")
    task: str = option("summarize", "what to learn: ocr, summarize, or answer (documents with questions)")
    freeze: str = option("none", "what stays as it is: none, encoder, sam, clip, decoder, all-but-projector, ...")
    lora: str = option("none", "adapters: none, attention, all-linear, experts, all-linear+experts, or layers' names")
    lora_r: int = option(16, "rank of the adapters")
    lora_alpha: float = option(32.0, "scale of the adapters: alpha/r times what they give")
    lora_dropout: float = option(0.05, "dropout before the adapters, in training")
    quantize: str = option("none", "frozen weights as none, int8 (any device), or bitsandbytes' nf4 or bnb-int8")
    data: str = option("synthetic", "synthetic, pydoc, a data set (cnn_dailymail, ...: docs/data.md), a file or folder")
    text_column: str = option("text", "column of the text, for files")
    summary_column: str | None = option("summary", "column of the summary, for files; none takes the first sentence")
    characters: int | None = option(None, "longest document, in characters; none is 300, or no limit for files")
    font: str = option("DejaVuSans", "font of the rendered pages: a DejaVu face or a font file")
    pages: int = option(8, "most pages a document; what finds no place on them is counted")
    train_documents: int = option(2000, "how many documents to train on")
    eval_documents: int = option(48, "how many held-out documents to evaluate on")
    steps: int = option(300, "optimizer steps")
    epochs: float | None = option(None, "passes over the training documents; decides steps")
    batch: int = option(8, "documents per step, over all processes")
    bucket: int = option(50, "batches sorted by length together, so that little is padded; 1 leaves all to chance")
    accumulate: int = option(1, "split each step's batch in this many parts, to save memory", free=True)
    lr: float = option(3e-4, "highest learning rate (1e-3 from random weights, about 2e-5 for the full model)")
    lr_boxes: str | None = option(None, "other highest rates for some parts: encoder=1e-5,projector=1e-4")
    schedule: str = option("cosine", "how the rate falls to a tenth: cosine or linear")
    warmup: float = option(0.05, "share of the steps in which the rate rises first")
    weight_decay: float = option(0.01, "AdamW's weight decay, on matrices only")
    clip: float = option(1.0, "largest gradient norm")
    seed: int = option(0, "of the weights, the documents and their order")
    device: str = option("auto", "auto, cpu, cuda or mps")
    precision: str = option("no", "mixed precision: no, bf16 or fp16")
    dtype: str | None = option(None, "dtype the weights are held in; none keeps the checkpoint's")
    attention: str = option("sdpa", "sdpa, eager or flash")
    gradient_checkpointing: bool = option(False, "recompute activations backward, to save memory", free=True)
    cache_vision: bool = option(False, "keep what a frozen encoder makes of each page on disk, and run it once")
    cache_dir: str | None = option(None, "folder of --cache-vision; none is ~/.cache/lightseek/vision", free=True)
    cache_gb: float = option(50.0, "most that this folder may hold, in GB", free=True)
    eval_every: int = option(100, "steps between evaluations on validation documents")
    samples: int = option(2, "validation documents whose outputs each evaluation writes down")
    best: str | None = option(None, "end with the best weights by: eval_loss, or rouge1 ... cer of the samples")
    patience: int | None = option(None, "stop after this many evaluations without a better one")
    log: str = option("jsonl", "jsonl, or tensorboard too", free=True)
    save_seconds: float = option(60.0, "seconds between checkpoints of a run in progress", free=True)
    max_new_tokens: int = option(512, "longest generated text, in tokens")

    def save(self, path: Path) -> None:
        write_json(path, asdict(self))


def check(config: RunConfig) -> None:
    """Raise ValueError for settings that cannot work, whatever the model and the data are."""
    at_least_one = ("train_documents", "eval_documents", "pages", "steps", "batch", "accumulate", "eval_every")
    for name in (*at_least_one, "max_new_tokens", "bucket"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(config, name)}")
    if config.accumulate > config.batch:
        raise ValueError(f"accumulate={config.accumulate} parts of a batch of {config.batch}: at most one a document")
    for name in ("lr", "clip", "epochs", "cache_gb"):
        if getattr(config, name) is not None and not getattr(config, name) > 0:
            raise ValueError(f"{name} must be positive, got {getattr(config, name)}")
    if config.samples < 0 or (config.patience is not None and config.patience < 1):
        raise ValueError(f"samples={config.samples}, patience={config.patience}: at least 0 and 1")
    if config.patience is not None and config.best is None:
        raise ValueError("patience needs best: by which metric is an evaluation better than those before it?")
    if config.best not in (None, "eval_loss") and not config.samples:
        raise ValueError(f"best={config.best} is measured on samples, and samples=0 asks for none")
    learning_rates(config.lr_boxes)
    if not 0 <= config.warmup <= 1:
        raise ValueError(f"warmup is a share of the steps, 0 to 1, got {config.warmup}")
    if config.seed < 0:
        raise ValueError(f"seed must not be negative, got {config.seed}")
    if config.characters is not None and config.characters < 1:
        raise ValueError(f"characters must be at least 1, got {config.characters}")
    if config.lora_r < 1 or not config.lora_alpha > 0 or not 0 <= config.lora_dropout < 1:
        raise ValueError(
            f"lora_r={config.lora_r}, lora_alpha={config.lora_alpha:g}, lora_dropout={config.lora_dropout:g}: "
            "at least 1, above 0, and from 0 to below 1"
        )
    for name, choices in CHOICES.items():
        if getattr(config, name) not in choices:
            raise ValueError(f"{name}={getattr(config, name)!r}: choose one of {', '.join(map(str, choices))}")
    check_decoder(config.decoder, config.context)
    if config.cache_vision and config.context == "text":
        raise ValueError("cache_vision keeps encoded pages, and context=text has none: leave one of them out")
    find_mode(config.tokens)


def check_decoder(decoder: str | None, context: str) -> None:
    """Raise ValueError for a decoder that is none, or that can't take its document this way."""
    kind, _, source = (decoder or "moe").partition(":")
    if not (kind in ("hf", "seq2seq") if source else decoder in (None, "moe", "dense", *HF_DECODERS)):
        names = ", ".join(["moe", "dense", *HF_DECODERS, "hf:FOLDER_OR_ID", "seq2seq:FOLDER_OR_ID"])
        raise ValueError(f"unknown decoder {decoder!r}: choose one of {names}")
    if kind == "seq2seq" and context != "text":
        raise ValueError(f"decoder={decoder} reads text, not pages: add context=text")


CHOICES = {
    "context": ("vision", "text"),
    "init": ("pretrained", "random", "sam+clip"),
    "task": ("ocr", "summarize", "answer"),
    "precision": ("no", "bf16", "fp16"),
    "schedule": ("cosine", "linear"),
    "best": (None, "eval_loss", "rouge1", "rouge2", "rougeL", "cer", "wer"),
    "log": ("jsonl", "tensorboard"),
    "attention": ("sdpa", "eager", "flash"),
    "quantize": ("none", "int8", "nf4", "bnb-int8"),
}


def learning_rates(boxes: str | None) -> dict[str, float]:
    """`"encoder=1e-5,projector=1e-4"` as a dictionary. Raises ValueError for anything else."""
    rates = {}
    for item in (boxes or "").split(",") if boxes else ():
        part, equals, rate = item.partition("=")
        try:
            rates[part.strip()] = float(rate)
        except ValueError:
            equals = ""
        if not equals or not rates[part.strip()] > 0:
            raise ValueError(f"lr_boxes={boxes!r}: expected PART=RATE, like encoder=1e-5,projector=1e-4")
    return rates


def must_match(config: RunConfig) -> dict[str, Any]:
    """The settings that a checkpoint depends on: all but the free ones."""
    return {setting.name: getattr(config, setting.name) for setting in fields(config) if not setting.metadata["free"]}
