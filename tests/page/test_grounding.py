"""Regions and tables in the text of a model: exact on good text, and never an error on any other."""

import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lightseek.page.found_tables import MOST_CELLS, as_csv, as_html, find_tables
from lightseek.page.grounding import Region, as_rows, cut_out, draw_regions, find_regions, in_pixels, without_tags
from lightseek.page.modes import find_mode, padded_frame

GOOD = (
    "Before.\n<|ref|>title<|/ref|><|det|>[[100, 0, 999, 200]]<|/det|>\n# The river\n\n"
    "<|ref|>image<|/ref|><|det|>[[0,500,500,999],[500,500,999,999]]<|/det|>\n"
)


def test_the_official_form_is_read():
    before, regions = find_regions(GOOD)
    assert before == "Before."
    assert regions == [
        Region("title", ((100, 0, 999, 200),), "# The river"),
        Region("image", ((0, 500, 500, 999), (500, 500, 999, 999)), ""),
    ]
    assert without_tags(GOOD, ["a.png"]) == "Before.\n\n# The river\n\n![image](a.png)"
    assert as_rows(regions, (1998, 999))[0]["boxes"] == [(200, 0, 1998, 200)]


def test_the_padding_of_a_view_is_undone():
    """A wide page in the mode base is in the middle of a square: its upper edge is at a quarter of the view."""
    frame = padded_frame((1000, 500), find_mode("base"))
    assert in_pixels((0, 250, 999, 750), (1000, 500), frame) == (0, 0, 1000, 501 - 1)
    assert in_pixels((0, 0, 999, 100), (1000, 500), frame) == (0, 0, 1000, 1)  # in the grey; it stays in the picture


@pytest.mark.parametrize(
    "boxes",
    [
        "[[1,2,3]]", "[1,2,3,4]", "[[1,2,3,4]", "[[1,2,3,4.5]]", "[[1,2,1000,4]]", "[[5,2,5,4]]", "[]", "[[-1,2,3,4]]",
        "[[1,2,3,4]]; import os", "__import__('os')", "[[1,2,3,1e2]]", "[" * 5000, "[[NaN,1,2,3]]", "[[true,2,3,4]]",
        "[[1,2,3," + "9" * 400 + "]]",
    ],
)  # fmt: skip
def test_what_is_not_exact_stays_text(boxes):
    text = f"<|ref|>a<|/ref|><|det|>{boxes}<|/det|>"
    assert find_regions(text) == (text, [])


PARTS = st.sampled_from(
    ["<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "[[1,2,30,40]]", "[[", "]]", ",", "999", "0", "a", "\n", "<|", "|",
     "<table>", "</table>", "<tr>", "<td>", '<td rowspan="9999999">', '<td colspan="99">', "</td>", "<!--", "&", "|-|"]
)  # fmt: skip
TEXTS = st.lists(PARTS | st.text(max_size=5), max_size=40).map("".join)


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_no_text_is_an_error_and_boxes_are_in_the_picture(text):
    before, regions = find_regions(text)
    assert before in text
    without_tags(text)
    picture = Image.new("RGB", (37, 11))
    for region in regions:
        assert region.text in text
        for piece in cut_out(picture, region):
            assert 0 < piece.width <= 37
            assert 0 < piece.height <= 11
    if regions:
        assert draw_regions(picture, regions).size == picture.size
    for table in find_tables(text):
        assert len({len(row) for row in table}) == 1
        assert len(table) * len(table[0]) <= MOST_CELLS
        assert list(csv.reader(io.StringIO(as_csv(table)))) == table


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(0, 999)] * 4), min_size=1, max_size=5),
    st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    st.sampled_from(["base", "large", None]),
)
def test_written_boxes_come_back_and_stay_in_any_picture(boxes, size, mode):
    text = f"<|ref|>x<|/ref|><|det|>{json.dumps(boxes)}<|/det|>"
    kept = tuple(box for box in boxes if box[0] < box[2] and box[1] < box[3])
    _, regions = find_regions(text)
    assert regions == ([Region("x", kept, "")] if kept else [])
    for box in kept:
        left, top, right, bottom = in_pixels(box, size, padded_frame(size, find_mode(mode)) if mode else None)
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]


def test_long_hostile_texts_take_no_time():
    for text in ("<|ref|>" * 30_000, "<|ref|>a<|/ref|><|det|>" * 5000, "<|ref|>" + " " * 100_000, "|" * 100_000):
        assert find_regions(text) == (text.strip(), [])
        find_tables(text)
    find_tables("<table>" * 20_000 + "<td>" * 20_000)


def test_tables_of_both_kinds_in_their_order():
    text = (
        "| a | b\\|c |\n|---|:--:|\n| 1 | 2 |\n| 3 |\n\nWords.\n\n"
        "<table><tr><td colspan='2'>Boats &amp; maps</td></tr><tr><td rowspan=2>1</td><td>2<br>x</td></tr>"
        "<tr><td><b>3</b></td></tr></table> and <table><tr><th>cut"
    )
    tables = find_tables(text)
    assert tables == [
        [["a", "b|c"], ["1", "2"], ["3", ""]],
        [["Boats & maps", ""], ["1", "2 x"], ["", "3"]],
        [["cut"]],
    ]
    assert as_csv(tables[0]) == "a,b|c\r\n1,2\r\n3,\r\n"
    assert as_html([["<script>"]]) == "<table>\n<tr><td>&lt;script&gt;</td></tr>\n</table>\n"
