"""Official checkpoints: safetensors in, safetensors out, every tensor accounted for.

Loading is strict. Before anything is allocated, the files' headers must name exactly the tensors the config implies,
each once and in its shape. Then the tensors are copied one by one out of the memory-mapped files, so loading needs
little more memory than the model. Nothing here unpickles or runs code from a checkpoint.
"""

import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from rich.progress import track
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lightseek.model.config import DecoderConfig, OCRConfig
from lightseek.text.tokenizer import Tokenizer
from lightseek.tools.devices import find_device, find_dtype
from lightseek.tools.files import atomic_write, write_json
from lightseek.weights.names import official_tensors

WEIGHTS = "model-00001-of-000001.safetensors"  # sic: the official file's name
SWAPPED = "lightseek.json"  # in the folder of a model with another decoder (`lightseek.weights.swapped`)
INDEX = "model.safetensors.index.json"
SIDE_FILES = ("tokenizer*.json", "special_tokens_map.json", "processor_config.json", "generation_config.json", "*.py")
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
MAPPED_AT_ONCE = 32 << 20  # bytes; mapped pages count as resident until the file is closed
MAX_INDEX = 64 << 20  # bytes

Model = TypeVar("Model", bound=torch.nn.Module)


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded. The message names the file and the key."""


def load(
    cls: Callable[[OCRConfig], Model],
    path_or_hub_id: str | Path,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    progress: bool = False,
) -> Model:
    """Build `cls(config)` with the weights of an official checkpoint, in eval mode, its tokenizer attached.

    path_or_hub_id: a folder with `config.json` and safetensors (one file, or shards with an index), or a hub id; or
    what `save` wrote of a model with another decoder.
    dtype: of the loaded weights, `torch.float32` or `"float32"`; by default what `config.json` says (bfloat16 in the
    official one). `revision`, `token`, `cache_dir` and `local_files_only` are huggingface_hub's.

    Raises CheckpointError or ConfigError, naming file and key, and ValueError for a device or dtype there is not;
    nothing is returned half loaded.
    """
    folder = find_folder(
        path_or_hub_id, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only
    )
    device, dtype = find_device(device), find_dtype(dtype)
    if (folder / SWAPPED).is_file():
        from lightseek.weights.swapped import load_swapped

        return load_swapped(cls, folder, device, dtype)
    config = OCRConfig.from_json(folder / "config.json")
    dtype = dtype or find_dtype(config.dtype)
    with torch.device("meta"):
        model = cls(config).to(dtype)
    files = find_weights(folder)
    check_headers(files, {key: tuple(t.shape) for key, t in official_tensors(model).items()})

    model = model.to_empty(device=device)
    targets = official_tensors(model)
    for key, path, tensor in track(
        read_tensors(files), description="loading weights", total=len(files), disable=not progress, transient=True
    ):
        check_values(tensor, dtype, f"{path}: tensor {key}")
        targets[key].copy_(tensor)
    tokenizer = folder / "tokenizer.json"
    model.tokenizer = Tokenizer.from_file(tokenizer) if tokenizer.is_file() else None
    model.folder = folder
    return model.eval()


def save(model: torch.nn.Module, folder: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write `model` as an official checkpoint: one safetensors file with its index, `config.json`, tokenizer files.
    A model with another decoder gets the layout of `lightseek.weights.swapped`.

    The reference code and vLLM read it, and transformers with `config.to_transformers()`. Each file appears whole or
    not at all. `dtype` converts the weights on the way out; by default they stay as they are. Raises ValueError for a
    model with adapters or quantized weights.
    """
    folder = Path(folder)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            raise ValueError("the model has an adapter on it: merge it first, or save it alone (weights/lora.py)")
        if not parameter.is_floating_point():
            raise ValueError(f"{name} is quantized, and a checkpoint holds whole weights: save the adapter alone")
    if not isinstance(model.config.decoder, DecoderConfig):
        from lightseek.weights.swapped import save_swapped

        return save_swapped(model, folder, dtype)
    tensors = official_tensors(model)
    dtype = dtype or next(iter(tensors.values())).dtype
    write_safetensors(
        folder / WEIGHTS,
        {key: tuple(tensor.shape) for key, tensor in tensors.items()},
        dtype,
        lambda key: tensors[key],
    )
    finish_folder(folder, model.config, tensors, dtype)
    source = model.folder
    if source is not None and source.resolve() != folder.resolve():
        for pattern in SIDE_FILES:
            for side_file in sorted(source.glob(pattern)):
                with atomic_write(folder / side_file.name) as temporary:
                    shutil.copyfile(side_file, temporary)
    if model.tokenizer is not None:
        model.tokenizer.save(folder / "tokenizer.json")


def finish_folder(folder: Path, config: OCRConfig, tensors: dict[str, Tensor], dtype: torch.dtype) -> None:
    """The index and `config.json` that go with a weights file."""
    total = sum(tensor.numel() for tensor in tensors.values()) * dtype.itemsize
    write_json(
        folder / INDEX, {"metadata": {"total_size": total}, "weight_map": dict.fromkeys(sorted(tensors), WEIGHTS)}
    )
    write_json(folder / "config.json", config.with_(dtype=str(dtype).removeprefix("torch.")).to_dict())


def write_safetensors(
    target: Path, shapes: dict[str, tuple[int, ...]], dtype: torch.dtype, value: Callable[[str], Tensor]
) -> None:
    """Write one safetensors file tensor by tensor, so that memory holds one at a time. `value(key)` makes each.

    The format: header length (8 bytes, little endian), JSON header, then the tensors' bytes in header order.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for key in sorted(shapes):
        size = math.prod(shapes[key]) * dtype.itemsize
        header[key] = {"dtype": NAMES[dtype], "shape": shapes[key], "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_write(target) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for key in sorted(shapes):
            tensor = value(key).detach().to("cpu", dtype).contiguous()
            file.write(tensor.flatten().view(torch.uint8).numpy().data)


def find_folder(path_or_hub_id: str | Path, **hub: str | bool | None) -> Path:
    """The folder of a checkpoint: the path itself, or where huggingface_hub keeps the download."""
    path = Path(path_or_hub_id).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"{path} is a file: give the folder that holds config.json and the safetensors files")
    if isinstance(path_or_hub_id, Path) or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", path_or_hub_id):
        raise CheckpointError(f"{path}: there is no such folder, and a hub id looks like 'deepseek-ai/DeepSeek-OCR'")
    from huggingface_hub import snapshot_download

    try:
        # The reference's *.py are never run here, only copied on, so that what is saved loads in it again.
        patterns = ["*.json", "*.safetensors", "*.py"]
        return Path(snapshot_download(path_or_hub_id, allow_patterns=patterns, **hub))
    except Exception as error:  # the hub's client raises its own, requests' and the system's errors
        raise CheckpointError(
            f"{path_or_hub_id}: no such folder here, and the hub did not give it ({type(error).__name__}: {error}).\n"
            f"On a machine with network: download config.json, tokenizer.json, tokenizer_config.json, {INDEX} and the "
            f"*.safetensors files of https://huggingface.co/{path_or_hub_id} into a folder and pass its path; or fill "
            f"the cache with `hf download {path_or_hub_id}` and set HF_HUB_OFFLINE=1."
        ) from error


def find_weights(folder: Path) -> dict[str, Path]:
    """Official key -> the file that holds it. With an index, the index and the files must agree."""
    index = folder / INDEX
    if not index.is_file():
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise CheckpointError(f"{folder}: no *.safetensors file (other formats are not read)")
        return _keys_of(files)
    if index.stat().st_size > MAX_INDEX:
        raise CheckpointError(f"{index}: larger than {MAX_INDEX >> 20} MiB, this is no index")
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        listed = {key: folder / Path(name).name for key, name in weight_map.items()}
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: not an index of safetensors shards ({error!r})") from None
    for path in sorted(set(listed.values())):
        if not path.is_file():
            raise CheckpointError(f"{path}: {index.name} lists this file, but it is not there")
    found = _keys_of(sorted(set(listed.values())))
    for key in sorted(listed.keys() | found.keys()):
        if listed.get(key) != found.get(key):
            place = found[key].name if key in found else "no file"
            wanted = listed[key].name if key in listed else "nowhere"
            raise CheckpointError(f"{index}: places {key} in {wanted}, but {place} has it")
    return listed


def _keys_of(files: list[Path]) -> dict[str, Path]:
    keys: dict[str, Path] = {}
    for path in files:
        with _opened(path) as file:
            for key in file.keys():  # noqa: SIM118 - not a dictionary
                if key in keys:
                    raise CheckpointError(f"{path}: tensor {key} is in {keys[key].name} as well")
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


def check_headers(files: dict[str, Path], expected: dict[str, tuple[int, ...]]) -> None:
    """Every expected tensor there, no other, each in its shape and a floating-point type; else CheckpointError."""
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
                if entry.get_dtype() not in DTYPES:
                    raise CheckpointError(
                        f"{path}: tensor {key} is {entry.get_dtype()}, not one of {', '.join(DTYPES)}"
                    )


def check_values(tensor: Tensor, dtype: torch.dtype, name: str) -> None:
    """CheckpointError if a value is not finite, or would not be in `dtype`."""
    low, high = (end.item() for end in torch.aminmax(tensor))  # NaN, if there is one
    if not (math.isfinite(low) and math.isfinite(high)):
        raise CheckpointError(f"{name} holds values that are not finite (NaN or infinity)")
    if max(-low, high) > torch.finfo(dtype).max:
        raise CheckpointError(f"{name} holds {max(-low, high):.3g}, too large for {str(dtype).removeprefix('torch.')}")


def _some(keys: list[str]) -> str:
    return f"tensor {keys[0]}" + (f" and {len(keys) - 1} more are" if len(keys) > 1 else " is")


def read_tensors(files: dict[str, Path]) -> Iterator[tuple[str, Path, Tensor]]:
    """Every tensor, mapped rather than read; use it before asking for the next.

    A file is closed and mapped anew every 32 MiB, or the mapped pages would count twice: here and in the model.
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
