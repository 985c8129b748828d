"""Which model a program runs: a checkpoint, or the nano preset in its place."""

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
) -> LightSeekOCR:
    """A model in eval mode with its tokenizer.

    model: an official checkpoint's folder or hub id; None is the nano preset with random weights drawn from `seed`.
    device: the first CUDA device if there is one and nothing else is asked for, otherwise the CPU.
    dtype: of the weights; by default the checkpoint's own.

    Raises CheckpointError or ConfigError for a bad checkpoint, ValueError for a device or dtype there is not.
    """
    place, kind = find_device(device), find_dtype(dtype)
    if model is not None:
        return LightSeekOCR.from_pretrained(model, device=place, dtype=kind, progress=progress)
    with torch.random.fork_rng():  # the caller's own random numbers stay as they were
        torch.manual_seed(seed)
        nano = LightSeekOCR(OCRConfig.preset("nano"))
    nano.tokenizer = Tokenizer.nano()
    return nano.to(place, kind).eval()
