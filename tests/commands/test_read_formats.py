"""`read --format`: what a model says about places and tables becomes Markdown, JSON and files."""

import json

import pytest
from PIL import Image

from lightseek.__main__ import main
from lightseek.text import generate
from lightseek.text.decoding import Timings
from lightseek.weights import loading
from tests.tiny_models import small_model

WRITTEN = (
    "<|ref|>image<|/ref|><|det|>[[0, 0, 499, 999]]<|/det|>\n"
    "<|ref|>table<|/ref|><|det|>[[500, 0, 999, 999]]<|/det|>\n<table><tr><td>a</td><td>1</td></tr></table>"
)


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A picture, half red and half white, and a model that finds a picture and a table on it."""
    picture = Image.new("RGB", (200, 100), "white")
    picture.paste("red", (0, 0, 100, 100))
    picture.save(tmp_path / "page.png")
    monkeypatch.setattr(loading, "load_model", lambda *_, **__: small_model())
    said = generate.Generation([5], WRITTEN, "eos", 0.0, Timings())
    monkeypatch.setattr(generate, "read", lambda *_, **__: [said])
    return str(tmp_path / "page.png")


def test_boxes_are_printed_drawn_and_cut_out(capsys, page, tmp_path):
    out = tmp_path / "out"
    assert main(["read", page, "--format", "boxes", "--out", str(out)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["size"] == [200, 100]
    assert [(r["label"], r["boxes"]) for r in told["regions"]] == [
        ("image", [[0, 0, 100, 100]]),
        ("table", [[100, 0, 200, 100]]),
    ]
    assert told["tables"] == [[["a", "1"]]]
    assert sorted(file.name for file in out.iterdir()) == [
        "page-1-boxes.png", "page-1-image-1.png", "page-1-table-1.csv", "page-1-table-1.html",
    ]  # fmt: skip
    with Image.open(out / "page-1-image-1.png") as part:
        assert part.size == (100, 100)
        assert part.getpixel((99, 50)) == (255, 0, 0)
    with Image.open(out / "page-1-boxes.png") as drawn:
        assert drawn.getpixel((150, 99)) != (255, 255, 255)  # the lower edge of the table's box


def test_markdown_has_no_tags(capsys, page):
    assert main(["read", page, "--format", "markdown"]) == 0
    assert capsys.readouterr().out == "![image]()\n\n<table><tr><td>a</td><td>1</td></tr></table>\n"
    assert main(["read", page, "--format", "text"]) == 0
    assert capsys.readouterr().out.strip() == WRITTEN


def test_flags_that_do_not_go_together(capsys, page, tmp_path):
    assert main(["read", page, "--out", str(tmp_path / "out")]) == 2
    assert "--format boxes" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit):
        main(["read", page, "--stream", "--format", "markdown"])
