"""Puts documents of similar length into one batch, so that little of a right-padded batch is padding.

    permutation of the epoch -> windows of `bucket` batches, each sorted by length -> batches, in random order

The order depends on the seed, the step and the lengths only, so a resumed run continues in the same order. If the whole
epoch were sorted, the same documents would meet in a batch every time; with windows, chance decides. Lengths are
estimates: no page is drawn for them, and only a small data set is tokenized.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from lightseek.data.document import Document
from lightseek.data.examples import ExampleMaker

TOKENIZED = 5_000_000  # characters, which take some seconds; in a larger data set only characters are counted
SAMPLE = 20_000  # characters, to measure characters per token: 1 for nano's tokenizer, about 4 for the official one


class BatchOrder:
    """Says which documents each step trains on: `order(step)` returns their indices. Steps count from 0.

    Every epoch has every document once. A batch that begins in one epoch and ends in the next is not sorted.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int, bucket: int = 1) -> None:
        """`bucket` batches are sorted by length together; with 1 the order is random."""
        self.lengths, self.batch, self.seed, self.bucket = np.asarray(lengths), batch, seed, bucket
        self.epoch = lru_cache(maxsize=4)(self._epoch)  # a batch can span two epochs, or more if epochs are short

    def __call__(self, step: int) -> list[int]:
        count = len(self.lengths)
        places = range(step * self.batch, (step + 1) * self.batch)
        return [int(self.epoch(place // count)[place % count]) for place in places]

    def _epoch(self, epoch: int) -> np.ndarray:
        count, batch = len(self.lengths), self.batch
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(count)
        if self.bucket == 1:
            return order
        start = min(count, -epoch * count % batch)  # what is before it ends the previous epoch's last batch
        end = start + (count - start) // batch * batch
        windows = [
            order[first : min(first + batch * self.bucket, end)] for first in range(start, end, batch * self.bucket)
        ]
        batches = [by_length.reshape(-1, batch) for by_length in map(self.sort, windows)]
        order[start:end] = random.permutation(np.concatenate(batches)).ravel() if batches else []
        return order

    def sort(self, places: np.ndarray) -> np.ndarray:
        return places[np.argsort(self.lengths[places], kind="stable")]


def estimated_lengths(make: ExampleMaker, documents: Sequence[Document]) -> list[int]:
    """Estimate how many positions in the decoder each document's context and texts fill."""
    texts = [(document.text if make.task == "ocr" else document.summary) + document.question for document in documents]
    sample = "".join(document.text[:SAMPLE] for document in documents[:20])[:SAMPLE] or " "
    per_character = len(make.tokenizer.encode(sample)) / len(sample)
    if sum(map(len, texts)) <= TOKENIZED:
        tokens = [len(make.tokenizer.encode(text)) for text in texts]
    else:
        tokens = [round(per_character * len(text)) for text in texts]
    shown = [make.context.positions(document, per_character) for document in documents]
    return [written + read for written, read in zip(tokens, shown, strict=True)]


def padding_share(lengths: Sequence[int], batches: Iterable[Sequence[int]]) -> float:
    """Return the share (0 to 1) of all positions that are padding when each batch is padded to its longest document."""
    filled = padded = 0
    for batch in batches:
        filled += sum(lengths[i] for i in batch)
        padded += max(lengths[i] for i in batch) * len(batch)
    return 1 - filled / padded
