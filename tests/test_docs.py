"""Tests of README.md and docs/*.md: the Python code runs, the commands parse, and the linked files exist."""

import re
import shlex
from pathlib import Path

import pytest

from lightseek.__main__ import parser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LESSONS = [page for page in PAGES if page.parent.name == "docs" and "```python" in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", LESSONS, ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page, monkeypatch):
    """The blocks run in order and in one namespace, as if a reader pasted them. The pages assert their own shapes."""
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    exec("\n".join(blocks), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_lightseek_command_of_a_page_is_one(page):
    text = page.read_text(encoding="utf-8")
    for command in re.findall(r"^python -m lightseek (.+?)(?:  # needs .+)?$", text, re.MULTILINE):
        assert parser().parse_args(shlex.split(command)).command == command.split()[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name} links to {target}"


def test_there_are_pages_to_check():
    assert {"README.md", "one-page.md", "api.md"} <= {page.name for page in PAGES} and len(LESSONS) >= 2
