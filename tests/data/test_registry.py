"""Tests that each data set of the registry is read. The rows are made here and served by a hub at a local address."""

import json
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
from hub_server import serving
from PIL import Image

from lightseek.data.sources.load import load_documents
from lightseek.data.sources.registry import DATA_SETS, DataSet
from lightseek.data.splits import SPLITS

ROOT = Path(__file__).parents[2]
PAGES = 11  # pages of a report; so many that sorting by name would put 10 before 2
ROWS = 60  # rows of each split on the hub; so many that a hash leaves none of our splits empty


def png(number: int) -> bytes:
    file = BytesIO()
    Image.new("RGB", (40 + number, 30), "white").save(file, "PNG")
    return file.getvalue()


def text_rows(entry: DataSet, theirs: str) -> dict[str, list]:
    """Rows of a text data set. They have a column that is not read, as in all real ones."""
    rows = {
        "id": [str(i) for i in range(ROWS)],
        entry.text: [f"Text {i} of {entry.name}, {theirs}." for i in range(ROWS)],
        entry.summary: [f"Summary {i}." for i in range(ROWS)],
    }
    if (entry.name, theirs) == ("xsum", "test"):
        rows[entry.text][6] = ""  # some of its articles are empty
    return rows


def docvqa_rows(theirs: str) -> dict[str, list]:
    """Rows with two questions for each page and two answers, of which the first is used."""
    return {
        "questionId": list(range(ROWS)),
        "question": [f"What is {i}?" for i in range(ROWS)],
        "image": [{"bytes": png(i // 2), "path": f"{i // 2}.png"} for i in range(ROWS)],
        "answers": [[f"Answer {i}", f"ANSWER {i}"] for i in range(ROWS)],
    }


def docmatix_rows(theirs: str) -> dict[str, list]:
    """Rows with two pages and two questions each."""
    return {
        "images": [[{"bytes": png(i), "path": None}, {"bytes": png(99), "path": None}] for i in range(ROWS)],
        "texts": [
            [{"user": f"Why {i}.{k}?", "assistant": f"Because {i}.{k}.", "source": "PDFA"} for k in (1, 2)]
            for i in range(ROWS)
        ],
    }


def write_tables(entry: DataSet, root: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    pictures = {"image": datasets.Image(), "images": datasets.List(datasets.Image())}
    for theirs in dict.fromkeys(entry.splits.values()):
        pictured = {"docvqa": docvqa_rows, "docmatix": docmatix_rows}
        rows = pictured[entry.name](theirs) if entry.image else text_rows(entry, theirs)
        table = datasets.Dataset.from_dict(rows)
        if entry.image:
            table = table.cast_column(entry.image, pictures[entry.image])
        name = entry.files.format(configuration=entry.configuration, split=theirs).replace("*", "0000")
        path = root / entry.hub_id / entry.revision / name
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(path, batch_size=20)


def write_omnidocbench(entry: DataSet, root: Path) -> None:
    folder = root / entry.hub_id / "main"
    (folder / "images").mkdir(parents=True)
    pages = []
    for i in range(3):
        (folder / "images" / f"page_{i}.png").write_bytes(png(i))
        blocks = [
            {"category_type": "table", "order": 2, "html": "<table></table>", "latex": "tabular", "ignore": False},
            {"category_type": "text_block", "order": 1, "text": f"Page {i}.", "ignore": False},
            {"category_type": "equation_isolated", "order": 3, "latex": "$$x$$", "ignore": False},
            {"category_type": "text_block", "order": 4, "text": "smudged", "ignore": True},
            {"category_type": "page_number", "order": None, "text": "7", "ignore": False},
        ]
        pages.append({"layout_dets": blocks, "page_info": {"image_path": f"page_{i}.png", "width": 40, "height": 30}})
    (folder / "OmniDocBench.json").write_text(json.dumps(pages))


def write_haystack(entry: DataSet, root: Path) -> None:
    for company in ("AIG", "UPS"):
        folder = root / entry.hub_id / "main" / company / f"{company}_{entry.configuration}Pages"
        (folder / "Images_TextNeedles").mkdir(parents=True)
        for page in range(1, PAGES + 1):
            file = folder / "Images_TextNeedles" / f"{company}_{entry.configuration}Pages_TextNeedles_page_{page}.jpg"
            Image.new("RGB", (40 + page, 30), "white").save(file)
        (folder / "prompt_questions.txt").write_text("What is the secret sport?\nWhat is the secret fruit?\n")
        needles = ('The secret sport is "judo".', 'The secret fruit is "fig".')
        (folder / "needles.csv").write_text("\n".join(needles) + "\n")
    (root / entry.hub_id / "main" / "README.md").write_text("---\n---\n")


CHILD = """
import hashlib, json, sys
from dataclasses import asdict
import datasets
from lightseek.__main__ import main
from lightseek.data.sources.load import load_documents
datasets.disable_progress_bars()
datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0.05  # not 5 seconds at the end of each stream

def shown(document):
    images = [item.name if hasattr(item, "name") else hashlib.sha1(item).hexdigest() for item in document.images]
    return asdict(document) | {"images": images}

asked, prepared, found = json.load(sys.stdin)
for name, options in prepared.items():
    assert main(["prepare", name, "--out", f"{sys.argv[1]}/{name}", "--processes", "1", *options]) == 0
for name, split, limit, task in asked:
    bad = []
    on_bad = bad.append if name == "xsum" else None
    try:
        documents = load_documents(name, split, limit, 3, task=task, on_bad=on_bad)
        result = [[shown(document) for document in documents], list(map(str, bad))]
    except ValueError as error:
        result = str(error)
    found[f"{name} {split} {limit} {task}"] = result
json.dump(found, open(f"{sys.argv[1]}/found.json", "w"))
"""
MISTAKES = [("omnidocbench", "train", 5, "ocr"), ("docvqa", "test", 5, "ocr"), ("cnn_dailymail", "train", 5, "answer")]
# Each split of each data set is streamed. One data set of each kind is downloaded whole as well.
STREAMED = [(entry.name, split, 8, entry.tasks[0]) for entry in DATA_SETS.values() for split in entry.splits]
WHOLE = [
    ("xsum", "test", None, "summarize"),
    *(("billsum", split, None, "summarize") for split in ("train", "validation")),
    *(("docvqa", split, None, "answer") for split in ("validation", "test")),
    *(("docmatix", split, None, "answer") for split in SPLITS),
]
PREPARED = {
    "xsum": ["--limit", "40", "--skip-bad", "--split", "0.8/0.1/0.1"],
    "docvqa": ["--limit", "4", "--format", "parquet"],
    "omnidocbench": ["--images"],
}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The folder for the prepared data sets."""
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def hub(tmp_path_factory, out):
    """What another process read from a hub that has every data set, and the requests that it sent to the hub."""
    root = tmp_path_factory.mktemp("hub")
    writers = {"omnidocbench": write_omnidocbench, "haystack": write_haystack}
    for entry in DATA_SETS.values():
        writers.get(entry.reader, write_tables)(entry, root)
    with serving(root) as hub:
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(out)],
            input=json.dumps([[*STREAMED, *WHOLE, *MISTAKES], PREPARED, {}]),
            env=os.environ | hub.environment | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads((out / "found.json").read_text()), hub.requests


def read(hub, name, split, limit=8, task=None):
    return hub[0][f"{name} {split} {limit} {task or DATA_SETS[name].tasks[0]}"]


@pytest.mark.parametrize("name", [name for name, entry in DATA_SETS.items() if entry.kind == "text"])
def test_a_text_data_set_gives_its_texts_and_summaries(hub, name):
    entry = DATA_SETS[name]
    for split in SPLITS:
        documents, _ = read(hub, name, split)
        assert 5 <= len(documents) <= 8
        theirs = {(f"Text {i} of {name}, {entry.splits[split]}.", f"Summary {i}.") for i in range(ROWS)}
        assert {(document["text"], document["summary"]) for document in documents} <= theirs
        assert all(document["name"].startswith(f"{name}/{entry.splits[split]}:") for document in documents)
        assert not any(document["images"] or document["question"] for document in documents)


def test_a_seed_mixes_and_a_whole_split_names_its_rows(hub):
    documents, _ = read(hub, "billsum", "train", None)
    numbers = [int(document["name"].split(":")[1]) for document in documents]
    assert numbers != sorted(numbers)
    assert [document["text"] for document in documents] == [f"Text {n - 1} of billsum, train." for n in numbers]
    streamed = [document["text"] for document in read(hub, "cnn_dailymail", "train")[0]]
    assert streamed != [f"Text {i} of cnn_dailymail, train." for i in range(8)]


def test_a_missing_split_is_part_of_another_and_shares_nothing_with_it(hub):
    train, validation = ({d["text"] for d in read(hub, "billsum", split, None)[0]} for split in ("train", "validation"))
    assert len(train) + len(validation) == ROWS and not train & validation and len(train) > 4 * len(validation) > 0


@pytest.mark.parametrize("name", ["docvqa", "docmatix"])
def test_no_page_is_in_two_splits_that_come_from_one(hub, name):
    entry = DATA_SETS[name]
    ours = [split for split in entry.splits if list(entry.splits.values()).count(entry.splits[split]) > 1]
    pages = [{d["images"][0] for d in read(hub, name, split, None)[0]} for split in ours]
    assert all(pages) and sum(map(len, pages)) == len(set.union(*pages))


def test_docvqa_asks_about_one_page_and_takes_the_first_answer(hub):
    documents, _ = read(hub, "docvqa", "train")
    for document in documents:
        number = document["question"].removeprefix("What is ").removesuffix("?")
        assert document["summary"] == f"Answer {number}" and len(document["images"]) == 1 and document["text"] == ""


def test_docmatix_asks_several_questions_about_the_same_pages(hub):
    found = [d for split in SPLITS for d in read(hub, "docmatix", split, None)[0]]
    assert len(found) == 2 * ROWS and all(len(document["images"]) == 2 for document in found)
    for document in found:
        number = document["question"].removeprefix("Why ").removesuffix("?")
        assert document["summary"] == f"Because {number}."
        assert document["name"].endswith("." + number.split(".")[1])


def test_omnidocbench_reads_in_order_and_leaves_out_what_has_no_place_in_it(hub):
    documents, _ = read(hub, "omnidocbench", "test")
    assert {d["text"] for d in documents} == {f"Page {i}.\n\n<table></table>\n\n$$x$$" for i in range(3)}
    assert all(document["images"] == [f"page_{document['text'][5]}.png"] for document in documents)


@pytest.mark.parametrize("name", [name for name in DATA_SETS if name.startswith("document_haystack")])
def test_document_haystack_shows_all_pages_in_order_and_asks_for_each_needle(hub, name):
    documents, _ = read(hub, name, "test")
    assert [(d["question"], d["summary"]) for d in documents[:2]] == [
        ("What is the secret sport?", "judo"),
        ("What is the secret fruit?", "fig"),
    ]
    assert len(documents) == 4 and documents[0]["name"] == f"{name}/AIG:1"
    pages = [int(image.removesuffix(".jpg").split("_")[-1]) for image in documents[0]["images"]]
    assert pages == list(range(1, PAGES + 1))


def test_a_bad_row_is_reported_by_its_number_and_left_out_when_asked(hub):
    documents, bad = read(hub, "xsum", "test", None)
    assert len(documents) == ROWS - 1
    assert bad == ["xsum test, row 7: document xsum/test:7 has no text and no pictures"]


def test_a_data_set_is_prepared_for_the_task_it_is_made_for(hub, out):
    for split in SPLITS:
        for document in load_documents(out / "docvqa", split, task="answer"):
            assert document.question.startswith("What is") and document.summary.startswith("Answer")
            assert len(document.images) == 1 and document.text == ""
    (file,) = (out / "omnidocbench").glob("*.jsonl")
    pages = load_documents(file, "test", task="ocr")
    assert {page.text for page in pages} == {f"Page {i}.\n\n<table></table>\n\n$$x$$" for i in range(3)}
    assert "The pages are the pictures of the source, unchanged." in (out / "omnidocbench" / "README.md").read_text()


def test_a_prepared_data_set_can_be_divided_anew(hub, out):
    found = [load_documents(out / "xsum", split) for split in SPLITS]
    assert list(map(len, found)) == [32, 4, 4]
    assert len({document.text for part in found for document in part}) == 40


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (MISTAKES[0], "omnidocbench has no train documents, only test"),
        (MISTAKES[1], "docvqa is for --task answer, not ocr"),
        (MISTAKES[2], "cnn_dailymail is for --task summarize or ocr, not answer"),
    ],
)
def test_what_a_data_set_does_not_have_is_said(hub, wanted, message):
    name, split, limit, task = wanted
    assert message in read(hub, name, split, limit, task)


def test_streaming_asks_for_parts_of_files_and_nothing_of_theirs_is_run(hub):
    fetched = {path for method, path, _ in hub[1] if method == "GET" and "/resolve/" in path}
    assert fetched and all(path.endswith((".parquet", ".json", ".png", ".jpg", ".txt", ".csv")) for path in fetched)
    ranged = [headers for _, path, headers in hub[1] if "arxiv" in path and "range" in {key.lower() for key in headers}]
    assert ranged


def test_the_registry_is_consistent():
    for name, entry in DATA_SETS.items():
        assert entry.name == name and entry.hub_id.count("/") == 1 and entry.licence and entry.note and entry.about
        assert set(entry.splits) <= set(SPLITS) and "test" in entry.splits
        assert bool(entry.text and entry.summary) == (entry.kind == "text")
    assert DATA_SETS["billsum"].derived == "train and validation are parts of its train split, divided by a hash"
    assert DATA_SETS["xsum"].derived == ""


def test_without_the_hub_the_error_says_what_to_do(tmp_path):
    command = "from lightseek.data.sources.load import load_documents; load_documents('xsum', 'test', 5)"
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", command],
        env=os.environ | environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "ValueError: can't read test of xsum (EdinburghNLP/xsum) from the hub" in done.stderr
    assert "give the folder that `python -m lightseek prepare` once made" in done.stderr
