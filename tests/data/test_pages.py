"""Tests the way from documents to pages: fonts that fill a page, budgets that cut, and counts of what was cut."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lightseek.data.context.pages import PageMaker
from lightseek.data.document import Document, check_task
from lightseek.data.examples import ExampleMaker
from lightseek.model.config import OCRConfig
from lightseek.page.pictures import PictureFrames
from lightseek.page.render import count_pages, render_text
from lightseek.page.spec import SMALLEST_FONT, PageSpec
from lightseek.text.tokenizer import Tokenizer

FONT = "DejaVuSans"
SENTENCE = "The ferry left late and came back in the evening. "


def words(count: int) -> str:
    return " ".join(f"word{i}" for i in range(count))


def png(colour: str = "white", size: tuple[int, int] = (60, 40)) -> bytes:
    file = BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def test_a_short_text_fills_one_page_with_large_letters():
    pages = PageMaker(PageSpec("tiny", FONT))(Document("One line.", "", "short"))
    assert len(pages.images) == 1 and pages.images[0].size == (512, 512)
    assert PageMaker(PageSpec("tiny", FONT)).fit("One line.").font_size == 96 > SMALLEST_FONT


@pytest.mark.parametrize("letters", ["20", "40/line"])
def test_letters_of_one_size_for_every_text(letters):
    make = PageMaker(PageSpec("tiny", "DejaVuSansMono", letters=letters, max_pages=2))
    size = 20 if letters == "20" else int(480 / 40 / 0.55)
    assert {make.fit(text).font_size for text in ("One line.", words(100), words(1500))} == {size}
    pages = make(Document(words(1500), "", "long"))
    assert len(pages.images) == 2 and pages.dropped_characters > 0
    assert make.visible(Document(words(1500), "", "long")) == pages.text
    assert make.needed(words(1500)) == 3 and make.needed(pages.text) == 2  # counting stops above the budget
    assert PageSpec("tiny", letters="fit") == PageSpec("tiny")


def test_a_long_text_takes_the_fewest_pages_and_the_largest_font_on_those():
    make = PageMaker(PageSpec("tiny", FONT))
    text = words(1500)
    style = make.fit(text)
    assert count_pages(text, style) == make.needed(text) == len(make.render(text).images) > 1
    assert style.font_size >= SMALLEST_FONT


@given(st.integers(1, 900), st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_what_is_shown_and_what_is_dropped_are_the_text(count, most):
    make = PageMaker(PageSpec("tiny", FONT, max_pages=most))
    text = words(count)
    pages = make(Document(text, "", "one"))
    assert len(pages.images) <= most
    assert text.startswith(pages.text)
    assert len(text[len(pages.text) :].strip()) == pages.dropped_characters == make.truncated.characters
    assert make.truncated.documents == (pages.dropped_characters > 0)
    assert make.visible(Document(text, "", "one")) == pages.text


def test_a_truncated_document_counts_once_however_often_it_is_made():
    make = PageMaker(PageSpec("tiny", FONT, max_pages=1))
    for _ in range(2):
        make(Document(words(3000), "", "long"))
    make(Document(words(3), "", "short"))
    make(Document(words(2900), "", "longer"))
    assert make.truncated.documents == 2 and make.truncated.characters > 10_000


def test_render_text_cuts_only_when_asked():
    with pytest.raises(ValueError, match="needs more than 1 pages"):
        render_text(words(3000), max_pages=1)
    cut = render_text(words(3000), max_pages=1, cut=True)
    assert len(cut.pages) == 1 and cut.dropped == len(words(3000)) - len(cut.pages[0].text) - 1
    assert render_text("short", max_pages=1, cut=True).dropped == 0


def test_pictures_are_the_pages(tmp_path):
    (tmp_path / "page.png").write_bytes(png("red"))
    make = PageMaker(PageSpec("small", FONT, max_pages=2))
    pages = make(Document("text", "", "scan", images=(tmp_path / "page.png", png("blue"), png())))
    assert [image.getpixel((0, 0)) for image in pages.images] == [(255, 0, 0), (0, 0, 255)]
    assert pages.dropped_pages == make.truncated.pages == 1 and pages.text == "text"


@pytest.mark.parametrize("picture", [b"no picture", Path("gone.png")])
def test_a_picture_that_cannot_be_read_is_named_with_its_document(picture):
    with pytest.raises(ValueError, match=r"document scan: .*(10 bytes that can't be read|gone\.png)"):
        PageMaker(PageSpec("tiny", FONT))(Document("", "s", "scan", images=(picture,)))


# --- examples


def maker(task: str, pages: int = 8) -> ExampleMaker:
    return ExampleMaker(OCRConfig.preset("nano"), Tokenizer.nano(), task, PageSpec("tiny", FONT, max_pages=pages))


def test_reading_learns_what_stands_on_the_pages_and_summarizing_the_summary():
    text = words(2000)
    document = Document(text, "Words.", "long")
    read = maker("ocr", pages=1)
    example = read(document)
    written = read.tokenizer.decode(example.target_text)
    assert text.startswith(written) and len(written) < len(text)
    assert read.target(document) == written
    assert example.dropped_characters == len(text) - len(written) - 1 == read.truncated.characters
    assert example.text_tokens == len(example.target_text)
    summarize = maker("summarize", pages=1)
    assert summarize.tokenizer.decode(summarize(document).target_text) == "Words." == summarize.target(document)


def test_several_pages_are_several_images_in_one_prompt():
    make = maker("summarize")
    example = make(Document(words(1500), "Words.", "long"))
    assert len(example.pages) > 1
    assert example.prompt.count(make.config.image_token_id) == 73 * len(example.pages)
    assert example.vision_tokens == 64 * len(example.pages)


def test_a_question_stands_after_the_page_and_its_special_tokens_are_text():
    make = maker("answer")
    document = Document("", "Twelve.", "scan", images=(png(),), question="How many <image> boats?")
    example = make(document)
    image = make.config.image_token_id
    assert example.prompt.count(image) == 73
    after = example.prompt[len(example.prompt) - example.prompt[::-1].index(image) :]
    assert make.tokenizer.decode(after) == "\nHow many <image> boats?"
    assert make.tokenizer.decode(example.target_text) == "Twelve."
    assert example.text_tokens == 0


@pytest.mark.parametrize(
    ("document", "task", "message"),
    [
        (Document("", "s", "scan", images=(b"",), question="q"), "ocr", "has no text, .* try --task answer"),
        (Document("t", "", "scan", images=(b"",)), "summarize", "has no summary, .* try --task ocr"),
        (Document("t", "s", "page"), "answer", "has no question, .* try --task summarize"),
    ],
)
def test_a_document_must_have_what_the_task_needs(document, task, message):
    with pytest.raises(ValueError, match=f"document {document.name} {message}"):
        check_task(document, task)


def test_text_on_dropped_pictures_cannot_be_learned():
    document = Document("text", "", "scan", images=(png(), png()))
    assert len(maker("ocr", pages=2)(document).pages) == 2
    with pytest.raises(ValueError, match=r"scan has 1 page\(s\) more than 1.* raise max_pages"):
        maker("ocr", pages=1)(document)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
def test_a_picture_that_was_cut_off_is_told_before_its_turn(form, monkeypatch):
    file = BytesIO()
    Image.effect_noise((80, 60), 50).convert("RGB").save(file, form)
    whole, make = file.getvalue(), PageMaker(PageSpec("tiny"))
    with pytest.raises(ValueError, match=r"document half: a picture of \d+ bytes that can't be read"):
        make.check(Document("", "", "half", images=(whole[: len(whole) // 2],)))
    if form in ("PNG", "JPEG"):  # whole files of these formats are not decoded for it
        monkeypatch.setattr(PictureFrames, "draw", None)
    assert make.check(Document("", "", "whole", images=(whole, whole))) == 2 * 73


def test_what_has_no_room_is_told_before_its_turn_and_what_has_room_is_not_drawn(monkeypatch):
    """The page fills 73 of 300 positions, so a target of 227 letters has no room beside BOS and EOS."""
    config = OCRConfig.preset("nano")
    config = config.with_(decoder=replace(config.decoder, max_positions=300))
    make = ExampleMaker(config, Tokenizer.nano(), "summarize", PageSpec("tiny", max_pages=1))
    make.check(Document("A page.", "x" * 200, "fits"))
    with pytest.raises(ValueError, match=r"document long: 1 page\(s\) and the target need \d+ positions"):
        make.check(Document("A page.", "x" * 227, "long"))
    make = ExampleMaker(config, Tokenizer.nano(), "ocr", PageSpec("tiny", max_pages=2))
    with pytest.raises(ValueError, match=r"document three has 1 page\(s\) more than 2"):
        make.check(Document("A page.", "", "three", images=(png(), png(), png())))
    assert make.truncated.documents == 0  # a look does not count
    monkeypatch.setattr(PageMaker, "draw", None)
    make.check(Document("A page.", "", "two", images=(png(),)))


def test_a_budget_below_one_is_refused():
    with pytest.raises(ValueError, match="pages must be at least 1, got 0"):
        PageMaker(PageSpec("tiny", FONT, max_pages=0))
