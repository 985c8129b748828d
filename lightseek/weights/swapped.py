"""A model with another decoder, on disk: our boxes here, the decoder as transformers writes it.

    lightseek.json        our sizes, and what the special tokens are; written last: with it, the folder is whole
    boxes.safetensors     encoder, projector and layout, by our names
    decoder/              what transformers' from_pretrained reads: config.json, model.safetensors
    tokenizer.json        the decoder's

The official layout has no place for it, so `save_pretrained` writes this one, and `from_pretrained` knows it by its
`lightseek.json`.
"""

import json
import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from lightseek.model.config import ClipConfig, ConfigError, HFDecoderConfig, OCRConfig, ProjectorConfig, SamConfig
from lightseek.text.tokenizer import Tokenizer
from lightseek.tools.files import atomic_write, write_json
from lightseek.weights.hf import load_weights, quiet
from lightseek.weights.official import (
    CheckpointError,
    _keys_of,
    check_headers,
    check_values,
    read_tensors,
    write_safetensors,
)

CONFIG, BOXES, DECODER = "lightseek.json", "boxes.safetensors", "decoder"
DECODER_PREFIX = "decoder."


def save_swapped(model: nn.Module, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write `model`. Each file appears whole or not at all."""
    boxes = box_tensors(model)
    dtype = dtype or model.dtype
    shapes = {name: tuple(tensor.shape) for name, tensor in boxes.items()}
    with tempfile.TemporaryDirectory(dir=made(folder), prefix=f".{DECODER}.") as temporary:
        theirs = model.decoder.model
        with quiet():
            theirs.save_pretrained(temporary, state_dict={k: v.to(dtype) for k, v in theirs.state_dict().items()})
        for file in sorted(Path(temporary).iterdir()):
            with atomic_write(folder / DECODER / file.name) as target:
                shutil.move(file, target)
    write_safetensors(folder / BOXES, shapes, dtype, lambda name: boxes[name])
    if model.tokenizer is not None:
        model.tokenizer.save(folder / "tokenizer.json")
    config = model.config.with_(dtype=str(dtype).removeprefix("torch."))
    write_json(folder / CONFIG, config.to_dict())


def load_swapped(cls: type, folder: Path, device: torch.device, dtype: torch.dtype | None) -> nn.Module:
    """What `save_swapped` wrote, in eval mode. Raises CheckpointError or ConfigError, naming file and key."""
    from transformers import AutoModelForCausalLM

    from lightseek.model.decoders.hf import HFDecoder

    config = read_config(folder / CONFIG)
    dtype = dtype or getattr(torch, config.dtype)
    try:
        decoder = load_weights(AutoModelForCausalLM, str(folder / DECODER), dtype)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    with torch.device("meta"):
        model = cls(config).to(dtype)
    model.decoder = nn.Module()  # or to_empty would make room for it twice
    files = _keys_of([folder / BOXES])
    check_headers(files, {name: tuple(tensor.shape) for name, tensor in box_tensors(model).items()})
    model = model.to_empty(device=device)
    targets = box_tensors(model)
    for name, path, tensor in read_tensors(files):
        check_values(tensor, dtype, f"{path}: tensor {name}")
        targets[name].copy_(tensor)
    model.decoder = HFDecoder(config.decoder, decoder).to(device)
    tokenizer = folder / "tokenizer.json"
    model.tokenizer = Tokenizer.from_file(tokenizer) if tokenizer.is_file() else None
    return model.eval()


def box_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Everything but the decoder's."""
    return {name: p.detach() for name, p in model.named_parameters() if not name.startswith(DECODER_PREFIX)}


def read_config(path: Path) -> OCRConfig:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        sam, clip, projector = values.pop("sam"), values.pop("clip"), values.pop("projector")
        return OCRConfig(
            sam=SamConfig(**{name: tuple(size) if isinstance(size, list) else size for name, size in sam.items()}),
            compressor=tuple(values.pop("compressor")),
            clip=ClipConfig(**clip),
            projector=ProjectorConfig(**projector),
            decoder=HFDecoderConfig(**values.pop("decoder")),
            **values,
        )
    except (UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: not the sizes of a model with another decoder ({error})") from error


def made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
