"""Tests experiments/compression: pages of the right length, the figures of each point, the tables and the plots."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.compression import curve, shapes
from lightseek.scores.predictions import Prediction, save_predictions
from lightseek.text.tokenizer import Tokenizer

FOLDER = Path(curve.__file__).parent
CONFIG = {"data": "pydoc", "font": "DejaVuSans", "pages": 20, "batch": 2, "seed": 0}


@pytest.mark.parametrize("ratio", [1, 2, 16])
def test_pages_hold_as_many_tokens_as_the_ratio_says(ratio):
    """64 vision tokens and a ratio of 2 allow 128 text tokens at most, cut at a word. Each page begins differently."""
    tokenizer = Tokenizer.nano()
    pages = curve.pages_of(curve.Point(64, ratio, "natural"), CONFIG, tokenizer)
    lengths = [len(tokenizer.encode(page.text)) for page in pages]
    assert all(0.6 * 64 * ratio <= length <= 64 * ratio for length in lengths)
    assert len({page.text[:20] for page in pages}) == len({page.name for page in pages}) == 20


@pytest.mark.parametrize("text", ["shuffled", "replaced", "random"])
def test_the_other_kinds_of_text_fill_pages_that_look_alike(text):
    natural, other = (curve.pages_of(curve.Point(64, 2, kind), CONFIG, Tokenizer.nano()) for kind in ("natural", text))
    for a, b in zip(natural, other, strict=True):
        assert a.text != b.text and len(a.text) == len(b.text) and a.name == b.name


def test_the_committed_config_names_at_least_200_pages_a_point_up_to_16_times():
    config = json.loads((FOLDER / "nano.json").read_text())
    points = list(curve.points(config))
    assert config["pages"] >= 200 and {point.tokens for point in points} == {64, 100, 256, 400}
    assert max(point.ratio for point in points) == 16
    assert {point.text for point in points} == {"natural", "shuffled", "replaced", "random"}
    assert len({point.name for point in points}) == len(points)


def test_a_point_has_its_figures_and_the_report_its_table_and_plots(tmp_path):
    """There are two pages of ten characters, and one has two errors: CER is 10 % and OCR precision 90 %."""
    rows = []
    for text in ("natural", "random"):
        path = tmp_path / f"{text}.jsonl"
        pages = [
            Prediction("a", "abcdefghij", "abcdefghij", 8, 64),
            Prediction("b", "abcdefghij", "abcdefghxy", 24, 64),
        ]
        save_predictions(path, {"task": "ocr"}, pages)
        rows.append(curve.row(curve.Point(64, 0.25, text), path))
    assert rows[0]["cer"]["value"] == pytest.approx(10) and rows[0]["ocr_precision"]["value"] == pytest.approx(90)
    assert rows[0]["measured_ratio"] == pytest.approx(0.25) and rows[0]["pages"] == 2
    curve.report(tmp_path, rows, CONFIG)
    assert (
        "| natural | 64 | 0.2 | 90.0 (80.0 to 100.0) | 10.0 (0.0 to 20.0) | 2 |"
        in (tmp_path / "results.md").read_text()
    )
    assert (tmp_path / "curve.png").stat().st_size > 1000 and (tmp_path / "crutch-64.png").stat().st_size > 1000
    assert len(json.loads((tmp_path / "results.json").read_text())["points"]) == 2


def test_pages_of_any_shape_hold_the_same_texts_in_letters_as_large_as_fit():
    """A letter is at most a sixteenth of the longer side, so the text may fill only the upper part of a page."""
    config = json.loads((FOLDER / "shapes.json").read_text())
    assert set(config["modes"]) == {"tiny", "small", "base", "large", "gundam"} and config["pages"] >= 50
    texts = [page.text for page in curve.pages_of(curve.Point(120, 1, "natural"), CONFIG, Tokenizer.nano())]
    for width, height in config["sizes"].values():
        documents = shapes.pictures_of((width, height), config | {"pages": 20}, Tokenizer.nano())
        assert [document.text for document in documents] == texts
        picture = Image.open(BytesIO(documents[0].images[0]))
        inked = (np.asarray(picture.convert("L")) < 100).any(axis=1).nonzero()[0]
        assert picture.size == (width, height) and inked[-1] - inked[0] > 0.3 * height
        lines = 1 + (np.diff(inked) > 1).sum()
        assert (inked[-1] - inked[0]) / lines < 1.5 * max(width, height) / 16


def test_the_table_of_shapes_has_a_column_for_each_mode():
    rows = [
        {"shape": shape, "mode": mode, "cer": {"value": value, "low": 0.0, "high": 9.0}}
        for value, (mode, shape) in enumerate([("tiny", "A4"), ("tiny", "strip"), ("base", "A4")])
    ]
    assert shapes.table({"A4": (827, 1169), "strip": (1000, 400)}, rows).splitlines() == [
        "| page | tiny | base |",
        "|---|---|---|",
        "| A4, 827 x 1169 | 0.0 (0.0 to 9.0) | 2.0 (0.0 to 9.0) |",
        "| strip, 1000 x 400 | 1.0 (0.0 to 9.0) |",
    ]
