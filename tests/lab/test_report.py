"""The report of a grid: what it says, that nothing in it comes from the data as markup, and that it stays small."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest
from grid_folders import SENTENCE, page, summary
from PIL import Image

from lightseek.__main__ import main
from lightseek.lab import report
from lightseek.lab.figures import BOTTOM, LEFT, RIGHT, TOP, Axis, chart, looks, si
from lightseek.lab.report import Page, render
from lightseek.lab.samples import encode, marked
from lightseek.lab.summary import Interval, Row

HOSTILE = """<script>alert("x")</script><img src=http://example.com/a.png onerror='alert(1)'> "quoted" </pre></style>
<!-- <b title='a"b'>"""
GRID = {"mode": ["tiny", "small"], "freeze": ["encoder", "none"]}


class Tags(HTMLParser):
    """Collects the tags of a page with their attributes, and the texts of its scripts and style sheets."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.inside = [], {}
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] in ("script", "style"):
            self.inside.setdefault(self.tags[-1][0], data)


def wide(rows=60, values=(4, 3, 5)):
    """Return rows with all combinations of three settings."""
    places = [(i % values[0], i // values[0] % values[1], i // values[0] // values[1]) for i in range(rows)]
    names = ("mode", "freeze", "lr")
    found = []
    for i, place in enumerate(places):
        settings = dict(zip(names, map(str, place), strict=True))
        figures = {"cer": Interval(float(i), i - 1.0, i + 2.0)}
        cost = {"vision_tokens": 64.0 * (1 + place[0])}
        found.append(Row(f"{i}", "cell", settings, [], figures, 1, 9, 0, cost, None))
    return found


@pytest.mark.parametrize(
    "reference, output, shown",
    [
        ("Vikac on 21 August", "Vikoc on 2 August", "Vik[-a][+o]c on 2[-1] August"),
        ("two words", "twowords", "two[-␣]words"),
        ("a line\nbreak", "a line break", "a line break"),  # the CER does not tell white space apart
        ("", "new", "[+new]"),
        ("gone", "", "[-gone]"),
        ("sold 40 boxes", "ate 3 apples yesterday", None),
    ],
)
def test_wrong_letters_are_marked(reference, output, shown):
    parts = list(marked(reference, output))
    signs = {"equal": "{}", "delete": "[-{}]", "insert": "[+{}]"}
    if shown is not None:
        assert "".join(signs[part.kind].format(part.text) for part in parts) == shown
    rest = lambda kinds: "".join(p.text for p in parts if p.kind in kinds).replace("␣", " ")  # noqa: E731
    assert rest(("equal", "insert")) == output
    assert rest(("equal", "delete")) == reference.replace("\n", " ")


def test_nothing_from_the_data_becomes_markup(tmp_path):
    found = summary(tmp_path, GRID, text=HOSTILE, question=HOSTILE, command=HOSTILE, name=HOSTILE[:60])
    found.rows[0].settings["freeze"] = HOSTILE
    object.__setattr__(found.rows[0], "error", HOSTILE)
    object.__setattr__(found.rows[1], "name", HOSTILE)
    html = render(found)
    parsed = Tags(html)
    assert html.count("alert(&#34;x&#34;)") > 10  # it is there, as text
    assert [tag for tag, _ in parsed.tags].count("script") == 1
    images = [attributes for tag, attributes in parsed.tags if tag == "img"]
    assert images and all(attributes["src"].startswith("data:image/webp;base64,") for attributes in images)
    assert not any(name.startswith("on") for _, attributes in parsed.tags for name in attributes)
    links = [attributes["href"] for _, attributes in parsed.tags if "href" in attributes]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert not any("style" in attributes for _, attributes in parsed.tags)  # the policy would block it


def test_the_policy_allows_only_this_style_sheet_and_script(tmp_path):
    html = render(summary(tmp_path, GRID))
    parsed = Tags(html)
    policy = next(a["content"] for tag, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    for tag in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(parsed.inside[tag].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_it_tells_errors_cut_outputs_settings_and_the_machine(tmp_path):
    html = render(summary(tmp_path, GRID))
    assert "<pre>out of memory</pre>" in html
    assert "2 of 144 of 64 (tiny), encoder" in html  # cut off
    assert "No row is better than all others" in html  # no winner unless the summary names one
    assert "cpu (x86_64), a processor" in html and "torch 2.11.0" in html
    assert re.search(r"<dt>eval_documents</dt><dd>\d+</dd>", html)  # shared by all rows
    settings = html[html.index('id="settings-table"') :]
    assert ">freeze<" in settings and ">mode<" in settings and ">eval_documents<" not in settings.split("</table>")[0]


def test_a_warm_start_is_named_with_the_settings(tmp_path):
    found = summary(tmp_path, {"mode": ["tiny"], "freeze": ["encoder", "none"]}, failed=False)
    results = json.loads((tmp_path / "cell-1" / "results.json").read_text())
    results["warm_start"] = {"steps": 300, "loss_before": 1.25, "loss_after": 0.5}
    (tmp_path / "cell-1" / "results.json").write_text(json.dumps(results))
    settings = Page(found).differing()
    warm = [values[settings["names"].index("warm start")] for _, values in settings["rows"]]
    assert warm == ["none", "300 steps, loss 1.25 to 0.5", "none"]


def test_a_winner_is_named_if_the_summary_has_one(tmp_path):
    found = summary(tmp_path, GRID, failed=False)
    best = max((row for row in found.rows if row.kind == "cell"), key=lambda row: row.figures["rouge1"].value)
    object.__setattr__(found, "winner", best.name)
    assert Page(found).findings()[0].startswith(f"{best.name} has the highest ROUGE-1")


def test_long_texts_leave_out_samples_until_the_report_is_small(tmp_path, monkeypatch):
    found = summary(tmp_path, GRID, text=SENTENCE * 20)
    whole = render(found)
    monkeypatch.setattr(report, "MOST_BYTES", 120_000)
    monkeypatch.setattr(report, "MOST_PICTURES", 30_000)
    small = render(found)
    assert len(small.encode()) <= 120_000 < len(whole.encode())
    count = lambda html: html.count('<details class="sample"')  # noqa: E731
    assert 1 <= count(small) < count(whole) == 4
    assert "more characters" in small


def test_a_page_is_lossless_if_that_fits_and_smaller_if_not(tmp_path):
    page(tmp_path / "text.png", 320, SENTENCE)
    text = encode(tmp_path / "text.png", 1, 100_000)
    assert (text.width, text.height, text.scale, text.lossless) == (320, 320, 1.0, True)
    with Image.open(tmp_path / "text.png") as image, Image.open(decoded(text.data, tmp_path)) as again:
        assert again.convert("L").tobytes() == image.tobytes()
    page(tmp_path / "noise.png", 320, SENTENCE, grain=80)
    noise = encode(tmp_path / "noise.png", 1, 5_000)
    assert len(noise.data) <= 5_000 and noise.scale < 1 and not noise.lossless


def decoded(data, folder):
    path = folder / "decoded.webp"
    path.write_bytes(base64.b64decode(data.partition(",")[2]))
    return path


@pytest.mark.parametrize("values", [(4, 3, 5), (60, 1, 1), (1, 1, 60), (1, 12, 5), (2, 30, 1)])
def test_all_of_sixty_rows_look_different(values):
    rows = wide(60, values)
    found, legends = looks(rows, ["mode", "freeze", "lr"])
    assert len({(look.colour, look.shape, look.radius) for look in found}) == 60
    assert legends and all(look.colour < 8 and look.shape < 8 for look in found)


def test_a_chart_keeps_its_marks_and_ticks_inside():
    rows = wide()
    axis = Axis("tokens", {i: row.cost["vision_tokens"] for i, row in enumerate(rows)}, exact=True)
    drawn = chart(rows, looks(rows, ["mode", "freeze", "lr"])[0], "cer", axis)
    assert len(drawn.marks) == 60 and len(drawn.lines) == 15  # a line for each pair of freeze and lr
    for mark in drawn.marks:
        assert LEFT <= mark.x <= RIGHT and TOP <= mark.high < mark.y < mark.low <= BOTTOM
    assert [label for _, label in drawn.x_ticks] == ["64", "128", "192", "256"]
    assert (
        len({round(mark.x, 3) for mark in drawn.marks if rows[mark.row].settings["mode"] == "0"}) == 15
    )  # side by side
    heights = {row.figures["cer"].value: mark.y for row, mark in zip(rows, drawn.marks, strict=True)}
    assert heights[0.0] - heights[30.0] == pytest.approx(heights[29.0] - heights[59.0])


def test_a_metric_that_no_row_has_gives_no_chart():
    rows = wide(4)
    assert chart(rows, looks(rows, ["mode"])[0], "rouge1", Axis("tokens", {0: 1.0})) is None


@pytest.mark.parametrize("value, shown", [(950.0, "950"), (999.9, "1 k"), (2.5e9, "2.5 G"), (1.234e13, "12.3 T")])
def test_large_numbers_get_a_prefix(value, shown):
    assert si(value) == shown


def test_the_command_makes_it_from_the_folder_alone(tmp_path, capsys):
    summary(tmp_path, GRID)
    cells = sorted(path.name for path in tmp_path.glob("cell-*"))
    grid = {
        "command": ["python", "ablate.py", "--tokens", "64", "100"],
        "question": "Does <b>it</b> work?",
        "swept": ["mode", "freeze"],
        "cells": [*cells, "broken"],
        "before": ["before"],
    }
    (tmp_path / "grid.json").write_text(json.dumps(grid))
    assert main(["report", str(tmp_path)]) == 0
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "python ablate.py --tokens 64 100" in html and "Does &lt;b&gt;it&lt;/b&gt; work?" in html
    assert "report.html" in capsys.readouterr().err
    assert main(["report", str(tmp_path), "--baseline", "freeze=missing"]) == 2
