"""Where a model looks: the decoder's attention on the page while it writes, and the attention inside the encoder.

    found = attention_on_page(reading, layer=5, head=2)     # or their mean, or a rollout
    found.weights                                           # tokens n: each row sums to 1
    found.picture(3)                                        # the page, with what the fourth token looked at in red

High attention says where information was taken from in one layer. It does not say that the output depends on it: for
that, change something and look again (`interventions.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from lightseek.inspect.drawing import heat
from lightseek.inspect.places import picture_places
from lightseek.inspect.reading import Reading
from lightseek.model.attention import attention_maps
from lightseek.page.modes import Box, padded_frame, whole_page
from lightseek.text.generate import evaluating


@dataclass(frozen=True, eq=False)
class PageAttention:
    """How much each token of a text looked at each position before it."""

    reading: Reading
    weights: Float[Tensor, "tokens n"]  # of all positions of the prompt and the text; each row sums to 1

    @property
    def image(self) -> Float[Tensor, "tokens p"]:
        """The weights of the image's positions: vision tokens, newlines and separator, as in `reading.places`."""
        return self.weights[:, self.reading.image_positions]

    @property
    def share(self) -> Float[Tensor, " tokens"]:
        """The share of the attention that fell on the image. The rest fell on the prompt and on the text."""
        return self.image.sum(1)

    def picture(self, token: int | Sequence[int] | None = None) -> Image.Image:
        """Draw the page with what one token of the text, or some, or all of them looked at."""
        weights = self.image.mean(0) if token is None else self.image[token if isinstance(token, int) else list(token)]
        weights = weights if weights.ndim == 1 else weights.mean(0)
        return heat(self.reading.picture, [place.box for place in self.reading.places], weights.tolist())


def attention_on_page(
    reading: Reading,
    layer: int | Literal["mean", "rollout"] = "mean",
    head: int | Literal["mean"] = "mean",
) -> PageAttention:
    """Return how much each token of the text looked at the page, in one layer and head of the decoder or in their mean.

    The rollout (Abnar and Zuidema 2020) multiplies the maps of all layers, each averaged over its heads and mixed with
    as much of the identity for the residual path. It estimates which inputs a token's state was made from.
    A token is looked up at the position that predicted it, which is the one before it.
    Raises IndexError for a layer or a head that the decoder does not have, and ValueError for a head of a rollout.
    """
    maps = reading.seen.attention.float()  # L h n n
    if layer == "rollout":
        if head != "mean":
            raise ValueError("a rollout averages the heads of each layer: leave head out")
        return PageAttention(reading, rollout(maps.mean(1))[reading.predicting])
    maps = maps.mean(0) if layer == "mean" else maps[layer]
    maps = maps.mean(0) if head == "mean" else maps[head]
    return PageAttention(reading, maps[reading.predicting])


def rollout(maps: Float[Tensor, "L n n"]) -> Float[Tensor, "n n"]:
    """Return the product of the layers' maps, each mixed half and half with the identity. Its rows sum to 1."""
    identity = torch.eye(maps.shape[-1], dtype=maps.dtype, device=maps.device)
    product = identity
    for attention in maps:
        product = (attention + identity) / 2 @ product
    return product


@dataclass(frozen=True, eq=False)
class ViewAttention:
    """How much one place of a view looked at each place, inside the encoder."""

    reading: Reading
    weights: Float[Tensor, "g g"]  # in patches of 16 pixels for SAM, in vision tokens for CLIP
    outside: float  # the weight on anything else: CLIP's class token, or the zeros that fill up SAM's windows
    frame: Box  # the part of the page that the view shows, in pixels

    def picture(self) -> Image.Image:
        """Draw the page with the weights in red."""
        side = len(self.weights)
        size, arithmetic = self.reading.picture.size, self.reading.model.config.arithmetic
        grid = picture_places("whole", side, side, self.frame, size, arithmetic)
        boxes = [place.box for place in grid if place.kind == "token"]
        return heat(self.reading.picture, boxes, self.weights.flatten().tolist())


def attention_in_encoder(
    reading: Reading,
    block: str,
    at: tuple[int, int],
    head: int | Literal["mean"] = "mean",
    tile: int | None = None,
) -> ViewAttention:
    """Return what the place `at` (row, column) of a view looked at in one block of the encoder.

    `block` is a name as in a trace, such as `"encoder.sam.blocks.2"` or `"encoder.clip.blocks.0"`. SAM's places are
    patches of 16 pixels, and CLIP's are vision tokens. The windows of SAM's blocks are put back in their place: outside
    the window of `at`, the weights are zero. `tile` is the number of a tile; without it, the view is the global one.
    Raises ValueError for a block, a place or a tile that the model does not have.
    """
    model, views = reading.model, reading.views
    if not block.startswith(("encoder.sam.blocks.", "encoder.clip.blocks.")) or not has(model, block):
        raise ValueError(f"no block {block!r}: name one like encoder.sam.blocks.0 or encoder.clip.blocks.0")
    if tile is not None and (views.tiles is None or not 0 <= tile < len(views.tiles)):
        raise ValueError(f"no tile {tile}: this page has {0 if views.tiles is None else len(views.tiles)} tiles")
    view = views.global_view if tile is None else views.tiles[tile]
    name = f"{block.removeprefix('encoder.')}.attention"
    with torch.inference_mode(), evaluating(model), attention_maps(model.encoder, [name]) as maps:
        model.encoder(view[None].to(model.device, model.dtype))
    attention = maps[name].float().mean(1) if head == "mean" else maps[name][:, head].float()  # b n n, of windows too
    window = getattr(model.get_submodule(block), "window", 0)
    classes = 1 if block.startswith("encoder.clip") else 0
    side = view.shape[-1] // 16 if not classes else round((attention.shape[-1] - 1) ** 0.5)
    row, column = at
    if not (0 <= row < side and 0 <= column < side):
        raise ValueError(f"no place {at}: this view has {side} x {side} places in {block}")
    if window:
        weights = window_weights(attention, row, column, side, window)
    else:
        weights = attention[0, classes + row * side + column, classes:].view(side, side)
    return ViewAttention(reading, weights.cpu(), 1 - float(weights.sum()), frame_of(reading, tile))


def window_weights(
    attention: Float[Tensor, "windows ww ww"], row: int, column: int, side: int, window: int
) -> Float[Tensor, "side side"]:
    """Put the attention of one patch within its window into a map of the whole view."""
    across = -(-side // window)  # windows in a row
    number = (row // window) * across + column // window
    query = (row % window) * window + column % window
    inside = rearrange(attention[number, query], "(y x) -> y x", y=window)
    whole = attention.new_zeros(across * window, across * window)
    top, left = row // window * window, column // window * window
    whole[top : top + window, left : left + window] = inside
    return whole[:side, :side]


def frame_of(reading: Reading, tile: int | None) -> Box:
    """Return the part of the page that a view shows, in pixels. A padded view reaches over the edges of the page."""
    size = reading.picture.size
    if tile is None:
        return padded_frame(size, reading.mode) if reading.mode.padded else whole_page(size)
    columns, rows = reading.views.grid
    width, height = size[0] / columns, size[1] / rows
    row, column = divmod(tile, columns)
    return column * width, row * height, (column + 1) * width, (row + 1) * height


def has(model, name: str) -> bool:
    try:
        model.get_submodule(name)
    except AttributeError:
        return False
    return True
