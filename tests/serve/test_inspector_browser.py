"""The inspector in a browser: every control once, no console error, no request to another machine."""

import pytest
from browser import visit
from PIL import Image, ImageDraw

pytestmark = pytest.mark.browser
SECONDS = 90_000  # ms, for a busy machine


@pytest.fixture(scope="module")
def address():
    from lightseek.serve.inspector import launch
    from lightseek.weights.loading import load_model

    return launch(load_model(), "nano", "127.0.0.1", None, browser=False, wait=False)


def shows(page, place: str, text: str) -> None:
    page.wait_for_function(
        "([place, text]) => (document.querySelector(place)?.innerText || '').includes(text)",
        arg=[place, text],
        timeout=SECONDS,
    )


def test_every_control_does_what_it_says(chromium, address, tmp_path):
    with visit(chromium, address) as seen:
        page = seen.page
        page.set_default_timeout(SECONDS)
        shows(page, "#sums", "+ 10 newlines + 1 separator = 111 positions")  # the mode `small`, before anything is read
        page.get_by_text("64 (tiny)", exact=True).first.click()
        shows(page, "#sums", "= 73 positions")
        page.click("#read")
        words = page.locator("#words .text")
        words.nth(20).wait_for()
        assert "".join(words.all_inner_texts()).replace("\n", "").startswith("The garden opens")
        words.nth(2).click()
        shows(page, "#told", "(token 3)")
        page.get_by_role("tab", name="Change a part").click()
        page.click("#change")
        page.wait_for_function("[...document.querySelectorAll('textarea')].some(t => t.value.startsWith('The garden'))")
        page.get_by_role("tab", name="Trace").click()
        page.click("#follow")
        page.get_by_text("encoder.compressor.conv1").first.wait_for()
        page.get_by_role("tab", name="Two modes").click()
        page.click("#compare")
        page.get_by_text("base: 1024x1024 pixels").wait_for()
        page.get_by_role("tab", name="Read").click()
        page.locator("#typed textarea").fill("Ola has 3 maps.")
        page.locator("#typed textarea").blur()
        page.click("#read")
        shows(page, "#words", "O")
        page.screenshot(path=tmp_path / "inspector.png", full_page=True)
    assert seen.errors == []
    assert [sent for sent in seen.requests if not sent.startswith(("blob:", address.split("/", 3)[2]))] == []


def test_a_picture_of_ones_own_and_a_file_that_is_none(chromium, address, tmp_path):
    picture = Image.new("RGB", (700, 300), "white")
    ImageDraw.Draw(picture).text((30, 40), "Seven red boats", "black", font_size=60)
    picture.save(tmp_path / "own.png")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 not a document")
    with visit(chromium, address) as seen:
        page = seen.page
        page.set_default_timeout(SECONDS)
        shows(page, "#sums", "positions")
        page.locator("input[type=file]").first.set_input_files(tmp_path / "own.png")
        shows(page, "#sums", "700 x 300 pixels")
        page.get_by_label("Remove", exact=False).or_(page.get_by_label("Clear", exact=False)).first.click()
        page.locator("input[type=file]").first.set_input_files(tmp_path / "broken.pdf")
        page.get_by_text("is not a readable PDF").first.wait_for()
