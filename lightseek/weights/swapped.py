"""Reads and writes the checkpoint layout for models with a box that is not official.

    lightseek.json        our sizes, the kinds of the boxes and their settings; it is written last
    boxes.safetensors     every parameter by our own name, without those of a decoder from transformers
    decoder/              only for a decoder from transformers, in its own layout: config.json, model.safetensors
    tokenizer.json        the tokenizer, which a new decoder brings with it

The official layout cannot describe such a model, so `save_pretrained` writes this layout. `from_pretrained` recognises
it by the file `lightseek.json`. A model with weights of 8 or 4 bits is saved in this layout too. Its config then names
the kind in `quantized`, and each such weight has its scales beside it.
"""

import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from lightseek.model.config import HFDecoderConfig, OCRConfig
from lightseek.model.ocr import DeepSeekOCR
from lightseek.tools.files import atomic_write, write_json
from lightseek.weights.quantize import quantize, targets
from lightseek.weights.tensors import CheckpointError, check_headers, copy_tensors, keys_of, write_safetensors

CONFIG, BOXES, DECODER = "lightseek.json", "boxes.safetensors", "decoder"


def save_swapped(model: DeepSeekOCR, folder: Path, dtype: torch.dtype) -> None:
    """Write the weights of `model` as `dtype`, and its sizes. Each file appears complete or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model.config.decoder, HFDecoderConfig):
        save_decoder(model.decoder.model, folder / DECODER, dtype)
    tensors = own_tensors(model)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    write_safetensors(folder / BOXES, shapes, dtype, lambda name: tensors[name], integers(tensors))
    write_json(folder / CONFIG, model.config.with_(dtype=str(dtype).removeprefix("torch.")).summary())


def save_decoder(decoder: nn.Module, folder: Path, dtype: torch.dtype) -> None:
    """Write a model from transformers in its own layout. Each file appears complete or not at all."""
    from lightseek.weights.hf import naming_disk_errors, quiet

    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{DECODER}.", suffix=".tmp") as temporary:
        with quiet(), naming_disk_errors(folder):
            decoder.save_pretrained(temporary, state_dict={k: v.to(dtype) for k, v in decoder.state_dict().items()})
        for file in sorted(Path(temporary).iterdir()):
            with atomic_write(folder / file.name) as target:
                shutil.move(file, target)


def load_swapped(
    cls: type[DeepSeekOCR],
    config: OCRConfig,
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    progress: bool = False,
    kind: str | None = None,
) -> DeepSeekOCR:
    """Build `cls(config)` with the weights that `save_swapped` wrote, converted to `dtype` on `device`.

    Weights that are stored whole are quantized if there is a `kind`. Those of a decoder from transformers stay whole.
    Raises CheckpointError, which names the file and the key.
    """
    foreign = isinstance(config.decoder, HFDecoderConfig)
    decoder = load_decoder(folder / DECODER, dtype) if foreign else None
    with torch.device("meta"):
        model = cls(config).to(dtype)
    if foreign:
        model.decoder = nn.Module()  # to_empty would allocate a second decoder
    files = keys_of([folder / BOXES])
    if config.quantized:
        quantize(model.requires_grad_(False), config.quantized)
    expected = own_tensors(model)
    check_headers(files, {name: tuple(tensor.shape) for name, tensor in expected.items()}, integers(expected))
    if kind and not config.quantized:
        quantize(model.requires_grad_(False), kind)
    model = model.to_empty(device=device)
    copy_tensors(files, own_tensors(model) if config.quantized else targets(model, dict), dtype, progress)
    if foreign:
        from lightseek.model.decoders.hf import HFDecoder

        model.decoder = HFDecoder(config.decoder, decoder).to(device)
    return model


def load_decoder(folder: Path, dtype: torch.dtype) -> nn.Module:
    """Load a causal language model with transformers from a folder. Raises CheckpointError, which names the folder."""
    from transformers import AutoModelForCausalLM

    from lightseek.weights.hf import load_weights

    try:
        return load_weights(AutoModelForCausalLM, str(folder), dtype)
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def own_tensors(model: DeepSeekOCR) -> dict[str, Tensor]:
    """Return the parameters, and the scales of quantized ones, by our own names, without a decoder of transformers."""
    foreign = isinstance(model.config.decoder, HFDecoderConfig)
    named = [*model.named_parameters(), *model.named_buffers()]
    return {n: p.detach() for n, p in named if not (foreign and n.startswith("decoder."))}


def integers(tensors: dict[str, Tensor]) -> dict[str, torch.dtype]:
    """Return the types of those tensors that hold integers."""
    return {name: tensor.dtype for name, tensor in tensors.items() if not tensor.is_floating_point()}
