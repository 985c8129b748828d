"""Find devices and dtypes by name, and test a device before anything is loaded onto it."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("lightseek", "torch", "transformers", "accelerate", "peft", "timm", "tokenizers", "numpy")


def find_device(name: str | torch.device | None = None) -> torch.device:
    """Return the device of this name after a test on it. The default is the GPU, or the CPU if there is no GPU.

    Raises ValueError if this machine cannot use the device.
    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # the type depends on the device
        reason = str(error).splitlines()[0]
        raise ValueError(f"device '{name}' cannot be used on this machine: {reason}") from None
    if device.type == "meta":
        raise ValueError("device 'meta' has no values to compute with")
    return device


def find_dtype(name: str | torch.dtype | None) -> torch.dtype | None:
    """Return the dtype for `"bfloat16"` or `torch.bfloat16`. Raises ValueError if it is not a floating-point type."""
    if name is None:
        return None
    dtype = getattr(torch, name, None) if isinstance(name, str) else name
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(f"{name!r} is not a floating-point type such as float32, bfloat16 or float16")
    return dtype


def is_nvidia(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is on a GPU of NVIDIA. PyTorch says cuda for AMD's GPUs, too."""
    return tensor.is_cuda and torch.version.hip is None


def device_name(kind: str) -> str:
    """The device by the name people know it by."""
    if kind == "cuda":
        import torch

        return torch.cuda.get_device_name()
    return f"{kind} ({platform.machine()})"


def machine(device: torch.device) -> dict[str, Any]:
    """Describe the machine and the installed versions, for the record of a run. `memory_bytes` is its main memory."""
    import psutil

    names = {device_name(device.type): None, processor(): None}  # a GPU and the processor beside it
    return {
        "device": ", ".join(names),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := installed(name))},
    }


def processor() -> str:
    """Return the name of the processor, or its architecture where the system does not tell the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
