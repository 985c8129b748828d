"""Numbers in docs/ that a run gives in a second are computed again. Those of long runs stand beside their command."""

import re
from functools import cache
from pathlib import Path

import pytest
import torch

from lightseek.model.config import OCRConfig
from lightseek.model.ocr import DeepSeekOCR
from lightseek.page.modes import MODES, positions, valid_tokens, vision_tokens
from lightseek.page.render import page_style, render_file
from lightseek.training.freeze import frozen_pattern
from lightseek.weights.loading import load_model

DOCS = Path(__file__).parents[1] / "docs"


def table(page: str, head: str) -> list[list[str]]:
    """Return the cells of the table whose first row begins with `head`, without the first row."""
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(f"| {head} |"))
    found = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            return found
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


@cache
def official() -> DeepSeekOCR:
    """Return a model of the official sizes without values, which needs no memory."""
    with torch.device("meta"):
        return DeepSeekOCR(OCRConfig.preset("deepseek-ocr"))


def size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def agrees(text: str, number: int) -> bool:
    """Return whether a number is the one in the text, exactly or rounded to tenths or hundredths of a million."""
    shown = [f"{number:,}", *(f"{number / 1e6:,.{digits}f}" for digits in (1, 2))]
    return re.match(r"[\d,.]+", text)[0] in shown


@pytest.mark.parametrize("row", table("one-page.md", "mode"), ids=lambda row: row[0])
def test_the_table_of_modes(row):
    name, tiles, *shown = [*row[0].split(", "), None][:2] + row[2:]
    grid = tuple(map(int, re.findall(r"\d+", tiles))) if tiles else (1, 1)
    tokens, places = vision_tokens(MODES[name], grid), positions(MODES[name], grid)
    assert [int(number.replace(",", "")) for number in shown] == [tokens * 16, tokens, places - tokens - 1, places]


def test_the_parameters_of_each_stage():
    model, checked = official(), 0
    assert f"{size(model):,}" in (DOCS / "one-page.md").read_text()
    for stage, _, _, parameters, *_ in table("one-page.md", "stage"):
        name = re.match(r"`?([\w.]+)`?", stage)[1]
        if name == "page" or parameters == "0":
            continue
        block = re.findall(r"\b\d+\b", stage.partition("`, ")[2].replace("8 of 12", "0"))[:1]
        assert agrees(parameters.split(" x ")[-1], size(model.get_submodule(".".join([name, *block])))), stage
        checked += 1
    assert checked >= 12


def test_the_arithmetic_of_the_page_itself():
    said = (DOCS / "one-page.md").read_text(encoding="utf-8")
    tokens = len(
        load_model().tokenizer.encode(
            "\n\n".join(p.text for p in render_file(DOCS / "page.md", page_style("base")).pages)
        )
    )
    ratios = [f"{tokens / vision_tokens(mode):.1f}" for mode in ("tiny", "small", "base")]
    assert f"{tokens} text\ntokens" in said
    assert "{} in `tiny`, {} in `small` and {} in `base`".format(*ratios) in said
    assert f"fills {valid_tokens('base', 700, 1000)} of the" in said


@pytest.mark.parametrize("row", table("training.md", "part"), ids=lambda row: row[0])
def test_the_parts_that_can_be_frozen(row):
    for model, told in ((official(), row[2]), (load_model(), row[3])):
        numbers = re.findall(r"[\d,]*\d(?:\.\d+)?", told.replace("for N = 1", ""))
        for part, number in zip(re.findall(r"`([\w-]+)`", row[0]), numbers * 3, strict=False):
            belongs = frozen_pattern(part.replace("-N", "-1"), len(model.decoder.layers))
            found = sum(p.numel() for name, p in model.named_parameters() if belongs(name))
            assert agrees(number, found), (part, found)
