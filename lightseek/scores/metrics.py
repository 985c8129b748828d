"""Computes the metrics of texts: CER, WER and precision for reading; ROUGE, facts and novelty for summaries.

Repetition and length are computed for both. All metrics but lengths are in percent. Before texts are compared, each run
of white space becomes one space and the ends are stripped, because line breaks are layout and not text. Texts that
differ only in how Unicode composes their characters (NFC, NFD) are equal, because they look the same on a page. Case,
accents and punctuation count, except in ROUGE: by its definition it lower-cases, stems, and sees only a-z and 0-9. So
ROUGE is not defined for a reference in another script (`rouge.sees`). The metrics of words (WER, word precision, novel
n-grams) are not defined where no spaces separate the words (`has_words`).

A metric of many texts is either *pooled* (all errors divided by all reference characters, so long pages weigh more:
CER, WER) or the *mean* over texts (the other metrics). In both cases it is one sum divided by another. A `Tally` keeps
what each text adds to the two sums, so the figure and the interval of any selection of pages need no texts.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import Float

from lightseek.data.document import Document, sentences
from lightseek.data.sources.synthetic import facts_stated
from lightseek.scores.rouge import Rouge, sees

Texts = str | Sequence[str]
EXACT = ("answer", "recall")  # the tasks whose outputs are right or wrong
LETTERS = 5  # of a word, on average
LONGEST_WORD, LONGEST_ROW = 40, 100  # of letters, and of signs such as the dots of a table of contents
# Letters of Thai, Lao, Burmese, Khmer, Japanese and Chinese, which put no spaces between words.
UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]")
NOVEL = (1, 2, 3, 4)  # n of the n-grams whose novelty is reported


@dataclass(frozen=True)
class Tally:
    """One metric of many texts: `value` is the sum of `amounts` divided by the sum of `sizes`."""

    amounts: Float[np.ndarray, " texts"]
    sizes: Float[np.ndarray, " texts"]

    @classmethod
    def mean(cls, values: Sequence[float | None]) -> "Tally":
        """Make the tally of a metric that is a mean over texts. A text for which the metric is not defined has None."""
        known = np.array([value is not None for value in values], dtype=float)
        return cls(np.array([value or 0.0 for value in values], dtype=float), known)

    @property
    def value(self) -> float:
        """The figure, or NaN if the metric is not defined for any of the texts."""
        return float(self.amounts.sum() / self.sizes.sum()) if self.sizes.any() else math.nan

    def of(self, texts: np.ndarray) -> "Tally":
        """Return the tally of the selected texts. `texts` is an array of indices or a boolean mask."""
        return Tally(self.amounts[texts], self.sizes[texts])


def composed(text: str) -> str:
    """Return the text with composed characters (NFC): é is one character, and not e with an accent behind it."""
    return unicodedata.normalize("NFC", text)


def normalise(text: str) -> str:
    """Compose the characters of `text` (NFC), replace each run of white space by one space, and strip its ends."""
    return " ".join(composed(text).split())


def has_words(text: str) -> bool:
    """Return whether spaces separate the words of a text: at most half of its letters are of scripts without them."""
    return 2 * len(UNSPACED.findall(text)) <= sum(map(str.isalpha, text))


def cer(prediction: Texts, reference: Texts) -> float:
    """Return the pooled character error rate: edits (substitutions, deletions, insertions) per reference character.

    It is not capped: a model that writes too much can exceed 100. An empty reference counts as one character, so an
    empty prediction scores 0 and each extra character adds 100. Raises ValueError if the texts don't pair up.
    """
    return reading(prediction, reference)["cer"].value


def wer(prediction: Texts, reference: Texts) -> float:
    """Return the pooled word error rate. White space separates words; everything else is as in `cer`.

    References without spaces between words are left out; if there are no others, it is NaN.
    """
    return reading(prediction, reference)["wer"].value


def ocr_precision(prediction: Texts, reference: Texts) -> float:
    """Return how much of the pages was read correctly: 1 - edits / length of the longer text; a mean in percent.

    The paper's figure 1a and table 2 give "precision" on the Fox benchmark without a formula; Fox scores pages by
    this normalised edit distance. Two empty texts score 100.
    """
    return reading(prediction, reference)["ocr_precision"].value


def reading(predictions: Texts, references: Texts) -> dict[str, Tally]:
    """Return the tallies of the metrics of reading, which compare each prediction with its reference."""
    import jiwer

    pairs = _pairs(predictions, references)
    spaced = np.array([has_words(r) for _, r in pairs])
    characters = [_edits(jiwer.process_characters(r, p)) for p, r in pairs]
    words = [_edits(jiwer.process_words(r, p)) for p, r in pairs]
    longer = [max(1, len(p), len(r)) for p, r in pairs]
    return {
        "cer": _rate(characters, [len(r) for _, r in pairs]),
        "wer": _rate(words, [len(r.split()) for _, r in pairs], spaced),
        "ocr_precision": Tally.mean([100 * (1 - e / n) for e, n in zip(characters, longer, strict=True)]),
        "word_precision": Tally.mean([_word_precision(p, r) if has_words(r) else None for p, r in pairs]),
    }


def word_precision(prediction: Texts, reference: Texts) -> float:
    """Return the share (%) of the different words of a prediction that are also in its reference; a mean over texts.

    White space separates words. Order and repetition do not count, and a word with one wrong letter is wrong. So it
    falls faster than `ocr_precision`: on pages of random letters, the outputs of arXiv 2601.03714 have a word precision
    of 20 % and an OCR precision of 60 % at 64 tokens. It is `nltk.metrics.precision` of the two sets of words. A text
    without words scores 100 if its reference has none either, else 0.
    """
    return reading(prediction, reference)["word_precision"].value


def rouge(predictions: Texts, references: Texts) -> dict[str, float]:
    """Return `rouge1`, `rouge2`, `rougeL` and `rougeLsum`: F1 in percent with Porter stemming, mean over texts.

    Lsum compares sentence by sentence, L compares whole texts (`lightseek.scores.rouge`). A sentence also ends at the
    end of a line. An empty prediction or reference scores 0. Texts whose reference is in a script that ROUGE does not
    see are left out; if there are no others, each value is NaN. Raises ValueError if the texts don't pair up.
    """
    return {name: tally.value for name, tally in overlap(predictions, references).items()}


def overlap(predictions: Texts, references: Texts, tick: Callable[[int, int], None] | None = None) -> dict[str, Tally]:
    """Return the tallies of the ROUGE metrics. `tick(done, of)` is called after each text."""
    score, rows = Rouge(), []
    pairs = _pairs(predictions, references, composed)
    for prediction, reference in pairs:
        scores = score(_sentences(prediction), _sentences(reference)) if sees(reference) else {}
        rows.append([100 * scores[name] if scores else None for name in score.names])
        if tick:
            tick(len(rows), len(pairs))
    return {name: Tally.mean(column) for name, column in zip(Rouge.names, zip(*rows, strict=True), strict=True)}


def repetition_rate(text: str, n: int = 4) -> float:
    """Return the share (%) of n-grams of words that occurred before in the text. A text in a loop has nearly 100.

    White space separates words, but a loop may have none ("OCROCROCR", a Chinese phrase, a row of dots), or may be one
    long word among others. So a run without white space of more than 40 letters, or of more than 100 signs such as the
    dots of a table of contents, is split into its characters. There an n-gram has 5 n characters, about as many as n
    words have; real words, addresses and text in scripts without spaces repeat no 20 characters by chance.
    """
    words = text.split()
    grams: list[Any] = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    size = LETTERS * n
    for run in words:
        if len(run) > (LONGEST_WORD if 2 * sum(map(str.isalnum, run)) > len(run) else LONGEST_ROW):
            grams += [run[i : i + size] for i in range(len(run) - size + 1)]
    return 100 * (1 - len(set(grams)) / len(grams)) if grams else 0.0


def novel_ngrams(text: str, source: str, n: int) -> float | None:
    """Return the share (%) of the n-grams of words in `text` that are not in `source`; None for fewer than n words.

    It is None, too, if no spaces separate the words. A copy of the source has 0. Words are letters and digits without
    case, so punctuation makes nothing novel.
    """
    if not has_words(source):
        return None
    words, known = _spelled(text).split(), _spelled(source)
    grams = [f" {' '.join(words[i : i + n])} " for i in range(len(words) - n + 1)]
    return 100 * sum(gram not in known for gram in grams) / len(grams) if grams else None


def lead(text: str, count: int = 3) -> str:
    """Return the first `count` sentences on one line, a baseline that summaries must beat. A heading is a sentence."""
    return normalise(" ".join(islice(sentences(text), count)))


def evaluate(
    predictions: Sequence[str],
    references: Sequence[str],
    documents: Sequence[Document] | None = None,
    task: str = "summarize",
) -> dict[str, float]:
    """Return the metrics of `tallies` by name, each as one figure for all texts.

    The lead-3 row of a table is `evaluate([lead(d.text) for d in documents], references, documents)`.
    Raises ValueError if the sequences are empty or their lengths differ.
    """
    return {name: tally.value for name, tally in tallies(predictions, references, documents, task).items()}


def tallies(
    predictions: Sequence[str],
    references: Sequence[str],
    documents: Sequence[Document] | None = None,
    task: str = "summarize",
    tick: Callable[[int, int], None] | None = None,
) -> dict[str, Tally]:
    """Return the metrics by name: those of `reading`, repetition and words. If the task is not ocr, also ROUGE.

    With `documents`, there are two more kinds of metrics for other tasks than ocr: `facts` is the mean share of the
    document's facts that a text states, and `novel1` to `novel4` are the shares of its n-grams that the document does
    not have. Each is only there if it is defined for at least one document.
    Raises ValueError if the sequences are empty or their lengths differ.
    """
    results = reading(predictions, references)
    results["repetition"] = Tally.mean([repetition_rate(prediction) for prediction in predictions])
    results["words"] = Tally.mean([float(len(prediction.split())) for prediction in predictions])
    if documents is not None and len(documents) != len(predictions):
        raise ValueError(f"{len(predictions)} predictions can't belong to {len(documents)} documents")
    if task == "ocr":  # the other metrics say nothing about reading
        return {name: tally for name, tally in results.items() if tally.sizes.any()}
    if task in EXACT:
        results["exact"] = Tally.mean([100.0 * (p == r) for p, r in _pairs(predictions, references)])
    results |= overlap(predictions, references, tick)
    documents = documents or [Document("", "", "")] * len(predictions)
    pairs = list(zip(documents, predictions, strict=True))
    results["facts"] = Tally.mean([100 * facts_stated(d, p) if d.facts else None for d, p in pairs])
    novel = [[novel_ngrams(p, d.text, n) if d.text else None for n in NOVEL] for d, p in pairs]
    results |= {f"novel{n}": Tally.mean(column) for n, column in zip(NOVEL, zip(*novel, strict=True), strict=True)}
    return {name: tally for name, tally in results.items() if tally.sizes.any()}


def _pairs(predictions: Texts, references: Texts, prepare: Callable[[str], str] = normalise) -> list[tuple[str, str]]:
    """Return normalised pairs (prediction, reference). Raises ValueError if they don't pair up or there are none."""
    predictions = [predictions] if isinstance(predictions, str) else predictions
    references = [references] if isinstance(references, str) else references
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions can't be compared with {len(references)} references")
    if not predictions:
        raise ValueError("there is nothing to evaluate: no predictions")
    return [(prepare(p), prepare(r)) for p, r in zip(predictions, references, strict=True)]


def _word_precision(prediction: str, reference: str) -> float:
    written, wanted = set(prediction.split()), set(reference.split())
    return 100 * len(written & wanted) / len(written) if written else 100.0 * (not wanted)


def _sentences(text: str) -> list[str]:
    """Split a text into sentences. The end of a line also ends a sentence, as in rouge-score."""
    return [sentence for line in text.splitlines() for sentence in sentences(line)]


@lru_cache(maxsize=4)  # called with the same text for each n
def _spelled(text: str) -> str:
    """Return the words of a text in small letters, with one space before, between and after them."""
    words = re.findall(r"\w+", composed(text).casefold())
    return f" {' '.join(words)} "


def _edits(counts: Any) -> int:
    return counts.substitutions + counts.deletions + counts.insertions


def _rate(edits: list[int], lengths: list[int], defined: np.ndarray | float = 1.0) -> Tally:
    return Tally(
        100 * np.array(edits, dtype=float) * defined, np.maximum(1.0, np.array(lengths, dtype=float)) * defined
    )
