"""Tests the sources of documents: what they load, which split a document belongs to, and errors for bad files."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightseek.data.document import Document, sentences, split_first_sentence
from lightseek.data.sources import local, pydoc, synthetic, synthetic_kinds, tables, unseen, unseen_kinds
from lightseek.data.sources.load import load_documents
from lightseek.data.sources.synthetic_kinds import KINDS, SLOTS, WORDS
from lightseek.data.splits import SPLITS, check_split, divide, named_split, text_split
from lightseek.scores.metrics import lead
from lightseek.tools.errors import Note

splits = st.sampled_from(SPLITS)
PARAGRAPH = "The {0}th ferry left late. It carried {0} people and a dog, and came back in the evening."


# --- sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Return x.\n\nmore text", ["Return x.", "more text"]),
        ("A heading\n\nIts text. End", ["A heading", "Its text.", "End"]),
        ("Wrapped\nline. Next.", ["Wrapped\nline.", "Next."]),
        ("See e.g. Fig. 3 by Dr. J. Smith. Done.", ["See e.g. Fig. 3 by Dr. J. Smith.", "Done."]),
        ('He said "No." "Yes," I said.', ['He said "No."', '"Yes," I said.']),
        ("It cost 3.50 at 14.30 o'clock.", ["It cost 3.50 at 14.30 o'clock."]),
        ("", []),
    ],
)
def test_sentences(text, expected):
    assert list(sentences(text)) == expected


@given(st.text())
def test_sentences_lose_nothing_but_white_space(text):
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())
    first, rest = split_first_sentence(text)
    assert "".join((first + rest).split()) == "".join(text.split())


# --- synthetic


def test_every_kind_appears_and_its_facts_are_in_text_and_summary():
    documents = synthetic.documents("train", 500)
    assert {document.name.split("-")[1] for document in documents} == {kind.name for kind in KINDS}
    for document in documents:
        assert synthetic.facts_stated(document, document.summary) == 1, document
        assert synthetic.facts_stated(document, document.text) == 1, document
        assert len(document.facts) in (3, 4)
        assert "{" not in document.text + document.summary


def test_templates_name_only_slots_and_facts_that_exist():
    for kind in KINDS:
        texts = [kind.summary, *kind.titles, *kind.others, *(wording for tell in kind.tells for wording in tell)]
        for name in re.findall(r"{([^}]*)}", " ".join(texts)):
            assert name in kind.facts or name in SLOTS, (kind.name, name)
        for tell in kind.tells:  # no wording may drop a fact
            assert len({tuple(sorted(set(re.findall(r"{([^}]*)}", wording)))) for wording in tell}) == 1, tell
    assert all(len(words) == len(set(words)) for words in WORDS.values())


@given(splits, st.integers(0, 2**40), st.integers(0, 10**9), st.sampled_from([200, 300, 1000, 4000]))
@settings(max_examples=50, deadline=None)
def test_a_synthetic_document_depends_on_seed_split_and_index_alone(split, seed, index, characters):
    document = synthetic.document(split, index, seed, characters)
    assert document == synthetic.document(split, index, seed, characters)
    assert document != synthetic.document(split, index + 1, seed, characters)
    assert document != synthetic.document(split, index, seed + 1, characters)
    assert len(document.text) <= characters
    assert synthetic.facts_split(document.facts) == split


def test_a_synthetic_document_is_the_same_on_every_machine():
    document = synthetic.document("test", 0)
    assert document.summary == "621 boxes of paint reached Vikac on 21 August 2027."


@given(st.integers(0, 1000), st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_synthetic_splits_share_no_facts_text_or_summary_whatever_the_seeds(seed, other):
    train = synthetic.documents("train", 100, seed)
    for split in ("validation", "test"):
        held_out = synthetic.documents(split, 100, other)
        for field in ("facts", "text", "summary", "name"):
            assert not {getattr(d, field) for d in train} & {getattr(d, field) for d in held_out}


@pytest.mark.parametrize("characters", [250, 300, 600, 2000, 5000])
def test_synthetic_length_is_near_the_target(characters):
    lengths = [len(document.text) for document in synthetic.documents("train", 100, characters=characters)]
    assert max(lengths) <= characters
    assert sum(lengths) / len(lengths) >= 0.85 * characters


def test_synthetic_values_are_too_many_to_memorise():
    train, test = (synthetic.documents(split, 2000) for split in ("train", "test"))
    seen = {fact for document in train for fact in document.facts}
    facts = [fact for document in test for fact in document.facts]
    assert sum(fact in seen for fact in facts) / len(facts) < 0.3
    assert len({document.summary for document in train}) == len(train)


def test_lead_3_is_no_summary_of_a_synthetic_document():
    documents = synthetic.documents("test", 300)
    stated = sum(synthetic.facts_stated(document, lead(document.text)) for document in documents) / 300
    assert 0.1 < stated < 0.5


def test_too_short_a_synthetic_document_is_refused():
    with pytest.raises(ValueError, match="50 characters are too few"):
        synthetic.document("train", 0, characters=50)


@pytest.mark.parametrize(
    ("fact", "summary", "stated"),
    [
        ("500", "It cost 500.", True),
        ("500", "It cost 1,500.", False),
        ("500", "It cost 500.25.", False),
        ("500", "It cost -500.", False),
        ("-5.0 °C", "It had -5.0 °C at night.", True),
        ("€40.20", "For €40.20, paid", True),
        ("up 3.1%", "profit is up 3.1%.", True),
        ("Zoë Holm", "zoë\nholm came", True),
        ("Zoë Holm", "Zoë Holmberg came", False),
    ],
)
def test_facts_are_found_as_whole_words_and_numbers(fact, summary, stated):
    assert synthetic.facts_stated(Document("", "", "", (fact,)), summary) == stated


def test_facts_stated_is_a_share_and_needs_facts():
    document = Document("", "", "page", ("Ada", "7", "May", "Kö"))
    assert synthetic.facts_stated(document, "In May Ada was 8.") == 0.5
    with pytest.raises(ValueError, match="page carries no facts"):
        synthetic.facts_stated(Document("", "", "page"), "text")


# --- unseen


def test_unseen_documents_state_their_facts_and_splits_share_none():
    documents = unseen.load("train", 600)
    assert {document.name.split("-")[1] for document in documents} == {kind.name for kind in unseen_kinds.KINDS}
    for document in documents:
        assert synthetic.facts_stated(document, document.summary) == 1, document
        assert synthetic.facts_stated(document, document.text) == 1, document
        assert 2 <= len(document.facts) <= 3 and "{" not in document.text + document.summary
        assert synthetic.facts_split(document.facts) == "train"
        assert unseen.CHARACTERS - 40 <= len(document.text) <= unseen.CHARACTERS
    held_out = unseen.load("test", 600, seed=3)
    for field in ("text", "summary", "facts"):
        assert not {getattr(d, field) for d in documents} & {getattr(d, field) for d in held_out}


@given(splits, st.integers(0, 2**40), st.integers(0, 10**9), st.sampled_from([120, 300, 4000]))
@settings(max_examples=30, deadline=None)
def test_an_unseen_document_depends_on_seed_split_and_index_alone(split, seed, index, characters):
    document = unseen.document(split, index, seed, characters)
    assert document == unseen.document(split, index, seed, characters)
    assert document not in (
        unseen.document(split, index + 1, seed, characters),
        unseen.document(split, index, seed + 1),
    )
    assert characters - 60 <= len(document.text) <= characters


def test_an_unseen_document_is_the_same_on_every_machine():
    assert unseen.document("test", 0).summary == "Most votes: 6590 for Schönøy."
    with pytest.raises(ValueError, match="10 characters are too few for unseen documents"):
        unseen.document("train", 0, characters=10)


def test_the_entries_of_an_unseen_document_leave_one_answer():
    """The relations are computed again here, from the text alone. Each value stands in one entry or belongs to all."""

    def number(entry):
        return int(entry.split()[0])

    def one(entries, marks):
        (found,) = [entry for entry in entries if entry.startswith(marks)]
        return found

    answers = {
        "queue": lambda e: (e[0].split()[-1], e[-1].split()[-1]),
        "seats": lambda e: (one(e, "Left of the guest").split()[-1], one(e, "Right of the guest").split()[-1]),
        "trains": lambda e: one(e, ("CANCELLED", "CALLED OFF", "NOT TODAY")).split(": ")[1].split(" "),
        "tank": lambda e: [one(e, ("Today", "Just now", "At this hour")).split()[-1]],
        "votes": lambda e: max(e, key=number).split(" for "),
        "teams": lambda e: (one(e, f"The {e[-1].split()[-3]} team").split()[-1], e[-1].split()[-1]),
        "roll": lambda e: one(e, "Out").split(": ")[1].split(", "),
        "answers": lambda e: (one(e, "Which room").split()[-1], one(e, "What time").split()[-1]),
    }
    for document in unseen.load("validation", 400):
        kind = document.name.split("-")[1]
        if kind == "correction":
            head, wrong = document.text.split(". ")[0], document.text.split("not ")[-1].strip(".")
            assert document.facts[0] in head and wrong in head and document.facts[1] not in head
            continue
        entries = [line.strip(".") for line in document.text.splitlines()[1:]]
        answer = tuple(answers[kind](entries))
        assert document.facts[-len(answer) :] == answer, document
        assert len(set(entries)) == len(entries)


def forms(texts):
    """The texts without what fills their slots, their case and their punctuation."""
    return {" ".join(re.findall(r"\w+", re.sub(r"{.*?}", "_", text).lower())) for text in texts}


def test_unseen_shares_no_template_and_no_summary_form_with_what_nano_was_pretrained_on():
    old, new = synthetic_kinds.KINDS, unseen_kinds.KINDS
    assert len(new) >= 8 and len({kind.relation for kind in new}) == len(new)
    assert not forms(kind.summary for kind in old) & forms(kind.summary for kind in new)
    seen = [text for kind in old for text in (*kind.titles, *kind.others, *sum(kind.tells, ()), kind.summary)]
    arrangements = [arrangement for kind in new for arrangement in kind.arrangements]
    entries = [text for a in arrangements for part in (a.head, a.block, a.tail) for entry in part for text in entry]
    unseen_texts = [*entries, *(title for a in arrangements for title in a.titles), *unseen_kinds.REMARKS]
    unseen_texts += [text for kind in new for text in (*kind.decoys, kind.summary)]
    shared = forms([*seen, *synthetic_kinds.ANYWHERE]) & forms(unseen_texts)
    assert not [form for form in shared if set(form) - set("_ ")], shared  # entries of values alone have no wording
    assert {kind.name for kind in old}.isdisjoint(kind.name for kind in new)


# --- pydoc


def test_pydoc_gives_prose_from_the_standard_library():
    documents = load_documents("pydoc", "train", 200, max_characters=500)
    assert len(documents) == 200 == len({document.text for document in documents})
    for document in documents:
        assert 100 <= len(document.text) <= 500
        assert document.summary[-1] in ".!?" and "\n" not in document.summary
        assert text_split(document.text) == "train"
    assert documents == load_documents("pydoc", "train", 200, max_characters=500)
    assert documents[:50] == load_documents("pydoc", "train", 50, max_characters=500)
    assert documents != load_documents("pydoc", "train", 200, seed=1, max_characters=500)


def test_pydoc_splits_share_no_text():
    texts = [{document.text for document in load_documents("pydoc", split, 100)} for split in SPLITS]
    assert not texts[0] & texts[1] and not texts[0] & texts[2] and not texts[1] & texts[2]


def test_pydoc_parses_and_never_runs_a_file(tmp_path):
    file = tmp_path / "module.py"
    file.write_text(
        '"""Module.\\d"""\nraise SystemExit("executed")\n'
        'class A:\n    "Of A."\n    async def f(self):\n        "Of f."\n'
    )
    assert pydoc._docstrings(file) == (("module", "Module.\\d"), ("A", "Of A."), ("A.f", "Of f."))
    for name, content in (("broken.py", b"def ("), ("null.py", b"x = '\0'"), ("latin.py", b"'\xff'")):
        (tmp_path / name).write_bytes(content)
        assert pydoc._docstrings(tmp_path / name) == ()


# --- local files


def rows(count):
    return [{"text": PARAGRAPH.format(i), "summary": f"Ferry {i} was late."} for i in range(count)]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_table(path, rows):
    import pandas

    frame = pandas.DataFrame(rows)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        write_jsonl(path, rows)
    return path


def load_all(source, **options):
    return {split: load_documents(source, split, **options) for split in SPLITS}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_every_row_of_a_table_lands_in_one_split(tmp_path, suffix):
    path = write_table(tmp_path / f"pages{suffix}", rows(200))
    found = load_all(path)
    assert sorted((d.text, d.summary) for split in SPLITS for d in found[split]) == sorted(
        (row["text"], row["summary"]) for row in rows(200)
    )
    assert all(text_split(d.text) == split for split in SPLITS for d in found[split])
    assert [d.text for d in found["train"]] == [r["text"] for r in rows(200) if text_split(r["text"]) == "train"]
    assert found["train"][0].name.startswith(f"pages{suffix}:")


def test_tables_keep_texts_that_look_like_numbers_or_nothing(tmp_path):
    path = tmp_path / "pages.csv"
    path.write_text('text,summary\n007,NA\n"two\nlines",null\n1e3,nan\n')
    found = load_all(path)
    assert {(d.text, d.summary) for s in SPLITS for d in found[s]} == {
        ("007", "NA"),
        ("two\nlines", "null"),
        ("1e3", "nan"),
    }


@given(st.lists(st.text("abc", min_size=1), min_size=1, max_size=150))
def test_small_sets_fill_every_split_they_can(texts):
    splits = divide(texts)
    assert set(splits) == set(texts)
    count = len(set(texts))
    assert len(set(splits.values())) == min(3, count) if count < 100 else True
    assert "train" in splits.values()


@pytest.mark.parametrize(("count", "expected"), [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (9, (7, 1, 1))])
def test_splits_of_fewer_than_ten(count, expected):
    found = list(divide([str(i) for i in range(count)]).values())
    assert tuple(found.count(split) for split in SPLITS) == expected


def test_a_limit_draws_by_seed_and_nests(tmp_path):
    path = write_jsonl(tmp_path / "pages.jsonl", rows(300))
    ten, five = (load_documents(path, "train", limit) for limit in (10, 5))
    everything = load_documents(path, "train")
    assert len(ten) == 10 and set(five) < set(ten)
    assert ten == [document for document in everything if document in ten]
    assert ten != load_documents(path, "train", 10, seed=1)


def test_a_split_column_decides(tmp_path):
    marks = ["train", "dev", "test"]
    data = [row | {"split": marks[i % 3]} for i, row in enumerate(rows(30))]
    found = load_all(write_jsonl(tmp_path / "pages.jsonl", data))
    assert [d.text for d in found["validation"]] == [row["text"] for row in data if row["split"] == "dev"]


@pytest.mark.parametrize(
    "names",
    [
        ("train.jsonl", "validation.jsonl", "test.jsonl"),
        ("train/a.jsonl", "val/a.jsonl", "test/a.jsonl"),
        ("train-00000-of-00001.parquet", "validation-00000-of-00001.parquet", "test-00000-of-00001.parquet"),
    ],
)
def test_file_and_folder_names_decide(tmp_path, names):
    for i, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_table(tmp_path / name, rows(30)[10 * i : 10 * i + 10])
    found = load_all(tmp_path)
    assert [[d.text for d in found[s]] for s in SPLITS] == [
        [r["text"] for r in rows(30)[i : i + 10]] for i in (0, 10, 20)
    ]


def test_splits_that_no_name_names_are_taken_from_train(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", rows(100))
    found = load_all(tmp_path / "train.jsonl")
    assert all(found.values()) and sum(map(len, found.values())) == 100
    write_jsonl(tmp_path / "test.jsonl", [row | {"text": row["text"] + " Again."} for row in rows(3)])
    found = load_all(tmp_path)
    assert [d.name for d in found["test"]] == ["test.jsonl:1", "test.jsonl:2", "test.jsonl:3"]
    assert found["validation"] and len(found["train"]) + len(found["validation"]) == 100


def test_a_folder_of_texts(tmp_path):
    for i in range(10):
        (tmp_path / f"{i}.txt").write_text(PARAGRAPH.format(i), encoding="utf-8")
    (tmp_path / "3.summary.txt").write_text("A ferry was late.\n")
    (tmp_path / ".hidden.txt").write_text("x")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "test-plan.md").write_text("\ufeffÉté came. It was warm.", encoding="utf-8")
    found = load_all(tmp_path)
    documents = {d.name: d for split in SPLITS for d in found[split]}
    assert len(documents) == 11 == sum(map(len, found.values()))
    assert documents["3.txt"].summary == "A ferry was late." and documents["3.txt"].text == PARAGRAPH.format(3)
    assert documents["4.txt"].summary == "The 4th ferry left late."
    assert documents["4.txt"].text == "It carried 4 people and a dog, and came back in the evening."
    assert documents["deep/test-plan.md"] == Document("It was warm.", "Été came.", "deep/test-plan.md")


def test_columns_can_be_named_and_the_summary_left_out(tmp_path):
    data = [{"article": PARAGRAPH.format(i), "highlights": "Late."} for i in range(5)]
    path = write_jsonl(tmp_path / "news.jsonl", data)
    assert load_documents(path, "train", text_column="article", summary_column="highlights")[0].summary == "Late."
    first = load_documents(path, "train", text_column="article", summary_column=None)[0]
    assert first.summary.endswith("ferry left late.") and first.text.startswith("It carried")
    with pytest.raises(ValueError, match=r"row 1: there is no column 'text'; its columns are 'article', 'highlights'"):
        load_documents(path, "train")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'text': 1}", "row 3: not valid JSON"),
        ("[1]", "row 3: must be a JSON object"),
        ('{"text": 7, "summary": "s"}', "row 3: 'text' must be a text, not 7"),
        ('{"text": "t", "summary": ""}', "row 3: 'summary' must be a text, not nothing"),
        ('{"text": "t", "summary": null}', "row 3: 'summary' must be a text, not nothing"),
        ('{"text": "t", "summary": "\\ud800"}', "row 3: 'summary' holds half a character"),
        ('{"text": "t", "summary": "s", "split": "later"}', "row 3: unknown split 'later'"),
        ("\udcff", "row 3: not valid JSON"),
    ],
)
def test_a_bad_row_is_named(tmp_path, line, message):
    path = write_jsonl(tmp_path / "pages.jsonl", rows(2))
    with path.open("ab") as file:
        file.write(line.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=rf"pages\.jsonl, {re.escape(message)}"):
        load_documents(path, "train")


def test_bad_tables_are_named(tmp_path):
    (tmp_path / "a.csv").write_text("text,summary\n1,2\n1,2,3\n")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 but torn")
    (tmp_path / "c.csv").write_text("text,summary\nfine,fine\n,missing\n")
    with pytest.raises(ValueError, match=r"a\.csv, row 2: more values than the header"):
        load_documents(tmp_path / "a.csv", "train")
    with pytest.raises(ValueError, match=r"can't read .*b\.parquet"):
        load_documents(tmp_path / "b.parquet", "train")
    with pytest.raises(ValueError, match=r"c\.csv, row 2: 'text' must be a text, not nothing"):
        load_documents(tmp_path / "c.csv", "train")


def test_a_bad_row_of_a_csv_file_costs_no_other_row(tmp_path):
    """Rows 2 and 7 have wrong quotes, row 3 is not UTF-8, row 5 is too long, and row 4 is right and has three lines."""
    path = tmp_path / "a.csv"
    path.write_bytes(
        b'text,summary\n1,a\n"2"x,b\ncaf\xe9,c\n"4, one\n""two""\nthree",d\n5,e,f\n6,g\n"7,h\n8,i\n\xc3\xa9,"j"\n'
    )
    bad = []
    found = [document for document, _ in local.read(path, on_bad=bad.append)]
    texts = ["1", '4, one\n"two"\nthree', "6", "8", "é"]
    assert [document.text for document in found] == texts
    assert [document.name for document in found] == ["a.csv:1", "a.csv:4", "a.csv:6", "a.csv:8", "a.csv:9"]
    told = [str(error).removeprefix(f"{path}, row ") for error in bad]
    assert (
        told[0].startswith("2: wrong quotes in the row that begins with '\"2\"x,b'") and told[1] == "3: it is not UTF-8"
    )
    assert told[2].startswith("5: more values") and told[3].startswith("7: wrong quotes") and len(told) == 4
    with pytest.raises(ValueError, match=r"a\.csv, row 2: wrong quotes"):
        load_documents(path, "train")
    path.write_text("text,summary\none,two\n", encoding="utf-16")
    with pytest.raises(ValueError, match=r"can't read the header of .*a\.csv: it is not UTF-8, convert it"):
        load_documents(path, "train")


def test_a_file_that_cannot_be_read_costs_no_other_file(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 but torn")
    (tmp_path / "b.jsonl.gz").write_bytes(b"\x1f\x8b\x08 and no more")
    write_jsonl(tmp_path / "c.jsonl", rows(3))
    bad = []
    assert len(list(local.read(tmp_path, on_bad=bad.append))) == 3
    assert [str(error).split(":")[0] for error in bad] == [
        f"can't read {tmp_path / name}" for name in ("a.parquet", "b.jsonl.gz")
    ]


@pytest.mark.parametrize("row", [{"image": None}, {"file_name": ""}, {"image_file_name": []}])
def test_a_row_whose_picture_is_missing_is_no_text(tmp_path, row):
    path = write_jsonl(tmp_path / "pages.jsonl", [row | {"text": "A page.", "summary": "s"}])
    with pytest.raises(ValueError, match=r"pages\.jsonl, row 1: '\w+' is empty, so the picture is missing"):
        load_documents(path, "train", task="ocr")


def test_bad_text_files_are_named(tmp_path):
    for name, content, message in (
        ("empty.txt", b" \n", "empty.txt is empty"),
        ("one.md", b"One sentence.", "one.md is one sentence only"),
        ("latin.txt", b"caf\xe9. No.", "latin.txt or its summary is not UTF-8"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(message)):
            load_documents(tmp_path / name, "train")


def test_sizes_are_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", 1000)
    monkeypatch.setattr(local, "MAX_FILES", 3)
    with pytest.raises(ValueError, match=r"pages\.jsonl has .* MiB, more than"):
        load_documents(write_jsonl(tmp_path / "pages.jsonl", rows(20)), "train")
    texts = tmp_path / "texts"
    texts.mkdir()
    for i in range(4):
        (texts / f"{i}.txt").write_text(PARAGRAPH.format(i))
    with pytest.raises(ValueError, match="holds 4 files, more than 3"):
        load_documents(texts, "train")


# --- load_documents


def test_the_entrance_gives_synthetic_documents_of_a_length():
    assert load_documents("synthetic", "test", 3) == synthetic.documents("test", 3)
    assert load_documents("synthetic", "test", 3, 7, max_characters=900) == synthetic.documents("test", 3, 7, 900)
    assert len(load_documents("synthetic", "validation")) == 500


def test_the_entrance_says_what_is_wrong(tmp_path):
    with pytest.raises(
        ValueError,
        match=r"unknown source of documents 'wikipedia': choose unseen, synthetic, pydoc, .*cnn_daily.* or the path",
    ):
        load_documents("wikipedia", "train")
    with pytest.raises(FileNotFoundError, match=r"no documents at .*gone\.jsonl"):
        load_documents(tmp_path / "gone.jsonl", "train")
    with pytest.raises(ValueError, match="unknown split 'dev': choose one of train, validation, test"):
        check_split("dev")
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        load_documents("synthetic", "train", 0)
    with pytest.raises(ValueError, match=r"holds no documents: put \.jsonl, \.csv"):
        load_documents(tmp_path, "train")
    (tmp_path / "pages.xlsx").write_text("x")
    with pytest.raises(ValueError, match=r"can't read .*pages\.xlsx: documents come as .jsonl"):
        load_documents(tmp_path / "pages.xlsx", "train")
    path = write_jsonl(tmp_path / "pages.jsonl", rows(2))
    with pytest.raises(ValueError, match="no test documents, only 1 train and 1 validation"):
        load_documents(path, "test")
    with pytest.raises(ValueError, match="all 2 documents are longer than 10 characters"):
        load_documents(path, "train", max_characters=10)
    (tmp_path / "none.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"none\.jsonl holds no documents"):
        load_documents(tmp_path / "none.jsonl", "train")


# --- folders as people download them


def test_the_folder_in_a_pictures_path_is_its_split(tmp_path):
    from PIL import Image

    data = []
    for split, count in (("train", 12), ("test", 4)):
        (tmp_path / split).mkdir()
        for i in range(count):
            Image.new("L", (8, 8 + i)).save(tmp_path / split / f"{i}.png")
            data.append({"file_name": f"{split}/{i}.png", "text": f"{split} page {i}"})
    write_jsonl(tmp_path / "metadata.jsonl", data)
    found = {split: load_documents(tmp_path, split, task="ocr") for split in SPLITS}
    assert len(found["test"]) == 4 and len(found["train"]) + len(found["validation"]) == 12
    for split in SPLITS:
        own = "test" if split == "test" else "train"
        assert found[split] and all(document.text.startswith(f"{own} page") for document in found[split])
    write_jsonl(
        tmp_path / "metadata.jsonl", [row | {"split": "test"} for row in data]
    )  # the row goes before the folder
    assert len(load_documents(tmp_path, "test", task="ocr")) == 16
    write_jsonl(tmp_path / "metadata.jsonl", data)
    (tmp_path / "metadata.jsonl").rename(tmp_path / "test.jsonl")  # and so does the name of the table
    assert len(load_documents(tmp_path, "test", task="ocr")) == 16


@pytest.mark.parametrize(
    ("name", "split", "alone"),
    [
        ("test", "test", "test"),
        ("Testing", "test", "test"),
        ("eval", "test", "test"),
        ("dev", "validation", "validation"),
        ("val2017", "validation", "validation"),
        ("test-00000-of-00001", "test", "test"),
        ("news-test", "test", None),
        ("test_images", "test", None),
        ("training.v2", "train", None),
        ("test-plan", "test", None),
        ("train_test", None, None),
        ("contest", None, None),
        ("latest", None, None),
        ("", None, None),
    ],
)
def test_names_that_stand_for_a_split(name, split, alone):
    """As in the library `datasets`: the name of a split is a word of the folder's or the table's name."""
    assert named_split(name) == split and named_split(name, alone=True) == alone


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train/{}.png", "testing/{}.png"),
        ("train2017/{}.png", "test2017/{}.png"),
        ("data/train_images/{}.png", "data/test_images/{}.png"),
        ("my-train/deep/{}.png", "my-test/deep/{}.png"),
        ("train_{}.png", "test_{}.png"),
        ("pages/train-{}.png", "pages/eval-{}.png"),
    ],
)
@pytest.mark.parametrize("column", ["file_name", "image_file_name", "file_names"])
def test_no_page_of_a_test_folder_is_trained_on(tmp_path, train, test, column):
    """Layouts of a folder of pictures that `datasets` knows, with one table above them."""
    data = []
    for place, count in ((train, 12), (test, 4)):
        for i in range(count):
            picture = tmp_path / place.format(i)
            picture.parent.mkdir(parents=True, exist_ok=True)
            picture.write_bytes(b"not opened here")
            name = place.format(i)
            data.append({column: [name] if column == "file_names" else name, "text": f"{place} {i}"})
    write_jsonl(tmp_path / "metadata.jsonl", data)
    found = {split: load_documents(tmp_path, split, task="ocr") for split in SPLITS}
    assert [d.text for d in found["test"]] == [row["text"] for row in data[12:]]
    assert len(found["train"]) + len(found["validation"]) == 12


def test_a_table_in_a_folder_of_a_split_and_a_page_whose_name_is_a_word(tmp_path):
    for name in ("scans-train/metadata.csv", "scans-test/metadata.csv"):
        (tmp_path / name).parent.mkdir()
        picture = tmp_path / name.replace("metadata.csv", "test-plan.png")
        picture.write_bytes(b"not opened here")
        (tmp_path / name).write_text(f"file_name,text\ntest-plan.png,{name}\n")
    marked = [(document.text, mark) for document, mark in local.read(tmp_path, tables.Wanted(task="ocr"))]
    assert marked == [("scans-test/metadata.csv", "test"), ("scans-train/metadata.csv", "train")]
    alone = [mark for _, mark in local.read(tmp_path / "scans-test/metadata.csv", tables.Wanted(task="ocr"))]
    assert alone == [None]  # and not "test", because of the picture "test-plan.png"


@pytest.mark.parametrize("suffix", [".json", "list.json", ".jsonl.gz", ".json.gz", ".jsonl"])
def test_a_downloaded_data_set_is_read_and_not_its_card(tmp_path, suffix):
    import gzip

    (tmp_path / "README.md").write_text("# News\n\nShort items. They were collected for a course.\n", encoding="utf-8")
    data = rows(28)
    for split, part in (("train", data[:20]), ("validation", data[20:24]), ("test", data[24:])):
        text = json.dumps(part) if suffix == "list.json" else "".join(json.dumps(row) + "\n" for row in part)
        content = gzip.compress(text.encode()) if suffix.endswith(".gz") else text.encode()
        (tmp_path / f"{split}{suffix.removeprefix('list')}").write_bytes(content)
    found = load_all(tmp_path)
    assert [len(found[split]) for split in SPLITS] == [20, 4, 4]
    assert [d.text for d in found["test"]] == [row["text"] for row in data[24:]]
    one = tmp_path / f"train{suffix.removeprefix('list')}"
    assert sum(len(part) for part in load_all(one).values()) == 20


def test_json_lines_called_json_may_have_one_row_or_a_bad_one(tmp_path):
    one = tmp_path / "test.json"
    one.write_text(json.dumps(rows(1)[0]) + "\n", encoding="utf-8")
    assert [d.text for d in load_documents(one, "test")] == [rows(1)[0]["text"]]
    one.write_text(json.dumps(rows(1)[0]) + "\n{torn\n" + json.dumps(rows(2)[1]) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"test\.json, row 2: not valid JSON"):
        load_documents(one, "test")
    bad = []
    assert len(load_documents(one, "test", on_bad=bad.append)) == 2 and len(bad) == 1


def test_files_that_cannot_be_read_are_named_and_not_replaced_by_the_card(tmp_path):
    (tmp_path / "README.md").write_text("# News\n\nShort items. They were collected.\n", encoding="utf-8")
    (tmp_path / "train.arrow").write_bytes(b"ARROW1")
    with pytest.raises(ValueError, match=r"holds no documents \(it holds README.md, train.arrow\)"):
        load_documents(tmp_path, "train")
    (tmp_path / "LICENSE-MIT.txt").write_text("Free. For all.", encoding="utf-8")
    with pytest.raises(ValueError, match=r"holds no documents \(it holds LICENSE-MIT.txt, README.md, train.arrow\)"):
        load_documents(tmp_path, "train")
    (tmp_path / "note.txt").write_text("One. Two.", encoding="utf-8")
    with pytest.warns(Note, match=r"only the texts in .* are read, and not train\.arrow"):
        assert [d.name for d in load_documents(tmp_path, "train")] == ["note.txt"]
    torn = tmp_path / "train.jsonl.gz"
    torn.write_bytes(b"\x1f\x8b\x08 and no more")
    with pytest.raises(ValueError, match=r"can't read .*train\.jsonl\.gz"):
        load_documents(tmp_path, "train")
