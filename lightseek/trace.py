"""One forward pass, stage by stage: shapes, parameters, time, values, and which experts were used.

    trace = lightseek.trace.trace(model, input_ids, pages)
    trace["encoder.compressor"].shape        # (1, 1024, 16, 16) for a base page
    rich.print(trace.table())

Nothing is simulated: forward hooks sit on the model's own modules while it runs. There are three levels. A *box* is a
box of the architecture figure, a *stage* a step inside it (a transformer block, a convolution), and an *inside* a part
of a block (attention, MLP, router). Every second belongs to one stage, so the stages' shares add up to one, less the
glue between modules; a box is the sum of its stages, an inside a second look at time that its stage already has.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from lightseek.model.clip import ClipEmbeddings
from lightseek.model.decoder import DecoderLayer, DenseMLP
from lightseek.model.moe import MoE, Routing
from lightseek.model.ocr import LightSeekOCR
from lightseek.model.sam import AbsolutePosition, SamBlock
from lightseek.modes import TOKEN_SIDE, Mode, find_mode, valid_tokens
from lightseek.pages import PageViews

if TYPE_CHECKING:
    from rich.console import RenderableType

PATCH = 16  # pixels a side
BOX, STAGE, INSIDE = 0, 1, 2  # levels


@dataclass
class Stage:
    """One run of one module. A module that runs twice (tiles, then the global view) has two, `run` 0 and 1."""

    name: str  # the module's path: "encoder.sam.blocks.2"
    box: str  # "encoder.sam"
    level: int  # 0 box, 1 stage, 2 inside
    run: int
    parameters: int
    shape: tuple[int, ...] = ()  # of the (first) output tensor
    dtype: str = ""
    seconds: float = 0.0
    share: float = 0.0  # of the whole pass
    minimum: float | None = None  # values: None on the meta device
    maximum: float | None = None
    mean: float | None = None
    std: float | None = None
    note: str = ""

    @torch.no_grad()
    def look_at(self, output: Tensor) -> None:
        self.shape, self.dtype = tuple(output.shape), str(output.dtype).removeprefix("torch.")
        if output.numel() and output.is_floating_point() and not output.is_meta:
            wide = output.float()
            std, mean = torch.std_mean(wide, correction=0)
            figures = torch.stack([*wide.aminmax(), mean, std]).tolist()  # one transfer
            self.minimum, self.maximum, self.mean, self.std = figures


class Recorder:
    """Records every stage of `model` that runs inside its `with` block, in the order they start.

    >>> with Recorder(model) as recorder:                     # doctest: +SKIP
    ...     model.encode_page(views)
    >>> [stage.name for stage in recorder.stages]             # doctest: +SKIP

    `seconds` is the time between entering and leaving. Looking at values takes time too; that is left out everywhere.
    """

    def __init__(self, model: LightSeekOCR) -> None:
        self.model = model
        self.stages: list[Stage] = []
        self.seconds = 0.0
        self._running: list[tuple[Stage, float]] = []
        self._looking = 0.0  # seconds spent on values so far
        self._runs: dict[str, int] = {}

    def __enter__(self) -> "Recorder":
        self._handles = []
        for name, box, level in stage_names(self.model):
            module = self.model.get_submodule(name)
            self._handles.append(module.register_forward_pre_hook(self._start(name, box, level)))
            self._handles.append(module.register_forward_hook(self._stop))
        self._entered = self._clock()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = self._clock() - self._entered
        for handle in self._handles:
            handle.remove()
        for stage in self.stages:
            if stage.level == BOX:  # its own hook would miss decoder.embed and lm_head, called from outside
                parts = [s for s in self.stages if (s.level, s.box, s.run) == (STAGE, stage.box, stage.run)]
                stage.seconds = sum(part.seconds for part in parts)
            stage.share = stage.seconds / self.seconds

    def _start(self, name: str, box: str, level: int) -> Callable[..., None]:
        parameters = sum(p.numel() for p in self.model.get_submodule(name).parameters())

        def hook(module: nn.Module, inputs: tuple) -> None:
            run = self._runs.get(name, 0)
            self._runs[name] = run + 1
            stage = Stage(name, box, level, run, parameters)
            self.stages.append(stage)
            self._running.append((stage, self._clock()))

        return hook

    def _stop(self, module: nn.Module, inputs: tuple, output: Any) -> None:
        ended = self._clock()
        stage, began = self._running.pop()
        stage.seconds = ended - began
        stage.look_at(first_tensor(output))
        stage.note = note(module, stage.shape)
        self._looking = time.perf_counter() - ended  # the clock stood still

    def _clock(self) -> float:
        """Seconds, not counting those spent looking; waits for a GPU to finish what it was given."""
        if self.model.device.type not in ("cpu", "meta"):
            torch.accelerator.synchronize(self.model.device)
        return time.perf_counter() - self._looking


def stage_names(model: LightSeekOCR) -> Iterator[tuple[str, str, int]]:
    """(module path, its box, level) of everything traced. Follows the modules there are, so swapped boxes show too."""
    encoder = [f"encoder.{name}" for name, _ in model.encoder.named_children()] or ["encoder"]
    for box in [*encoder, "projector", "layout", "decoder"]:
        children = dict(_flat_children(model.get_submodule(box))) if box != "projector" else {}
        if not children:
            yield box, box, STAGE  # a box of one stage
            continue
        yield box, box, BOX
        for name, child in children.items():
            yield f"{box}.{name}", box, STAGE
            for part in ("attention", "mlp", "mlp.router", "mlp.experts", "mlp.shared"):
                if _has(child, part):
                    yield f"{box}.{name}.{part}", box, INSIDE


def _flat_children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList):
            yield from ((f"{name}.{index}", block) for index, block in enumerate(child))
        else:
            yield name, child


def _has(module: nn.Module, path: str) -> bool:
    for part in path.split("."):
        module = getattr(module, part, None)
        if not isinstance(module, nn.Module):
            return False
    return True


def first_tensor(output: Any) -> Tensor:
    while not isinstance(output, Tensor):
        output = output[0]
    return output


def note(module: nn.Module, shape: tuple[int, ...]) -> str:
    """What a newcomer should know about this stage and cannot see from its shape."""
    match module:
        case SamBlock():
            return f"window {module.window}x{module.window}" if module.window else "global attention"
        case AbsolutePosition():
            return _resized(module.weight.shape[0], shape[1])
        case ClipEmbeddings():
            return _resized(module.grid, round((shape[1] - 1) ** 0.5))
        case DecoderLayer():
            return note(module.mlp, shape)
        case MoE():
            return f"{module.router.weight.shape[0]} experts, top {module.router.chosen}"
        case nn.Conv2d():
            return f"{module.kernel_size[0]}x{module.kernel_size[0]}, stride {module.stride[0]}"
        case DenseMLP():
            return "dense"
    return ""


def _resized(stored: int, side: int) -> str:
    return f"{stored}x{stored} grid" + ("" if side == stored else f" resized to {side}x{side}")


@dataclass(frozen=True)
class PageTokens:
    """The token arithmetic of one image: pixels -> patches -> 16x fewer tokens -> + newlines + separator."""

    views: tuple[tuple[int, int], ...]  # (how many, side in pixels), tiles before the global view
    mode: str | None
    pixels: int
    patches: int  # of 16 x 16 pixels: what SAM works on
    tokens: int  # after the 16x compressor: vision tokens
    newlines: int
    separators: int
    positions: int  # in the decoder's sequence
    valid: int | None  # tokens that see the image, not the grey padding; needs the page's size
    text_tokens: int | None  # of the text on the page, if it is known

    @property
    def compression(self) -> float | None:
        """Text tokens per vision token, the paper's compression ratio."""
        return None if self.text_tokens is None else self.text_tokens / self.tokens

    def __str__(self) -> str:
        views = " + ".join(f"{count} x {side}x{side}" if count > 1 else f"{side}x{side}" for count, side in self.views)
        lines = [
            f"{self.mode or 'page'}: {views} pixels = {self.pixels:,} pixels",
            f"/ 16x16 = {self.patches:,} patches; / 16 (compressor) = {self.tokens:,} vision tokens",
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
) -> PageTokens:
    """The arithmetic of `views`. `size` is the page's width and height in pixels before it was fitted to the mode."""
    columns, rows = views.grid
    count, side = (0, 0) if views.tiles is None else (len(views.tiles), views.tiles.shape[-1])
    whole = views.global_view.shape[-1]
    pixels = count * side**2 + whole**2
    tokens = pixels // TOKEN_SIDE**2
    newlines = (rows * side + whole) // TOKEN_SIDE
    return PageTokens(
        views=((count, side), (1, whole)) if count else ((1, whole),),
        mode=None if mode is None else find_mode(mode).name,
        pixels=pixels,
        patches=pixels // PATCH**2,
        tokens=tokens,
        newlines=newlines,
        separators=1,
        positions=tokens + newlines + 1,
        valid=None if mode is None or size is None else valid_tokens(mode, *size, grid=(columns, rows)),
        text_tokens=text_tokens,
    )


@dataclass(frozen=True)
class ExpertUse:
    """Where one mixture-of-experts layer sent the tokens of the pass."""

    layer: int
    share: tuple[float, ...]  # of the chosen slots, per expert; sums to 1
    probability: tuple[float, ...]  # the router's mean probability, per expert; sums to 1
    chosen_mass: float  # mean probability that a token's chosen experts hold together
    balance_loss: float  # 1 when the load is even, up to experts / chosen when it all goes to the same few

    @property
    def most_used(self) -> list[int]:
        """Experts with any load, the busiest first."""
        return [e for e in sorted(range(len(self.share)), key=lambda e: -self.share[e]) if self.share[e] > 0]

    @property
    def unused(self) -> list[int]:
        return [expert for expert, share in enumerate(self.share) if share == 0]

    @property
    def entropy(self) -> float:
        """Of the load, as a fraction of the largest possible: 1 when every expert works equally much."""
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
    """What one forward pass did. `trace[name]` is a stage, of its last run: the global view where there are tiles."""

    stages: list[Stage]
    seconds: float
    parameters: int
    active_parameters: int  # of the decoder, per token, without the embedding table (of which one row is read)
    pages: list[PageTokens]
    experts: list[ExpertUse]
    sequence: tuple[int, int]  # rows and positions of the decoder's input
    device: str

    def __getitem__(self, name: str) -> Stage:
        return self.runs(name)[-1]

    def runs(self, name: str) -> list[Stage]:
        """Every run of a stage, in order. Raises KeyError when it did not run."""
        found = [stage for stage in self.stages if stage.name == name]
        if not found:
            raise KeyError(f"no stage {name!r} ran: there are {', '.join(dict.fromkeys(s.name for s in self.stages))}")
        return found

    @property
    def boxes(self) -> dict[str, float]:
        """Seconds per box of the figure, over all runs, in the order of the pipeline."""
        seconds: dict[str, float] = {}
        for stage in sorted((s for s in self.stages if s.level == STAGE), key=lambda s: s.box == "decoder"):
            seconds[stage.box] = seconds.get(stage.box, 0.0) + stage.seconds
        return seconds

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`; a NaN or infinity becomes the string "nan" or "inf"."""
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
        """For `rich.print`: the stages, the time per box, the token arithmetic, the experts."""
        from lightseek.trace_tables import tables

        return tables(self, inside)

    def save_picture(self, path: str | Path) -> None:
        """Draw the time per box and the load of every expert; the suffix says the format (.png, .svg, .pdf)."""
        from lightseek.trace_tables import picture

        picture(self, path)


@torch.no_grad()
def trace(
    model: LightSeekOCR,
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

    input_ids, pages, mask: as in `LightSeekOCR.forward`. mode: names the pages' mode, for the arithmetic.
    sizes, text_tokens: per page, in order: width and height before fitting, and the token count of its text.
    warm_up: run once before, unrecorded: a first pass also pays for reading the weights and choosing kernels.
    logits: score every position, or (as generation does) only the last one.

    Raises ValueError when images and image positions do not match.
    """
    if warm_up:
        model(input_ids, pages=pages, mask=mask, logits=logits)
    with Recorder(model) as recorder:
        output = model(input_ids, pages=pages, mask=mask, logits=logits)
    images = [page for row in pages or [] for page in row]
    moe_layers = [i for i, layer in enumerate(model.decoder.layers) if isinstance(layer.mlp, MoE)]
    return Trace(
        stages=recorder.stages,
        seconds=recorder.seconds,
        parameters=sum(p.numel() for p in model.parameters()),
        active_parameters=active_parameters(model),
        pages=[
            page_tokens(page, mode, sizes[i] if sizes else None, text_tokens[i] if text_tokens else None)
            for i, page in enumerate(images)
        ],
        experts=[ExpertUse.of(layer, routing, mask) for layer, routing in zip(moe_layers, output.routing, strict=True)],
        sequence=(input_ids.shape[0], input_ids.shape[1]),
        device=str(model.device),
    )


def active_parameters(model: LightSeekOCR) -> int:
    """Decoder parameters that one token passes through: of the routed experts only the chosen ones."""
    total = sum(p.numel() for p in model.decoder.parameters())
    total -= sum(p.numel() for p in model.decoder.embed.parameters())
    for module in model.decoder.modules():
        if isinstance(module, MoE):
            experts = module.router.weight.shape[0]
            total -= sum(p.numel() for p in module.experts.parameters()) * (experts - module.router.chosen) // experts
    return total


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
