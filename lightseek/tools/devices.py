"""Find devices and dtypes by name, and test a device before anything is loaded onto it."""

import platform

import torch


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


def device_name(kind: str) -> str:
    """The device by the name people know it by."""
    if kind == "cuda":
        import torch

        return torch.cuda.get_device_name()
    return f"{kind} ({platform.machine()})"
