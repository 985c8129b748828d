"""Tests the tasks that make their documents from any text, and the sources that go with the experiments."""

import json
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from tiny_models import SMALL

from lightseek.data.document import Document
from lightseek.data.examples import ExampleMaker
from lightseek.data.kinds import CONTEXTS
from lightseek.data.sources import aclsum
from lightseek.data.sources.load import load_documents
from lightseek.data.splits import SPLITS
from lightseek.data.tasks import GAP, derive
from lightseek.page.spec import PageSpec
from lightseek.text.tokenizer import Tokenizer

NANO = Tokenizer.nano()
BILL = Document(
    "Bill no. 7\n\nTotal: $40.\nDue: 3 May.\nMalsen.\nFor Ada Holm. Tax: $40.",
    "",
    "bill",
    ("$40", "3 May", "Malsen", "Ada"),
)


def test_a_text_is_cut_in_the_middle_in_whole_words():
    document = Document("one two three\n four  five", "gone", "a", ("four",))
    (found,) = derive([document], "continue")
    assert found == replace(document, text="one two three", summary="four  five", facts=())
    for text, images in (("single", ()), ("two words", (b"png",))):
        with pytest.raises(ValueError, match=r"document b .*--task continue"):
            derive([Document(text, "", "b", images=images)], "continue")


@pytest.mark.parametrize(
    ("fact", "question"),
    [("3 May", f"Due: {GAP}."), ("Malsen", f"Due: 3 May. {GAP}."), ("Ada", f"For {GAP} Holm.")],
)
def test_a_fact_is_asked_by_its_sentence(fact, question):
    (found,) = derive([replace(BILL, facts=(fact,))], "recall")
    assert found == replace(BILL, question=question, summary=fact, facts=(fact,))


def test_a_fact_that_the_text_states_twice_or_not_at_all_is_not_asked():
    for facts in (("$40",), ("$41",), (), ("4",)):
        with pytest.raises(ValueError, match="document bill has no fact that its text states once"):
            derive([replace(BILL, facts=facts)], "recall")
    bad: list[ValueError] = []
    assert derive([replace(BILL, facts=()), BILL], "recall", bad.append)[0].summary in ("3 May", "Malsen", "Ada")
    assert len(bad) == 1


@pytest.mark.parametrize("source", ["synthetic", "unseen"])
def test_every_generated_document_has_a_question_with_one_answer(source):
    documents = load_documents(source, "test", 100, task="recall")
    assert len(documents) == 100
    for document in documents:
        assert document.facts == (document.summary,) and document.question.count(GAP) == 1
        assert document.question.split(GAP)[0].split(". ")[-1].strip() in document.text
        assert len(re.findall(rf"(?<!\w){re.escape(document.summary)}(?!\w)", document.text)) == 1
    asked = {document.question.replace(GAP, "") for document in documents}
    assert len(asked) > 20, "one hash chooses among the facts, so all kinds of questions occur"


@pytest.mark.parametrize("task", ["continue", "recall"])
@pytest.mark.parametrize("context", list(CONTEXTS))
def test_every_context_takes_the_tasks(task, context):
    (document,) = load_documents("synthetic", "test", 1, task=task)
    example = ExampleMaker(SMALL, NANO, task, PageSpec("tiny"), context=context)(document)
    assert NANO.decode(example.target_text) == document.summary
    end = NANO.encode("\nContinue." if task == "continue" else f"\n{document.question}")
    assert example.prompt[-len(end) :] == end


def test_a_truncated_context_keeps_the_end_of_a_text_that_is_continued():
    document = Document("first words " + "and more " * 30 + "last words", "rest", "a")
    for task, words in (("continue", "last words"), ("summarize", "first words")):
        make = ExampleMaker(SMALL, NANO, task, PageSpec("tiny"), context="truncated")
        shown = make.context(document)
        assert words in shown.text and 50 <= len(NANO.encode(shown.text)) <= 64
        assert shown.dropped_characters == len(document.text) - len(shown.text)


def test_a_passage_has_the_length_that_is_asked_for_and_its_own_docstrings():
    for length in (40, 400):
        found = load_documents("passages", "test", 30, max_characters=length, task="ocr")
        assert len(found) == 30 and all(0.8 * length - 12 <= len(passage.text) <= length for passage in found)
        starts = [passage.text[:60] for passage in found]
        assert sum(start in passage.text for start in starts for passage in found) <= 32  # a few begin alike
    one, other = (load_documents("passages", split, 100, max_characters=100, task="continue") for split in SPLITS[:2])
    assert len({(passage.text, passage.summary) for passage in (*one, *other)}) >= 180  # it depends on Python's version


ROW = {
    "id": "P00-1",
    "title": "A paper ",
    "summary": {"challenge": "It is hard. ", "approach": "They try.", "outcome": "It works."},
    "sentences": {
        "abstract": ["Much ( too much ) is hard .", "We try , again ."],
        "introduction": [],
        "conclusion": ["So ."],
    },
    "highlights": {
        aspect: {"abstract": marks, "introduction": [], "conclusion": [1]}
        for aspect, marks in {"challenge": [1, 0], "approach": [0, 1], "outcome": [0, 0]}.items()
    },
}


@pytest.fixture
def papers(tmp_path, monkeypatch):
    """A folder as in the package, with one paper in train and three in test."""
    for split, count in {"train": 1, "val": 0, "test": 3}.items():
        rows = [json.dumps(ROW | {"id": f"P{number}"}) + "\n" for number in range(count)]
        (tmp_path / f"{split}.jsonl").write_text("".join(rows))
    monkeypatch.setattr(aclsum, "folder", lambda: tmp_path)
    return tmp_path


def test_a_paper_has_its_sections_and_three_sentences_of_summary(papers):
    (paper,) = load_documents("aclsum", "train")
    assert paper.text == "A paper\n\nMuch (too much) is hard. We try, again.\n\nSo."
    assert paper.summary == "It is hard. They try. It works." and paper.name == "aclsum-P0"
    assert len(load_documents("aclsum", "test")) == 3 and len(load_documents("aclsum", "test", 2)) == 2
    with pytest.raises(ValueError, match="aclsum has no test documents of at most 20 characters"):
        load_documents("aclsum", "test", max_characters=20)


def test_the_marked_sentences_of_an_abstract_are_a_document_for_each_aspect(papers):
    found = {document.name: document for document in load_documents("aclsum-sentences", "train")}
    assert {name: (document.text, document.summary) for name, document in found.items()} == {
        "aclsum-P0-challenge": ("Much (too much) is hard.", "It is hard."),
        "aclsum-P0-approach": ("We try, again.", "They try."),
    }


def test_files_that_are_not_as_expected_are_named(papers):
    (papers / "train.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(ValueError, match=r"train\.jsonl is not as in aclsum 0\.1\.2 \(KeyError"):
        load_documents("aclsum", "train")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(aclsum, "files", lambda name: [Path("aclsum/aclsum.py")])
    with pytest.raises(ImportError, match=r'pip install "lightseek\[real\]"'):
        aclsum.folder()


@pytest.mark.skipif(find_spec("aclsum") is None, reason="the package aclsum is not installed")
def test_the_real_package_has_250_papers():
    assert [len(load_documents("aclsum", split)) for split in SPLITS] == [100, 50, 100]
    found = load_documents("aclsum-sentences", "test", max_characters=400)
    assert len(found) > 200 and all(len(document.text) <= 400 and document.summary for document in found)
