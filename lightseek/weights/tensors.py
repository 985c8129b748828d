"""Reads, checks and writes safetensors files, with one tensor in memory at a time.

Both layouts of a checkpoint use this file. Nothing here unpickles or runs code from a file.
"""

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import torch
from rich.progress import track
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lightseek.tools.files import atomic_write

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

INTEGERS = {"I8": torch.int8, "U8": torch.uint8}  # of quantized weights


NAMES = {dtype: name for name, dtype in (DTYPES | INTEGERS).items()}


MAPPED_AT_ONCE = 32 << 20  # bytes; mapped pages count as resident until the file is closed


@runtime_checkable
class Target(Protocol):
    """What takes the values of a tensor."""

    def copy_(self, tensor: Tensor) -> object: ...


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded. The message names the file and the key."""


def write_safetensors(
    target: Path,
    shapes: dict[str, tuple[int, ...]],
    dtype: torch.dtype,
    value: Callable[[str], Tensor],
    integers: Mapping[str, torch.dtype] = MappingProxyType({}),
) -> None:
    """Write one safetensors file tensor by tensor, so that only one tensor is in memory.

    `shapes` has the shape of each key. `value(key)` returns the tensor, which is written as `dtype`, or as the dtype
    that `integers` has for this key. The file replaces `target` when it is complete. A safetensors file consists of the
    length of the header (8 bytes, little endian), the header in JSON, and the bytes of the tensors in the order of the
    header (source: README of the safetensors library).
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for key in sorted(shapes):
        kind = integers.get(key, dtype)
        size = math.prod(shapes[key]) * kind.itemsize
        header[key] = {"dtype": NAMES[kind], "shape": shapes[key], "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_write(target) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for key in sorted(shapes):
            tensor = value(key).detach().to("cpu", integers.get(key, dtype)).contiguous()
            file.write(tensor.flatten().view(torch.uint8).numpy().data)


def keys_of(files: list[Path]) -> dict[str, Path]:
    """Return the file of each tensor's key. Raises CheckpointError if two files have the same key."""
    keys: dict[str, Path] = {}
    for path in files:
        with _opened(path) as file:
            for key in file.keys():  # noqa: SIM118 - not a dictionary
                if key in keys:
                    raise CheckpointError(f"{path}: tensor {key} is in {keys[key].name} too")
                keys[key] = path
    return keys


@contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: truncated, or not a safetensors file ({error}); fetch or write it again"
        ) from None


def check_headers(
    files: dict[str, Path],
    expected: dict[str, tuple[int, ...]],
    integers: Mapping[str, torch.dtype] = MappingProxyType({}),
) -> None:
    """Check that the files have exactly the expected tensors, with the expected shapes and floating-point types.

    The keys in `integers` must have the types that it has for them. Only the headers are read. Raises CheckpointError,
    which names the file and the key.
    """
    where = ", ".join(sorted({str(path) for path in files.values()}))
    if missing := sorted(expected.keys() - files.keys()):
        raise CheckpointError(f"{where}: {_some(missing)} missing; the config asks for {len(expected)} tensors")
    for key in sorted(files.keys() - expected.keys()):
        raise CheckpointError(f"{files[key]}: tensor {key} is not one of the {len(expected)} that the config asks for")
    for path in sorted(set(files.values())):
        with _opened(path) as file:
            for key in (key for key, place in files.items() if place == path):
                entry = file.get_slice(key)
                shape = tuple(entry.get_shape())
                if shape != expected[key]:
                    raise CheckpointError(
                        f"{path}: tensor {key} has shape {shape}, the config asks for {expected[key]}"
                    )
                wanted = [NAMES[integers[key]]] if key in integers else list(DTYPES)
                if entry.get_dtype() not in wanted:
                    raise CheckpointError(
                        f"{path}: tensor {key} is {entry.get_dtype()}, not one of {', '.join(wanted)}"
                    )


def without_buffers(
    files: dict[str, Path], weights: Collection[str], value: Callable[[str], Tensor | None]
) -> dict[str, Path]:
    """Return `files` without the tensors that are no weights and hold exactly the values that everyone computes.

    `value(key)` returns these values in float64, or None for a key that is no known buffer, which stays in the result.
    Raises CheckpointError, which names the file and the key, for a known buffer with other values.
    """
    others = {key: path for key, path in files.items() if key not in weights and value(key) is not None}
    for key, path, tensor in read_tensors(others):
        found, expected = tensor.double().flatten(), value(key)
        # Frequencies are rounded to the dtype that they are stored in, and powers are not exact in float32.
        rounding = max(1e-5, torch.finfo(tensor.dtype).eps) if tensor.is_floating_point() else 0.0
        if found.shape != expected.shape or not torch.allclose(found, expected, rtol=rounding, atol=0.0):
            raise CheckpointError(
                f"{path}: tensor {key} is a buffer and not a weight, but it does not hold the {len(expected)} values "
                "that follow from the config: the checkpoint is of a model with other positions"
            )
    return {key: path for key, path in files.items() if key not in others}


def check_values(tensor: Tensor, dtype: torch.dtype, name: str) -> None:
    """Raise CheckpointError, which names `name`, if a value is not finite or is too large for `dtype`."""
    if not tensor.numel() or not tensor.is_floating_point():
        return
    low, high = (end.item() for end in torch.aminmax(tensor))  # both are NaN if any value is
    if not (math.isfinite(low) and math.isfinite(high)):
        raise CheckpointError(f"{name} holds values that are not finite (NaN or infinity)")
    if max(-low, high) > torch.finfo(dtype).max:
        raise CheckpointError(f"{name} holds {max(-low, high):.3g}, too large for {str(dtype).removeprefix('torch.')}")


def _some(keys: list[str]) -> str:
    return f"tensor {keys[0]}" + (f" and {len(keys) - 1} more are" if len(keys) > 1 else " is")


def read_tensors(files: dict[str, Path]) -> Iterator[tuple[str, Path, Tensor]]:
    """Yield the key, the file and the memory-mapped tensor of each key. Use a tensor before you ask for the next.

    The file is closed and mapped again after every 32 MiB. Otherwise the process would hold all weights twice: in the
    mapped memory and in the model.
    """
    for path in sorted(set(files.values())):
        keys = sorted(key for key, place in files.items() if place == path)
        while keys:
            mapped = 0
            with _opened(path) as file:
                while keys and mapped < MAPPED_AT_ONCE:
                    key = keys.pop(0)
                    tensor = file.get_tensor(key)
                    mapped += tensor.nbytes
                    yield key, path, tensor
                    del tensor


def copy_tensors(
    files: dict[str, Path], targets: Mapping[str, Target], dtype: torch.dtype, progress: bool = False
) -> None:
    """Copy each tensor of the files into the target with the same key.

    A target is a tensor, or something else with `copy_(tensor)`, such as a weight that quantizes what it gets.
    Raises CheckpointError if a value is not finite or is too large for `dtype`.
    """
    for key, path, tensor in track(
        read_tensors(files), description="loading weights", total=len(files), disable=not progress, transient=True
    ):
        check_values(tensor, dtype, f"{path}: tensor {key}")
        targets[key].copy_(tensor)
