"""Checkpoints of a run in progress: the parameters that learn, the optimizer's state, and how far the run is.

    save_state(model, optimizer, folder, {"step": 100})
    path = newest_state(folder)             # None if there is no checkpoint
    place = load_state(model, optimizer, path)

A checkpoint is one safetensors file. It is written completely before it replaces the last one, and the last one is
kept. So a killed run, a full disk or a damaged file loses only the steps since the last checkpoint. A checksum shows if
a file was cut short or changed. The file holds complete tensors even if several processes share the model, so a run may
resume with another number of processes.
"""

import json
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lightseek.tools.files import atomic_write
from lightseek.tools.json_files import check_fields, parse_json
from lightseek.training.processes import parted_like, whole
from lightseek.weights.tensors import NAMES

STATE = "checkpoint.safetensors"
NEXT, PREVIOUS = "checkpoint.next.safetensors", "checkpoint.previous.safetensors"
BEST = "best.safetensors"  # only the parameters that learn, from the best evaluation
BLOCK = 16 << 20  # bytes read at a time
NO_SUM = "--------"


def save_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, folder: str | Path, place: dict[str, Any], main: bool = True
) -> None:
    """Write the checkpoint `STATE` to `folder`. The checkpoint that was there becomes `PREVIOUS`.

    `place` is any JSON value that says how far the run is. Every process must call this, but only the one with `main`
    writes. Raises OSError if the disk is full. The old checkpoints then stay as they were.
    """
    new, current, previous = (Path(folder) / name for name in (NEXT, STATE, PREVIOUS))
    write_tensors(new, [*learning(model), *optimizer_tensors(model, optimizer)], place, main)
    if main:
        if current.exists():
            current.replace(previous)
        new.replace(current)  # if the run is killed before this line, `newest_state` finds NEXT


def save_weights(model: nn.Module, path: str | Path, place: dict[str, Any], main: bool = True) -> None:
    """Write only the parameters that learn. Every process must call this, but only the one with `main` writes."""
    write_tensors(Path(path), list(learning(model)), place, main)


def load_state(model: nn.Module, optimizer: torch.optim.Optimizer | None, path: str | Path) -> dict[str, Any]:
    """Copy a checkpoint into the model, and into the optimizer unless it is None. Returns the `place` of `save_state`.

    Raises ValueError if the file lacks a parameter that learns, or has it in another shape.
    """
    inner = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper
    with safe_open(path, "pt") as file, torch.no_grad():
        kept: dict[str, list[str]] = {}
        for key in file.keys():  # noqa: SIM118 - not a dictionary
            if key.startswith("optimizer."):
                name, _, entry = key.removeprefix("optimizer.").rpartition(".")
                kept.setdefault(name, []).append(entry)
        for key, parameter in learning(model):
            try:
                value = file.get_tensor(key)
            except SafetensorError:
                raise ValueError(
                    f"{path}: {key} learns in this run but is not in the file, which is from another model"
                ) from None
            if value.shape != parameter.shape:
                raise ValueError(f"{path}: {key} is {tuple(value.shape)}, the model's is {tuple(parameter.shape)}")
            parameter.copy_(parted_like(value.to(parameter.dtype), parameter))
            if optimizer is not None:
                name = key.removeprefix("model.")
                state = {entry: file.get_tensor(f"optimizer.{name}.{entry}") for entry in kept.get(name, [])}
                inner.state[parameter] = {
                    entry: parted_like(value, parameter) if value.ndim else value.to(parameter.device)
                    for entry, value in state.items()
                }
        return _place(file, path)


def load_best(model: nn.Module, folder: str | Path) -> None:
    """Copy the best weights of a run into the model. Raises ValueError if their file is missing or damaged."""
    path = Path(folder) / BEST
    if reason := flaw(path):
        raise ValueError(f"{path} is damaged ({reason}): delete the checkpoints beside it, and start the run again")
    load_state(model, None, path)


def read_place(path: str | Path) -> dict[str, Any]:
    """Return the `place` that was passed to `save_state`."""
    with safe_open(path, "pt") as file:
        return _place(file, path)


def _place(file: safe_open, path: str | Path) -> dict[str, Any]:
    return check_fields(parse_json((file.metadata() or {}).get("place", "null"), path), {}, name=path)


def newest_state(folder: str | Path) -> Path | None:
    """Return the newest undamaged checkpoint in a folder, or None. A damaged one is removed with a warning."""
    for name in (NEXT, STATE, PREVIOUS):
        path = Path(folder) / name
        if not path.is_file():
            continue
        if not (reason := flaw(path)):
            return path
        warnings.warn(f"{path} is damaged ({reason}): the checkpoint before it is used, if there is one", stacklevel=2)
        path.unlink()
    return None


def remove_states(folder: str | Path) -> None:
    """Remove the files that only a run in progress needs."""
    for name in (NEXT, STATE, PREVIOUS, BEST):
        (Path(folder) / name).unlink(missing_ok=True)


def learning(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield f"model.{name}", parameter


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    state = getattr(optimizer, "optimizer", optimizer).state
    for name, parameter in model.named_parameters():
        for entry, value in state.get(parameter, {}).items():
            yield f"optimizer.{name}.{entry}", value


def write_tensors(target: Path, tensors: Sequence[tuple[str, Tensor]], place: dict[str, Any], main: bool) -> None:
    """Write a safetensors file atomically, with one tensor at a time in memory.

    `write_safetensors` in weights/tensors.py describes the format. Here the header also has a `sum`: the CRC-32 of the
    tensors' bytes, which is filled in after they are written.
    """
    if not main:
        for _, tensor in tensors:
            whole(tensor)  # the main process collects the parts of every process
        return
    header: dict[str, Any] = {"__metadata__": {"format": "pt", "sum": NO_SUM, "place": json.dumps(place)}}
    offset = 0
    for key, tensor in tensors:
        end = offset + tensor.numel() * tensor.dtype.itemsize
        header[key] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_write(target) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        total = 0
        for _, tensor in tensors:
            content = whole(tensor).cpu().contiguous().flatten().view(torch.uint8).numpy().data
            total = zlib.crc32(content, total)
            file.write(content)
        file.seek(8 + text.index(NO_SUM.encode()))
        file.write(f"{total:08x}".encode())


def flaw(path: Path) -> str | None:
    """Say what is wrong with a file that `write_tensors` wrote. Returns None if nothing is wrong."""
    try:
        with safe_open(path, "pt") as opened:  # this checks the header, and that the file has the length it says
            expected = (opened.metadata() or {}).get("sum")
    except (SafetensorError, OSError) as error:
        return f"it is cut short or not a safetensors file: {error}"
    with path.open("rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        total = 0
        while block := file.read(BLOCK):
            total = zlib.crc32(block, total)
    return None if f"{total:08x}" == expected else "its checksum does not match"
