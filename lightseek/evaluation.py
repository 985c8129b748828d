"""How good is a text? Reading: CER, WER, OCR precision. Summarizing: ROUGE, facts. Both: repetition.

Everything is in percent. Texts are compared after each run of white space has become one space and the ends are
stripped: where a page breaks its lines is layout, not text. Case, accents and punctuation count, except in ROUGE, which
by its definition lower-cases, stems, and sees only a-z and 0-9 (so it says little about non-Latin scripts).

A metric of many texts is either *pooled* (all errors over all reference characters, so long pages weigh more: CER,
WER) or the *mean* over texts (the rest).
"""

from collections.abc import Sequence
from itertools import islice

from lightseek.data.documents import Document, sentences
from lightseek.data.synthetic import facts_stated

Texts = str | Sequence[str]


def normalise(text: str) -> str:
    """`text` with single spaces for all its white space."""
    return " ".join(text.split())


def cer(prediction: Texts, reference: Texts) -> float:
    """Character error rate, pooled: edits (substitutions, deletions, insertions) per reference character.

    Not capped: a model that rambles can exceed 100. An empty reference counts as one character, so an empty
    prediction of it scores 0 and each character too many 100. Raises ValueError if the texts don't pair up.
    """
    pairs = _pairs(prediction, reference)
    edits = sum(_character_edits(p, r) for p, r in pairs)
    return 100 * edits / max(1, sum(len(r) for _, r in pairs))


def wer(prediction: Texts, reference: Texts) -> float:
    """Word error rate, pooled; a word is what white space separates. Otherwise as `cer`."""
    import jiwer

    pairs = _pairs(prediction, reference)
    counts = jiwer.process_words([r for _, r in pairs], [p for p, _ in pairs])
    edits = counts.substitutions + counts.deletions + counts.insertions
    return 100 * edits / max(1, sum(len(r.split()) for _, r in pairs))


def ocr_precision(prediction: Texts, reference: Texts) -> float:
    """How much of the page was read correctly: 1 - edits / length of the longer text, mean over pages, 0 to 100.

    The paper's figure 1a and table 2 give "precision" on the Fox benchmark without a formula; Fox scores pages by
    this normalised edit distance. Both texts empty is 100.
    """
    pairs = _pairs(prediction, reference)
    return _mean([100.0 * (1 - _character_edits(p, r) / max(1, len(p), len(r))) for p, r in pairs])


def rouge(predictions: Texts, references: Texts) -> dict[str, float]:
    """`rouge1`, `rouge2`, `rougeL`: F1 with Porter stemming (package rouge-score), mean over texts.

    An empty prediction, or an empty reference, scores 0. Raises ValueError if the texts don't pair up.
    """
    from rouge_score.rouge_scorer import RougeScorer

    names = ["rouge1", "rouge2", "rougeL"]
    scorer = RougeScorer(names, use_stemmer=True)
    scores = [scorer.score(reference, prediction) for prediction, reference in _pairs(predictions, references)]
    return {name: _mean([100.0 * score[name].fmeasure for score in scores]) for name in names}


def repetition_rate(text: str, n: int = 4) -> float:
    """Share of the n-grams of words that occurred before in the text: 0 when none does, near 100 for a loop."""
    words = text.split()
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 100 * (1 - len(set(grams)) / len(grams)) if grams else 0.0


def lead(text: str, count: int = 3) -> str:
    """The first `count` sentences on one line: the baseline that a summarizer must beat. A heading counts as one."""
    return normalise(" ".join(islice(sentences(text), count)))


def evaluate(
    predictions: Sequence[str], references: Sequence[str], documents: Sequence[Document] | None = None
) -> dict[str, float]:
    """Every metric, by its column's name: cer, wer, ocr_precision, rouge1, rouge2, rougeL, repetition.

    With `documents` also `facts`, the mean share of their facts that the prediction states, unless none has any.
    The lead-3 row of a table is `evaluate([lead(d.text) for d in documents], references, documents)`.
    Raises ValueError if the sequences are empty or of unlike lengths.
    """
    results = {
        "cer": cer(predictions, references),
        "wer": wer(predictions, references),
        "ocr_precision": ocr_precision(predictions, references),
        **rouge(predictions, references),
        "repetition": _mean([repetition_rate(prediction) for prediction in predictions]),
    }
    if documents is not None:
        if len(documents) != len(predictions):
            raise ValueError(f"{len(predictions)} predictions can't be of {len(documents)} documents")
        stated = [facts_stated(d, p) for d, p in zip(documents, predictions, strict=True) if d.facts]
        if stated:
            results["facts"] = 100 * _mean(stated)
    return results


def _pairs(predictions: Texts, references: Texts) -> list[tuple[str, str]]:
    """(prediction, reference), normalised."""
    predictions = [predictions] if isinstance(predictions, str) else predictions
    references = [references] if isinstance(references, str) else references
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions can't be compared with {len(references)} references")
    if not predictions:
        raise ValueError("there is nothing to evaluate: no predictions")
    return [(normalise(p), normalise(r)) for p, r in zip(predictions, references, strict=True)]


def _character_edits(prediction: str, reference: str) -> int:
    import jiwer

    counts = jiwer.process_characters(reference, prediction)
    return counts.substitutions + counts.deletions + counts.insertions


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
