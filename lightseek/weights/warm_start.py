"""Fits a box that is new to the box that it replaces, so that an ablation compares boxes and not initial weights.

    pages -> SAM -> the old boxes ------------> targets
               \\--> the new boxes -> outputs -> mean squared error -> Adam, the same number of steps for every kind

The official boxes are trained, and a new box is random. Without a warm start, an ablation would mostly show this
difference. There are two places at which old and new models are compared, in the order of the data flow:

    compressor    a new compressor learns the output of the old compressor
    projector     a new global stage and a new projector learn the output of the old projector. A global stage changes
                  the number of channels, so the projector's output is the first thing that both models have in common

The second fit takes the output of the first one, so its figures include what the compressor could not learn. If the
new compressor makes another number of tokens, the target is resized to the new grid: by means where there are fewer
tokens than before, and by linear interpolation where there are more.

A layout and a text encoder have no warm start, because no box before them made what they make. With a new decoder,
the projector and the layout start again from random weights, because the old projector's output means nothing to it.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lightseek.model.ocr import DeepSeekOCR
from lightseek.page.views import PageViews
from lightseek.tools.files import atomic_write
from lightseek.tools.json_files import parse_json

FORMAT = 1  # raise it when the procedure changes, so that older fits are not used
STEPS = 300
BATCH = 4  # views in a step
VIEWS = 48  # of the first pages; every fourth is not learned but measures the fit
RATE = 3e-3  # the highest learning rate of Adam; it falls to zero along a cosine


class Boxes(NamedTuple):
    """The boxes between SAM and the layout, which a swap may replace."""

    compressor: nn.Module
    stage: nn.Module
    join: nn.Module
    projector: nn.Module

    @classmethod
    def of(cls, model: DeepSeekOCR) -> "Boxes":
        return cls(model.encoder.compressor, model.encoder.clip, model.encoder.concat, model.projector.layers)

    def project(self, local: Float[Tensor, "b c r r"]) -> Float[Tensor, "b d r r"]:
        """Return what the decoder would get for the compressor's output, still as a grid."""
        return on_grid(self.projector)(self.see(local))

    def see(self, local: Float[Tensor, "b c r r"]) -> Float[Tensor, "b d r r"]:
        """Return the encoder's output for the compressor's output, still as a grid."""
        tokens = self.join(local, self.stage(local))
        return rearrange(tokens, "b (y x) d -> b d y x", y=local.shape[-1])


def on_grid(projector: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a function that applies a projector to each cell of a grid `b c r r`."""
    return lambda grid: projector(grid.movedim(1, -1)).movedim(-1, 1)


@dataclass(frozen=True)
class Fit:
    """How well a new box does what the old one did. All figures are measured on pages that the fit did not learn."""

    box: str  # compressor or projector
    steps: int
    loss_before: float  # the mean squared error with random weights
    loss_after: float
    explained: float  # the share of the variance of the target that the new box explains, at most 1


def figures(fits: Sequence[Fit]) -> dict[str, Any]:
    """Return what `results.json` says about the fits, and nothing if there were none.

    The figures are those of the last fit, which includes what the fits before it could not learn.
    """
    if not fits:
        return {}
    last = {name: value for name, value in asdict(fits[-1]).items() if name != "box"}
    boxes = {each.box: asdict(each) for each in fits}
    return {"warm_start": last | {"boxes": boxes}, "warm_start_explained": 100 * fits[-1].explained}


def warm_start(
    model: DeepSeekOCR,
    old: Boxes,
    pages: Sequence[PageViews],
    folder: Path,
    skip: Sequence[str] = (),
) -> list[Fit]:
    """Fit each new box of `model`, in place, and return how well that went. The list is empty if no box is new.

    `old` are the model's boxes before the swaps. `pages` are shown to both. Fits named in `skip` are left out.
    The fitted weights are kept in `folder`, so equal models, boxes and pages are fitted once. The state of the caller's
    random numbers does not change.
    """
    new = Boxes.of(model)
    parts = {"compressor": fresh(old[:1], new[:1]), "projector": fresh(old[1:], new[1:])}
    parts = {name: boxes for name, boxes in parts.items() if boxes and name not in skip}
    views = [view for page in pages for view in (page.global_view, *(() if page.tiles is None else page.tiles))]
    views = views[:VIEWS]
    if not parts or not views:
        return []
    path = folder / f"{key_of(model, old, views, list(parts))}.safetensors"
    if (found := load(path, parts)) is None:
        training, grads = model.training, {p: p.requires_grad for p in model.parameters()}
        with torch.random.fork_rng():  # a box may have dropout
            torch.manual_seed(0)
            model.eval()
            found = fit_all(model, old, new, views, parts)
        model.train(training)
        for parameter, learns in grads.items():
            parameter.requires_grad_(learns).grad = None
        write(path, parts, found)
    return found


def fresh(old: Sequence[nn.Module], new: Sequence[nn.Module]) -> list[nn.Module]:
    """Return the new boxes that do not have all their weights from the old box at their place."""
    found = []
    for before, after in zip(old, new, strict=True):
        known = before.state_dict()
        if any(name not in known or not same(known[name], value) for name, value in after.state_dict().items()):
            found.append(after)
    return found


def same(one: Tensor, other: Tensor) -> bool:
    return one is other or (one.shape == other.shape and torch.equal(one, other))


def fit_all(
    model: DeepSeekOCR, old: Boxes, new: Boxes, views: Sequence[Tensor], parts: dict[str, list[nn.Module]]
) -> list[Fit]:
    """Fit the compressor, and then the projector with what that compressor gives."""
    features, local, projected, found = [], [], [], []
    with torch.no_grad():
        for view in views:
            seen = model.encoder.sam(view[None].to(model.device, model.dtype))
            features.append(seen)
            local.append(old.compressor(seen).float())
            if "projector" in parts:
                projected.append(old.project(old.compressor(seen)).float())
    if "compressor" in parts:
        found.append(fit("compressor", parts["compressor"], new.compressor, features, local, model.dtype))
    if "projector" in parts:
        with torch.no_grad():
            inputs = [new.compressor(seen) for seen in features]
            forward = new.project
            if new.stage not in parts["projector"]:  # it does not learn, so it runs once for each view
                inputs, forward = [new.see(local) for local in inputs], on_grid(new.projector)
        found.append(fit("projector", parts["projector"], forward, inputs, projected, model.dtype))
    return found


def fit(
    name: str,
    boxes: Sequence[nn.Module],
    forward: Callable[[Tensor], Tensor],
    inputs: Sequence[Float[Tensor, "1 c g g"]],
    targets: Sequence[Float[Tensor, "1 d r r"]],
    dtype: torch.dtype,
) -> Fit:
    """Let `boxes` learn that `forward` gives the targets for the inputs. They learn in float32 and end as `dtype`."""
    for box in boxes:
        box.float().requires_grad_(True)
    with torch.no_grad():
        sides = [forward(x.float()).shape[-1] for x in inputs[:: max(1, len(inputs) - 1)]]
    ratio = sides[0] / inputs[0].shape[-1]
    pairs = [(x.float(), resize(y, round(x.shape[-1] * ratio))) for x, y in zip(inputs, targets, strict=True)]
    held = pairs[3::4] or pairs  # a single page must serve for both
    learned = list(batches([pair for i, pair in enumerate(pairs) if i % 4 != 3]))
    parameters = [parameter for box in boxes for parameter in box.parameters()]
    optimizer = torch.optim.Adam(parameters, RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    variance = torch.cat([y.flatten(2) for _, y in held], dim=2).var(dim=2, correction=0).mean().item()
    before = error(forward, held)
    for step in range(STEPS):
        x, y = learned[step % len(learned)]
        optimizer.zero_grad()
        (F.mse_loss(forward(x), y) / max(variance, 1e-12)).backward()
        optimizer.step()
        schedule.step()
    after = error(forward, held)
    for box in boxes:
        box.to(dtype)
    return Fit(name, STEPS, before, after, 1 - after / max(variance, 1e-12))


def resize(grid: Float[Tensor, "b d r r"], side: int) -> Float[Tensor, "b d side side"]:
    """Return a grid of targets at another side: means if it has fewer cells, else linear interpolation."""
    if side <= grid.shape[-1]:
        return F.adaptive_avg_pool2d(grid, side)
    return F.interpolate(grid, size=(side, side), mode="bilinear", align_corners=False)


def batches(pairs: Sequence[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the pairs in batches of at most `BATCH`. All pairs of a batch have the same sides."""
    for side in sorted({x.shape[-1] for x, _ in pairs}):
        group = [(x, y) for x, y in pairs if x.shape[-1] == side]
        for start in range(0, len(group), BATCH):
            xs, ys = zip(*group[start : start + BATCH], strict=True)
            yield torch.cat(xs), torch.cat(ys)


@torch.no_grad()
def error(forward: Callable[[Tensor], Tensor], pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Return the mean squared error over all numbers of the targets."""
    squares = sum((forward(x) - y).square().sum().item() for x, y in batches(pairs))
    return squares / sum(y.numel() for _, y in pairs)


def key_of(model: DeepSeekOCR, old: Boxes, views: Sequence[Tensor], parts: Sequence[str]) -> str:
    """Return a digest of everything that decides a fit: sizes, kinds, weights, pages and the procedure."""
    config = model.config
    procedure = (FORMAT, STEPS, BATCH, RATE, parts, config.sam, config.boxes, str(model.encoder), str(model.projector))
    sha = sha256(repr(procedure).encode())
    for module in (model.encoder.sam, *old, *Boxes.of(model)):
        for name, tensor in module.state_dict().items():
            add(sha, name, tensor)
    for view in views:
        add(sha, "view", view)
    return sha.hexdigest()[:32]


def add(sha, name: str, tensor: Tensor) -> None:
    sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
    sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())


def named(parts: dict[str, list[nn.Module]]) -> dict[str, Tensor]:
    return {
        f"{part}.{number}.{name}": tensor
        for part, boxes in parts.items()
        for number, box in enumerate(boxes)
        for name, tensor in box.state_dict().items()
    }


def write(path: Path, parts: dict[str, list[nn.Module]], fits: Sequence[Fit]) -> None:
    """Keep the weights of the fitted boxes and the figures. The file appears complete or not at all."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in named(parts).items()}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(tensors, {"fits": json.dumps([asdict(fit) for fit in fits])}))


@torch.no_grad()
def load(path: Path, parts: dict[str, list[nn.Module]]) -> list[Fit] | None:
    """Copy the weights of an earlier fit into the boxes, or return None if there is no file that can be read."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            fits = [Fit(**each) for each in parse_json(file.metadata()["fits"], path)]
        for name, tensor in named(parts).items():
            tensor.copy_(tensors[name])
        return fits
    except (FileNotFoundError, SafetensorError):
        return None
