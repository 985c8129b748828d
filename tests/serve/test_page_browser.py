"""The page of the service in a browser: by keyboard, at 400 and 1400 pixels, with errors, boxes and downloads."""

import json

import pytest
from browser import WIDTHS, visit
from PIL import Image

from lightseek.page.grounding import Region
from lightseek.serve import openai_api
from lightseek.serve.app import create_app
from lightseek.serve.limits import Limits
from lightseek.serve.registry import Models
from lightseek.serve.service import Service
from lightseek.weights.lora import add_lora
from lightseek.weights.lora_files import save_adapter
from tests.serving import running
from tests.tiny_models import small_model

pytestmark = pytest.mark.browser
SECONDS = 60_000  # ms, for a busy machine


def writes_letters(*_, **__):
    """The small model, held to tokens that are bytes: the others show nothing."""
    model = small_model()
    model.decoder.lm_head.weight.data[model.tokenizer.vocab_size :] = 0
    model.decoder.lm_head.weight.data[: 4 + 32] = 0
    return model


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder, tuned = str(tmp_path_factory.mktemp("adapter")), writes_letters()
    add_lora(tuned, "attention", 4, 8.0, 0.0)
    for name, weight in tuned.named_parameters():
        if "lora" in name.lower():
            weight.data.normal_(std=0.5)
    save_adapter(tuned, folder)
    models = Models((), {"news": folder}, load=writes_letters)
    with running(create_app(Service(models, Limits()))) as found:
        yield f"{found}/"


@pytest.mark.parametrize("width", WIDTHS)
def test_read_by_keyboard_and_download(chromium, address, tmp_path, monkeypatch, width):
    found = [Region("title", ((0, 0, 999, 500),), ""), Region("<b>x", ((0, 500, 999, 999),), "")]
    monkeypatch.setattr(openai_api, "find_regions", lambda text: ("", found))
    with visit(chromium, address, width) as seen:
        page = seen.page
        page.set_default_timeout(SECONDS)
        page.locator("#model option[value=news]").wait_for(state="attached")
        page.keyboard.press("Tab")
        for _ in range(12):  # from the links to the text, with the keyboard alone
            if page.evaluate("() => document.activeElement.id") == "typed":
                break
            page.keyboard.press("Tab")
        page.keyboard.type("Three <b>boats</b>.")
        page.keyboard.press("Tab")
        page.locator("article img").wait_for()
        page.select_option("#mode", "tiny")
        page.locator("#sums").filter(has_text="64 tokens + 8 newlines + 1 separator = 73 positions").wait_for()
        page.check("#sure")
        page.fill("#most", "6")
        page.locator("#most").press("Enter")
        page.locator("#status").filter(has_text="Done.").wait_for()
        page.locator(".figures").filter(has_text="tokens out").wait_for()
        text = page.locator(".text").text_content()
        assert page.locator(".sheet svg rect").count() == 2
        box, sheet = page.locator(".sheet svg rect").first.bounding_box(), page.locator(".sheet img").bounding_box()
        assert box["height"] == pytest.approx(sheet["height"] / 2, rel=0.05)
        assert page.locator(".legend li").all_inner_texts() == ["■ title", "■ <b>x"]
        with page.expect_download() as file:
            page.get_by_role("button", name="Download JSON").click()
        told = json.loads(file.value.path().read_text(encoding="utf-8"))[0]
        assert 1 <= told["usage"]["completion_tokens"] <= 6
        assert told["text"] == text != ""
        assert [region["label"] for region in told["regions"]] == ["title", "<b>x"]
        page.screenshot(path=tmp_path / "page.png", full_page=True)
        assert seen.overflow() <= 0
    assert seen.errors == []
    assert seen.requests == []


def test_two_models_side_by_side_and_an_error_that_says_what_to_do(chromium, address, tmp_path):
    Image.new("RGB", (300, 200), "red").save(tmp_path / "red.png")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 broken")
    with visit(chromium, address) as seen:
        page = seen.page
        page.set_default_timeout(SECONDS)
        page.locator("#other option[value=news]").wait_for(state="attached")
        page.set_input_files("#file", tmp_path / "broken.pdf")
        page.locator("#wrong").filter(has_text="not a readable PDF").wait_for()
        assert len(seen.errors) == 1  # the browser tells of the status 400
        page.set_input_files("#file", tmp_path / "red.png")
        page.locator("article img").wait_for()
        assert page.locator("#wrong").inner_text() == ""
        page.select_option("#other", "news")
        page.fill("#most", "6")
        page.click("#read")
        page.locator("#status").filter(has_text="Done.").wait_for()
        assert page.locator(".both h2").all_inner_texts() == ["nano", "news"]
        assert page.locator(".both del, .both ins").count() >= 1
    assert len(seen.errors) == 1
    assert seen.requests == []
