"""The report in a browser: it sorts, opens samples, uses no network, and is readable on a telephone and on a desk."""

import pytest
from browser import WIDTHS, visit
from grid_folders import summary

from lightseek.lab.report import render

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    text = '<script>document.title = "taken"</script><img src=http://example.com/a.png onerror="alert(1)"> & more. '
    found = summary(folder, {"mode": ["tiny", "small"], "freeze": ["encoder", "none"]}, text=text * 3)
    (folder / "report.html").write_text(render(found), encoding="utf-8")
    return folder / "report.html"


def column(page, place):
    cells = page.locator("#figures-table tbody tr").all()
    return [cell.locator("th, td").nth(place).get_attribute("data-value") for cell in cells]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True])
def test_it_needs_no_network_and_no_sideways_scroll(chromium, path, width, dark):
    with visit(chromium, path, width, dark) as seen:
        for details in seen.page.locator("details").all():
            details.evaluate("part => part.open = true")
        assert seen.overflow() <= 0
        assert seen.page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        background = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") != dark
        size = "e => parseFloat(getComputedStyle(e).fontSize)"
        sizes = f"[...document.querySelectorAll('p, td, li, th, figcaption')].map({size})"
        assert min(seen.page.evaluate(sizes)) >= 12
        text = "[...document.querySelectorAll('svg text')].map(e => e.getBoundingClientRect().height).filter(h => h)"
        assert min(seen.page.evaluate(text)) >= 9  # letters of a plot
        assert len(seen.page.screenshot(path=path.with_name(f"{width}.png"), full_page=True)) > 50_000
        assert seen.page.title() != "taken"
    assert seen.errors == [] and seen.requests == []


def test_a_table_sorts_by_click_and_by_keyboard(chromium, path):
    with visit(chromium, path) as seen:
        header = seen.page.locator("#figures-table thead th", has_text="ROUGE-1")
        assert header.get_attribute("aria-sort") == "none"
        header.get_by_role("button").click()
        found = [float(value) for value in column(seen.page, 3) if value]
        assert header.get_attribute("aria-sort") == "descending" and found == sorted(found, reverse=True)
        assert len(found) > 4 and column(seen.page, 3)[-1] == ""  # the failed cell is last
        header.get_by_role("button").press("Enter")
        found = [float(value) for value in column(seen.page, 3) if value]
        assert header.get_attribute("aria-sort") == "ascending" and found == sorted(found)
        assert column(seen.page, 3)[-1] == ""
        mode = seen.page.locator("#figures-table thead th", has_text="mode").get_by_role("button")
        mode.focus()
        seen.page.keyboard.press("Space")
        assert header.get_attribute("aria-sort") == "none"
        shown = seen.page.locator("#figures-table tbody tr td:nth-child(2)").all_text_contents()
        assert [text for text in shown if text] == sorted((t for t in shown if t), key=lambda t: int(t.split()[0]))
    assert seen.errors == []


def test_it_opens_a_sample_and_enlarges_its_page(chromium, path):
    with visit(chromium, path) as seen:
        sample = seen.page.locator("details.sample").nth(1)
        assert not sample.locator("img").first.is_visible()
        sample.locator("summary").press("Enter")
        picture = sample.locator("img").first
        assert picture.is_visible() and sample.locator("del").count() > 0 and sample.locator("ins").count() > 0
        before = picture.bounding_box()["width"]
        sample.get_by_role("button", name="show this page larger").first.click()
        assert picture.bounding_box()["width"] > before
        line = "element => getComputedStyle(element).textDecorationLine"
        assert sample.locator("del").first.evaluate(line) == "line-through"  # visible without colour
        assert sample.locator("ins").first.evaluate(line) == "underline"
    assert seen.errors == []


def test_the_chosen_metric_changes_plots_and_differences(chromium, path):
    with visit(chromium, path) as seen:
        visible = lambda what: [e.get_attribute("data-metric") for e in seen.page.locator(what).all() if e.is_visible()]  # noqa: E731
        assert visible("div[data-metric]") == ["rouge1"]
        assert set(visible("tr[data-metric]")) == {"rouge1"}
        seen.page.locator("#metric").select_option("facts")
        assert visible("div[data-metric]") == ["facts"] and set(visible("tr[data-metric]")) == {"facts"}
    assert seen.errors == []


def test_it_copies_the_command_and_shows_all_without_scripts(chromium, path):
    with visit(chromium, path, permissions=["clipboard-read", "clipboard-write"]) as seen:
        seen.page.locator("#copy").click()
        seen.page.wait_for_function("document.getElementById('copy').textContent !== 'Copy'")
        copied = seen.page.evaluate("navigator.clipboard.readText()")
        assert copied.startswith("python ablate.py --tokens 64")
    with visit(chromium, path, java_script_enabled=False) as seen:
        assert seen.page.locator("div[data-metric]").count() == 4
        assert all(part.is_visible() for part in seen.page.locator("div[data-metric]").all())
        assert not seen.page.locator("#copy").is_visible()


def test_a_print_opens_the_samples(chromium, path):
    with visit(chromium, path) as seen:
        seen.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert seen.page.locator("details:not([open])").count() == 0
        seen.page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert seen.page.locator("details:not([open])").count() > 0
