"""Tests the metrics against values computed by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from lightseek.data.document import Document
from lightseek.data.sources.load import load_documents
from lightseek.data.sources.synthetic import facts_stated
from lightseek.scores.metrics import (
    cer,
    evaluate,
    has_words,
    lead,
    novel_ngrams,
    ocr_precision,
    overlap,
    repetition_rate,
    rouge,
    tallies,
    wer,
    word_precision,
)


def test_cer_counts_edits_per_reference_character():
    assert cer("kitten", "sitting") == pytest.approx(100 * 3 / 7)
    assert cer("abcd", "abcd") == 0
    assert cer("", "abcd") == 100


def test_wer_counts_edits_per_reference_word():
    assert wer("the cat sat", "the black cat sat down") == pytest.approx(100 * 2 / 5)


def test_error_rates_are_not_capped():
    assert cer("aaaaaaaaaa", "a") == 900
    assert wer("a b c d", "a") == 300


def test_an_empty_reference_counts_as_one():
    assert cer("", "") == wer("", "") == 0
    assert cer("abc", " \n") == 300
    assert wer("two words", "") == 200


def test_error_rates_of_many_texts_are_pooled():
    predictions, references = ["ab", "x" * 10], ["aa", "x" * 8]
    assert cer(predictions, references) == 100 * (1 + 2) / 10
    assert wer(["a b", "c"], ["a x", "c"]) == pytest.approx(100 / 3)


def test_line_breaks_are_layout():
    page, text = "One line,\nand\tanother.\n\n", "One line, and another."
    assert cer(page, text) == wer(page, text) == 0
    assert ocr_precision(page, text) == 100
    assert cer("Oneline", "One line") == 12.5  # but a lost space is an error
    assert cer("Zoe", "zoë") == pytest.approx(200 / 3)  # and so are case and accents


def test_ocr_precision_is_one_minus_the_normalised_edit_distance():
    assert ocr_precision("kitten", "sitting") == pytest.approx(100 * (1 - 3 / 7))
    assert ocr_precision("aaaaaaaaaa", "a") == pytest.approx(10)
    assert ocr_precision("", "abc") == 0
    assert ocr_precision("", "") == 100
    assert ocr_precision(["ab", "x"], ["ab", "y"]) == 50


@given(st.text(), st.text())
def test_precision_stays_within_bounds_and_a_text_equals_itself(one, other):
    assert 0 <= ocr_precision(one, other) <= 100
    assert ocr_precision(one, other) == pytest.approx(ocr_precision(other, one))
    assert cer(one, one) == 0
    assert wer(one, one) == 0 if has_words(one) else math.isnan(wer(one, one))  # no spaces between the words


def test_rouge_by_hand():
    scores = rouge(["the cat was on the mat"], ["the cat lay on a mat"])
    assert scores["rouge1"] == pytest.approx(100 * 4 / 6)  # the, cat, on, mat of 6 and 6
    assert scores["rouge2"] == pytest.approx(100 * 1 / 5)  # "the cat" of 5 and 5
    assert scores["rougeL"] == pytest.approx(100 * 4 / 6)
    assert rouge(["meetings granted"], ["meeting grants"])["rouge1"] == 100  # stemmed
    assert rouge(["a b", "x"], ["a b", "y"])["rouge1"] == 50  # mean
    assert rouge(["", "x"], ["x", ""]) == {"rouge1": 0, "rouge2": 0, "rougeL": 0, "rougeLsum": 0}


def test_rouge_l_of_a_summary_compares_its_sentences():
    """The same two sentences in the other order: as one text only half is in order, by sentence everything is."""
    scores = rouge("The bell broke. All went home.", "All went home.\nThe bell broke.")
    assert scores["rougeL"] == 50 and scores["rougeLsum"] == 100


@given(*[st.lists(st.text("ab ", max_size=12), max_size=4)] * 2)
def test_rouge_is_the_packages(prediction, reference):
    """The texts have few different words, so there are ties between longest common subsequences, which change Lsum."""
    prediction, reference = ([" ".join(sentence) for sentence in text] for text in (prediction, reference))
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)
    theirs = scorer.score("\n".join(reference), "\n".join(prediction))
    ours = rouge("\n".join(prediction), "\n".join(reference))
    assert ours == pytest.approx({name: 100 * score.fmeasure for name, score in theirs.items()})


def test_rouge_of_real_sentences_is_the_packages():
    documents = load_documents("synthetic", "test", 20)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    for document in documents:
        theirs = scorer.score(document.summary, document.text)
        ours = rouge(document.text, document.summary)
        assert {name: ours[name] for name in theirs} == pytest.approx({k: 100 * v.fmeasure for k, v in theirs.items()})


def test_scoring_says_how_far_it_is():
    seen = []
    overlap(["a", "b"], ["a", "c"], lambda done, of: seen.append((done, of)))
    assert seen == [(1, 2), (2, 2)]


def test_novelty_is_the_share_of_n_grams_that_the_source_lacks():
    source = "The pump failed at noon, again."
    assert novel_ngrams("the PUMP failed", source, 2) == 0
    assert novel_ngrams("the pump broke at noon", source, 1) == pytest.approx(100 / 5)
    assert novel_ngrams("the pump broke at noon", source, 2) == 50  # "pump broke" and "broke at" of four
    assert novel_ngrams("noon again", source, 2) == 0  # a comma makes nothing new
    assert novel_ngrams("noon", source, 2) is None


def test_repetition_is_the_share_of_n_grams_seen_before():
    assert repetition_rate("a b c d e f") == 0
    assert repetition_rate("a b c") == repetition_rate("") == 0
    assert repetition_rate("a a a a a") == 50  # two 4-grams, one of them new
    assert repetition_rate("go " * 1000) > 99
    assert repetition_rate("a b a b", n=2) == pytest.approx(100 / 3)


@pytest.mark.parametrize(
    "loop",
    [
        "OCR" * 400,
        "上海世博局" * 100,
        "上海世博局。" * 100,
        "Total" + "." * 900,
        "Total " + "." * 900 + " EUR",
        "上海\n" * 200,
    ],
)
def test_a_loop_without_spaces_is_a_loop(loop):
    assert repetition_rate(loop) > 97
    assert repetition_rate("The page begins well, then the model goes on and on: " + loop) > 85


@pytest.mark.parametrize(
    "text",
    [
        "".join(chr(0x4E00 + 37 * i % 5000) for i in range(600)),  # other characters all the time
        "https://example.org/" + "".join(f"{i:x}" for i in range(60)),
        "Contents " + "." * 80 + " 12",
    ],
)
def test_long_runs_that_do_not_repeat_are_no_loops(text):
    assert repetition_rate(text) == 0


def test_a_short_loop_without_spaces_is_a_loop():
    """64 tokens of nano are 64 letters. The n-gram has 20, so 45 n-grams have 3 kinds: 42 / 45 came before."""
    assert repetition_rate("OCR" * 21 + "O") == pytest.approx(100 * 42 / 45)
    assert repetition_rate("上海世博局" * 12) == pytest.approx(100 * 36 / 41)
    assert repetition_rate("Donaudampfschifffahrtsgesellschaftskapitänsmütze") == 0  # a real word of 48 letters


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("渡轮晚点了。", False),
        ("フェリーは遅れました。", False),
        ("เรือมาสาย", False),
        ("배가 늦었습니다.", True),
        ("Паром опоздал.", True),
        ("The 渡轮 was late.", True),
        ("12:30", True),
        ("", True),
    ],
)
def test_metrics_of_words_need_spaces_between_words(reference, words):
    """One wrong character would be a WER of 100 % for a Chinese sentence, however long it is."""
    assert has_words(reference) == words
    found = evaluate(["x" + reference[1:]] * 2, [reference] * 2, task="ocr")
    assert "cer" in found and ("wer" in found) == ("word_precision" in found) == words
    assert math.isnan(wer(reference, reference)) != words
    assert (novel_ngrams("x " * 4, reference, 1) is not None) == words
    if not words:  # such texts do not count among others
        assert evaluate([reference, "a b"], [reference, "a c"], task="ocr")["wer"] == 50


SCRIPTS = {
    "russian": "Паром опоздал.",
    "chinese": "渡轮晚点了。",
    "chinese with a year": "渡轮在2024年晚点了。",
    "arabic": "تأخرت العبارة.",
    "hindi": "नाव देर से आई।",
    "greek": "Το πλοίο άργησε.",
    "thai": "เรือมาสาย",
}


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS)
def test_rouge_is_not_a_figure_for_scripts_it_does_not_see(text):
    assert all(np.isnan(value) for value in rouge(text, text).values())
    found = evaluate([text], [text])
    assert found["cer"] == 0 and not [name for name in found if name.startswith("rouge")]
    mixed = rouge([text, "The ferry was late.", "The dog."], [text, "The ferry was late.", "A cat."])
    assert mixed["rouge1"] == 50  # the mean of the other two


@pytest.mark.parametrize(
    "text", ["Deux élèves étaient à bord.", "Łódź leży w Polsce", "12 345", "Tokyo (東京) is large."]
)
def test_rouge_stays_a_figure_for_latin_letters_and_numbers(text):
    assert rouge(text, text)["rouge1"] == 100
    assert rouge("渡轮晚点了。", text)["rouge1"] == 0  # a summary in the wrong language is wrong


def test_texts_that_differ_only_in_how_unicode_composes_them_are_read_right():
    import unicodedata

    for text in ("Größe: élève, ångström", "각하", "Việt Nam"):
        composed, split = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
        assert composed != split
        assert cer(split, composed) == cer(composed, split) == wer(split, composed) == 0
        assert ocr_precision(split, composed) == 100
        if "LATIN" in unicodedata.name(text[0]):
            assert rouge(split, composed) == rouge(composed, composed)
        assert novel_ngrams(split, composed, 1) == 0
        assert facts_stated(Document("", "", "", (composed,)), split) == 1
    assert cer("ﬁne", "fine") > 0 and cer("Ａ", "A") > 0  # other characters, though they look alike


def test_word_precision_is_the_share_of_the_written_words_that_are_there():
    assert word_precision("the pump the pmup", "the pump failed") == pytest.approx(100 * 2 / 3)
    assert word_precision("failed pump the", "the pump failed") == 100  # order does not count
    assert word_precision("", "the pump") == 0 and word_precision("", "") == 100
    assert word_precision("the", "the pump") == 100  # it is no recall


@given(st.lists(st.sampled_from("abcd")), st.lists(st.sampled_from("abcd")))
def test_word_precision_is_that_of_nltk(written, wanted):
    from nltk.metrics import precision

    expected = precision(set(wanted), set(written)) if written else float(not wanted)
    assert word_precision(" ".join(written), " ".join(wanted)) == pytest.approx(100 * expected)


def test_lead_takes_the_first_sentences():
    text = "Minutes\n\nWe met on\n4 May. Dr. Ek came. Coffee was served. The end."
    assert lead(text) == "Minutes We met on 4 May. Dr. Ek came."
    assert lead(text, 1) == "Minutes"
    assert lead("No stop") == "No stop" and lead("") == ""


def test_evaluate_gives_a_tables_columns():
    documents = [Document("", "", "a", ("Ada", "7")), Document("", "", "b", ("Eva",)), Document("", "", "c")]
    predictions = ["Ada has 8", "Eva sings", "so what"]
    references = ["Ada has 7", "Eva sings", "so what"]
    results = evaluate(predictions, references, documents)
    assert results == {
        "cer": pytest.approx(100 / 25),
        "wer": pytest.approx(100 / 7),
        "ocr_precision": pytest.approx((100 * 8 / 9 + 200) / 3),
        "word_precision": pytest.approx((100 * 2 / 3 + 200) / 3),
        "rouge1": pytest.approx((100 * 2 / 3 + 200) / 3),
        "rouge2": pytest.approx((50 + 200) / 3),
        "rougeL": pytest.approx((100 * 2 / 3 + 200) / 3),
        "rougeLsum": pytest.approx((100 * 2 / 3 + 200) / 3),
        "repetition": 0,
        "words": pytest.approx(7 / 3),
        "facts": 75,
    }
    told = [Document("Eva sings well", "", "d")]
    assert evaluate(["Eva sings songs"], ["Eva sings"], told)["novel2"] == 50
    assert set(evaluate(predictions, references, documents, task="ocr")) == {
        *("cer", "wer", "ocr_precision", "word_precision", "repetition", "words")
    }
    assert "facts" not in evaluate(predictions, references)
    assert "facts" not in evaluate(predictions[2:], references[2:], documents[2:])


def test_a_tally_gives_the_figure_of_any_pages():
    """A tally is enough for the metrics of any selection of pages, pooled or averaged, without the texts."""
    predictions, references = ["ab", "x" * 10, "same"], ["aa", "x" * 8, "same"]
    found = tallies(predictions, references, task="ocr")
    for pages in ([0, 1], [2], [1, 2, 2]):
        some = evaluate([predictions[i] for i in pages], [references[i] for i in pages], task="ocr")
        assert {name: tally.of(np.array(pages)).value for name, tally in found.items()} == pytest.approx(some)


def test_texts_must_pair_up():
    with pytest.raises(ValueError, match="2 predictions can't be compared with 1 references"):
        cer(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate([], [])
    with pytest.raises(ValueError, match="1 predictions can't belong to 0 documents"):
        evaluate(["a"], ["a"], [])
