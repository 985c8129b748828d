"""Tests the summary of a grid on folders with outputs that are made up, so that the true differences are known."""

import csv
import json
import math
import random
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from lightseek.lab.grid import Cell, before_training, grid, save_grid
from lightseek.lab.plots import grouping, plot_grid
from lightseek.lab.summary import summarise, write_csv
from lightseek.lab.tables import differences_table, notes, results_table
from lightseek.scores.predictions import Prediction, save_predictions
from lightseek.text.tokenizer import Tokenizer
from lightseek.tools.files import write_json
from lightseek.training.settings import RunConfig

WORDS = ["the", "pump", "failed", "at", "noon", "and", "night", "crew", "of", "line", "four", "wrote", "day", "shift"]


def fill(cell: Cell, skill: float, documents: int = 24, cut: int = 0) -> None:
    """Write the results of a cell that gets each word of a summary right with a probability of `skill`."""
    chance = random.Random(f"{cell.config.seed}{skill}")
    drawn = random.Random(7)
    found = []
    for number in range(documents):
        reference = " ".join(drawn.sample(WORDS, 10)) + "."
        written = " ".join(word if chance.random() < skill else "wrong" for word in reference.split())
        reason = "length" if number < cut else "eos"
        found.append(Prediction(f"d{number}", reference, written, 300, 64, source=reference, finish_reason=reason))
    settings = asdict(cell.config)
    save_predictions(cell.folder / "predictions.jsonl", settings, found)
    costs = {"trainable_parameters": 1000, "frozen_parameters": 500, "seconds": 3.0, "vision_tokens": 64}
    write_json(cell.folder / "results.json", {"settings": settings, "cut": cut, "documents": documents, **costs})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three freeze policies with three seeds each: two are nearly the same, and one is far worse."""
    tmp_path = tmp_path_factory.mktemp("grid")
    lists = {"freeze": [None, "sam", "decoder"], "seed": [0, 1, 2]}
    cells, swept = grid(RunConfig(), lists, tmp_path)
    before = before_training(cells, tmp_path)
    save_grid(tmp_path, ["python", "ablate.py", "--question", "who reads?"], cells, before, swept)
    for cell in cells:
        skill = {None: 0.8, "sam": 0.79, "decoder": 0.2}[cell.config.freeze]
        fill(cell, skill + 0.01 * cell.config.seed, cut=12 if cell.config.freeze == "decoder" else 0)
    for cell in before:
        fill(cell, 0.1)
    return tmp_path


@pytest.fixture(scope="module")
def summary(made):
    return summarise(made)


@pytest.fixture
def out(made, tmp_path):
    """A copy that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "grid"))


def shown(table, width=100):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(table)
    return console.export_text()


def test_rows_are_settings_and_a_true_difference_is_resolved(summary):
    assert summary.command == "python ablate.py --question 'who reads?'" and summary.metrics[0] == "rouge1"
    kinds = {row.name: row.kind for row in summary.rows}
    names = ["freeze=none", "freeze=sam", "freeze=decoder"]
    assert kinds == dict.fromkeys(names, "cell") | {"before training": "before", "lead-3": "lead-3"}
    best, same, worst, before, lead = summary.rows
    assert (best.seeds, best.documents, len(best.folders), before.seeds, lead.seeds) == (3, 24, 3, 1, 1)
    assert worst.cut == 36 and best.cut == 0 and best.cost["parameters"] == 1500
    figure = best.figures["rouge1"]
    assert 0 < figure.low < figure.value < figure.high < 100
    found = {one.row: one for one in summary.differences if one.metric == "rouge1"}
    assert found["freeze=decoder"].resolved and found["freeze=decoder"].figure.high < 0
    assert not found["freeze=sam"].resolved and abs(found["freeze=sam"].figure.value) < found["freeze=sam"].detectable
    assert found["freeze=sam"].figure.value == pytest.approx(same.figures["rouge1"].value - figure.value)
    assert found["freeze=decoder"].adjusted >= found["freeze=decoder"].p
    assert summary.winner is None  # the two best ones are not told apart


@pytest.mark.parametrize("text", ["freeze=decoder", "freeze=decoder, seed=1", "FOLDER"])
def test_a_baseline_is_settings_a_row_or_a_folder(made, summary, text):
    folder = summary.rows[2].folders[1].name
    summary = summarise(made, folder if text == "FOLDER" else text)
    assert {one.baseline for one in summary.differences} == {"freeze=decoder"}
    assert all(one.figure.low > 0 for one in summary.differences if one.metric == "rouge1")
    with pytest.raises(ValueError, match="no row is the baseline 'freeze=nothing': choose one of freeze=none; "):
        summarise(made, "freeze=nothing")


def test_a_row_that_beats_each_other_one_is_the_winner(out):
    listed = json.loads((out / "grid.json").read_text())
    kept = [name for name in listed["cells"] if "sam" not in name]
    write_json(out / "grid.json", listed | {"cells": kept})
    summary = summarise(out)
    assert summary.winner == "freeze=none" and "freeze=none is better than each other row" in shown(
        differences_table(summary)
    )


def test_one_seed_says_what_its_interval_covers(out):
    listed = json.loads((out / "grid.json").read_text())
    write_json(out / "grid.json", listed | {"cells": listed["cells"][::3]})
    summary = summarise(out)
    assert "One seed: the intervals cover other documents, but not other seeds (--seeds 3)." in notes(summary)
    assert {row.seeds for row in summary.rows} == {1}


def test_a_failed_cell_is_a_row_with_its_error(out, summary):
    for folder in (out / path.name for path in summary.rows[1].folders):
        (folder / "results.json").unlink()
        settings = json.loads((folder / "predictions.jsonl").read_text().splitlines()[0])["settings"]
        write_json(folder / "error.json", {"error": "out of memory", "settings": settings})
    summary = summarise(out)
    row = summary.rows[1]
    assert (row.name, row.error, row.seeds, row.figures) == ("freeze=sam", "out of memory", 0, {})
    assert {one.row for one in summary.differences} == {"freeze=decoder"}
    assert "freeze=sam failed: out of memory" in notes(summary) and "failed" in shown(results_table(summary))
    write_csv(out / "results.csv", summary)
    plot_grid(out / "grid.png", summary)


def test_cells_that_have_not_run_are_left_out(out, summary):
    for folder in (out / path.name for path in summary.rows[0].folders):  # the baseline
        (folder / "results.json").unlink()
    summary = summarise(out)
    assert [row.name for row in summary.rows][:2] == ["freeze=sam", "freeze=decoder"]
    assert {one.baseline for one in summary.differences} == {"freeze=sam"}
    for row in summary.rows[:2]:
        for folder in row.folders:
            (folder / "results.json").unlink()
    with pytest.raises(ValueError, match="no finished cell"):
        summarise(out)


@pytest.mark.parametrize("width", [80, 120])
def test_the_tables_are_readable(summary, width):
    table = shown(results_table(summary), width)
    assert "24 test documents x 3 seeds" in table and "36/72" in table and "before training" in table
    told = " ".join(notes(summary))
    assert "All rows: mode 100 (small), parameters 0.00M, trainable 0.00M." in told
    assert "Many outputs were cut off" in told and "freeze=decoder." in told
    assert max(map(len, table.splitlines())) <= width and "…" not in table
    differences = " ".join(shown(differences_table(summary), width).split())
    assert "worse, resolved" in differences and "not resolved: differences under" in differences
    assert "freeze=none, 24 documents and 3 seeds" in differences


def test_the_csv_has_a_line_for_each_cell(made, summary):
    write_csv(made / "results.csv", summary)
    with (made / "results.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["seed"] for line in lines] == [*"012" * 3, "0", ""]
    assert {line["rouge1_low"] for line in lines[:3]} == {f"{summary.rows[0].figures['rouge1'].low:.6g}"}
    assert lines[0]["freeze"] == "none" and lines[0]["parameters"] == "1500" and lines[-1]["row"] == "lead-3"


def test_the_plot_has_room_for_every_row(made, summary):
    plot_grid(made / "grid.png", summary)
    assert Image.open(made / "grid.png").height > 300


def test_rows_of_a_plot_are_grouped_by_the_setting_that_changes_least(summary):
    def outer(*pairs: str):
        cells = [replace(summary.rows[0], settings={"freeze": a, "compressor": b}) for a, b in pairs]
        return grouping(cells, ["freeze", "compressor"])

    assert outer("1a", "2a", "1b", "2b") == "compressor" and outer("1a", "1b", "2a", "2b") == "freeze"
    assert outer("1a", "1b", "1c") is None  # one setting varies: there are no groups


def test_cells_with_the_same_start_share_one_before_training(tmp_path):
    def shared(**lists):
        return len(before_training(grid(RunConfig(), lists, tmp_path)[0], tmp_path))

    assert shared(freeze=[None, "encoder"], lr=[1e-3], seed=[0, 1], lora=["attention"]) == 1
    assert shared(epochs=[1.0, 2.0], train_documents=[10, 20], precision=["bf16"]) == 1
    assert shared(mode=["tiny", "small"], seed=[0, 1]) == 2
    assert shared(init=["random"], seed=[0, 1]) == 2  # another seed is another start
    assert shared(decoder=["dense"], seed=[0, 1]) == 2
    assert shared(steps=[0], freeze=[None, "encoder"]) == 0  # such a cell is one before training itself


def test_the_official_vocabulary_is_found_or_left_out(monkeypatch):
    tokenizer = Tokenizer.official()
    assert tokenizer.vocab_size > 128_000 and len(tokenizer.encode("The pump failed at noon.")) == 6
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert Tokenizer.official.__wrapped__(Tokenizer) is None  # not the one that was found before


def test_one_document_has_no_interval(out):
    listed = json.loads((out / "grid.json").read_text())
    for number, name in enumerate(listed["cells"]):
        freeze = [None, "sam", "decoder"][number // 3]
        fill(Cell(RunConfig(freeze=freeze, seed=number % 3), out / name), 0.5, documents=1)
    summary = summarise(out)
    assert math.isnan(summary.rows[0].figures["rouge1"].low) and math.isnan(summary.rows[0].figures["rouge1"].high)
    assert {one.adjusted for one in summary.differences} == {1.0}
    assert "so few documents can't show any" in " ".join(shown(differences_table(summary)).split())
    assert results_table(summary).row_count == 5 and "nan" not in shown(results_table(summary))
    plot_grid(out / "grid.png", summary)


def test_seeds_of_other_documents_are_refused(out, summary):
    fill(Cell(RunConfig(seed=1), out / summary.rows[0].folders[1].name), 0.8, documents=23)
    with pytest.raises(ValueError, match="different documents"):
        summarise(out)
