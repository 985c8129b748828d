"""Which model a program runs: a checkpoint, or the nano preset in its place."""

import torch

from lightseek.config import OCRConfig
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


def find_device(name: str | torch.device | None = None) -> torch.device:
    """The device of that name, tried out. Raises ValueError when this machine does not have it."""
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # PyTorch has one for each way to fail
        reason = str(error).splitlines()[0]
        raise ValueError(f"device '{name}' cannot be used on this machine: {reason}") from None
    if device.type == "meta":
        raise ValueError("device 'meta' has no values to compute with")
    return device


def find_dtype(name: str | torch.dtype | None) -> torch.dtype | None:
    """`"bfloat16"` or `torch.bfloat16` to the dtype. Raises ValueError when it is not a floating-point type."""
    if name is None:
        return None
    dtype = getattr(torch, name, None) if isinstance(name, str) else name
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"{name!r} is not a floating-point type such as float32, bfloat16 or float16")
    return dtype
