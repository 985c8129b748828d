"""Builds the model that a run trains from the settings of the run.

load -> initial weights of parts -> other boxes -> their warm start -> another decoder -> attention kernel
     -> freezing, quantizing, adapters
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from lightseek.data.context.pages import PageMaker
from lightseek.data.context.vision_cache import VisionCache, cache_folder
from lightseek.data.document import Document
from lightseek.data.kinds import PAGELESS
from lightseek.model.attention import set_attention
from lightseek.model.config import DecoderConfig
from lightseek.model.cuda_graph import replay
from lightseek.model.kinds import BOXES, TEXT_ENCODERS
from lightseek.model.ocr import DeepSeekOCR, DocumentModel
from lightseek.page.spec import PageSpec
from lightseek.page.views import PageViews
from lightseek.tools.devices import find_device, find_dtype
from lightseek.tools.registry import Registry
from lightseek.training.freeze import BoxCount, count_parameters, freeze, freeze_eyes
from lightseek.training.settings import RunConfig
from lightseek.weights.inits import init_parts
from lightseek.weights.kinds import split_init
from lightseek.weights.loading import load_model
from lightseek.weights.lora import add_lora, find_targets
from lightseek.weights.quantize import quantize
from lightseek.weights.swap import swap_box, swap_decoder
from lightseek.weights.warm_start import VIEWS, Boxes, warm_start


def build_model(
    config: RunConfig,
    device: str | torch.device | None = None,
    documents: Sequence[Document] = (),
    page: PageSpec | None = None,
) -> tuple[DocumentModel, list[BoxCount]]:
    """Return the model of a run and the parameter counts of each box.

    New boxes get their warm start on the first `documents`, drawn as `page` says. Without documents they stay random.
    Raises ValueError for settings that cannot work, and CheckpointError or ConfigError for a bad checkpoint.
    """
    if config.decoder and config.decoder.startswith("seq2seq:"):
        from lightseek.weights.hf import load_seq2seq

        source = config.decoder.removeprefix("seq2seq:")
        model = load_seq2seq(source, find_device(device), find_dtype(config.dtype))
        return finish_model(model, config)
    init = "random" if config.init == "random" else "pretrained"
    model = load_model(config.model, device, config.dtype, init, config.seed, progress=True)
    init_parts(model, config.init, config.seed)
    before = Boxes.of(model)
    swap_boxes(model, config)
    if documents and config.warm_start and config.context not in PAGELESS:
        model.config.arithmetic.check(config.mode)
        pages = first_pages(documents, page)
        model.warm_start = warm_start(model, before, pages, warm_folder(config.cache_dir), stays_random(config))
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
    if config.context in TEXT_ENCODERS:
        swap_box(model, "text_encoder", config.context, seed=config.seed)


def first_pages(documents: Sequence[Document], page: PageSpec) -> list[PageViews]:
    """Return the pages of the first documents, as many as a warm start looks at."""
    make, pages = PageMaker(page), []
    for document in documents:
        if len(pages) >= VIEWS:
            break
        pages += make.views(make.make(document))
    return pages


def warm_folder(chosen: str | None) -> Path:
    """Return the folder of the boxes that had a warm start, in `chosen` or beside the vision cache."""
    if chosen is not None:
        return Path(chosen) / "warm-start"
    return cache_folder().parent / "warm-start"


def stays_random(config: RunConfig) -> list[str]:
    """Return the fits that a warm start leaves out.

    `init` asks for random weights of a box, so a box in its place stays random too. A new decoder gives the projector
    new weights, so nothing can be fitted to the old ones.
    """
    drawn = {part for part, source in split_init(config.init) if source == "random"}
    everything = config.init == "random"
    skip = []
    if everything or drawn & {"encoder", "compressor"}:
        skip.append("compressor")
    if everything or drawn & {"encoder", "clip", "projector"} or config.decoder not in (None, "moe"):
        skip.append("projector")
    return skip


def finish_model(model: DocumentModel, config: RunConfig) -> tuple[DocumentModel, list[BoxCount]]:
    """Set the attention kernels and gradient checkpointing, and choose the parameters that learn."""
    set_attention(model, config.attention)
    if not isinstance(model.config.decoder, DecoderConfig):
        model.decoder.set_attention(config.attention)
    model.set_gradient_checkpointing(config.gradient_checkpointing)
    counts = choose_what_learns(model, config)
    if isinstance(model, DeepSeekOCR):
        replay(model.encoder)  # while it is frozen
    return model, freeze_eyes(model) if config.context in PAGELESS else counts


def choose_what_learns(model: DocumentModel, config: RunConfig) -> list[BoxCount]:
    """Freeze parameters, quantize the frozen layers and add adapters. Returns the parameter counts of each box.

    With adapters (`lora`), the whole model is frozen. Only the parts of `freeze=all-but-PART` learn beside the
    adapters, and they are saved with them.
    Raises ValueError if a layer would learn and also have an adapter, or if nothing is left to train.
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
    """Return whether a parameter of this module learns. Parameters of its submodules do not count."""
    return any(parameter.requires_grad for parameter in module.parameters(recurse=False))


def open_cache(model: DocumentModel, config: RunConfig) -> VisionCache | None:
    """Return the vision cache, or None. With `cache_vision=None` a run of pages has one if the encoder is frozen.

    Raises ValueError if the settings ask for a cache and the encoder learns.
    """
    wanted = config.cache_vision
    if wanted is None:
        wanted = config.context not in PAGELESS and not any(p.requires_grad for p in model.encoder.parameters())
    if not wanted:
        return None
    return VisionCache(model, cache_folder(config.cache_dir), round(config.cache_gb * 1e9), config.precision or "no")
