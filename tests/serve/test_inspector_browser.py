"""The inspector in a browser: every control once, no console error, no request to another machine."""

import httpx
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


def wrote(page, text: str) -> None:
    page.wait_for_function(
        "text => [...document.querySelectorAll('#words .text')].map(e => e.textContent).join('').startsWith(text)",
        arg=text,
        timeout=SECONDS,
    )


def choose(page, label: str, option: str) -> None:
    """Choose from a list. On a busy machine the key can come before the list is short, and choose another one."""
    box = page.get_by_label(label, exact=True)
    for _ in range(10):
        box.fill(option)  # leaves only this one in the list
        page.wait_for_timeout(300)
        box.press("Enter")
        box.blur()  # the box then shows what is chosen
        page.wait_for_timeout(300)
        if box.input_value() == option:
            return
    raise AssertionError(f"{label} is {box.input_value()!r} and not {option!r}")


def changes(page, place: str, action) -> None:
    """Do something, and wait until the text of a place is another one."""
    before = page.locator(place).inner_text()
    action()
    page.wait_for_function(
        "([place, before]) => document.querySelector(place).innerText !== before", arg=[place, before], timeout=SECONDS
    )


def click_picture(page) -> None:
    """Click the page until its vision token says something. A click is lost while the browser loads a new picture."""
    looked, told = page.locator("#looked img"), page.locator("#told")
    for _ in range(10):
        box = looked.bounding_box()
        if box and box["width"] > 200:
            looked.click(position={"x": box["width"] / 2, "y": box["height"] / 4})  # scrolls to the picture first
        page.wait_for_timeout(2000)
        if "vision token at position" in told.inner_text():
            return
    raise AssertionError(f"no click on the page was answered: {told.inner_text()}")


def test_every_control_does_what_it_says(chromium, address, tmp_path):
    with visit(chromium, address) as seen:
        page = seen.page
        page.set_default_timeout(SECONDS)
        shows(page, "#sums", "+ 10 newlines + 1 separator = 111 positions")  # the mode `small`, before anything is read
        page.get_by_text("64 (tiny)", exact=True).first.click()
        shows(page, "#sums", "= 73 positions")
        page.click("#read")
        wrote(page, "The garden opens")
        words = page.locator("#words .text")
        first, second = words.nth(0).bounding_box(), words.nth(1).bounding_box()
        assert abs(first["x"] + first["width"] - second["x"]) < 1  # no gap between the letters
        words.nth(2).click()
        shows(page, "#told", "(token 3)")
        changes(page, "#told", lambda: choose(page, "Layer", "2"))
        changes(page, "#told", lambda: choose(page, "Head", "1"))
        click_picture(page)
        page.get_by_role("tab", name="Change a part").click()
        choose(page, "Stage", "layout")
        page.get_by_label("average", exact=True).click()
        page.click("#change")
        page.wait_for_function("[...document.querySelectorAll('textarea')].some(t => t.value.startsWith('The garden'))")
        changed = page.get_by_label("Changed", exact=True).input_value()
        assert changed and not changed.startswith("The garden")
        page.get_by_role("tab", name="Two modes").click()
        choose(page, "One mode", "100 (small)")
        choose(page, "The other", "64 (tiny)")
        page.click("#compare")
        page.get_by_text("small: 640x640 pixels").nth(0).wait_for()
        assert page.get_by_text("tiny: 512x512 pixels").count() == 2  # beside the page, and in this tab
        page.get_by_role("tab", name="Trace").click()
        page.click("#follow")
        page.get_by_text("encoder.compressor.conv1").first.wait_for()
        page.get_by_role("tab", name="Read").click()
        choose(page, "Example", "a bill")
        page.click("#read")
        wrote(page, "Invoice")
        page.locator("#typed textarea").fill("Ola has 3 maps.")
        page.locator("#typed textarea").blur()
        page.click("#read")
        wrote(page, "Ola has 3 maps")
        page.screenshot(path=tmp_path / "inspector.png", full_page=True)
    assert seen.errors == []
    assert [sent for sent in seen.requests if not sent.startswith(("blob:", address.split("/", 3)[2]))] == []


def test_files_of_ones_own_and_one_that_is_none(chromium, address, tmp_path):
    picture = Image.new("RGB", (700, 300), "white")
    ImageDraw.Draw(picture).text((30, 40), "Seven red boats", "black", font_size=60)
    picture.save(tmp_path / "own.png")
    (tmp_path / "long.txt").write_text("The ferry leaves at seven. " * 400)
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 not a document")
    with visit(chromium, address) as seen:
        page = seen.page
        page.set_default_timeout(SECONDS)
        shows(page, "#sums", "positions")
        page.locator("input[type=file]").first.set_input_files(tmp_path / "own.png")
        shows(page, "#sums", "700 x 300 pixels")
        drop(page, tmp_path / "long.txt")
        shows(page, "#sums", "page 1 of")
        turn_to(page, 2)
        drop(page, tmp_path / "broken.pdf")
        page.get_by_text("is not a readable PDF").first.wait_for()


def turn_to(page, number: int) -> None:
    """Ask for a page of the document until it is there. A number is lost while the browser shows another document."""
    box = page.locator("#number input")
    for _ in range(10):
        box.fill(str(number))
        box.blur()
        page.wait_for_timeout(3000)
        if f"page {number} of" in page.locator("#sums").inner_text():
            return
    raise AssertionError(f"page {number} did not come: {page.locator('#sums').inner_text()}")


def drop(page, file) -> None:
    """Put another file in the place of the one that is there."""
    remove = page.get_by_label("Remove", exact=False).or_(page.get_by_label("Clear", exact=False)).first
    place = page.locator("input[type=file]").first
    for _ in range(10):
        if remove.is_visible():
            remove.click()
        page.wait_for_timeout(500)
        if place.count():
            break
    place.set_input_files(file)


def test_the_inspector_of_the_service(chromium):
    """The link on the service's page leads to it, and it reads with the service's own model."""
    from lightseek.serve.app import create_app
    from lightseek.serve.inspector import mount
    from lightseek.serve.registry import Models
    from lightseek.serve.service import Service
    from tests.serving import SHORT, png, running

    service = Service(Models())
    app = create_app(service)
    mount(app, service)
    with running(app) as found, visit(chromium, f"{found}/") as seen:
        page = seen.page
        page.set_default_timeout(SECONDS)
        page.get_by_role("link", name="Look inside the model").click()
        shows(page, "#sums", "= 111 positions")
        page.get_by_text("64 (tiny)", exact=True).first.click()
        shows(page, "#sums", "= 73 positions")
        page.click("#read")
        page.locator("#words .text").nth(20).click()
        shows(page, "#told", "(token 21)")
        read = httpx.post(f"{found}/ocr", files={"file": ("a.png", png())}, data=SHORT, timeout=60)
        assert read.status_code == 200  # the other routes go on
    assert seen.errors == []
    assert [sent for sent in seen.requests if found.split("//")[1] not in sent] == []
