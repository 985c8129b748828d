"""Measures how probable the true text is to a model: the bits of a target, given the document and the target so far.

Bits per character compare models with different tokenizers. The perplexity per token of a target is 2 ** (bits /
tokens).
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from lightseek.data.examples import Example, collate
from lightseek.scores.metrics import Tally

if TYPE_CHECKING:
    from lightseek.model.ocr import DocumentModel
    from lightseek.scores.predictions import Prediction

MEASURED = ("continue",)  # the tasks whose targets are measured


@torch.no_grad()
def target_bits(model: "DocumentModel", examples: Sequence[Example]) -> list[float]:
    """Return the bits of each example's target without EOS: minus log2 of its probability."""
    from lightseek.text.generate import evaluating

    batch = collate(examples, model.config.pad_token_id)
    with evaluating(model):
        output = model(
            batch.input_ids.to(model.device),
            pages=batch.pages,
            labels=batch.labels.to(model.device),
            mask=None if batch.mask is None else batch.mask.to(model.device),
            logits="labelled",  # one row for each token of the targets, in order
        )
    targets = [torch.tensor(example.target, device=output.logits.device) for example in examples]
    nats = F.cross_entropy(output.logits.float(), torch.cat(targets), reduction="none")
    parts = nats.split([len(target) for target in targets])
    return [part[:-1].double().sum().item() / math.log(2) for part in parts]


def likelihood(predictions: Sequence["Prediction"]) -> dict[str, Tally]:
    """Return the tally of `bits`, in bits per character of the references, or {} if they were not measured."""
    if any(prediction.bits is None for prediction in predictions):
        return {}
    bits = np.array([prediction.bits for prediction in predictions], dtype=float)
    return {"bits": Tally(bits, np.array([max(1, len(p.reference)) for p in predictions], dtype=float))}
