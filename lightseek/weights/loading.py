"""Load a model: a checkpoint, or `nano`, whose weights come with the package. `LightSeekOCR` is what you get."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lightseek.model.config import OCRConfig
from lightseek.model.ocr import DeepSeekOCR
from lightseek.page.views import Page
from lightseek.text import generate as text
from lightseek.text.generate import Generation
from lightseek.text.tokenizer import Tokenizer
from lightseek.tools.devices import find_device, find_dtype
from lightseek.weights import official
from lightseek.weights.official import find_folder

NANO = Path(__file__).parent / "nano"  # an official-layout checkpoint, made by experiments/nano/pretrain.py


class LightSeekOCR(DeepSeekOCR):
    """DeepSeek-OCR with its tokenizer and its files: it loads, saves and writes text."""

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | Path,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype | None = None,
        **options: Any,
    ) -> "LightSeekOCR":
        """Load an official checkpoint from a folder or the hub. `lightseek.weights.official.load` lists the options."""
        return official.load(cls, path_or_hub_id, device, dtype, **options)

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write a checkpoint in the official layout. `lightseek.weights.official.save` says more."""
        official.save(self, folder, dtype=dtype)

    def generate(
        self,
        input_ids: Int[Tensor, "b n"],
        pages: Sequence[Sequence[Page]] | None = None,
        mask: Bool[Tensor, "b n"] | Int[Tensor, "b n"] | None = None,
        **options: Any,
    ) -> list[Generation]:
        """Continue each prompt. `text/generate.py` lists the options (`max_new_tokens`, `beams`, ...)."""
        return text.generate(self, input_ids, pages, mask, **options)

    def stream(
        self,
        input_ids: Int[Tensor, "1 n"],
        pages: Sequence[Sequence[Page]] | None = None,
        mask: Bool[Tensor, "1 n"] | Int[Tensor, "1 n"] | None = None,
        **options: Any,
    ) -> Iterator[str]:
        """Yield the text after one prompt as it comes. `lightseek.text.generate.stream` lists the options."""
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
    """A model in eval mode with its tokenizer.

    model: an official checkpoint's folder or hub id; None is `nano`, the small model that comes with LightSeek.
    device: the first CUDA device if there is one and nothing else is asked for, otherwise the CPU.
    dtype: of the weights; by default the checkpoint's own, for `nano` float32.
    init: its weights as they are, or `random` ones in its sizes, drawn from `seed`.
    adapter: a LoRA adapter's folder or hub id (`lora_files.py`), left unmerged.
    quantize: `int8`, `nf4` or `bnb-int8`: hold the weights in fewer bits (`quantize.py`); nothing then learns.

    Raises CheckpointError or ConfigError for a bad checkpoint, ValueError for a device or dtype there is not.
    """
    place, kind = find_device(device), find_dtype(dtype)
    if model is None:
        kind = kind or torch.float32  # its file has half of that; training and old CPUs want it whole
    if init == "random":
        loaded = random_model(NANO if model is None else find_folder(model), seed, kind).to(place)
    else:
        loaded = LightSeekOCR.from_pretrained(NANO if model is None else model, place, kind, progress=progress)
    if quantize is not None:
        from lightseek.weights.quantize import quantize as quantize_weights

        quantize_weights(loaded.requires_grad_(False), quantize)
    if adapter is not None:
        from lightseek.weights.lora_files import load_adapter

        load_adapter(loaded, adapter)
    return loaded


def random_model(folder: Path, seed: int, dtype: torch.dtype | None = None) -> LightSeekOCR:
    """A checkpoint's sizes and tokenizer with random weights, by default in the dtype its config names."""
    config = OCRConfig.from_json(folder / "config.json")
    with torch.random.fork_rng():  # the caller's own random numbers stay as they were
        torch.manual_seed(seed)
        model = LightSeekOCR(config)
    tokenizer = folder / "tokenizer.json"
    model.tokenizer = Tokenizer.from_file(tokenizer) if tokenizer.is_file() else None
    return model.to(dtype or find_dtype(config.dtype)).eval()
