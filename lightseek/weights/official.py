"""Reads and writes the layout of the published checkpoint (`deepseek-ai/DeepSeek-OCR` on the hub).

A checkpoint is a folder with one or more files of weights, an index, `config.json` and the tokenizer's files. Loading
is strict: before any memory is allocated, the headers of the files must list exactly the tensors that the config
implies, each once and with its shape. Buffers that other programs save beside the weights are left out, if they hold
the values that follow from the config. Then the tensors are copied one by one out of the memory-mapped files, so
loading needs little more memory than the model. Nothing here unpickles or runs code from a checkpoint.
"""

import shutil
from pathlib import Path

import torch
from torch import Tensor

from lightseek.model.config import OCRConfig
from lightseek.model.ocr import DeepSeekOCR
from lightseek.tools.files import atomic_write, leads_out, write_json
from lightseek.tools.json_files import read_json
from lightseek.weights.names import buffer_value, gather, official_tensors
from lightseek.weights.quantize import quantize, targets
from lightseek.weights.tensors import (
    CheckpointError,
    check_headers,
    copy_tensors,
    keys_of,
    without_buffers,
    write_safetensors,
)

WEIGHTS = "model-00001-of-000001.safetensors"  # five and six digits, as in the official file's name
INDEX = "model.safetensors.index.json"
SIDE_FILES = ("tokenizer*.json", "special_tokens_map.json", "processor_config.json", "generation_config.json", "*.py")


def load_official(
    cls: type[DeepSeekOCR],
    config: OCRConfig,
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    progress: bool = False,
    kind: str | None = None,
) -> DeepSeekOCR:
    """Build `cls(config)` with the weights in `folder`, converted to `dtype` on `device`.

    With a `kind` of quantizer, int8 or int4, each weight is quantized as it is read.
    Raises CheckpointError, which names the file and the key.
    """
    with torch.device("meta"):
        model = cls(config).to(dtype)
    files = find_weights(folder)
    expected = {key: tuple(t.shape) for key, t in official_tensors(model).items()}
    files = without_buffers(files, expected, lambda key: buffer_value(key, config))
    check_headers(files, expected)
    if kind:
        quantize(model.requires_grad_(False), kind)
    model = model.to_empty(device=device)
    copy_tensors(files, targets(model, gather), dtype, progress)
    return model


def save_official(model: DeepSeekOCR, folder: Path, dtype: torch.dtype) -> None:
    """Write the weights as `dtype` to one safetensors file, with its index and `config.json`.

    The tokenizer's files and the reference code's `*.py` are copied from the folder that the model was loaded from.
    The reference code and vLLM can read the new folder. transformers can read it if `config.json` holds
    `config.to_transformers()`.
    """
    tensors = official_tensors(model)
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    write_safetensors(folder / WEIGHTS, shapes, dtype, lambda key: tensors[key])
    finish_folder(folder, model.config, tensors, dtype)
    source = model.folder
    if source is not None and source.resolve() != folder.resolve():
        for pattern in SIDE_FILES:
            for side_file in sorted(source.glob(pattern)):
                if leads_out(side_file, source):
                    raise CheckpointError(f"{side_file} is a link that leads out of {source}: it is not copied")
                with atomic_write(folder / side_file.name) as temporary:
                    shutil.copyfile(side_file, temporary)


def finish_folder(folder: Path, config: OCRConfig, tensors: dict[str, Tensor], dtype: torch.dtype) -> None:
    """Write the index and the `config.json` that belong to a weights file."""
    total = sum(tensor.numel() for tensor in tensors.values()) * dtype.itemsize
    write_json(
        folder / INDEX, {"metadata": {"total_size": total}, "weight_map": dict.fromkeys(sorted(tensors), WEIGHTS)}
    )
    write_json(folder / "config.json", config.with_(dtype=str(dtype).removeprefix("torch.")).to_dict())


def find_weights(folder: Path) -> dict[str, Path]:
    """Return the file that holds each official key.

    If the folder has an index, the index and the files must agree. Raises CheckpointError if they do not, if a file is
    missing or damaged, or if there is no safetensors file.
    """
    index = folder / INDEX
    if not index.is_file():
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise CheckpointError(f"{folder}: no *.safetensors file (other formats are not read)")
        return keys_of(files)
    try:
        weight_map = read_json(index)["weight_map"]
        listed = {key: folder / name for key, name in weight_map.items()}
        if outside := [name for name in weight_map.values() if Path(name).name != name or name in ("", ".", "..")]:
            raise ValueError(f"{outside[0]!r:.80} is not the name of a file in this folder")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        told = error if isinstance(error, ValueError) else repr(error)
        raise CheckpointError(f"{index}: not an index of safetensors shards ({told})") from None
    for path in sorted(set(listed.values())):
        if not path.is_file():
            raise CheckpointError(f"{path}: {index.name} lists this file, but it is not there")
    found = keys_of(sorted(set(listed.values())))
    for key in sorted(listed.keys() | found.keys()):
        if listed.get(key) != found.get(key):
            place = found[key].name if key in found else "no file"
            wanted = listed[key].name if key in listed else "no file"
            raise CheckpointError(f"{index}: the index lists {key} in {wanted}, but the tensor is in {place}")
    return listed
