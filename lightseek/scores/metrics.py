"""How good is a text? Reading: CER, WER, OCR precision. Summarizing: ROUGE, facts, novelty. Both: repetition, length.

Everything but lengths is in percent. Texts are compared after each run of white space has become one space and the
ends are stripped: where a page breaks its lines is layout, not text. Case, accents and punctuation count, except in
ROUGE, which by its definition lower-cases, stems, and sees only a-z and 0-9 (so it says little about non-Latin
scripts).

A metric of many texts is either *pooled* (all errors over all reference characters, so long pages weigh more: CER,
WER) or the *mean* over texts (the rest). Either way it is a sum over a sum, so every metric is kept as what each text
adds to both: a `Tally`, from which the figure of any selection of pages, and its interval, follow without the texts.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import Float

from lightseek.data.document import Document, sentences
from lightseek.data.sources.synthetic import facts_stated
from lightseek.scores.rouge import Rouge

Texts = str | Sequence[str]
NOVEL = (1, 2, 3, 4)  # n of the n-grams whose novelty is reported


@dataclass(frozen=True)
class Tally:
    """One metric, text by text: `value` is the sum of `amounts` over the sum of `sizes`."""

    amounts: Float[np.ndarray, " texts"]
    sizes: Float[np.ndarray, " texts"]

    @classmethod
    def mean(cls, values: Sequence[float | None]) -> "Tally":
        """Of a metric that is averaged over the texts for which it is defined."""
        known = np.array([value is not None for value in values], dtype=float)
        return cls(np.array([value or 0.0 for value in values], dtype=float), known)

    @property
    def value(self) -> float:
        return float(self.amounts.sum() / self.sizes.sum())

    def of(self, texts: np.ndarray) -> "Tally":
        """Of some of the texts: their places, or true where they are."""
        return Tally(self.amounts[texts], self.sizes[texts])


def normalise(text: str) -> str:
    """`text` with single spaces for all its white space."""
    return " ".join(text.split())


def cer(prediction: Texts, reference: Texts) -> float:
    """Character error rate, pooled: edits (substitutions, deletions, insertions) per reference character.

    Not capped: a model that rambles can exceed 100. An empty reference counts as one character, so an empty
    prediction of it scores 0 and each character too many 100. Raises ValueError if the texts don't pair up.
    """
    return reading(prediction, reference)["cer"].value


def wer(prediction: Texts, reference: Texts) -> float:
    """Word error rate, pooled; a word is what white space separates. Otherwise as `cer`."""
    return reading(prediction, reference)["wer"].value


def ocr_precision(prediction: Texts, reference: Texts) -> float:
    """How much of the page was read correctly: 1 - edits / length of the longer text, mean over pages, 0 to 100.

    The paper's figure 1a and table 2 give "precision" on the Fox benchmark without a formula; Fox scores pages by
    this normalised edit distance. Both texts empty is 100.
    """
    return reading(prediction, reference)["ocr_precision"].value


def reading(predictions: Texts, references: Texts) -> dict[str, Tally]:
    """`cer`, `wer`, `ocr_precision`: how far each prediction is from being its reference."""
    import jiwer

    pairs = _pairs(predictions, references)
    characters = [_edits(jiwer.process_characters(r, p)) for p, r in pairs]
    words = [_edits(jiwer.process_words(r, p)) for p, r in pairs]
    longer = [max(1, len(p), len(r)) for p, r in pairs]
    return {
        "cer": _rate(characters, [len(r) for _, r in pairs]),
        "wer": _rate(words, [len(r.split()) for _, r in pairs]),
        "ocr_precision": Tally.mean([100 * (1 - e / n) for e, n in zip(characters, longer, strict=True)]),
    }


def rouge(predictions: Texts, references: Texts) -> dict[str, float]:
    """`rouge1`, `rouge2`, `rougeL`, `rougeLsum`: F1 with Porter stemming, mean over texts.

    Lsum compares sentence by sentence, L the text as one (`lightseek.scores.rouge`). A line's end ends a sentence too.
    An empty prediction, or an empty reference, scores 0. Raises ValueError if the texts don't pair up.
    """
    return {name: tally.value for name, tally in overlap(predictions, references).items()}


def overlap(predictions: Texts, references: Texts, tick: Callable[[int, int], None] | None = None) -> dict[str, Tally]:
    """ROUGE of each text. `tick(done, of)` is called after each."""
    score, rows = Rouge(), []
    pairs = _pairs(predictions, references, str)
    for prediction, reference in pairs:
        scores = score(_sentences(prediction), _sentences(reference))
        rows.append([100 * scores[name] for name in score.names])
        if tick:
            tick(len(rows), len(pairs))
    return {name: Tally.mean(column) for name, column in zip(Rouge.names, zip(*rows, strict=True), strict=True)}


def repetition_rate(text: str, n: int = 4) -> float:
    """Share of the n-grams of words that occurred before in the text: 0 when none does, near 100 for a loop."""
    words = text.split()
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 100 * (1 - len(set(grams)) / len(grams)) if grams else 0.0


def novel_ngrams(text: str, source: str, n: int) -> float | None:
    """Share of the n-grams of words in `text` that `source` does not have; None for a text of fewer than n words.

    0 is copied from end to end. Words are letters and digits, in any case, so punctuation makes nothing novel.
    """
    words, known = _spelled(text).split(), _spelled(source)
    grams = [f" {' '.join(words[i : i + n])} " for i in range(len(words) - n + 1)]
    return 100 * sum(gram not in known for gram in grams) / len(grams) if grams else None


def lead(text: str, count: int = 3) -> str:
    """The first `count` sentences on one line: the baseline that a summarizer must beat. A heading counts as one."""
    return normalise(" ".join(islice(sentences(text), count)))


def evaluate(
    predictions: Sequence[str],
    references: Sequence[str],
    documents: Sequence[Document] | None = None,
    task: str = "summarize",
) -> dict[str, float]:
    """Every metric of `tallies` by its column's name, as one figure for all texts.

    The lead-3 row of a table is `evaluate([lead(d.text) for d in documents], references, documents)`.
    Raises ValueError if the sequences are empty or of unlike lengths.
    """
    return {name: tally.value for name, tally in tallies(predictions, references, documents, task).items()}


def tallies(
    predictions: Sequence[str],
    references: Sequence[str],
    documents: Sequence[Document] | None = None,
    task: str = "summarize",
    tick: Callable[[int, int], None] | None = None,
) -> dict[str, Tally]:
    """Every metric by its column's name: cer, wer, ocr_precision, repetition, words, and unless the task is ocr ROUGE.

    With `documents`, a summary also has `facts`, the mean share of the document's facts that it states, and `novel1` to
    `novel4`, the share of its n-grams that the document does not have; each only if some document allows it.
    Raises ValueError if the sequences are empty or of unlike lengths.
    """
    results = reading(predictions, references)
    results["repetition"] = Tally.mean([repetition_rate(prediction) for prediction in predictions])
    results["words"] = Tally.mean([float(len(prediction.split())) for prediction in predictions])
    if documents is not None and len(documents) != len(predictions):
        raise ValueError(f"{len(predictions)} predictions can't be of {len(documents)} documents")
    if task == "ocr":  # a page read right states all its facts and has nothing novel
        return results
    results |= overlap(predictions, references, tick)
    documents = documents or [Document("", "", "")] * len(predictions)
    pairs = list(zip(documents, predictions, strict=True))
    results["facts"] = Tally.mean([100 * facts_stated(d, p) if d.facts else None for d, p in pairs])
    novel = [[novel_ngrams(p, d.text, n) if d.text else None for n in NOVEL] for d, p in pairs]
    results |= {f"novel{n}": Tally.mean(column) for n, column in zip(NOVEL, zip(*novel, strict=True), strict=True)}
    return {name: tally for name, tally in results.items() if tally.sizes.any()}


def _pairs(predictions: Texts, references: Texts, prepare: Callable[[str], str] = normalise) -> list[tuple[str, str]]:
    """(prediction, reference), normalised."""
    predictions = [predictions] if isinstance(predictions, str) else predictions
    references = [references] if isinstance(references, str) else references
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions can't be compared with {len(references)} references")
    if not predictions:
        raise ValueError("there is nothing to evaluate: no predictions")
    return [(prepare(p), prepare(r)) for p, r in zip(predictions, references, strict=True)]


def _sentences(text: str) -> list[str]:
    """A line's end also ends a sentence, as in rouge-score."""
    return [sentence for line in text.splitlines() for sentence in sentences(line)]


@lru_cache(maxsize=4)  # asked for once for each n
def _spelled(text: str) -> str:
    """Its words in small letters, one space before, between and after them."""
    words = re.findall(r"\w+", text.casefold())
    return f" {' '.join(words)} "


def _edits(counts: Any) -> int:
    return counts.substitutions + counts.deletions + counts.insertions


def _rate(edits: list[int], lengths: list[int]) -> Tally:
    return Tally(100 * np.array(edits, dtype=float), np.maximum(1.0, np.array(lengths, dtype=float)))
