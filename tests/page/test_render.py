"""Documents become page images: nothing is lost or leaves the margins, and the same text gives the same pixels."""

import io
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from lightseek.page.render import PageStyle, fit_style, render_file, render_pdf, render_text

SMALL = PageStyle(width=320, height=240, margin=20, font_size=14)
PROSE = "The council met on Tuesday and agreed that the bridge over the river should open before winter. "


def ink(image: Image.Image) -> np.ndarray:
    """Return an array of `height x width` that is true where a page is not white."""
    return np.asarray(image.convert("L")) < 255


def ink_rows(image: Image.Image) -> list[tuple[int, int]]:
    """Return (top, bottom) of every band of rows with ink. Each band is a line of text if the lines do not touch."""
    rows = np.concatenate([[False], ink(image).any(axis=1), [False]])
    edges = np.flatnonzero(rows[1:] != rows[:-1])
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def squeeze(text: str) -> str:
    return "".join(text.split())


def check_margins(rendering, style: PageStyle) -> None:
    for page in rendering.pages:
        assert page.image.size == (style.width, style.height)
        assert page.image.mode == "RGB"
        outside = ink(page.image)
        outside[style.margin : style.height - style.margin, style.margin : style.width - style.margin] = False
        assert not outside.any()


characters = st.one_of(
    st.sampled_from("abc XYZ jgf \n\t-.,"),
    st.sampled_from("\u0301\u0489\u200d\u00a0\u3000\u2028ﷺ漢字😀ẞȸاש\x00\x1b\ud800"),
    st.characters(),
)
styles = st.builds(
    PageStyle,
    width=st.integers(150, 500),
    height=st.integers(120, 400),
    margin=st.integers(0, 30),
    font_size=st.integers(6, 24),
    font=st.sampled_from(["DejaVuSans", "DejaVuSerif", "DejaVuSans-Oblique", "DejaVuSansMono"]),
    line_spacing=st.sampled_from([0.0, 0.8, 1, 1.3, 2.0]),
)


@settings(deadline=None, max_examples=80)
@given(text=st.text(characters, max_size=300), style=styles)
@example(text="x" * 400, style=PageStyle(width=150, height=120, margin=0, font_size=24))
def test_any_text_keeps_all_its_words_inside_the_margins(text: str, style: PageStyle):
    rendering = render_text(text, style)
    check_margins(rendering, style)
    shown = "".join(page.text for page in rendering.pages)
    assert squeeze(shown) == squeeze(text)  # every word once, whole and in order


MARKUP = [
    "# ",
    "- ",
    "1. ",
    "> ",
    "**",
    "*",
    "`",
    "```\n",
    "    ",
    "\n\n",
    "\n",
    "| ",
    " |\n|--|\n",
    "[a](b)",
    "![",
    "&amp;",
]


@settings(deadline=None, max_examples=80)
@given(parts=st.lists(st.one_of(st.sampled_from(MARKUP), st.text("ab W&;\\<>", max_size=12), st.text(max_size=5))))
@example(parts=["- " * 40, "word"])
@example(parts=["> " * 60, "word"])
@example(parts=["| a | b |\n|---|---|\n", "| " + PROSE * 3 + "| " + PROSE * 3 + "|\n", "| 1 | 2 |"])
def test_any_markdown_keeps_all_its_source_inside_the_margins(parts: list[str]):
    text = "".join(parts)
    try:
        rendering = render_text(text, SMALL, markdown=True)
    except ValueError as error:  # a table column or deep nesting may leave too little room for one letter
        assume("pixels wide in" not in str(error))
        raise
    check_margins(rendering, SMALL)
    assert squeeze("".join(page.text for page in rendering.pages)) == squeeze(text)


def test_long_text_takes_several_pages_and_each_knows_its_words():
    text = PROSE * 20
    pages = render_text(text, SMALL).pages
    assert len(pages) > 3
    assert " ".join(page.text for page in pages) == text.strip()
    alone = render_text(pages[1].text, SMALL)  # a page's text alone gives the same page
    assert len(alone.pages) == 1
    assert alone.pages[0].image.tobytes() == pages[1].image.tobytes()


def test_markdown_pages_split_where_their_source_does():
    text = "\n".join(f"- item **number {i}** of a list" for i in range(40))
    pages = render_text(text, SMALL, markdown=True).pages
    assert len(pages) > 2
    assert "\n".join(page.text for page in pages) == text
    assert all(page.text.startswith("- item") and page.text.endswith("list") for page in pages)


def test_a_code_fence_and_a_table_row_end_on_the_page_of_their_last_word():
    for block in ("```\ncode\n```", "| a | b |\n|---|---|\n| 1 | 2 |"):
        for lines in range(1, 20):
            pages = render_text("word\n\n" * lines + block + "\n\nlast", SMALL, markdown=True).pages
            assert not any(page.text.startswith(("```\n\n", "|\n")) for page in pages)


def test_too_many_pages_is_an_error_and_not_a_cut():
    with pytest.raises(ValueError, match="more than 2 pages"):
        render_text(PROSE * 40, SMALL, max_pages=2)


def test_no_text_is_one_white_page():
    for text in ("", " \n\t\n "):
        (page,) = render_text(text, SMALL).pages
        assert page.text == ""
        assert not ink(page.image).any()


def test_a_word_wider_than_the_page_breaks_across_lines():
    word = "https://example.org/" + "abcdefghij" * 12
    (page,) = render_text(word, SMALL).pages
    assert page.text == word
    assert len(ink_rows(page.image)) >= 3


def test_line_breaks_and_indentation_stay():
    poem = "I\n  I\n    I\n\nI"
    (page,) = render_text(poem, SMALL).pages
    bands = ink_rows(page.image)
    lefts = [int(np.flatnonzero(ink(page.image)[top:bottom].any(axis=0))[0]) for top, bottom in bands]
    assert len(bands) == 4
    assert lefts[0] < lefts[1] < lefts[2]
    assert lefts[3] == lefts[0]
    gaps = [below[0] - above[0] for above, below in pairwise(bands)]
    assert gaps[0] == gaps[1] < gaps[2]  # a blank line gives a larger gap


def test_tabs_line_up():
    (page,) = render_text("I\tI\nW\tI", SMALL).pages
    rights = [int(np.flatnonzero(ink(page.image)[top:bottom].any(axis=0))[-1]) for top, bottom in ink_rows(page.image)]
    assert rights[0] == rights[1]


def test_windows_line_ends_make_the_same_page():
    unix, windows = render_text("one\n\ntwo\nthree", SMALL), render_text("one\r\n\r\ntwo\r\nthree", SMALL)
    assert windows.pages[0].text == unix.pages[0].text == "one\n\ntwo\nthree"
    assert windows.pages[0].image.tobytes() == unix.pages[0].image.tobytes()


def test_headings_are_larger_than_the_body_and_shrink_by_level():
    style = PageStyle(width=400, height=500)
    (page,) = render_text("# H\n\n## H\n\n### H\n\nH", style, markdown=True).pages
    heights = [bottom - top for top, bottom in ink_rows(page.image)]
    assert len(heights) == 4
    assert heights == sorted(heights, reverse=True)
    assert heights[0] > 1.6 * heights[3]


def test_a_heading_never_stands_alone_at_the_foot_of_a_page():
    for lines in range(1, 20):
        text = "\n\n".join(["body"] * lines + ["# Heading", "its text"])
        for page in render_text(text, SMALL, markdown=True).pages:
            assert not page.text.endswith("Heading")


@pytest.mark.parametrize(("plain", "marked"), [("word", "**word**"), ("word", "*word*"), ("word", "`word`")])
def test_markup_changes_the_face(plain: str, marked: str):
    (regular,), (styled,) = (render_text(text, SMALL, markdown=True).pages for text in (plain, marked))
    assert regular.image.tobytes() != styled.image.tobytes()
    assert styled.text == marked


def test_a_paragraph_that_begins_with_code_keeps_its_narrow_spaces():
    (first,), (last,) = (render_text(text, SMALL, markdown=True).pages for text in ("`I` I I I I", "I I I I `I`"))
    (all_code,) = render_text("`I I I I I`", SMALL, markdown=True).pages
    first, last, all_code = (int(np.flatnonzero(ink(page.image).any(axis=0))[-1]) for page in (first, last, all_code))
    assert abs(first - last) <= 3 < all_code - first


def test_list_items_hang_under_their_own_text():
    (page,) = render_text("1. " + "HI " * 40, SMALL, markdown=True).pages
    lefts = [int(np.flatnonzero(ink(page.image)[top:bottom].any(axis=0))[0]) for top, bottom in ink_rows(page.image)]
    assert len(lefts) > 2
    assert lefts[0] < lefts[1] == lefts[2]


def test_a_quote_in_a_list_item_stands_right_of_its_bar():
    (page,) = render_text("- > " + "HI " * 40, SMALL, markdown=True).pages
    columns = [np.flatnonzero(ink(page.image)[row]) for row in range(SMALL.margin, SMALL.margin + 80)]
    bar = next(int(c[0]) for c in columns if len(c))  # the bar reaches the top of the text, the bullet does not
    texts = {int(c[c > bar + 4][0]) for c in columns if (c > bar + 4).any()}
    assert min(texts) - bar > 10  # the stem of H, on all lines
    assert len(texts) == 1


def test_a_list_number_stays_when_its_item_does_not_fit_beside_it():
    style = PageStyle(width=110, height=240, margin=10, font_size=20)
    (page,) = render_text("123456. WW", style, markdown=True).pages
    (item,) = render_text("WW", style).pages
    assert len(ink_rows(page.image)) > len(ink_rows(item.image)) == 1


def test_table_columns_line_up_and_numbers_stand_right():
    source = "| I | I |\n|---|--:|\n| I | WWWI |\n| WWW | I |"
    (page,) = render_text(source, SMALL, markdown=True).pages
    bands = [(top, bottom) for top, bottom in ink_rows(page.image) if bottom - top > 4]  # the rule is thin
    columns = [np.flatnonzero(ink(page.image)[top:bottom].any(axis=0)) for top, bottom in bands]
    lefts, rights = {int(c[0]) for c in columns[1:]}, {int(c[-1]) for c in columns[1:]}
    assert len(bands) == 3
    assert max(lefts) - min(lefts) <= 1  # I and W have different side bearings
    assert max(rights) - min(rights) <= 1


@pytest.mark.parametrize(
    ("source", "as_a_browser_would"),
    [
        ("[text](https://example.org)", "text"),  # addresses are drawn
        ("| a |\n|---|\n| 1 | more cells than the head |", "| a |\n|---|\n| 1 |"),  # the parser drops these cells
        (">" * 60 + " deep", ">" * 60),  # the parser would also drop text below 20 levels
        ("<!-- a comment -->", ""),
    ],
)
def test_what_a_browser_would_hide_is_drawn(source: str, as_a_browser_would: str):
    drawn, hidden = (render_text(text, SMALL, markdown=True).pages[0].image for text in (source, as_a_browser_would))
    assert ink(drawn).sum() > ink(hidden).sum()


def test_missing_glyphs_are_counted():
    rendering = render_text("abc 漢字漢 é\u00a0ü \x07", SMALL)
    assert rendering.missing_glyphs == {"\x07": 1, "字": 1, "漢": 2}
    assert render_text("plain é ß Ω Ж", SMALL).missing_glyphs == {}
    # Each face counts alone: the monospaced one has no Hebrew, the regular one has.
    assert render_text("ש `ש`", SMALL, markdown=True).missing_glyphs == {"ש": 1}


def test_pixels_are_deterministic():
    text = "# A page\n\n" + PROSE * 3 + "\n\n- one\n- two"
    first, second = (render_text(text, SMALL, markdown=True).pages[0].image for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_a_font_file_gives_the_same_page_as_its_name(tmp_path: Path):
    from lightseek.page.typeset.fonts import font_files

    copy = tmp_path / "Mine-Regular.ttf"
    copy.write_bytes(Path(font_files("DejaVuSans")[""]).read_bytes())
    (tmp_path / "Mine-Bold.ttf").write_bytes(Path(font_files("DejaVuSans")["b"]).read_bytes())
    style = replace(SMALL, font=str(copy))
    named, loaded = (render_text("a **b**", s, markdown=True).pages[0].image for s in (SMALL, style))
    assert named.tobytes() == loaded.tobytes()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"margin": 160}, "margins of 160 leave nothing"),
        ({"font_size": 0}, "font_size is 0"),
        ({"width": 0}, "width is 0"),
        ({"line_spacing": float("nan")}, "line_spacing is nan"),
        ({"width": 100_000, "height": 100_000}, "more than"),
    ],
)
def test_an_impossible_style_is_refused(wrong: dict, message: str):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **wrong)


def test_type_too_large_for_the_page_is_refused():
    with pytest.raises(ValueError, match=r"a line is .* pixels high"):
        render_text("word", replace(SMALL, font_size=300))
    with pytest.raises(ValueError, match=r"'W' is .* pixels wide"):
        render_text("W", replace(SMALL, width=60, font_size=30))


def test_an_unknown_or_broken_font_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no font 'Comic'.*DejaVuSans,"):
        render_text("word", replace(SMALL, font="Comic"))
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    with pytest.raises(ValueError, match="not a font"):
        render_text("word", replace(SMALL, font=str(broken)))


@settings(deadline=None, max_examples=25)
@given(words=st.integers(1, 150), side=st.sampled_from([256, 512]), pages=st.integers(1, 2), markdown=st.booleans())
def test_fit_style_finds_the_largest_size_that_fits(words: int, side: int, pages: int, markdown: bool):
    text = " ".join((PROSE.split() * 20)[:words])
    style = PageStyle(width=side, height=side, margin=16)
    best = fit_style(text, style, pages=pages, smallest=6, largest=60, markdown=markdown)
    assert len(render_text(text, best, markdown).pages) <= pages
    if best.font_size < 60:
        larger = replace(best, font_size=best.font_size + 1)
        assert len(render_text(text, larger, markdown).pages) > pages


def test_fit_style_stops_at_its_bounds():
    assert fit_style("word", SMALL, largest=9).font_size == 9
    assert fit_style("", SMALL, largest=30).font_size == 30
    with pytest.raises(ValueError, match=r"does not fit on 1 page.* at 8 pixels"):
        fit_style(PROSE * 100, SMALL)
    assert fit_style("W", PageStyle(width=40, height=400, margin=10)).font_size < 40  # the page is 20 pixels wide


def save_pdf(path: Path, sizes: list[tuple[int, int]]) -> Path:
    """Save a PDF at 72 dpi. Each size gives a white page with a black square in its upper left corner."""
    pages = [Image.new("RGB", size, "white") for size in sizes]
    for page in pages:
        page.paste("black", (10, 10, 30, 30))
    pages[0].save(path, save_all=True, append_images=pages[1:], resolution=72)
    return path


def test_pdf_pages_become_images(tmp_path: Path):
    path = save_pdf(tmp_path / "doc.pdf", [(200, 100), (120, 160)])
    first, second = render_pdf(path, dpi=144)
    assert (first.size, first.mode, second.size) == ((400, 200), "RGB", (240, 320))
    assert first.getpixel((40, 40)) < (30, 30, 30)
    assert first.getpixel((200, 100)) == (255, 255, 255)
    assert [page.size for page in render_pdf(path, side=640, pages=[1])] == [(480, 640)]
    assert [page.image.size for page in render_file(path).pages] == [(400, 200), (240, 320)]


def test_a_large_pdf_page_is_drawn_smaller(tmp_path: Path):
    path = save_pdf(tmp_path / "plan.pdf", [(400, 200), (120, 160)])
    plan, page = render_pdf(path, dpi=144, max_pixels=80_000)
    assert plan.size == (400, 200) and page.size == (240, 320)  # in the same proportions, and not 800 x 400
    assert plan.getpixel((20, 20)) < (30, 30, 30) and plan.getpixel((200, 100)) == (255, 255, 255)


def test_a_pdf_over_the_limits_is_refused(tmp_path: Path):
    path = save_pdf(tmp_path / "doc.pdf", [(200, 100), (120, 160)])
    with pytest.raises(ValueError, match=r"doc.pdf: more than 1 pages \(it has 2\)"):
        render_pdf(path, max_pages=1)
    with pytest.raises(ValueError, match="no page 6: the file has 2 pages"):
        render_pdf(path, pages=[5])
    with pytest.raises(FileNotFoundError):
        render_pdf(tmp_path / "absent.pdf")


def test_a_broken_or_encrypted_pdf_is_refused(tmp_path: Path):
    broken = tmp_path / "broken.pdf"
    for content in (b"", b"%PDF-1.7 and nothing else", save_pdf(tmp_path / "ok.pdf", [(99, 99)]).read_bytes()[:200]):
        broken.write_bytes(content)
        with pytest.raises(ValueError, match=r"broken.pdf is not a readable PDF"):
            render_pdf(broken)
    # This is the smallest file that asks for a password. The keys in its encryption dictionary are made up.
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[]/Count 0>>",
        b"<</Filter/Standard/V 1/R 2/Length 40/P -4/O<" + b"41" * 32 + b">/U<" + b"42" * 32 + b">>>",
    ]
    body, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj%b endobj\n" % (number, content)
    table = b"xref\n0 4\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    trailer = b"trailer<</Size 4/Root 1 0 R/Encrypt 3 0 R/ID[<00><00>]>>\nstartxref\n%d\n%%%%EOF" % len(body)
    locked = tmp_path / "locked.pdf"
    locked.write_bytes(body + table + trailer)
    with pytest.raises(ValueError, match=r"locked.pdf is encrypted"):
        render_pdf(locked)


@pytest.mark.parametrize(
    "picture",
    [
        "![chart](data:image/png;base64,PAYLOAD)",
        '![chart](data:image/svg+xml;charset=utf-8;base64,PAYLOAD "a title")',
        "[![chart](data:image/jpeg;base64,PAYLOAD)](https://example.org)",
        '<img alt="chart" src="data:image/png;base64,PAYLOAD">',
        "![chart][1]\n\n[1]: data:image/webp;base64,PAYLOAD",
        "| a |\n|---|\n| ![chart](DATA:image/gif;base64,PAYLOAD) |",
    ],
)
def test_a_picture_pasted_into_markdown_is_its_alt_text_and_a_short_mark(picture: str):
    payload = "".join(chr(48 + 7 * i % 10) for i in range(100_000))
    note = f"# Minutes\n\nThe pump failed at 7:15.\n\n{picture.replace('PAYLOAD', payload)}\n\nIt was mended by noon.\n"
    (page,) = render_text(note, markdown=True).pages
    assert "failed at 7:15" in page.text and "mended by noon" in page.text and len(page.text) < 250
    assert "chart" in page.text and "base64,…" in page.text and payload[:20] not in page.text
    short = "See ![dot](data:image/gif;base64,R0lGODlhAQABAAAAACw=) and [data](https://example.org/data:text/x,y)."
    assert render_text(short, markdown=True).pages[0].text == short


def test_files_are_read_by_suffix(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf# plain")  # with a byte order mark
    (tmp_path / "a.md").write_text("# plain")
    text, markdown = (render_file(tmp_path / name, SMALL) for name in ("a.txt", "a.md"))
    assert text.pages[0].text == markdown.pages[0].text == "# plain"
    assert text.missing_glyphs == {}
    assert text.pages[0].image.tobytes() != markdown.pages[0].image.tobytes()
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin.txt is not UTF-8 text: byte 0"):
        render_file(tmp_path / "latin.txt")
    with pytest.raises(ValueError, match=r"what a .docx file is; known are .*\.pdf"):
        render_file(tmp_path / "a.docx")


def test_pictures_open_upright_on_white_in_rgb(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees
    Image.new("RGB", (30, 20), "white").save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.fromarray(np.full((8, 8), 0x8000, np.uint16)).save(tmp_path / "deep.png")
    frames = [Image.new("L", (8 + i, 8), 0) for i in range(3)]
    frames[0].save(tmp_path / "scan.tiff", save_all=True, append_images=frames[1:])
    turned, clear, deep = (render_file(tmp_path / name).pages for name in ("turned.jpg", "clear.png", "deep.png"))
    assert (turned[0].image.size, turned[0].image.mode, turned[0].text) == ((20, 30), "RGB", "")
    assert clear[0].image.getpixel((0, 0)) == (255, 255, 255)
    assert abs(deep[0].image.getpixel((0, 0))[0] - 128) <= 1  # 16 bits scaled to 8
    assert [page.image.size for page in render_file(tmp_path / "scan.tiff").pages] == [(8, 8), (9, 8), (10, 8)]


def test_a_broken_or_huge_picture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(whole, "PNG")
    for content in (b"", b"not a picture", whole.getvalue()[:60]):
        (tmp_path / "x.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"x.png is not a picture"):
            render_file(tmp_path / "x.png")
    (tmp_path / "x.png").write_bytes(whole.getvalue())
    monkeypatch.setattr("lightseek.page.pictures.MAX_STORED", 1000)
    with pytest.raises(ValueError, match="64 x 64 is over 1000 pixels"):
        render_file(tmp_path / "x.png")
    with pytest.raises(FileNotFoundError):
        render_file(tmp_path / "absent.png")


def test_importing_render_stays_cheap():
    import subprocess
    import sys

    heavy = ("torch", "matplotlib", "markdown_it", "pypdfium2", "fontTools")
    code = f"import sys, lightseek.page.render; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
