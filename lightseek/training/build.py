"""From a run's settings to the model it trains: weights, swapped parts, what is frozen.

load -> initial weights of parts -> other boxes -> another decoder -> attention kind -> what learns
"""

import torch

from lightseek.data.context.vision_cache import VisionCache, cache_folder
from lightseek.model.attention import set_attention
from lightseek.model.config import DecoderConfig
from lightseek.model.kinds import BOXES
from lightseek.model.ocr import DeepSeekOCR, DocumentModel
from lightseek.tools.devices import find_device, find_dtype
from lightseek.tools.registry import Registry
from lightseek.training.freeze import BoxCount, count_parameters, freeze, freeze_eyes
from lightseek.training.settings import RunConfig
from lightseek.weights.inits import init_parts
from lightseek.weights.loading import load_model
from lightseek.weights.lora import add_lora, find_targets
from lightseek.weights.quantize import quantize
from lightseek.weights.swap import swap_box, swap_decoder


def build_model(config: RunConfig, device: str | torch.device | None = None) -> tuple[DocumentModel, list[BoxCount]]:
    """The model of a run, and what learns in each of its boxes. Raises ValueError for settings that cannot work."""
    if config.decoder and config.decoder.startswith("seq2seq:"):
        from lightseek.weights.hf import load_seq2seq

        source = config.decoder.removeprefix("seq2seq:")
        model = load_seq2seq(source, find_device(device), find_dtype(config.dtype))
        return finish_model(model, config)
    init = "random" if config.init == "random" else "pretrained"
    model = load_model(config.model, device, config.dtype, init, config.seed, progress=True)
    init_parts(model, config.init, config.seed)
    swap_boxes(model, config)
    if config.decoder:
        swap_decoder(model, config.decoder, config.seed)
    if model.tokenizer is None:
        raise ValueError(f"{config.model}: tokenizer.json is missing, and training on text needs it")
    return finish_model(model, config)


def swap_boxes(model: DeepSeekOCR, config: RunConfig) -> None:
    """Put in the kinds of boxes that the settings ask for. Raises ValueError for one that does not fit."""
    for axis in BOXES:
        if (name := getattr(config, axis, None)) is not None:
            kind, settings = Registry.split(name)
            swap_box(model, axis, kind, settings, config.seed)


def finish_model(model: DocumentModel, config: RunConfig) -> tuple[DocumentModel, list[BoxCount]]:
    """The attention kernels, and what learns."""
    set_attention(model, config.attention)
    if not isinstance(model.config.decoder, DecoderConfig):
        model.decoder.set_attention(config.attention)
    model.set_gradient_checkpointing(config.gradient_checkpointing)
    counts = choose_what_learns(model, config)
    return model, freeze_eyes(model) if config.context == "text" else counts


def choose_what_learns(model: DocumentModel, config: RunConfig) -> list[BoxCount]:
    """Freeze, quantize what is frozen, and put adapters on.

    With adapters the whole model stays as it is, but for the parts of `freeze=all-but-PART`: those learn beside the
    adapters and are saved with them.
    """
    if config.lora is None:
        counts = freeze(model, config.freeze)
        if config.quantize:
            quantize(model, config.quantize)
        return counts
    model.requires_grad_(False)
    if config.freeze and config.freeze.startswith("all-but-"):
        freeze(model, config.freeze)
    targets = find_targets(model, config.lora)
    also = [path for path, module in model.named_modules() if learns(module)]
    layers = [*targets.linears, *(path.rpartition(".")[0] for path in targets.stacks)]
    if both := [path for path in layers if learns(model.get_submodule(path))]:
        raise ValueError(f"{both[0]} would learn (freeze={config.freeze}) and have an adapter (lora={config.lora})")
    if config.quantize:
        quantize(model, config.quantize)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        add_lora(model, targets, config.lora_r, config.lora_alpha, config.lora_dropout, also=also)
    return count_parameters(model)


def learns(module: torch.nn.Module) -> bool:
    """Whether a parameter of this very module does."""
    return any(parameter.requires_grad for parameter in module.parameters(recurse=False))


def open_cache(model: DocumentModel, config: RunConfig) -> VisionCache | None:
    """The cache that a run's settings ask for, if they do. Raises ValueError when the encoder can learn."""
    if not config.cache_vision:
        return None
    return VisionCache(model, cache_folder(config.cache_dir), round(config.cache_gb * 1e9), config.precision or "no")
