"""Devices and dtypes by name, tried before anything is loaded onto them."""

import platform

import torch


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


def device_name(kind: str) -> str:
    """The device by the name people know it by."""
    if kind == "cuda":
        import torch

        return torch.cuda.get_device_name()
    return f"{kind} ({platform.machine()})"
