"""Tests what each kind of corruption keeps of a text and what it removes."""

import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightseek.data.corruption import corrupt, corrupt_documents
from lightseek.data.document import Document
from lightseek.data.kinds import CORRUPTIONS

TEXT = "The Pump failed at 7:15.\n\n  IBM paid €1,250, said Zoë O'Neil; nothing incomprehensible."
texts = st.text(st.characters(codec="utf-8"), max_size=200)
seeds = st.integers(0, 1000)


def spaces(text: str) -> list[tuple[int, str]]:
    return [(match.start(), match[0]) for match in re.finditer(r"\s+", text)]


def shape(text: str) -> str:
    """Write capitals, small letters and digits as A, a and 0."""
    return "".join("A" if c.isupper() else "a" if c.isalpha() else "0" if c.isdecimal() else c for c in text)


def test_natural_text_is_left_alone():
    assert corrupt(TEXT, "natural", 3) == TEXT


def test_shuffled_text_keeps_its_words_and_its_white_space():
    shuffled = corrupt(TEXT, "shuffled", 0)
    assert sorted(shuffled.split()) == sorted(TEXT.split()) and shuffled.split() != TEXT.split()
    assert re.findall(r"\s+", shuffled) == re.findall(r"\s+", TEXT)


def test_replaced_text_has_words_of_the_same_lengths_and_other_digits():
    replaced = corrupt(TEXT, "replaced", 0)
    assert shape(replaced) == shape(TEXT)
    old, new = re.findall(r"[^\W\d_]+", TEXT), re.findall(r"[^\W\d_]+", replaced)
    assert len(old) == len(new) and sum(a == b for a, b in zip(old, new, strict=True)) <= 2
    assert re.findall(r"\d", replaced) != re.findall(r"\d", TEXT)


def letters_changed(old: str, new: str) -> list[tuple[str, str]]:
    """Return the words of two texts of one shape that differ, as pairs."""
    words = zip(re.findall(r"[^\W\d_]+", old), re.findall(r"[^\W\d_]+", new), strict=True)
    return [(a, b) for a, b in words if a != b]


@pytest.mark.parametrize(("percent", "words"), [(10, 2), (50, 10), (100, 20)])
def test_scrambled_text_has_another_order_of_letters_in_some_of_its_words(percent, words):
    text = "The machine failed again, but nobody in Quarry Lane wrote it down: " + "seven men were asked there " * 2
    text = " ".join(text.split()[:20])
    changed = letters_changed(text, corrupt(text, f"scrambled:percent={percent}", 0))
    assert len(changed) == words and all(sorted(a) == sorted(b) for a, b in changed)
    assert corrupt(text, "scrambled", 0) == corrupt(text, "scrambled:percent=10", 0)


def test_distorted_text_has_real_words_that_look_alike_and_the_same_small_words():
    distorted = corrupt(TEXT, "distorted", 0)
    changed = letters_changed(TEXT, distorted)
    assert re.findall(r"\d", distorted) == re.findall(r"\d", TEXT) and "O'Neil" not in distorted
    assert {old for old, _ in changed} == {"Pump", "failed", "paid", "said", "Neil", "nothing", "incomprehensible"}
    alike = [sum(a == b for a, b in zip(old.lower(), new.lower(), strict=True)) for old, new in changed[:6]]
    assert min(alike) >= 1 and sum(alike) >= 2 * len(alike)
    assert [new[0].isupper() for _, new in changed] == [old[0].isupper() for old, _ in changed]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("scrambled:percent=0", "percent must be above 0 and at most 100, got 0"),
        ("scrambled:share=1", "scrambled has no setting share"),
        ("random:percent=10", "random has no setting percent"),
    ],
)
def test_wrong_settings_of_a_kind_are_refused(kind, message):
    with pytest.raises(ValueError, match=message):
        corrupt_documents([], kind)


def test_random_text_has_the_shape_alone():
    """There are 17,576 strings of three letters, so a hundred random ones do not hold the page's words by chance."""
    page = "the pump and the bell " * 20
    noise = corrupt(page, "random", 0)
    assert shape(noise) == shape(page) and not set(noise.split()) & set(page.split())
    counts = Counter(noise.replace(" ", ""))
    assert set(counts) == set("abcdefghijklmnopqrstuvwxyz") and max(counts.values()) < 4 * min(counts.values()) + 20


@given(texts, st.sampled_from(list(CORRUPTIONS)), seeds)
def test_every_kind_keeps_the_length_and_depends_on_its_arguments_alone(text, kind, seed):
    corrupted = corrupt(text, kind, seed)
    assert corrupted == corrupt(text, kind, seed)
    assert len(corrupted) == len(text)
    assert [s for _, s in spaces(corrupted)] == [s for _, s in spaces(text)]
    if kind != "shuffled":
        assert spaces(corrupted) == spaces(text)


@given(texts, seeds)
def test_shuffling_moves_words_and_invents_none(text, seed):
    assert Counter(corrupt(text, "shuffled", seed).split()) == Counter(text.split())


@pytest.mark.parametrize("kind", list(CORRUPTIONS)[1:])
def test_seeds_and_texts_are_drawn_apart(kind):
    assert len({corrupt(TEXT, kind, seed) for seed in range(10)}) == 10
    one, other = (corrupt("one two three four five six " + end, kind, 0) for end in ("seven", "eight"))
    assert one.split()[:6] != other.split()[:6]


def test_an_unknown_kind_lists_the_known():
    with pytest.raises(ValueError, match=r"unknown kind of text 'noise': choose one of natural, scrambled, distorted"):
        corrupt("a", "noise", 0)


def test_documents_keep_all_but_their_text():
    document = Document("The pump failed at 7:15.", "It failed.", "pump", facts=("7:15",))
    assert corrupt_documents([document], "natural", 3) == [document]
    (found,) = corrupt_documents([document], "random", 3)
    assert found == replace(document, text=corrupt(document.text, "random", 3)) != document
    with pytest.raises(ValueError, match=r"corrupt=random changes texts .* and scan comes as pictures"):
        corrupt_documents([Document("", "s", "scan", images=(b"png",))], "random")
    with pytest.raises(ValueError, match="unknown kind of text"):
        corrupt_documents([], "noise")
