"""A sequence-to-sequence model of transformers takes the place of ours: a baseline that reads the document as text.

    prompt (it holds the document) -> its encoder
    target                         -> its decoder -> logits

`--decoder seq2seq:facebook/bart-base --context text` uses it. The class takes the same inputs as our model, so that it
shares the training loop, the decoding and the evaluation. `load_seq2seq` in weights/hf.py loads such a model.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from lightseek.model.cache import Cache
from lightseek.model.config import HFDecoderConfig, OCRConfig
from lightseek.model.decoder import DecoderOutput
from lightseek.model.decoders.hf import HFDecoder, agree
from lightseek.model.ocr import IGNORED, DocumentModel, OCROutput
from lightseek.page.views import Page
from lightseek.tools.padding import pad_batch


class Seq2SeqCache(Cache):
    """Holds the encoded prompt, and transformers' own cache for the tokens that have been written."""

    def __init__(self, model: PreTrainedModel) -> None:
        config = model.config.get_text_config(decoder=True)
        self.layers = EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))
        self.source: Float[Tensor, "b n d"] | None = None
        self.mask: Bool[Tensor, "b n"] | None = None
        self.length = 0

    def select(self, rows: Int[Tensor, " b2"]) -> None:
        self.layers.batch_select_indices(rows)
        self.source, self.mask = self.source[rows], self.mask[rows]


class Seq2SeqDecoder(HFDecoder):
    """The model as a decoder, for generation. The first call takes the prompt, and later calls take new tokens."""

    def __init__(self, config: HFDecoderConfig, model: PreTrainedModel) -> None:
        super().__init__(config, model)
        start = model.config.decoder_start_token_id
        if start is None:
            raise ValueError(f"{config.name}: its config has no decoder_start_token_id, which begins every text")
        self.start = start

    def forward(
        self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b m"] | None = None, cache: Seq2SeqCache | None = None
    ) -> DecoderOutput:
        """Return the scores of the vocabulary as `hidden`.

        Models differ too much between the last hidden states and the scores, so `logits` has nothing left to compute.
        """
        cache = cache or Seq2SeqCache(self.model)
        cache.length += x.shape[1]
        if cache.source is None:
            cache.mask = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
            # The model counts positions from the left and includes masked ones, so the padding moves to the right.
            order = cache.mask.long().argsort(dim=1, descending=True, stable=True)
            cache.mask = cache.mask.gather(1, order)
            x = x.gather(1, order[..., None].expand_as(x))
            found = self.model.get_encoder()(inputs_embeds=x, attention_mask=cache.mask.long())
            cache.source = found.last_hidden_state
            x = self.embed(torch.full((len(x), 1), self.start, device=x.device))
        found = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=cache.source),
            attention_mask=cache.mask.long(),
            decoder_inputs_embeds=x,
            past_key_values=cache.layers,
            use_cache=True,
        )
        return DecoderOutput(found.logits, [])

    def logits(self, hidden: Float[Tensor, "*n v"]) -> Float[Tensor, "*n v"]:
        return hidden.float()

    def new_cache(self, batch: int, capacity: int, dtype: torch.dtype, device: torch.device | str) -> Seq2SeqCache:
        return Seq2SeqCache(self.model)


class Seq2Seq(DocumentModel):
    """A text-to-text model with the signature of `DeepSeekOCR`. All of it is the decoder, and it takes no pages."""

    def __init__(self, config: OCRConfig, model: PreTrainedModel, tokenizer: Any) -> None:
        """`config` describes the decoder and the special tokens. The sizes of the encoder in it are not used."""
        super().__init__(config)
        self.tokenizer = tokenizer
        self.decoder = Seq2SeqDecoder(config.decoder, model)

    @torch.no_grad()
    def check_decoder(self) -> None:
        """Raise ValueError if decoding step by step does not give the same scores as the model alone."""
        decoder, ids = self.decoder, torch.arange(2, device=self.device)[None]
        start = torch.full((1, 1), decoder.start, device=self.device)
        agree(decoder.config, decoder(decoder.embed(ids)).hidden, decoder.model(ids, decoder_input_ids=start).logits)

    def forward(
        self,
        input_ids: Int[Tensor, "b n"],
        pages: Sequence[Sequence[Page]] | None = None,
        labels: Int[Tensor, "b n"] | None = None,
        mask: Bool[Tensor, "b n"] | Int[Tensor, "b n"] | None = None,
        cache: Cache | None = None,
        logits: Literal["all", "labelled"] = "all",
    ) -> OCROutput:
        """Return the loss of the labelled tokens. The tokens of a row without a label are its prompt.

        There are logits for the labelled tokens only. They are padded on the right (b m v). If `logits` is
        `"labelled"`, they are flat: one row of v for each label.
        Raises ValueError for pages, and if there are no labels, because only labels say where the prompt ends.
        """
        self.embed(input_ids[:, :0], pages)
        if labels is None:
            raise ValueError("a sequence-to-sequence model needs labels to tell the prompt from the text after it")
        real = torch.ones_like(labels, dtype=torch.bool) if mask is None else mask.bool()
        written = labels != IGNORED
        pad = self.config.pad_token_id
        prompts, prompt_mask = (part.to(self.device) for part in chosen(input_ids, real & ~written, pad))
        targets, counted = (part.to(self.device) for part in chosen(labels, written, pad))
        shifted = torch.cat([torch.full_like(targets[:, :1], self.decoder.start), targets[:, :-1]], dim=1)
        scores = self.decoder.model(
            input_ids=prompts, attention_mask=prompt_mask.long(), decoder_input_ids=shifted, use_cache=False
        ).logits.float()
        cross_entropy = F.cross_entropy(scores[counted], targets[counted])
        return OCROutput(scores[counted] if logits == "labelled" else scores, cross_entropy, cross_entropy)

    def embed(
        self, input_ids: Int[Tensor, "b n"], pages: Sequence[Sequence[Page]] | None = None
    ) -> Float[Tensor, "b n d"]:
        if pages is not None and any(pages):
            raise ValueError(f"{self.config.decoder.name} reads text, not pages: use context=text")
        return self.decoder.embed(input_ids)

    @property
    def device(self) -> torch.device:
        return self.decoder.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.decoder.model.dtype

    def set_gradient_checkpointing(self, on: bool = True) -> None:
        self.decoder.recompute = on


def chosen(
    ids: Int[Tensor, "b n"], keep: Bool[Tensor, "b n"], pad: int
) -> tuple[Int[Tensor, "b m"], Bool[Tensor, "b m"]]:
    """Return the ids to keep, moved to the start of their row, and the mask, which is false at padding."""
    return pad_batch([row[kept].tolist() for row, kept in zip(ids, keep, strict=True)], pad, side="right")
