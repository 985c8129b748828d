"""The model with its aids: auxiliary losses that train parts of it directly, during the pre-training only.

The loss of the text is computed at the far end of the model, so it teaches the earlier parts late. Each aid reads a
tensor inside the model, through a linear head or in the scores of an attention head, and has a target of its own:

aid        reads                       target
letters    SAM's neck                  the character over each patch (`patches` in the code)
centres    SAM's neck                  the characters whose centre is on each patch, so that each character counts once
contents   the projector's output      the same, for the 4 x 4 patches of a vision token
begins     the projector's output      which of these patches hold the first character of a word
corner     the projector's output      how far down and across the page the vision token is, in sixteenths
order      decoder layer 1, output     for a vision token, the index of the first character in each of its rows
written    decoder layer 1, output     for a text token, how many characters are written already
here       decoder layer 2, 1 head     attends to the vision token with the character that was written last
           decoder layer 2, output     the patch of that character within its vision token
next       decoder layer 3, 1 head     attends to the vision token with the character to write now
           decoder layer 3, output     the patch of that character within its vision token
where      decoder layer 3, output     how far down and across the page that character is, in sixty-fourths
read       decoder layer 4, 3 heads    attend as next does, because one head can carry only a quarter of a vision token

A row is one of the 4 rows of patches in a vision token. `order` and `written` are numbers, which can be large. They are
predicted as points on circles (`count`).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from experiments.nano.batches import SPOTS, Batch
from experiments.nano.pages import CENTRES, CLASSES, PATCH, TOKEN
from lightseek.model.attention import Bias, Keys, Query, Sdpa
from lightseek.model.ocr import IGNORED
from lightseek.page.views import EncodedPage
from lightseek.weights.loading import LightSeekOCR

# The weights of the aids' losses; the loss of the text has weight 1.
AIDS = dict.fromkeys(("patches", "centres", "contents", "begins", "corner"), 1)
AIDS |= dict.fromkeys(("written", "here", "here_place", "next", "next_place", "where", "read"), 1)
AIDS["order"] = 4  # the hardest to learn
GAZES = {"here": (1, [0]), "next": (2, [0]), "read": (3, [1, 2, 3])}  # index of the decoder layer, its heads
PARTS = 16  # of a side of the page, for `corner`
WAVES = (64, 128, 256, 512, 1024, 2048)  # periods in characters: the long ones tell apart what is far apart


class Pretraining(nn.Module):
    """The model and the heads of the aids, its "reading heads", so that one checkpoint holds everything that learns."""

    def __init__(self, model: LightSeekOCR) -> None:
        super().__init__()
        self.model = model
        classes = len(CLASSES) + 2
        self.of_tokens = nn.Linear(model.config.decoder.width, (TOKEN // PATCH) ** 2 * CENTRES * classes)
        self.of_begins = nn.Linear(model.config.decoder.width, (TOKEN // PATCH) ** 2)
        self.of_corner = nn.Linear(model.config.decoder.width, 2 * PARTS)
        self.of_written = nn.Linear(model.config.decoder.width, 2 * len(WAVES))
        self.of_order = nn.Linear(model.config.decoder.width, TOKEN // PATCH * 2 * len(WAVES))
        self.of_patches = nn.Conv2d(model.config.sam.neck, classes, 1)
        self.of_centres = nn.Conv2d(model.config.sam.neck, CENTRES * classes, 1)
        self.of_here, self.of_next = (
            nn.Linear(model.config.decoder.width, 1 + (TOKEN // PATCH) ** 2) for _ in range(2)
        )
        self.of_where = nn.Linear(model.config.decoder.width, 2 * (1 + SPOTS))
        self.seen: dict[str, Tensor] = {}
        model.encoder.sam.register_forward_hook(lambda module, inputs, out: self.seen.update(neck=out))
        self.encoded: list[Tensor] = []  # in this forward pass: tiles, if there are any, then whole pages
        model.encoder.register_forward_hook(lambda module, inputs, out: self.encoded.append(out.detach()))
        model.projector.register_forward_hook(lambda module, inputs, out: self.seen.update(tokens=out))
        model.decoder.layers[0].register_forward_hook(lambda module, inputs, out: self.seen.update(first=out[0]))
        for name, (number, heads) in GAZES.items():
            layer = model.decoder.layers[number]
            layer.attention.attend = Watched(heads, lambda scores, name=name: self.seen.update({name: scores}))
            layer.register_forward_hook(
                lambda module, inputs, out, name=name: self.seen.update({f"after {name}": out[0]})  # b n d
            )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of the text, the losses of the aids, and accuracies (`..._right`, 0 to 1), by name."""
        self.encoded.clear()
        self.model.encoder.sam.requires_grad_(not batch.still)
        output = self.model(batch.ids, pages=batch.views(), labels=batch.labels, logits="labelled")
        self.model.encoder.sam.requires_grad_()
        labelled = batch.labels[:, 1:] != IGNORED
        targets = batch.labels[:, 1:][labelled]
        figures = {"loss": output.loss, "tokens_right": right(output.logits, targets)}
        if batch.encoded is None:
            figures |= self.of_encoder(batch)
        for name, head, (position, patch) in (
            ("here", self.of_here, batch.here[..., :2].unbind(-1)),
            ("next", self.of_next, batch.next[..., :2].unbind(-1)),
        ):
            figures[name] = gaze(self.seen[name], position)
            figures[f"{name}_place"] = place(head(self.seen[f"after {name}"]), patch)
        down_and_across = self.of_where(self.seen["after next"]).unflatten(-1, (2, 1 + SPOTS))
        figures["where"] = place(down_and_across, batch.next[..., 2:])
        figures["read"] = gaze(self.seen["read"], batch.next[..., 0])
        written = (labelled.cumsum(1) - 1)[labelled]
        figures["written"] = count(self.of_written(self.seen["first"][:, :-1][labelled]), written)
        lettered = batch.order >= 0  # b n 4
        # The activations are large. Without this norm, the gradient of `order` would drown those of the other losses.
        first = F.rms_norm(self.seen["first"].float(), self.seen["first"].shape[-1:])
        order = rearrange(self.of_order(first), "b n (rows w) -> b n rows w", rows=TOKEN // PATCH)
        figures["order"] = count(order[lettered], batch.order[lettered])
        return figures

    def pages_as_encoded(self, batch: Batch) -> list[EncodedPage]:
        """The encoder's output for the pages of the last forward pass, without a gradient."""
        views = [view for [view] in batch.views()]
        *tiles, whole = self.encoded
        tiles = tiles[0].split(len(views[0].tiles)) if tiles else [None] * len(whole)
        return [EncodedPage(*page, view.grid) for *page, view in zip(whole, tiles, views, strict=True)]

    def of_encoder(self, batch: Batch) -> dict[str, Tensor]:
        """The losses and accuracies of the aids that read the neck and the projector's output."""
        figures = {}
        neck = self.seen["neck"]
        for name, logits, classes in (
            ("patches", self.of_patches(neck).permute(0, 2, 3, 1), batch.patches),
            ("centres", self.of_centres(neck).permute(0, 2, 3, 1), batch.centres),
            ("contents", self.of_tokens(self.seen["tokens"]), by_token(batch.centres)),
        ):
            classes = classes.flatten()
            logits = logits.reshape(len(classes), -1)
            figures[name] = written_cross_entropy(logits, classes)
            figures[f"{name}_right"] = right(logits[classes > 0], classes[classes > 0])
        lettered = by_token(batch.centres[..., :1] > 0)  # b t 16
        begins = by_token(batch.begins[..., None])[lettered]
        logits = self.of_begins(self.seen["tokens"]).view_as(lettered)[lettered]
        figures["begins"] = F.binary_cross_entropy_with_logits(logits.float(), begins.float())
        figures["begins_right"] = ((logits > 0) == begins).float().mean()
        side = batch.patches.shape[1] * PATCH // TOKEN
        corners = self.of_corner(self.seen["tokens"]).view(-1, side, side, 2, PARTS)
        figures["corner"] = corner(corners)
        return figures


class Watched(Sdpa):
    """PyTorch's fused attention, which does not return scores, with the scores of some `heads` computed beside it.

    `show` gets these scores, before the softmax and with -inf above the diagonal: the pre-training's attention is
    causal and has no bias.
    """

    def __init__(self, heads: list[int], show: Callable[[Float[Tensor, "b h n m"]], None]) -> None:
        super().__init__()
        self.heads, self.show = heads, show

    def forward(
        self, q: Query, k: Keys, v: Keys, bias: Bias = None, causal: bool = False, scale: float | None = None
    ) -> Query:
        scores = (q[:, self.heads] * q.shape[-1] ** -0.5) @ k[:, self.heads].transpose(-2, -1)
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        self.show(scores.float().masked_fill(later, -torch.inf))
        return super().forward(q, k, v, bias, causal, scale)


def by_token(centres: Shaped[Tensor, "b g g c"]) -> Shaped[Tensor, "b t 16c"]:
    """Values of patches, grouped by vision token: t tokens in reading order, each with its 16 patches."""
    side = TOKEN // PATCH
    return rearrange(centres, "b (h i) (w j) c -> b (h w) (i j c)", i=side, j=side)


def corner(logits: Float[Tensor, "b h w 2 parts"]) -> Float[Tensor, ""]:
    """Mean cross-entropy of the row and the column of each vision token, in `PARTS` of the page's height and width."""
    b, side, _, _, parts = logits.shape
    at = ((torch.arange(side, device=logits.device) + 0.5) * parts / side).long()
    down, across = at[:, None].expand(b, side, side), at.expand(b, side, side)
    return F.cross_entropy(logits.reshape(-1, parts).float(), torch.stack([down, across], dim=-1).flatten())


def count(waves: Float[Tensor, "n 2w"], counts: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean squared error of numbers that are predicted as points on circles.

    A number has one point for each period in `WAVES`: the cosine and the sine of its angle. The error is 0 when the
    points are right and 1 when all predictions are 0.
    """
    angles = 2 * torch.pi * counts[:, None] / torch.tensor(WAVES, device=counts.device)
    told = torch.cat([angles.cos(), angles.sin()], dim=1)
    return 2 * F.mse_loss(waves.float(), told, reduction="sum") / max(1, told.numel())


def written_cross_entropy(logits: Float[Tensor, "n c"], classes: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean cross-entropy. Empty patches, which are most of a page, have weight 0.1."""
    weight = torch.where(classes > 0, 1.0, 0.1)
    return (F.cross_entropy(logits.float(), classes, reduction="none") * weight).sum() / weight.sum()


def gaze(scores: Float[Tensor, "b h n n"], places: Int[Tensor, "b n"]) -> Float[Tensor, ""]:
    """Mean of -log of the attention that a position gives to its target. Positions with the target 0 do not count."""
    places = places[:, None].expand(scores.shape[:3])  # b h n
    shares = scores.gather(3, places[..., None])[..., 0] - scores.logsumexp(3)  # the log of the attention
    return -shares[places > 0].sum() / (places > 0).sum().clamp_min(1)


def place(logits: Float[Tensor, "*n c"], places: Int[Tensor, "*n"]) -> Float[Tensor, ""]:
    """Mean cross-entropy over the positions that have a place. 0 means none, as for a summary's own words."""
    logits, told = logits[places > 0].float(), places[places > 0]
    return F.cross_entropy(logits, told, reduction="sum") / max(1, len(told))


@torch.no_grad()
def right(logits: Float[Tensor, "n c"], classes: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """The share of the rows whose largest logit is the right class."""
    return (logits.argmax(-1) == classes).float().mean()
