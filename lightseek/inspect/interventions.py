"""Change a stage's output and see what the model does then: what would it have said without this?

    with intervene(model, "layout", zero):                      # in one pass, or in a whole generation
        blind = observe(model, picture, mode="small")
    with intervene(model, "encoder.compressor", replace(record(model, ["encoder.compressor"], other_page))):
        ...
    patching(reading, other).scores                             # how much of the text each stage's output carries

Stages have the names of a trace. The encoder's stages run once for each size of view; the decoder's run once for the
prompt and once for each new token. An edit gets the output as tokens, `b t d`, whatever the stage's own layout is.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from lightseek.inspect.drawing import heat
from lightseek.inspect.reading import Reading
from lightseek.inspect.recorder import first_tensor, stage_names
from lightseek.model.ocr import DeepSeekOCR
from lightseek.page.views import PageViews
from lightseek.text.generate import evaluating
from lightseek.tools.registry import Registry

Tokens = Float[Tensor, "b t d"]
Edit = Callable[[Tokens, int], Tokens]  # (the output as tokens, how often the stage ran before) -> its new output


def zero(tokens: Tokens, run: int) -> Tokens:
    """Replace every token by zeros."""
    return torch.zeros_like(tokens)


def average(tokens: Tokens, run: int) -> Tokens:
    """Replace every token by the mean over the tokens: it says nothing about where something is."""
    return tokens.mean(1, keepdim=True).expand_as(tokens).contiguous()


def permute(tokens: Tokens, run: int, seed: int = 0) -> Tokens:
    """Put the tokens into a random order: all of them are there, but not in their places."""
    generator = torch.Generator().manual_seed(seed + run)
    return tokens[:, torch.randperm(tokens.shape[1], generator=generator).to(tokens.device)]


def keep(tokens: Tokens, run: int) -> Tokens:
    """Change nothing."""
    return tokens


EDITS = Registry("edit", {"keep": keep, "zero": zero, "average": average, "permute": permute})


def replace(outputs: Sequence[Tokens]) -> Edit:
    """Return an edit that puts in recorded outputs, one for each run of the stage, as `record` gives them.

    The edit raises ValueError if the stage runs more often than that, or if an output has another shape: the two pages
    must have the same mode and the same tiles.
    """

    def edit(tokens: Tokens, run: int) -> Tokens:
        if run >= len(outputs):
            raise ValueError(f"the stage runs {run + 1} times here, but only {len(outputs)} outputs were recorded")
        if outputs[run].shape != tokens.shape:
            raise ValueError(
                f"the recorded output is {tuple(outputs[run].shape)}, and here it is {tuple(tokens.shape)}"
            )
        return outputs[run].to(tokens)

    return edit


@contextmanager
def intervene(
    model: DeepSeekOCR, stage: str, edit: Edit | str, at: Int[Tensor, " positions"] | Sequence[int] | None = None
) -> Iterator[None]:
    """Apply `edit` to the output of a stage in every pass inside the `with` block.

    `edit` is a function or a name in `EDITS`. `at` names the token positions that change; the others keep their values.
    With it, only the first run changes, because later runs of a decoder layer have other positions. CLIP's class token
    always stays. Raises ValueError for a stage that the model does not have.
    """
    module, change, runs = find_stage(model, stage), EDITS.find(edit) if isinstance(edit, str) else edit, [0]

    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        run = runs[0]
        runs[0] += 1
        tokens, back = as_tokens(stage, first_tensor(output))
        changed = change(tokens, run)
        if at is not None and run == 0:
            places = torch.as_tensor(at, device=tokens.device)
            changed = tokens.index_copy(1, places, changed[:, places])
        elif at is not None:
            changed = tokens
        return with_first_tensor(output, back(changed))

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.inference_mode()
def record(model: DeepSeekOCR, stages: Sequence[str], views: PageViews) -> dict[str, list[Tokens]]:
    """Return the outputs of stages of the encoder, the projector and the layout for a page, one for each run."""
    with evaluating(model), recording(model, stages) as found:
        model.encode_page(views)
    return found


@contextmanager
def recording(model: DeepSeekOCR, stages: Sequence[str]) -> Iterator[dict[str, list[Tokens]]]:
    """Collect the outputs of stages as tokens, one for each run inside the `with` block."""
    found: dict[str, list[Tokens]] = {stage: [] for stage in stages}

    def hook(stage: str):
        return lambda _, __, output: found[stage].append(as_tokens(stage, first_tensor(output).detach())[0])

    handles = [find_stage(model, stage).register_forward_hook(hook(stage)) for stage in stages]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def find_stage(model: DeepSeekOCR, stage: str) -> nn.Module:
    """Return the module of a stage. Raises ValueError, which lists the boxes, for a stage that does not exist."""
    try:
        if stage:
            return model.get_submodule(stage)
    except AttributeError:
        pass
    boxes = dict.fromkeys(box for _, box, _ in stage_names(model))
    raise ValueError(f"no stage {stage!r}: name one as a trace does, inside {', '.join(boxes)}")


def as_tokens(stage: str, output: Tensor) -> tuple[Tokens, Callable[[Tokens], Tensor]]:
    """Return the output of a stage as `b t d`, and a function that gives such tokens the stage's own layout again."""
    if output.ndim == 2:  # the layout: p d
        return output[None], lambda tokens: tokens[0]
    if output.ndim == 4 and stage.startswith(("encoder.sam.blocks", "encoder.sam.position")):
        side = output.shape[1]
        return rearrange(output, "b y x d -> b (y x) d"), lambda t: rearrange(t, "b (y x) d -> b y x d", y=side)
    if output.ndim == 4:  # channels come first
        side = output.shape[2]
        return rearrange(output, "b d y x -> b (y x) d"), lambda t: rearrange(t, "b (y x) d -> b d y x", y=side)
    if stage.startswith("encoder.clip"):  # the class token is no place of the page
        return output[:, 1:], lambda tokens: torch.cat([output[:, :1], tokens], dim=1)
    return output, lambda tokens: tokens


def with_first_tensor(output: Any, tensor: Tensor) -> Any:
    """Return a module's output with another first tensor, and with the rest as it was."""
    if isinstance(output, Tensor):
        return tensor
    fresh = (with_first_tensor(output[0], tensor), *output[1:])
    return type(output)(*fresh) if hasattr(output, "_fields") else fresh


@dataclass(frozen=True)
class Patching:
    """How much of a text each stage's output carries (activation patching, Meng et al. 2022)."""

    scores: dict[str, float]  # 1: this stage's output alone brings the text back; 0: it brings nothing back
    clean: float  # mean log-probability of a token of the text, from its own page
    corrupt: float  # the same from the other page

    def picture(self) -> Image.Image:
        """Draw one bar for each stage."""
        import io

        import matplotlib.figure

        figure = matplotlib.figure.Figure(figsize=(7, 0.6 + 0.24 * len(self.scores)), layout="constrained")
        axes = figure.subplots()
        axes.barh(list(self.scores), list(self.scores.values()), color="tab:blue")
        axes.axvline(0, color="grey", linewidth=0.8)
        axes.axvline(1, color="grey", linewidth=0.8, linestyle=":")
        axes.invert_yaxis()
        axes.set_xlabel("share of the text's log-probability that comes back")
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=120)
        return Image.open(buffer).convert("RGB")


def patching(reading: Reading, other: PageViews, stages: Sequence[str] | None = None) -> Patching:
    """Put the outputs of `reading`'s page into a pass over another page, one stage at a time, and score the text.

    The text of `reading` is given, and its mean log-probability is measured: from its own page (clean), from the other
    page (corrupt), and from the other page with one stage's output from its own page. The score is the share of the
    difference that comes back. `stages` are those of a trace, without the insides; without them, all stages of the
    encoder, the projector, the layout and the decoder are tried. The encoder's stages follow each other, so most of
    them carry everything. A decoder layer is changed at the image's positions only: its score falls where the text's
    positions have taken over what they need. Raises ValueError if the pages have other views.
    """
    model = reading.model
    names = list(stages) if stages is not None else [name for name, _, level in stage_names(model) if level < 2]
    names = [name for name in names if not name.startswith("decoder") or ".layers." in name]
    with torch.inference_mode(), evaluating(model):
        with recording(model, names) as outputs:
            clean = likelihood(reading, reading.views)
        corrupt = likelihood(reading, other)
        scores = {}
        for name in names:
            if outputs[name]:  # some modules are called in parts, and never run as a whole
                at = reading.image_positions if name.startswith("decoder.") else None
                with intervene(model, name, replace(outputs[name]), at):
                    scores[name] = (likelihood(reading, other) - corrupt) / (clean - corrupt)
    return Patching(scores, clean, corrupt)


def likelihood(reading: Reading, views: PageViews) -> float:
    """Return the mean log-probability (nats) of a token of the reading's text, if the page were `views`."""
    model = reading.model
    ids = reading.input_ids.to(model.device)
    logs = model(ids, [[views]]).logits[0, reading.predicting].float().log_softmax(-1)
    return logs.gather(1, ids[0, reading.prompt_length :, None]).mean().item()


@dataclass(frozen=True, eq=False)
class Attribution:
    """What each patch of the page adds to the log-probability of a token, by gradient times input."""

    reading: Reading
    weights: Float[Tensor, "g g"]  # of the global view, in patches of 16 pixels; positive speaks for the token
    tiles: Float[Tensor, "k g2 g2"] | None  # of the tiles

    def picture(self) -> Image.Image:
        """Draw the global view's weights on the page: red speaks for the token, blue against it."""
        from lightseek.inspect.attention import frame_of
        from lightseek.inspect.places import picture_places

        side, size = len(self.weights), self.reading.picture.size
        frame = frame_of(self.reading, None)
        grid = picture_places("whole", side, side, frame, size, self.reading.model.config.arithmetic)
        boxes = [place.box for place in grid if place.kind == "token"]
        return heat(self.reading.picture, boxes, self.weights.flatten().tolist())


def attribution(reading: Reading, token: int, paper: float = 1.0) -> Attribution:
    """Return the gradient of the log-probability of one token of the text, times the page's difference from paper.

    The sum runs over the pixels and channels of each patch. `paper` is the value of an empty pixel, 1 for white: a
    white patch has the weight 0. It is a linear estimate of what the patches add (Simonyan et al. 2013; Shrikumar et
    al. 2016). Raises IndexError for a token that the text does not have.
    """
    model, views = reading.model, reading.views
    if not 0 <= token < len(reading.written):
        raise IndexError(f"no token {token}: the text has {len(reading.written)}")
    wanted = [view for view in (views.global_view, views.tiles) if view is not None]
    wanted = [view.to(model.device, model.dtype).clone().requires_grad_(True) for view in wanted]
    page = PageViews(wanted[0], wanted[1] if len(wanted) > 1 else None, views.grid)
    with evaluating(model):
        end = reading.prompt_length + token
        logits = model(reading.input_ids[:, :end].to(model.device), [[page]], logits="last").logits[0, -1]
        logs = logits.float().log_softmax(-1)[reading.written[token]]
        gradients = torch.autograd.grad(logs, wanted)
    weights = [
        rearrange((gradient * (view - paper)).detach().float(), "... c (y p) (x q) -> ... y x (c p q)", p=16, q=16)
        .sum(-1)
        .cpu()
        for gradient, view in zip(gradients, wanted, strict=True)
    ]
    return Attribution(reading, weights[0], weights[1] if len(weights) > 1 else None)
