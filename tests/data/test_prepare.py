"""Tests how a folder is prepared: it can be loaded, a kill costs no finished shard, and errors name bad rows."""

import json
import os
import signal
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import yaml
from hub_server import serving
from PIL import Image
from tiny_run import tiny_checkpoint, tiny_run

from lightseek.__main__ import main
from lightseek.commands.prepare import push, shares
from lightseek.data.context.pages import PageMaker
from lightseek.data.prepare.card import card, command, write_card
from lightseek.data.prepare.folder import write_folder
from lightseek.data.prepare.shards import WORK, Job
from lightseek.data.sources.load import load_documents
from lightseek.data.splits import SPLITS
from lightseek.lab.plots import plot_grid
from lightseek.lab.results import finish
from lightseek.lab.summary import summarise
from lightseek.lab.tables import results_table
from lightseek.page.spec import PageSpec
from lightseek.training.run import Run

ROOT = Path(__file__).parents[2]


def rows(count: int) -> list[dict[str, str]]:
    text = "The {0}th ferry left late. It carried {0} people and a dog."
    return [{"text": text.format(i), "summary": f"Ferry {i} was late."} for i in range(count)]


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def everything(folder: Path, **options) -> dict:
    return {split: load_documents(folder, split, **options) for split in SPLITS}


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_what_is_prepared_loads_with_the_same_texts_and_pages(tmp_path, form):
    source = write_jsonl(tmp_path / "ferries.jsonl", rows(10))
    job = Job(str(source), images=True, mode="tiny", format=form, shard=3)
    prepared = write_folder(job, tmp_path / "out")
    found, before = everything(tmp_path / "out"), everything(source)
    draw = PageMaker(PageSpec("tiny"))
    for split in SPLITS:
        assert [(d.text, d.summary) for d in found[split]] == [(d.text, d.summary) for d in before[split]]
        assert prepared.splits[split].text == [len(document.text) for document in before[split]]
        for ours, theirs in zip(found[split], before[split], strict=True):
            assert len(ours.images) == 1
            shown, drawn = (draw(document).images[0] for document in (ours, theirs))
            assert np.array_equal(np.asarray(shown), np.asarray(drawn))
    files = sorted(file.name for file in (tmp_path / "out").glob(f"train*.{form}"))
    assert files == [f"train-{i:05d}-of-00003.{form}" for i in range(3)]


def test_shares_divide_anew_and_fill_every_split(tmp_path):
    marked = [row | {"split": "train"} for row in rows(20)]
    source = write_jsonl(tmp_path / "ferries.jsonl", marked)
    prepared = write_folder(Job(str(source), shares=(0.5, 0.25, 0.25)), tmp_path / "out")
    assert {split: len(figures.text) for split, figures in prepared.splits.items()} == dict(
        train=10, validation=5, test=5
    )
    assert {d.text for found in everything(tmp_path / "out").values() for d in found} == {r["text"] for r in marked}


def test_a_limit_is_of_each_split_or_with_shares_in_all(tmp_path):
    each = write_folder(Job("synthetic", limit=4), tmp_path / "each")
    assert [len(each.splits[split].text) for split in SPLITS] == [4, 4, 4]
    whole = write_folder(Job("synthetic", limit=10, shares=(0.8, 0.1, 0.1)), tmp_path / "all")
    assert [len(whole.splits[split].text) for split in SPLITS] == [8, 1, 1]
    own = write_folder(
        Job(str(write_jsonl(tmp_path / "a.jsonl", rows(30))), limit=10, shares=(0.8, 0.1, 0.1)), tmp_path / "own"
    )
    assert sum(len(figures.text) for figures in own.splits.values()) == 10


def test_facts_stay_with_their_documents(tmp_path):
    write_folder(Job("synthetic", limit=3), tmp_path / "out")
    assert [d.facts for d in load_documents(tmp_path / "out", "test")] == [
        d.facts for d in load_documents("synthetic", "test", 3)
    ]


def test_only_the_text_that_pages_show_is_kept_with_them(tmp_path):
    long = " ".join(f"word{i}" for i in range(3000))
    source = write_jsonl(tmp_path / "train.jsonl", [{"text": f"{i} {long}", "summary": "Words."} for i in range(2)])
    prepared = write_folder(Job(str(source), images=True, mode="tiny", max_pages=1), tmp_path / "out")
    total = prepared.total
    assert total.truncated == 2 and total.dropped == 2 * (len(long) + 2) - sum(total.text) - 2 > 0
    assert total.pages == [1, 1]
    text = card(Job(str(source), images=True, max_pages=1), prepared)
    assert f"need more than 1 pages: 2, {total.dropped:,} characters that no page shows" in text
    without = write_folder(Job(str(source), mode="tiny", max_pages=1), tmp_path / "texts")
    assert without.total.truncated == 2 and max(without.total.pages) > 1 and without.total.dropped == 0


# --- pictures


def png(number: int) -> bytes:
    file = BytesIO()
    Image.new("RGB", (40 + number, 30), "white").save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
@pytest.mark.parametrize("suffix", [".json", ".jsonl", "mapping"])
def test_a_folder_of_pictures_with_annotations(tmp_path, suffix, form):
    folder = tmp_path / "scans"
    folder.mkdir()
    for i in range(5):
        (folder / f"{i}.png").write_bytes(png(i))
    pairs = [{"image": f"{i}.png", "text": f"Page {i}."} for i in range(5)]
    if suffix == ".jsonl":
        write_jsonl(folder / "a.jsonl", pairs)
    else:
        about = {pair["image"]: pair["text"] for pair in pairs} if suffix == "mapping" else pairs
        (folder / "a.json").write_text(json.dumps(about))
    write_folder(Job(str(folder), task="ocr", format=form), tmp_path / "out")
    found = [d for split in SPLITS for d in load_documents(tmp_path / "out", split, task="ocr")]
    assert sorted(d.text for d in found) == [f"Page {i}." for i in range(5)]
    for document in found:
        (image,) = PageMaker(PageSpec("tiny"))(document).images
        assert image.width == 40 + int(document.text[5])


def test_questions_about_pictures(tmp_path):
    (tmp_path / "page.png").write_bytes(png(0))
    asked = {"images": ["page.png", "page.png"], "question": "How many?", "answer": "Two."}
    write_jsonl(tmp_path / "test.jsonl", [asked])
    write_folder(Job(str(tmp_path / "test.jsonl"), task="answer"), tmp_path / "out")
    (document,) = load_documents(tmp_path / "out", "test", task="answer")
    assert (document.question, document.summary, len(document.images)) == ("How many?", "Two.", 2)


def test_pictures_are_kept_all_and_those_beyond_the_budget_counted(tmp_path):
    (tmp_path / "page.png").write_bytes(png(0))
    source = write_jsonl(tmp_path / "test.jsonl", [{"images": ["page.png"] * n, "text": f"{n}"} for n in (1, 3)])
    job = Job(str(source), task="ocr", max_pages=2, images=True)
    prepared = write_folder(job, tmp_path / "out")
    assert (prepared.total.pages, prepared.total.truncated, prepared.total.pictures) == ([1, 3], 1, 2)
    assert "The pages are the pictures of the source, unchanged." in card(job, prepared)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": "gone.png", "text": "t"}, "row 1: there is no picture gone.png in"),
        ({"image": 7, "text": "t"}, "row 1: a picture is a path or bytes, not 7"),
        ({"image": "bad.png", "text": "t"}, r"bad\.png is not a picture that can be read"),
    ],
)
def test_bad_pictures_are_named(tmp_path, row, message):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    source = write_jsonl(tmp_path / "train.jsonl", [row])
    with pytest.raises(ValueError, match=message):
        write_folder(Job(str(source), task="ocr"), tmp_path / "out")


# --- bad rows


def test_a_bad_row_stops_or_is_left_out_when_asked(tmp_path, capsys):
    source = write_jsonl(tmp_path / "train.jsonl", [*rows(3), {"text": "", "summary": "Nothing."}, *rows(2)])
    assert main(["prepare", str(source), "--out", str(tmp_path / "a"), "--processes", "1"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "train.jsonl, row 4: 'text' must be a text, not nothing (--skip-bad leaves such rows out)" in told
    argv = ["prepare", str(source), "--out", str(tmp_path / "a"), "--processes", "1", "--skip-bad"]
    for _ in range(2):  # the second run writes nothing, but its card still lists the row
        assert main(argv) == 0
        assert "row 4: 'text' must be" in (tmp_path / "a" / "README.md").read_text()
    assert "left out: " in capsys.readouterr().err
    assert sum(len(found) for found in everything(tmp_path / "a").values()) == 5


def test_a_folder_of_another_job_is_left_alone(tmp_path):
    source = write_jsonl(tmp_path / "train.jsonl", rows(5))
    write_folder(Job(str(source)), tmp_path / "out")
    with pytest.raises(ValueError, match=r"out was prepared with other settings \(max_pages\): give a new folder"):
        write_folder(Job(str(source), max_pages=3), tmp_path / "out")
    write_jsonl(source, rows(6))
    with pytest.raises(ValueError, match=r"with other settings \(files of the source\)"):
        write_folder(Job(str(source)), tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"no documents at gone\.jsonl"):
        write_folder(Job("gone.jsonl"), tmp_path / "new")
    assert write_folder(Job(str(source)), tmp_path / "new").total.text  # the failed job had written nothing there
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="mine is there already: give an empty or a new folder"):
        write_folder(Job(str(source)), tmp_path / "mine")


@pytest.mark.parametrize("text", ["0.9/0.1", "0.9/0.1/0.1", "1/a/0", "1.5/-0.5/0"])
def test_shares_must_add_up(text, tmp_path):
    with pytest.raises(SystemExit):
        main(["prepare", "synthetic", "--out", str(tmp_path), "--split", text])
    assert shares("0.9/0.05/0.05") == (0.9, 0.05, 0.05)


# --- kills


def test_a_killed_run_goes_on_and_redoes_no_shard(tmp_path):
    """The run and its workers are killed with -9 after some shards. Started again, it ends with the same files."""
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from lightseek.data.prepare.folder import write_folder\n"
        "from lightseek.data.prepare.shards import Job\n"
        "if __name__ == '__main__':\n"
        "    job = Job('synthetic', images=True, mode='small', limit=24, shard=4)\n"
        "    write_folder(job, Path(sys.argv[1]), processes=2)\n"
    )
    (tmp_path / "go.py").write_text(script)

    def start(folder: str) -> subprocess.Popen:
        argv = [sys.executable, str(tmp_path / "go.py"), str(tmp_path / folder)]
        return subprocess.Popen(argv, env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True)

    work = tmp_path / "out" / WORK
    run, deadline = start("out"), time.monotonic() + 120
    while len(list(work.glob("*.figures.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    done = {file: file.stat().st_mtime_ns for file in work.glob("*.figures.json")}
    assert 3 <= len(done) < 18 and not list((tmp_path / "out").glob("*.jsonl"))
    assert start("out").wait(timeout=120) == 0 == start("whole").wait(timeout=120)
    assert {file: file.stat().st_mtime_ns for file in done} == done

    def contents(folder: str) -> dict[str, bytes]:
        top = tmp_path / folder
        files = [file for file in top.rglob("*") if file.is_file() and not file.name.endswith(".tmp")]
        return {file.relative_to(top).as_posix(): file.read_bytes() for file in files}

    assert contents("out") == contents("whole")


def test_workers_end_with_the_program_they_work_for(tmp_path):
    script = (
        "import os, signal, time\n"
        "from lightseek.data.prepare.folder import _pool\n"
        "if __name__ == '__main__':\n"
        "    pool = _pool(1)\n"
        "    print(pool.submit(os.getpid).result(), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (tmp_path / "go.py").write_text(script)
    argv, environment = [sys.executable, str(tmp_path / "go.py")], os.environ | {"PYTHONPATH": str(ROOT)}
    worker = int(subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60).stdout)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and Path(f"/proc/{worker}/stat").exists():
        if Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
            break
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{worker}").exists()


# --- the card, training, the hub


def test_the_card_is_the_hubs_and_says_how_many_and_how_it_was_made(tmp_path):
    job = Job("synthetic", limit=4, seed=2, images=True, shares=(0.5, 0.25, 0.25), mode="tiny")
    prepared = write_folder(job, tmp_path / "out")
    write_card(job, tmp_path / "out", prepared)
    text = (tmp_path / "out" / "README.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    assert header["task_categories"] == ["summarization"] and header["size_categories"] == ["n<1K"]
    assert header["configs"][0]["data_files"][0] == {"split": "train", "path": "train-*.jsonl"}
    assert "| train | 2 |" in text and "| test | 1 |" in text and "(lengths.png)" in text
    assert command(job) == (
        "python -m lightseek prepare synthetic --out DIR --split 0.5/0.25/0.25 --mode tiny --limit 4 --seed 2 --images"
    )
    assert Image.open(tmp_path / "out" / "lengths.png").width > 500


def test_the_card_of_a_data_set_carries_its_licence_and_what_was_derived(tmp_path):
    prepared = write_folder(Job("synthetic", limit=2), tmp_path / "out")
    text = card(Job("billsum"), prepared)
    assert yaml.safe_load(text.split("---")[1])["license"] == "cc0-1.0"
    assert "CC0-1.0" in text and "train and validation are parts of its train split" in text
    assert "source_datasets" in text and "FiscalNote/billsum" in text


def test_a_prepared_folder_is_what_train_takes(tmp_path):
    write_folder(Job("synthetic", limit=4, images=True, mode="tiny", format="parquet"), tmp_path / "data")
    model, data = tiny_checkpoint(tmp_path / "model"), str(tmp_path / "data")
    run = Run(tiny_run(model, data=data, train_documents=2, eval_documents=1, steps=1, batch=2), tmp_path / "run")
    results = finish(run, run.fit())
    assert results["truncated"] == {"documents": 0, "characters": 0, "pages": 0} and results["vision_tokens"] == 64


def test_pictures_whose_text_is_not_known_have_no_ratio_and_no_lead(tmp_path):
    (tmp_path / "page.png").write_bytes(png(0))
    rows = [{"image": "page.png", "summary": f"A page, {split}.", "split": split} for split in SPLITS]
    data, model = write_jsonl(tmp_path / "scans.jsonl", rows), tiny_checkpoint(tmp_path / "model")
    run = Run(tiny_run(model, data=str(data), steps=1, batch=1, eval_every=1), tmp_path / "run")
    results = finish(run, run.fit())
    assert "compression_ratio" not in results and results["lead3"] == {} and results["vision_tokens"] == 64
    summary = summarise(run.folder)
    assert [row.kind for row in summary.rows] == ["cell"] and results_table(summary).row_count == 1
    plot_grid(tmp_path / "grid.png", summary)


def test_the_folder_goes_to_the_hub_and_loads_from_there(tmp_path):
    (tmp_path / "hub").mkdir()
    with serving(tmp_path / "hub") as hub:
        environment = os.environ | hub.environment | {"PYTHONPATH": str(ROOT)}

        def run(*argv: str) -> subprocess.CompletedProcess:
            return subprocess.run([sys.executable, *argv], env=environment, capture_output=True, text=True, timeout=300)

        options = ["--limit", "3", "--images", "--tokens", "64", "--format", "parquet", "--processes", "1"]
        out = tmp_path / "out"
        done = run(
            "-m", "lightseek", "prepare", "synthetic", "--out", str(out), *options, "--push-to-hub", "ada/ferries"
        )
        assert done.returncode == 0, done.stderr
        assert "datasets/ada/ferries" in done.stdout
        uploaded = tmp_path / "hub" / "ada" / "ferries" / "main"
        files = {file.relative_to(uploaded).as_posix() for file in uploaded.rglob("*") if file.is_file()}
        assert files == {file.name for file in out.iterdir() if file.is_file()} and "README.md" in files
        assert all((uploaded / name).read_bytes() == (out / name).read_bytes() for name in files)
        sent = [headers for method, path, headers in hub.requests if path.endswith("commit/main")]
        assert {key.lower(): value for key, value in sent[0].items()}["authorization"] == "Bearer hf_example"
        loaded = run("-c", "import datasets; print(datasets.load_dataset('ada/ferries', split='test')[0]['summary'])")
        assert loaded.stdout.strip() == load_documents(out, "test")[0].summary, loaded.stderr
    with pytest.raises(ValueError, match=r"can't push .* to no id at all"):
        push(out, "no id at all")


# --- pictures in rows, in every form


def in_base64(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()


FORMS = {
    "path": lambda data: "a.png",
    "base64": in_base64,
    "base64 in lines": lambda data: "\n".join(in_base64(data)[i : i + 76] for i in range(0, len(in_base64(data)), 76)),
    "data URI": lambda data: f"data:image/png;base64,{in_base64(data)}",
    "data URI with a parameter": lambda data: f"data:image/PNG;charset=utf-8;base64,{in_base64(data)}",
    "hub": lambda data: {"bytes": in_base64(data), "path": "gone.png"},
    "hub path": lambda data: {"bytes": None, "path": "a.png"},
    "chat": lambda data: {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{in_base64(data)}"}},
    "list": lambda data: ["a.png", in_base64(data), {"path": "a.png"}],
}


def large_png() -> bytes:
    """A picture that does not compress, so that its base64 is longer than any path may be."""
    file = BytesIO()
    Image.effect_noise((160, 120), 80).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("form", FORMS)
def test_a_picture_in_a_row_may_have_any_form(tmp_path, form):
    data = large_png()
    (tmp_path / "a.png").write_bytes(data)
    value = FORMS[form](data)
    write_jsonl(tmp_path / "test.jsonl", [{"images" if form == "list" else "image": value, "text": "t"}])
    (document,) = load_documents(tmp_path / "test.jsonl", "test", task="ocr")
    assert len(document.images) == (3 if form == "list" else 1)
    found = [image if isinstance(image, bytes) else image.read_bytes() for image in document.images]
    assert set(found) == {data}


@pytest.mark.parametrize("struct", [True, False])
def test_pictures_in_parquet_are_structs_or_bytes(tmp_path, struct):
    import pyarrow
    import pyarrow.parquet

    data = large_png()
    cell = {"bytes": data, "path": "../anything.png"} if struct else data
    pyarrow.parquet.write_table(
        pyarrow.table({"image": [cell, cell], "text": ["a", "b"]}), tmp_path / "test-00000-of-00001.parquet"
    )
    found = load_documents(tmp_path, "test", task="ocr")
    assert [document.images for document in found] == [(data,), (data,)]


BAD = {
    "half base64": (lambda data: in_base64(data)[:-3], "is not whole base64"),
    "half a picture": (lambda data: in_base64(data[:300]), "that can't be read"),
    "a text": (lambda data: "word " * 20_000, "neither a path nor base64: 'word"),
    "another type": (lambda data: f"data:text/plain;base64,{in_base64(data)}", "a data URI of a picture begins"),
    "an address": (lambda data: "https://example.org/a.png?" + "x" * 5000, "pictures are not downloaded"),
    "a long name": (lambda data: "x" * 400 + ".png", "there is no picture xxxx"),
    "a list in a list": (lambda data: [["a.png"]], "a picture is a path or bytes"),
    "nothing in a list": (lambda data: ["a.png", None], "a picture is a path or bytes, not None"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_picture_in_a_row_is_named_shortly_and_alone_left_out(tmp_path, capsys, kind):
    make, message = BAD[kind]
    (tmp_path / "a.png").write_bytes(large_png())
    for i in range(5):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    good = [{"image": f"{i}.png", "text": f"Page {i}."} for i in range(5)]
    rows = [*good[:3], {"image": make(large_png()), "text": "t"}, *good[3:]]
    source = write_jsonl(tmp_path / "train.jsonl", rows)
    argv = ["prepare", str(source), "--task", "ocr", "--out", str(tmp_path / "out"), "--processes", "1"]
    assert main(argv) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert message in told and len(told) < 500 + 2 * len(str(tmp_path))
    assert "row 4: " in told or "document train.jsonl:4: " in told
    assert main([*argv, "--skip-bad"]) == 0
    assert sum(len(found) for found in everything(tmp_path / "out", task="ocr").values()) == 5


@pytest.mark.parametrize("way", ["../secret.png", "absolute", "link", "folder link/secret.png", "a/../../secret.png"])
def test_rows_do_not_reach_out_of_their_folder(tmp_path, way):
    (tmp_path / "secret.png").write_bytes(png(0))
    folder = tmp_path / "data"
    (folder / "a").mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path / "secret.png")
    (folder / "folder link").symlink_to(tmp_path)
    for form in (str, lambda path: {"path": path}, lambda path: [path]):
        value = form(str(tmp_path / "secret.png") if way == "absolute" else way)
        source = write_jsonl(folder / "test.jsonl", [{"image": value, "text": "t"}])
        for given in (source, folder):
            with pytest.raises(ValueError, match=r"test\.jsonl, row 1: the picture .* must not lead out of the folder"):
                load_documents(given, "test", task="ocr")


def test_rows_may_reach_pictures_elsewhere_in_the_folder_that_was_given(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "1.png").write_bytes(png(0))
    (tmp_path / "pages" / "2.png").symlink_to("1.png")
    table = write_jsonl(
        tmp_path / "tables" / "test.jsonl", [{"image": f"../pages/{i}.png", "text": "t"} for i in (1, 2)]
    )
    assert len(load_documents(tmp_path, "test", task="ocr")) == 2
    with pytest.raises(ValueError, match="must not lead out"):
        load_documents(table, "test", task="ocr")


def test_a_picture_too_thin_is_named_by_prepare_and_before_the_first_step(tmp_path, capsys):
    from lightseek.training.run import Run
    from lightseek.training.settings import RunConfig

    for i in range(10):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    Image.new("RGB", (3000, 1), "black").save(tmp_path / "strip.png")
    good = [
        {"image": f"{i}.png", "text": f"Ferry {i}.", "split": {8: "validation", 9: "test"}.get(i, "train")}
        for i in range(10)
    ]
    source = write_jsonl(tmp_path / "pages.jsonl", [*good[:4], good[0] | {"image": "strip.png"}, *good[4:]])
    argv = ["prepare", str(source), "--task", "ocr", "--out", str(tmp_path / "out"), "--processes", "1"]
    assert main(argv) == 2
    assert "document pages.jsonl:5: an image of 3000 x 1 pixels is too thin" in " ".join(
        capsys.readouterr().err.split()
    )
    assert main([*argv, "--skip-bad"]) == 0
    assert len(everything(tmp_path / "out", task="ocr")["train"]) == 8
    config = RunConfig(data=str(source), task="ocr", mode="base", steps=6, train_documents=20, device="cpu")
    with pytest.raises(
        ValueError, match=r"document pages\.jsonl:5: an image of 3000 x 1 pixels is too thin to show on 1024"
    ):
        Run(config, tmp_path / "run")
