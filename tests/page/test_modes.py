"""Modes: how many vision tokens and sequence positions an image takes, and how the tiled modes cut it."""

import json

import pytest
from golden import FOLDER
from hypothesis import given
from hypothesis import strategies as st

from lightseek.page.modes import MODES, find_mode, gundam_grid, positions, valid_tokens, vision_tokens

GRIDS = json.loads((FOLDER / "gundam_grids.json").read_text())["cases"]
sides = st.integers(1, 6000)


@pytest.mark.parametrize("case", GRIDS, ids=lambda case: f"{case['width']}x{case['height']}")
def test_gundam_grid_as_the_reference_cuts_it(case):
    grid = gundam_grid(case["width"], case["height"])
    assert grid == tuple(case["grid"])
    assert positions("gundam", grid) == case["image_tokens"]


@pytest.mark.parametrize(
    ("mode", "tokens", "sequence"), [("tiny", 64, 73), ("small", 100, 111), ("base", 256, 273), ("large", 400, 421)]
)
def test_tokens_and_positions_of_the_untiled_modes(mode, tokens, sequence):
    assert vision_tokens(mode) == tokens
    assert positions(mode) == sequence == tokens + round(tokens**0.5) + 1  # one newline per row, one separator
    assert find_mode(tokens) is find_mode(str(tokens)) is MODES[mode]


@pytest.mark.parametrize(
    ("mode", "grid", "tokens", "sequence"),
    [
        ("gundam", (1, 1), 256, 273),
        ("gundam", (2, 3), 6 * 100 + 256, 903),
        ("gundam", (9, 1), 9 * 100 + 256, 10 * 91 + 273),
        ("gundam-m", (1, 1), 400, 421),
        ("gundam-m", (2, 1), 2 * 256 + 400, 16 * 33 + 421),
    ],
)
def test_tiled_modes_add_the_stitched_tiles_to_the_global_view(mode, grid, tokens, sequence):
    assert vision_tokens(mode, grid) == tokens
    assert positions(mode, grid) == sequence


def test_padding_is_not_counted_as_seen():
    assert valid_tokens("base", 1000, 500) == 128  # half of the square is grey
    assert valid_tokens("base", 700, 700) == 256
    assert valid_tokens("small", 1000, 500) == 100  # stretched, so nothing is grey
    assert valid_tokens("gundam", 1000, 500, (2, 1)) == 200 + 128


@pytest.mark.parametrize("name", ["huge", 101, "gundam-x", ""])
def test_an_unknown_mode_lists_the_choices(name):
    with pytest.raises(ValueError, match=r"choose one of tiny \(= 64\), small \(= 100\), .*gundam-m"):
        find_mode(name)


@pytest.mark.parametrize("size", [(0, 10), (10, 0), (-1, 5)])
def test_an_image_without_pixels_has_no_grid(size):
    with pytest.raises(ValueError, match="at least one pixel"):
        gundam_grid(*size)


@given(sides, sides)
def test_a_grid_has_no_tiles_or_two_to_nine(width, height):
    columns, rows = gundam_grid(width, height)
    small = width <= 640 and height <= 640
    assert (columns * rows == 1) == small
    assert small or 2 <= columns * rows <= 9


@given(sides, sides)
def test_no_other_grid_fits_the_aspect_better(width, height):
    columns, rows = gundam_grid(width, height)
    if columns * rows > 1:
        gap = abs(width / height - columns / rows)
        assert all(gap <= abs(width / height - c / r) for c in range(1, 10) for r in range(1, 10) if 2 <= c * r <= 9)


@given(st.sampled_from(list(MODES)), sides, sides)
def test_valid_tokens_are_some_of_the_tokens_and_all_tokens_are_positions(mode, width, height):
    tile = MODES[mode].tile
    grid = gundam_grid(width, height, tile) if tile else (1, 1)
    valid, tokens = valid_tokens(mode, width, height, grid), vision_tokens(mode, grid)
    assert 0 < valid <= tokens < positions(mode, grid)


@given(sides, sides)
def test_turning_a_square_aspect_page_turns_its_grid_unless_a_tie_was_broken(width, height):
    """The rule compares ratios and not their logarithms, so a grid must turn with the page only if it fits exactly."""
    columns, rows = gundam_grid(width, height)
    if width * rows == height * columns:
        turned = gundam_grid(height, width)
        assert turned[0] * width == turned[1] * height
