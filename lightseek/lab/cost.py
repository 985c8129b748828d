"""Counts what a model costs: the floating-point operations of one page, and of one token that it writes.

    flops_page     what the encoder and the projector do for one page of the mode, or the text encoder for one text
    flops_token    what the decoder does for one new token, with all positions before it in the cache

A multiplication and an addition are two operations. Only matrix products, convolutions and attention count, as in
`torch.utils.flop_counter`, which does the counting. The counts are those of the formulas and not of a kernel: a model
without weights runs on the meta device, so the count is the same on every machine. Three things would be missed or
counted wrong there, so they are replaced for the count:

    the experts      where a token goes depends on the values. Each slot passes one expert, so one stands for all
    SAM's position   the kernels that fold it into wider heads would count the wider heads
    attention        a fused kernel of a CPU is unknown to PyTorch's counter, and its plain formula is not
"""

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lightseek.data.kinds import PAGELESS
from lightseek.lab.skeleton import skeleton
from lightseek.model.config import HFDecoderConfig
from lightseek.model.kinds import TEXT_ENCODERS
from lightseek.model.layers import linear
from lightseek.model.moe import Experts
from lightseek.model.ocr import DeepSeekOCR, DocumentModel
from lightseek.model.sam import SamAttention
from lightseek.page.modes import Count, find_mode, gundam_grid
from lightseek.page.render import page_style
from lightseek.training.settings import ModelSettings, RunConfig

WRITTEN = 100  # tokens that the decoder has written already when its next one is counted


def count_flops(config: RunConfig, text_tokens: int = 0) -> dict[str, int]:
    """Return `flops_page` and `flops_token` for the model and the pages of a run.

    `text_tokens` is the length of a typical document. Only contexts without pages need it. Equal models are counted
    once in a process. The result is empty for models of transformers that cannot run without values, such as
    text-to-text models. Raises ValueError as `skeleton` does.
    """
    names = (*ModelSettings.__annotations__, "context", "mode", "font")
    return dict(_count(tuple((name, getattr(config, name)) for name in names), text_tokens))


@lru_cache(maxsize=256)
def _count(chosen: tuple[tuple[str, Any], ...], text_tokens: int) -> tuple[tuple[str, int], ...]:
    config = RunConfig(**dict(chosen))
    model = plain(skeleton(config).eval())
    seen = page_count(config, model)
    if config.context in PAGELESS:
        shortened = config.context in TEXT_ENCODERS
        page = text_flops(model, text_tokens, seen.tokens) if shortened else 0
        context = seen.tokens if shortened else min(text_tokens, seen.tokens) if seen.tokens else text_tokens
    else:
        page, context = page_flops(model, config), seen.positions
    try:
        token = token_flops(model, context + WRITTEN)
    except RuntimeError:
        if not isinstance(model.config.decoder, HFDecoderConfig):
            raise
        return ()  # this code of transformers looks at values, and a model on the meta device has none
    return ("flops_page", page), ("flops_token", token)


def page_count(config: RunConfig, model: DocumentModel) -> Count:
    """Count what fills the sequence positions of a drawn page. A whole text has no page."""
    if config.context == "text":
        return Count(0, 0, 0)
    return model.config.arithmetic.of_mode(config.mode, page_grid(config))


def page_grid(config: RunConfig) -> tuple[int, int]:
    """Return (columns, rows) of the tiles of a drawn page: (1, 1) in the modes without tiles."""
    mode, style = find_mode(config.mode), page_style(config.mode, config.font)
    return gundam_grid(style.width, style.height, mode.tile) if mode.tile else (1, 1)


def page_flops(model: DeepSeekOCR, config: RunConfig) -> int:
    """Return the operations of the encoder and the projector for one drawn page."""
    mode, (columns, rows) = find_mode(config.mode), page_grid(config)
    total = view_flops(model, mode.side)
    return total + (columns * rows * view_flops(model, mode.tile) if columns * rows > 1 else 0)


def view_flops(model: DeepSeekOCR, side: int) -> int:
    """Return the operations of the encoder and the projector for one square view of `side` pixels."""
    pixels = torch.zeros(1, 3, side, side, dtype=model.dtype, device="meta")
    return counted(lambda: model.projector(model.encoder(pixels)))


def text_flops(model: DeepSeekOCR, tokens: int, vectors: int) -> int:
    """Return the operations of the text encoder that makes `vectors` of a text of `tokens`."""
    embedded = torch.zeros(1, max(1, tokens), model.config.decoder.width, dtype=model.dtype, device="meta")
    return counted(lambda: model.context(embedded, vectors))


def token_flops(model: DocumentModel, length: int) -> int:
    """Return the operations of the decoder for one token that follows `length` others, with its scores."""
    decoder, dtype = model.decoder, model.dtype
    cache = decoder.new_cache(1, length + 1, dtype, "meta")
    before, one = (torch.zeros(1, n, model.config.decoder.width, dtype=dtype, device="meta") for n in (length, 1))
    with torch.no_grad():
        decoder(before, cache=cache)
    return counted(lambda: decoder.logits(decoder(one, cache=cache).hidden))


def counted(run: Any) -> int:
    """Return the operations of `run()`."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def plain(model: DocumentModel) -> DocumentModel:
    """Replace what the counter would miss or count wrong, as described above. The model then counts, but can't run."""
    if isinstance(model.config.decoder, HFDecoderConfig):
        model.decoder.set_attention("eager")
    for module in model.modules():
        if isinstance(module, Experts):
            module.run = one_for_all.__get__(module)
        elif isinstance(getattr(module, "attend", None), nn.Module):
            wide = isinstance(module, SamAttention)
            module.attend = Formula(module.rel_pos_h.shape[1] if wide else None)
    return model


def one_for_all(self: Experts, slots: Float[Tensor, "s d"], ends: Tensor) -> Float[Tensor, "s d"]:
    """Stand in for `Experts.run`: all slots pass the first expert. All experts have the same shape."""
    gate, up = linear(slots, self.gate_up[0]).chunk(2, dim=-1)
    return linear(F.silu(gate) * up, self.down[0])


class Formula(nn.Module):
    """Stands in for an attention core: both products of the formula, with heads of `width` channels if it is given."""

    def __init__(self, width: int | None) -> None:
        super().__init__()
        self.width = width

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Any = None, causal: bool = False, scale: float | None = None
    ) -> Tensor:
        q, k, channels = q[..., : self.width], k[..., : self.width], v.shape[-1]
        out = (q @ k.mT).softmax(-1) @ v[..., : self.width]
        return F.pad(out, (0, channels - out.shape[-1]))
