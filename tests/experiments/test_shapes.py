"""Tests experiments/nano/shapes.py: texts of one length on pictures of several shapes, and the table of them."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.nano import shapes
from lightseek.text.tokenizer import Tokenizer

FOLDER = Path(shapes.__file__).parent
CONFIG = {"data": "pydoc", "font": "DejaVuSans", "pages": 20, "batch": 2, "seed": 0, "tokens": 120}


def test_pages_of_any_shape_hold_the_same_texts_in_letters_as_large_as_fit():
    """A letter is at most a sixteenth of the longer side, so the text may fill only the upper part of a page."""
    config = json.loads((FOLDER / "shapes.json").read_text())
    assert set(config["modes"]) == {"tiny", "small", "base", "large", "gundam"} and config["pages"] >= 50
    texts = [page.text for page in shapes.texts_of(CONFIG, Tokenizer.nano())]
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
