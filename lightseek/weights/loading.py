"""Loads and saves models. `LightSeekOCR` is the model class, `nano` is a small model that comes with the package."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lightseek.model.config import STORED, HFDecoderConfig, OCRConfig
from lightseek.model.ocr import DeepSeekOCR
from lightseek.page.views import Page
from lightseek.text import generate as text
from lightseek.text.generate import Generation
from lightseek.text.tokenizer import Tokenizer
from lightseek.tools.devices import find_device, find_dtype
from lightseek.weights.hub import find_folder
from lightseek.weights.official import load_official, save_official
from lightseek.weights.pack import is_packed
from lightseek.weights.quantize import quantize as quantize_weights
from lightseek.weights.swapped import CONFIG as SWAPPED
from lightseek.weights.swapped import load_swapped, save_swapped

NANO = Path(__file__).parent / "nano"  # an official-layout checkpoint, made by experiments/nano/pretrain.py


class LightSeekOCR(DeepSeekOCR):
    """DeepSeek-OCR with a tokenizer. It can load a checkpoint, save one and generate text."""

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | Path,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype | None = None,
        **options: Any,
    ) -> "LightSeekOCR":
        """Load a checkpoint from a folder or the hub. `load` describes the options and the errors."""
        return load_checkpoint(cls, path_or_hub_id, device, dtype, **options)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write a checkpoint, in the official layout if the model is official. `save` describes the details."""
        save_checkpoint(self, folder, dtype=dtype)

    def generate(
        self,
        input_ids: Int[Tensor, "b n"],
        pages: Sequence[Sequence[Page]] | None = None,
        mask: Bool[Tensor, "b n"] | Int[Tensor, "b n"] | None = None,
        **options: Any,
    ) -> list[Generation]:
        """Continue each prompt. `text/generate.py` describes the options (`max_new_tokens`, `beams`, ...)."""
        return text.generate(self, input_ids, pages, mask, **options)

    def stream(
        self,
        input_ids: Int[Tensor, "1 n"],
        pages: Sequence[Sequence[Page]] | None = None,
        mask: Bool[Tensor, "1 n"] | Int[Tensor, "1 n"] | None = None,
        **options: Any,
    ) -> Iterator[str]:
        """Yield the text after one prompt while it is generated. `text/generate.py` describes the options."""
        return text.stream(self, input_ids, pages, mask, **options)


def load_model(
    model: str | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    init: Literal["pretrained", "random"] = "pretrained",
    seed: int = 0,
    progress: bool = False,
    adapter: str | Path | None = None,
    quantize: str | None = None,
) -> LightSeekOCR:
    """Return a model with its tokenizer, in evaluation mode.

    model: the folder or the hub id of a checkpoint. None is `nano`, the small model that comes with LightSeek.
    device: the default is the first CUDA device, or the CPU if there is none.
    dtype: the dtype of the weights. The default is the dtype of the checkpoint, and float32 for `nano`.
    init: `pretrained` loads the weights. `random` draws new weights of the same sizes from `seed`.
    adapter: the folder or the hub id of a LoRA adapter (`lora_files.py`), which is not merged.
    quantize: `int8`, `int4`, `nf4` or `bnb-int8` store the weights in fewer bits (`quantize.py`). All weights are then
    frozen.

    Raises CheckpointError or ConfigError for a bad checkpoint, ValueError for a device or a dtype that is not
    available, and ImportError if `quantize` needs a package that is not installed.
    """
    place, kind = find_device(device), find_dtype(dtype)
    if model is None:
        kind = kind or torch.float32  # nano's file has 16-bit weights, but training and old CPUs need float32
    if init == "random":
        loaded = random_model(NANO if model is None else find_folder(model), seed, kind).to(place)
    else:
        streamed = quantize if quantize in STORED else None
        source = NANO if model is None else model
        loaded = LightSeekOCR.from_pretrained(source, place, kind, progress=progress, quantize=streamed)
    if quantize is not None and loaded.config.quantized != quantize:
        quantize_weights(loaded.requires_grad_(False), quantize)
    if adapter is not None:
        from lightseek.weights.lora_files import load_adapter

        load_adapter(loaded, adapter)
    return loaded


def random_model(folder: Path, seed: int, dtype: torch.dtype | None = None) -> LightSeekOCR:
    """Return a model with the sizes and the tokenizer of the checkpoint in `folder`, and random weights from `seed`.

    The default dtype is the one in the checkpoint's config. Raises ConfigError, which names the file.
    """
    config = read_config(folder)
    with torch.random.fork_rng():  # the state of the caller's random numbers does not change
        torch.manual_seed(seed)
        model = LightSeekOCR(config)
    model.tokenizer = find_tokenizer(folder)
    return model.to(dtype or find_dtype(config.dtype)).eval()


def load_checkpoint(
    cls: type[DeepSeekOCR],
    path_or_hub_id: str | Path,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    progress: bool = False,
    quantize: str | None = None,
) -> DeepSeekOCR:
    """Build `cls(config)` with the weights and the tokenizer of a checkpoint, in evaluation mode.

    path_or_hub_id: a folder in the official layout or in the layout of `swapped.py`, or a hub id.
    dtype: the dtype of the weights in memory, such as `torch.float32` or `"float32"`. The default is the dtype in the
    checkpoint's config, which is bfloat16 in the official checkpoint.
    `revision`, `token`, `cache_dir` and `local_files_only` are options of huggingface_hub.
    progress: show a progress bar.
    quantize: `int8` or `int4` quantize each weight while it is read (`quantize.py`), so that memory never holds all of
    them whole. Weights that are stored with fewer bits are loaded as they are. All quantized weights are frozen.

    Raises CheckpointError or ConfigError, which name the file and the key, and ValueError for a device or a dtype that
    is not available, or if the weights are stored with other bits than `quantize` asks for.
    """
    folder = find_folder(
        path_or_hub_id, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only
    )
    device, dtype, config = find_device(device), find_dtype(dtype), read_config(folder)
    if quantize not in (None, *STORED):
        raise ValueError(f"quantize={quantize}: only int8 and int4 are made while loading; load_model has the others")
    if quantize and config.quantized and quantize != config.quantized:
        raise ValueError(f"{folder}: its weights are stored as {config.quantized}: leave out quantize={quantize}")
    layout = load_official if config.official else load_swapped
    model = layout(cls, config, folder, device, dtype or find_dtype(config.dtype), progress, quantize)
    if quantize and not isinstance(config.decoder, HFDecoderConfig):
        model.config = config.with_(quantized=quantize)
    model.tokenizer, model.folder = find_tokenizer(folder), folder
    return model.eval()


def save_checkpoint(model: DeepSeekOCR, folder: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write `model` to a folder, in the official layout if every box is official, else in the layout of `swapped.py`.

    Each file appears complete or not at all. The weights are written as `dtype`. The default is the dtype of the model.
    Raises ValueError for a model with adapters, or with quantized or packed weights.
    """
    if is_packed(model):
        raise ValueError(
            "the weights are packed for reading (weights/pack.py): load it again without packing to save it"
        )
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            raise ValueError("the model has an adapter on it: merge it first, or save it alone (weights/lora.py)")
        if not parameter.is_floating_point() and not model.config.quantized:
            raise ValueError(
                f"{name} is quantized, but not the whole model: a checkpoint holds int8 or int4 of a model that was "
                "loaded with quantize; save the adapter alone"
            )
    layout = save_official if model.config.official else save_swapped
    layout(model, Path(folder), dtype or model.dtype)
    if model.tokenizer is not None:
        model.tokenizer.save(Path(folder) / "tokenizer.json")


def read_config(folder: Path) -> OCRConfig:
    """Return the sizes of the checkpoint in a folder, in either layout. Raises ConfigError, which names the file."""
    swapped = folder / SWAPPED
    return OCRConfig.from_json(swapped if swapped.is_file() else folder / "config.json")


def find_tokenizer(folder: Path) -> Tokenizer | None:
    """Return the tokenizer in a checkpoint's folder, or None if there is none."""
    tokenizer = folder / "tokenizer.json"
    return Tokenizer.from_file(tokenizer) if tokenizer.is_file() else None
