"""Tests of README.md and docs/*.md: the Python code runs, the commands are valid, and the linked files exist."""

import argparse
import re
import shlex
from pathlib import Path

import pytest

from lightseek.__main__ import parser
from lightseek.commands import cells as many
from lightseek.commands import summary
from lightseek.commands.arguments import parse_run
from lightseek.model.kinds import COMPRESSORS
from lightseek.training.settings import RunConfig, check

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LESSONS = [page for page in PAGES if page.parent.name == "docs" and "```python" in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", LESSONS, ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page, monkeypatch, tmp_path):
    """The blocks run in order and in one namespace, as if a reader pasted them. The pages assert their own shapes."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(COMPRESSORS, "_kinds", dict(COMPRESSORS._kinds))  # a page may register a kind
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    (tmp_path / "page.py").write_text("\n".join(blocks))  # nnsight reads the source of a block from its file
    exec(compile("\n".join(blocks), str(tmp_path / "page.py"), "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_lightseek_command_of_a_page_is_one(page):
    text = page.read_text(encoding="utf-8")
    for command in re.findall(r"^python -m lightseek (.+?)(?:  # needs .+)?$", text, re.MULTILINE):
        assert parser().parse_args(shlex.split(command, comments=True)).command == command.split()[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_of_a_training_command_is_one(page, monkeypatch):
    """Each value of a list is checked with the first value of the other lists."""

    def extra(command: argparse.ArgumentParser) -> None:
        command.add_argument("--out")
        command.add_argument("--push-to-hub")
        for flag in ("--overfit", "--save-model"):
            command.add_argument(flag, action="store_true")
        if program == "ablate":
            summary.add_flags(command)
            many.add_flags(command)

    monkeypatch.chdir(ROOT)  # for --config
    commands = re.findall(r"^python (train|ablate)\.py (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    for program, command in commands:
        argv = [word for word in shlex.split(command, comments=True) if word != "--help"]
        settings, _ = parse_run(program, "", argv, extra, grid=program == "ablate")
        lists = {name: value if isinstance(value, list) else [value] for name, value in settings.items()}
        base = {name: values[0] for name, values in lists.items()}
        for name, values in lists.items():
            for value in values:
                text = {"context": "text"} if str(value).startswith("seq2seq:") else {}
                check(RunConfig(**base | {name: value} | text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name} links to {target}"


def test_there_are_pages_to_check():
    assert {"README.md", "one-page.md", "api.md"} <= {page.name for page in PAGES} and len(LESSONS) >= 2
