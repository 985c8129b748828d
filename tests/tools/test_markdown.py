"""Tests that nothing from data is alive in Markdown: the parser finds text and code, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from lightseek.tools.markdown import block, code

ALIVE = [
    "<script>alert(1)</script>",
    "<img src=http://example.org/a.png>",
    "![a](http://example.org/a.png)",
    "# a heading\n\n---\n\n* a list\n\n    indented",
    "a `code` ``` fence\n```\n<b>\n~~~\n````",
    "| a | b |\n| --- | --- |",
    "[a]: http://example.org\n\n[a]",
    "half \ud800, \x00, \x1b[31m, \u202e, \u2028 # a",
]
MARKS = st.text(st.sampled_from("`~<>#*_|[]()!-=:/\\&\n\r ax\t\u2028"), max_size=40)


def kinds(text: str) -> list[str]:
    tokens = MarkdownIt("gfm-like", {"html": True, "linkify": False}).parse(text)
    return [token.type for outer in tokens for token in (outer.children or [outer])]


@pytest.mark.parametrize("text", ALIVE)
def test_a_block_is_one_fence_and_a_line_is_one_piece_of_code(text):
    assert kinds(f"before\n\n{block(text)}\n\nafter") == [
        *("paragraph_open", "text", "paragraph_close", "fence"), "paragraph_open", "text", "paragraph_close",
    ]  # fmt: skip
    assert kinds(f"## {code(text)}") == ["heading_open", "code_inline", "heading_close"]
    block(text).encode()


@given(MARKS)
def test_whatever_the_marks(text):
    assert kinds(block(text)) == ["fence"]
    assert kinds(f"- {code(text)}") == [
        *("bullet_list_open", "list_item_open", "paragraph_open"), "code_inline",
        *("paragraph_close", "list_item_close", "bullet_list_close"),
    ]  # fmt: skip
    row = kinds(f"| a | b |\n| --- | --- |\n| {code(text)} | c |")
    assert row.count("td_open") == 2 and row.count("code_inline") == 1
    assert not {"html_inline", "html_block", "image", "link_open"} & set(row)


def test_texts_can_still_be_read():
    assert block("one\ntwo") == "```text\none\ntwo\n```"
    assert block("") == "```text\n(nothing)\n```"
    assert code("a|b  c\n") == "`a\\|b c`" and code("x" * 400) == f"`{'x' * 300}...`"
