"""DeepSeekOCR joins the boxes. A page goes in as pixels, and logits over text come out (paper section 3.1).

    pages -> encoder -> projector -> layout -> in place of the image tokens -> decoder -> logits

In the shapes, b is the batch, n the new positions, m the cached and the new ones, d the decoder's width, d2 the
encoder's, and v the vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lightseek.model import cpu
from lightseek.model.boxes import build_box
from lightseek.model.cache import Cache
from lightseek.model.config import OCRConfig
from lightseek.model.decoders import build_decoder
from lightseek.model.encoder import DeepEncoder
from lightseek.model.moe import Routing, balance_loss
from lightseek.model.projector import Projector
from lightseek.model.sam import AbsolutePosition
from lightseek.page.views import Page, TextRun

IGNORED = -100  # the label of a position that the loss leaves out


@dataclass
class OCROutput:
    """The result of a forward pass. Backpropagate `loss`: the cross-entropy, plus the balance loss in training."""

    logits: Float[Tensor, "..."]
    loss: Float[Tensor, ""] | None = None
    cross_entropy: Float[Tensor, ""] | None = None  # the mean over the labels that count, in nats
    balance_loss: Float[Tensor, ""] | None = None  # the sum over the layers, times alpha
    routing: list[Routing] = field(default_factory=list)  # one per mixture-of-experts layer


class DocumentModel(nn.Module):
    """The base class of models that write about a document. Training, generation and evaluation need these members:

    decoder                        the decoder, with the signature of `decoders/__init__.py`
    model(input_ids, pages, ...)   returns an OCROutput, see `DeepSeekOCR.forward`
    embed(input_ids, pages)        returns the input of the decoder: b n d
    device, dtype                  the device and the dtype of the weights
    set_gradient_checkpointing(on) recomputes activations in the backward pass, or keeps them

    `DeepSeekOCR` looks at the document's pages. `Seq2Seq` (seq2seq.py) reads the document's text.
    """

    decoder: nn.Module
    device: torch.device
    dtype: torch.dtype

    def __init__(self, config: OCRConfig) -> None:
        super().__init__()
        self.config = config
        # The code that loads weights sets the first two.
        self.tokenizer: Any = None  # turns text into tokens and back
        self.folder: Path | None = None  # the checkpoint that the weights came from
        self.warm_start: list[Any] = []  # how well new boxes were fitted to old ones: weights/warm_start.py
        self.adapters: Any = None  # the `Adapters` of weights/lora.py, or None without adapters

    def embed(
        self, input_ids: Int[Tensor, "b n"], pages: Sequence[Sequence[Page]] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Return the input of the decoder: the embeddings of the tokens, with the pages in their positions."""
        raise NotImplementedError

    def set_gradient_checkpointing(self, on: bool = True) -> None:
        """Recompute activations in the backward pass if `on`, or keep them."""
        raise NotImplementedError


class Untouched(nn.Module):
    """The edit of the vision tokens that changes nothing. `vision_edit.py` has the others."""

    def forward(
        self, global_view: Float[Tensor, "t d"], tiles: Float[Tensor, "k t2 d"] | None = None, key: int = 0
    ) -> tuple[Float[Tensor, "t d"], Float[Tensor, "k t2 d"] | None]:
        return global_view, tiles


class DeepSeekOCR(DocumentModel):
    """All boxes of a config, with random weights. `LightSeekOCR` in weights/loading.py adds files and text to it."""

    def __init__(self, config: OCRConfig) -> None:
        super().__init__(config)
        self.encoder = DeepEncoder(config)
        self.projector = Projector(config)
        self.vision_edit = Untouched()  # an evaluation may put another one here
        self.layout = build_box("layout", config)
        self.decoder = build_decoder(config.decoder)
        self.context = build_box("text_encoder", config)
        reset_parameters(self)

    def forward(
        self,
        input_ids: Int[Tensor, "b n"],
        pages: Sequence[Sequence[Page]] | None = None,
        labels: Int[Tensor, "b n"] | None = None,
        mask: Bool[Tensor, "b m"] | Int[Tensor, "b m"] | None = None,
        cache: Cache | None = None,
        logits: Literal["all", "last", "labelled"] = "all",
    ) -> OCROutput:
        """Return the logits for the token after each position, and the loss if there are labels.

        `pages[row]` lists the images of a row in order. They fill the positions where `input_ids` has the image token.
        `labels` equal `input_ids` where the loss counts and are -100 elsewhere. The shift by one happens here.
        `mask` is false at padding. It covers the cached and the new positions.
        `logits` says which positions are scored: `"all"` gives b n v, `"last"` gives b 1 v (for generation), and
        `"labelled"` gives one row of v for each label that counts (to save memory).

        Raises ValueError if the images do not fill the image positions exactly, or if `logits` does not go with
        `labels`.
        """
        if logits not in (("all", "last") if labels is None else ("all", "labelled")):
            raise ValueError(f"logits={logits!r}: choose all or last, or, with labels, all or labelled")
        mask = None if mask is None else mask.bool()
        hidden, routing = self.decoder(self.embed(input_ids, pages), mask, cache)
        if labels is None:
            scores = self.decoder.logits(hidden[:, -1:] if logits == "last" else hidden)
            return OCROutput(scores, routing=routing)
        if logits == "labelled":
            counted = labels[:, 1:] != IGNORED
            scores = self.decoder.logits(hidden[:, :-1][counted])
            cross_entropy = F.cross_entropy(scores, labels[:, 1:][counted])
        else:
            scores = self.decoder.logits(hidden)
            cross_entropy = F.cross_entropy(scores[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
        output = OCROutput(scores, cross_entropy, cross_entropy, routing=routing)
        if self.training:
            balance = balance_loss(routing, mask) if routing else hidden.new_zeros(())
            output.balance_loss = self.config.decoder.balance_alpha * balance
            output.loss = cross_entropy + output.balance_loss
        return output

    def embed(
        self, input_ids: Int[Tensor, "b n"], pages: Sequence[Sequence[Page]] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Return the token embeddings, with the pages' vision tokens in the image positions.

        Raises ValueError if the images do not fill these positions exactly.
        """
        if pages is None:
            return self.decoder.embed(input_ids)
        if len(pages) != len(input_ids):
            raise ValueError(f"pages has {len(pages)} rows and input_ids {len(input_ids)}")
        is_image = input_ids == self.config.image_token_id
        x = self.decoder.embed(input_ids.masked_fill(is_image, 0))  # a swapped decoder has no embedding for it
        encoded = iter(self.encode_pages([page for row in pages for page in row]))
        rows = [[next(encoded) for _ in row] for row in pages]
        for index, (row, places) in enumerate(zip(rows, is_image.sum(1).tolist(), strict=True)):
            have = sum(len(image) for image in row)
            if have != places:
                raise ValueError(
                    f"row {index} has {places} image positions (token {self.config.image_token_id}) "
                    f"but its {len(row)} image(s) fill {have}: lightseek.modes.positions tells how many a mode needs"
                )
        visual = [image for row in rows for image in row]
        return x.masked_scatter(is_image[..., None], torch.cat(visual).to(x.dtype)) if visual else x

    def encode_page(self, page: Page) -> Float[Tensor, "positions d"]:
        """Return what fills the positions of one image: vision tokens, newlines and the separator."""
        return self.encode_pages([page])[0]

    def encode_pages(self, pages: Sequence[Page]) -> list[Float[Tensor, "_ d"]]:
        """Return `encode_page` of many images, whose sizes and modes may differ."""
        # Generation may take the pages of a batch apart. In training, hooks on the encoder want all of them at once.
        apart = self.device.type == "cpu" and torch.is_inference_mode_enabled()
        parts = cpu.page_parts(pages) if apart else [pages]
        return [tokens for part in parts for tokens in self.encode_together(part)]

    def encode_together(self, pages: Sequence[Page]) -> list[Float[Tensor, "_ d"]]:
        """Return `encode_page` of images whose views of the same size run as one batch."""
        drawn = [page for page in pages if not isinstance(page, TextRun)]
        views = [view for page in drawn for view in (page.global_view, *(() if page.tiles is None else page.tiles))]
        tokens = iter(self.encode_views(views))
        laid_out = []
        for page in pages:
            if isinstance(page, TextRun):
                embedded = self.decoder.embed(page.ids.to(self.device)[None])
                laid_out.append(self.context(embedded, page.vectors)[0])
                continue
            global_view = next(tokens)
            tiles = None if page.tiles is None else torch.stack([next(tokens) for _ in page.tiles])
            laid_out.append(self.layout(*self.vision_edit(global_view, tiles, page.key), page.grid))
        return laid_out

    def encode_views(
        self, views: Sequence[Float[Tensor, "3 _ _"] | Float[Tensor, "_ d2"]]
    ) -> list[Float[Tensor, "_ d"]]:
        """Return the vision tokens of square views at the decoder's width.

        A view comes as pixels, or as the tokens of the encoder. Views of the same size run as one batch.
        """
        tokens: list[Tensor | None] = [None] * len(views)
        for shape in sorted({tuple(view.shape) for view in views}):
            places = [i for i, view in enumerate(views) if view.shape == shape]
            batch = torch.stack([views[i] for i in places]).to(self.device, self.dtype)
            features = self.encoder(batch) if len(shape) == 3 else batch
            for place, projected in zip(places, self.projector(features), strict=True):
                tokens[place] = projected
        return tokens

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self._weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self._weight.dtype

    @property
    def _weight(self) -> nn.Parameter:
        """A parameter that no quantizer packs: the layout's newline or, if it has none, one of the projector's."""
        newline = getattr(self.layout, "newline", None)
        return next(p for p in self.projector.parameters() if p.is_floating_point()) if newline is None else newline

    def set_gradient_checkpointing(self, on: bool = True) -> None:
        """Trade time for memory in training: keep only the input of each block, and compute the rest again."""
        for stack in (self.encoder.sam, self.encoder.clip, self.decoder):
            stack.recompute = on


def reset_parameters(root: nn.Module) -> None:
    """Draw new weights for `root` and for everything in it.

    Each box has a `reset_parameters` of its own, as PyTorch's layers do. Linear layers and embeddings have PyTorch's,
    which their constructors call. A language model starts instead from a normal distribution of deviation 0.02.
    """
    # The absolute positions come last, because a seed must give the weights that it has always given.
    for module in sorted(root.modules(), key=lambda module: isinstance(module, AbsolutePosition)):
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)
        elif hasattr(module, "reset_parameters"):
            module.reset_parameters()
