"""Traces one forward pass, stage by stage: shapes, parameters, time, values, and which experts were used.

    trace = lightseek.inspect.trace.trace(model, input_ids, pages)
    trace["encoder.compressor"].shape        # (1, 1024, 16, 16) for a base page
    rich.print(trace.table())

Nothing is simulated: `recorder.py` records the model's own modules while they run. A `Trace` keeps these records
together with the token arithmetic of the pages and the routing of the experts.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lightseek.inspect.recorder import STAGE, Recorder, Stage
from lightseek.model.layers import count_parameters
from lightseek.model.moe import MoE, Routing
from lightseek.model.ocr import DeepSeekOCR
from lightseek.page.modes import OFFICIAL, Arithmetic, Mode, find_mode, valid_tokens
from lightseek.page.views import PageViews, count

if TYPE_CHECKING:
    from rich.console import RenderableType

PATCH = 16  # pixels per side


@dataclass(frozen=True)
class PageTokens:
    """The token arithmetic of one image: pixels -> patches -> 16x fewer tokens -> + newlines + separator."""

    views: tuple[tuple[int, int], ...]  # (how many, side in pixels), tiles before the global view
    mode: str | None
    pixels: int
    patches: int  # of 16 x 16 pixels; SAM works on these
    tokens: int  # vision tokens, after the 16x compressor
    newlines: int
    separators: int
    positions: int  # in the decoder's sequence
    valid: int | None  # tokens that see the page, not the grey padding; None without the page's size
    text_tokens: int | None  # of the text on the page; None if unknown

    @property
    def compression(self) -> float | None:
        """Text tokens per vision token: the paper's compression ratio. None if the text is unknown."""
        return None if self.text_tokens is None else self.text_tokens / self.tokens

    def __str__(self) -> str:
        views = " + ".join(f"{count} x {side}x{side}" if count > 1 else f"{side}x{side}" for count, side in self.views)
        fewer = self.patches // self.tokens
        lines = [
            f"{self.mode or 'page'}: {views} pixels = {self.pixels:,} pixels",
            f"/ 16x16 = {self.patches:,} patches; / {fewer} (compressor) = {self.tokens:,} vision tokens",
            f"+ {self.newlines} newlines + {self.separators} separator = {self.positions:,} positions",
        ]
        if self.valid is not None and self.valid != self.tokens:
            lines.append(f"{self.valid} of the {self.tokens} tokens see the page; the others see its grey padding")
        if self.compression is not None:
            lines.append(f"{self.text_tokens} text tokens / {self.tokens} = {self.compression:.2f}x compression")
        return "\n  ".join(lines)


def page_tokens(
    views: PageViews,
    mode: str | int | Mode | None = None,
    size: tuple[int, int] | None = None,
    text_tokens: int | None = None,
    arithmetic: Arithmetic = OFFICIAL,
) -> PageTokens:
    """Return the arithmetic of `views`. `size` is the page's width and height in pixels before fitting to the mode."""
    tiles, side = (0, 0) if views.tiles is None else (len(views.tiles), views.tiles.shape[-1])
    whole = views.global_view.shape[-1]
    pixels = tiles * side**2 + whole**2
    found = count(views, arithmetic)
    return PageTokens(
        views=((tiles, side), (1, whole)) if tiles else ((1, whole),),
        mode=None if mode is None else find_mode(mode).name,
        pixels=pixels,
        patches=pixels // PATCH**2,
        **found._asdict(),
        positions=found.positions,
        valid=None if mode is None or size is None else valid_tokens(mode, *size, views.grid, arithmetic),
        text_tokens=text_tokens,
    )


@dataclass(frozen=True)
class ExpertUse:
    """To which experts one mixture-of-experts layer sent the tokens of the pass."""

    layer: int
    share: tuple[float, ...]  # share of all choices that fell on each expert; sums to 1
    probability: tuple[float, ...]  # the router's mean probability, per expert; sums to 1
    chosen_mass: float  # mean over tokens: the sum of the probabilities of the chosen experts
    balance_loss: float  # 1 for an even load; experts / chosen if all tokens choose the same experts

    @property
    def most_used(self) -> list[int]:
        """The experts that were chosen at least once, the busiest first."""
        return [e for e in sorted(range(len(self.share)), key=lambda e: -self.share[e]) if self.share[e] > 0]

    @property
    def unused(self) -> list[int]:
        return [expert for expert, share in enumerate(self.share) if share == 0]

    @property
    def entropy(self) -> float:
        """The entropy of the load divided by the largest possible one: 1 if every expert gets equally many tokens."""
        return -sum(s * math.log(s) for s in self.share if s > 0) / math.log(max(len(self.share), 2))

    @classmethod
    def of(cls, layer: int, routing: Routing, mask: Bool[Tensor, "b n"] | None = None) -> "ExpertUse":
        tokens = slice(None) if mask is None else mask
        probabilities, weights = routing.probabilities[tokens].flatten(0, -2), routing.weights[tokens].flatten(0, -2)
        return cls(
            layer=layer,
            share=tuple(routing.load(mask).tolist()),
            probability=tuple(probabilities.mean(0).tolist()),
            chosen_mass=weights.sum(-1).mean().item(),
            balance_loss=routing.balance_loss(mask).item(),
        )


@dataclass
class Trace:
    """The record of one forward pass. `trace[name]` is the last run of a stage: the global view if there are tiles."""

    stages: list[Stage]
    seconds: float
    parameters: int
    active_parameters: int  # of the decoder, per token, without the embedding table (a token reads one row)
    pages: list[PageTokens]
    experts: list[ExpertUse]
    sequence: tuple[int, int]  # rows and positions of the decoder's input
    device: str

    def __getitem__(self, name: str) -> Stage:
        return self.runs(name)[-1]

    def runs(self, name: str) -> list[Stage]:
        """Return every run of a stage, in order. Raises KeyError if the stage did not run."""
        found = [stage for stage in self.stages if stage.name == name]
        if not found:
            raise KeyError(f"no stage {name!r} ran: there are {', '.join(dict.fromkeys(s.name for s in self.stages))}")
        return found

    @property
    def boxes(self) -> dict[str, float]:
        """The seconds of each box of the architecture figure, summed over all runs, in the order of the pipeline."""
        seconds: dict[str, float] = {}
        for stage in sorted((s for s in self.stages if s.level == STAGE), key=lambda s: s.box == "decoder"):
            seconds[stage.box] = seconds.get(stage.box, 0.0) + stage.seconds
        return seconds

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `json.dumps`. A NaN or an infinity becomes the string "nan" or "inf"."""
        extra = ("most_used", "unused", "entropy")
        return _plain(
            {
                **asdict(self),
                "boxes": self.boxes,
                "pages": [asdict(page) | {"compression": page.compression} for page in self.pages],
                "experts": [asdict(use) | {name: getattr(use, name) for name in extra} for use in self.experts],
            }
        )

    def table(self, inside: bool = False) -> "RenderableType":
        """Return the stages, the time per box, the token arithmetic and the experts, for `rich.print`."""
        from lightseek.inspect.tables import tables

        return tables(self, inside)

    def save_picture(self, path: str | Path) -> None:
        """Draw the time per box and the load of every expert. The suffix chooses the format (.png, .svg, .pdf)."""
        from lightseek.inspect.tables import picture

        picture(self, path)


@torch.no_grad()
def trace(
    model: DeepSeekOCR,
    input_ids: Int[Tensor, "b n"],
    pages: Sequence[Sequence[PageViews]] | None = None,
    mask: Bool[Tensor, "b n"] | None = None,
    mode: str | int | Mode | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
    text_tokens: Sequence[int | None] | None = None,
    warm_up: bool = False,
    logits: Literal["all", "last"] = "last",
) -> Trace:
    """Run `model` once on a prompt and record every stage.

    input_ids, pages, mask: as in `DeepSeekOCR.forward`. mode: the mode of the pages, for the token arithmetic.
    sizes: the width and height in pixels of each page before fitting. text_tokens: the token count of each page's text.
    warm_up: run once before without recording, because a first pass also reads weights from disk and chooses kernels.
    logits: compute the scores of all positions, or of the last one only, as generation does.

    Raises ValueError if images and image positions do not match.
    """
    if warm_up:
        model(input_ids, pages=pages, mask=mask, logits=logits)
    with Recorder(model) as recorder:
        output = model(input_ids, pages=pages, mask=mask, logits=logits)
    images = [page for row in pages or [] for page in row]
    moe_layers = [i for i, layer in enumerate(model.decoder.layers) if isinstance(getattr(layer, "mlp", None), MoE)]
    return Trace(
        stages=recorder.stages,
        seconds=recorder.seconds,
        parameters=count_parameters(model),
        active_parameters=active_parameters(model),
        pages=[
            page_tokens(
                page,
                mode,
                sizes[i] if sizes else None,
                text_tokens[i] if text_tokens else None,
                model.config.arithmetic,
            )
            for i, page in enumerate(images)
        ],
        experts=[ExpertUse.of(layer, routing, mask) for layer, routing in zip(moe_layers, output.routing, strict=True)],
        sequence=(input_ids.shape[0], input_ids.shape[1]),
        device=str(model.device),
    )


def active_parameters(model: DeepSeekOCR) -> int:
    """Count the decoder parameters that one token passes through. Only the chosen ones of the routed experts count."""
    total = count_parameters(model.decoder)
    total -= count_parameters(model.decoder.embed)
    for module in model.decoder.modules():
        if isinstance(module, MoE):
            experts = module.router.weight.shape[0]
            total -= count_parameters(module.experts) * (experts - module.router.chosen) // experts
    return total


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
