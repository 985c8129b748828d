"""Which model a program runs: a checkpoint, or the nano preset in its place."""

from pathlib import Path

import torch

from lightseek.config import OCRConfig
from lightseek.devices import find_device, find_dtype
from lightseek.model.ocr import LightSeekOCR
from lightseek.tokenizer import Tokenizer


def load_model(
    model: str | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    seed: int = 0,
    progress: bool = False,
    adapter: str | Path | None = None,
    quantize: str = "none",
) -> LightSeekOCR:
    """A model in eval mode with its tokenizer.

    model: an official checkpoint's folder or hub id; None is the nano preset with random weights drawn from `seed`.
    device: the first CUDA device if there is one and nothing else is asked for, otherwise the CPU.
    dtype: of the weights; by default the checkpoint's own.
    adapter: a LoRA adapter's folder or hub id (`lightseek.lora_files`), left unmerged.
    quantize: `int8`, `nf4` or `bnb-int8`: hold the weights in fewer bits (`lightseek.quantize`); nothing then learns.

    Raises CheckpointError or ConfigError for a bad checkpoint, ValueError for a device or dtype there is not.
    """
    place, kind = find_device(device), find_dtype(dtype)
    if model is not None:
        loaded = LightSeekOCR.from_pretrained(model, device=place, dtype=kind, progress=progress)
    else:
        with torch.random.fork_rng():  # the caller's own random numbers stay as they were
            torch.manual_seed(seed)
            loaded = LightSeekOCR(OCRConfig.preset("nano"))
        loaded.tokenizer = Tokenizer.nano()
        loaded = loaded.to(place, kind).eval()
    if quantize != "none":
        from lightseek.quantize import quantize as quantize_weights

        quantize_weights(loaded.requires_grad_(False), quantize)
    if adapter is not None:
        from lightseek.lora_files import load_adapter

        load_adapter(loaded, adapter)
    return loaded
