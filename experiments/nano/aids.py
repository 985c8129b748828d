"""The model with its teacher's aids: what each box is told early, beside the loss of the text, and dropped afterwards.

letters    after SAM's neck        the character over each patch (`patches`)
contents   after the projector     the characters of each vision token, in reading order (`slots`)
here       one decoder head        attend to the vision token that holds the character written last
next       one, a layer later      attend to the one that holds the character to write now
"""

import torch
import torch.nn.functional as F
from batches import Batch
from jaxtyping import Float, Int
from pages import CLASSES, SLOTS
from torch import Tensor, nn

from lightseek.model.attention import Eager
from lightseek.model.ocr import IGNORED, LightSeekOCR

AIDS = ("slots", "patches", "here", "next")  # losses beside the decoder's


class Pretraining(nn.Module):
    """The model and its two reading heads, so that one checkpoint holds all that learns."""

    def __init__(self, model: LightSeekOCR) -> None:
        super().__init__()
        self.model = model
        classes = len(CLASSES) + 2
        self.of_tokens = nn.Linear(model.config.decoder.width, SLOTS * classes)
        self.of_patches = nn.Conv2d(model.config.sam.neck, classes, 1)
        self.seen: dict[str, Tensor] = {}
        model.encoder.sam.register_forward_hook(lambda module, inputs, out: self.seen.update(patches=out))
        model.projector.register_forward_hook(lambda module, inputs, out: self.seen.update(slots=out))
        for name, layer in (("here", 1), ("next", 2)):
            attention = model.decoder.layers[layer].attention
            attention.attend = Eager()
            attention.attend.softmax.register_forward_hook(
                lambda module, inputs, out, name=name: self.seen.update({name: out[:, 0]})  # the first head: b n n
            )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses and the shares that were right."""
        output = self.model(batch.ids, pages=batch.views(), labels=batch.labels, mask=batch.mask, logits="labelled")
        targets = batch.labels[:, 1:][batch.labels[:, 1:] != IGNORED]
        figures = {"loss": output.loss, "tokens_right": right(output.logits, targets)}
        if batch.slots is None:  # tiles: the decoder alone is told something
            return figures
        for name, head, classes in (
            ("slots", self.of_tokens, batch.slots),
            ("patches", self.of_patches, batch.patches),
        ):
            logits, classes = head(self.seen[name]), classes.flatten()
            logits = (logits if name == "slots" else logits.permute(0, 2, 3, 1)).reshape(len(classes), -1)
            figures[name] = written_cross_entropy(logits, classes)
            figures[f"{name}_right"] = right(logits[classes > 0], classes[classes > 0])
        return figures | {name: gaze(self.seen[name], getattr(batch, name)) for name in ("here", "next")}


def written_cross_entropy(logits: Float[Tensor, "n c"], classes: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean cross-entropy where empty places, most of a page, weigh a tenth."""
    weight = torch.where(classes > 0, 1.0, 0.1)
    return (F.cross_entropy(logits.float(), classes, reduction="none") * weight).sum() / weight.sum()


def gaze(attention: Float[Tensor, "b n n"], places: Int[Tensor, "b n"]) -> Float[Tensor, ""]:
    """-log of the share of its attention that a position gives to the place it should look at; 0 is no place."""
    share = attention.gather(2, places[..., None])[..., 0]
    return -share[places > 0].clamp_min(1e-6).log().sum() / (places > 0).sum().clamp_min(1)


@torch.no_grad()
def right(logits: Float[Tensor, "n c"], classes: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    return (logits.argmax(-1) == classes).float().mean()
