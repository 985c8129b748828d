"""nano's pre-training: pages that know where their characters stand, a curriculum, a run that goes on where it was."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

NANO = Path(__file__).parents[1] / "experiments" / "nano"
sys.path.insert(0, str(NANO))
from pages import ALPHABET, CLASSES, Kind, draw_page  # noqa: E402
from pretrain import Recipe  # noqa: E402

NAMES = {number: character for character, number in CLASSES.items()}


@pytest.mark.parametrize("texts", ["letters", "words", "digits", "strings", "documents"])
def test_a_page_is_the_same_every_time_and_tells_its_characters_in_reading_order(texts):
    kind = Kind(256, (5, 40), texts, batch=1)
    first, again = draw_page(kind, 0, 7), draw_page(kind, 0, 7)
    assert np.array_equal(first.pixels, again.pixels) and first.text == again.text
    assert first.pixels.shape == (256, 256) and first.pixels.min() < 100  # there is ink
    assert first.slots.shape == (16, 24) and first.patches.shape == (16, 16)
    assert draw_page(kind, 0, 8).text != first.text
    if len(first.text) <= 24:
        drawn = [NAMES.get(number, "?") for number in first.slots.flatten() if number]
        assert sorted(drawn) == sorted(c if c in ALPHABET else "?" for c in first.text if not c.isspace())


def test_the_cell_of_a_token_holds_the_letters_drawn_there():
    """One word on a 128-pixel page: its letters fill the upper cells from left to right, and ink stands under them."""
    kind = Kind(128, (4, 4), "letters", batch=1, rough=0.0)
    page = draw_page(kind, 0, 3)
    word = "".join(NAMES[number] for number in page.slots.flatten() if number)
    assert word == page.text.replace(" ", "")
    ink = page.pixels.reshape(8, 16, 8, 16).min(axis=(1, 3)) < 128
    assert (ink & (page.patches > 0)).sum() >= 0.6 * (page.patches > 0).sum() > 0


def test_the_recipe_goes_from_small_pages_to_large_ones():
    recipe = Recipe.load(NANO / "pretrain.json")
    sides = [{kind.side for kind in phase.kinds} for phase in recipe.phases]
    assert sides[0] == {128} and {512, 640, 1024} <= set.union(*sides)
    assert recipe.kind_at(0) in recipe.phases[0].kinds and recipe.kind_at(recipe.steps - 1) in recipe.phases[-1].kinds
    assert recipe.kind_at(recipe.phases[0].steps) in recipe.phases[1].kinds
    assert {recipe.kind_at(recipe.steps - i) for i in range(1, 200)} == set(recipe.phases[-1].kinds)
    assert recipe.learning_rate(recipe.warmup) == pytest.approx(recipe.phases[0].lr[0])
    assert recipe.learning_rate(recipe.steps - 1) == pytest.approx(recipe.phases[-1].lr[1], rel=0.02)


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    """6 steps at once, and 4 then 2, end with the same weights."""
    kind = {"side": 64, "characters": [1, 2], "texts": "letters", "batch": 1}

    def run(folder: str, steps: int) -> dict[str, torch.Tensor]:
        recipe = tmp_path / "recipe.json"
        recipe.write_text(json.dumps({"phases": [{"steps": 6, "lr": [0.001, 0.001], "kinds": [kind]}]}))
        command = [sys.executable, NANO / "pretrain.py", "--recipe", recipe, "--out", tmp_path / folder]
        subprocess.run([*command, "--device", "cpu", "--steps", str(steps)], check=True, capture_output=True)
        from safetensors.torch import load_file

        return load_file(tmp_path / folder / "checkpoint.safetensors")

    run("parts", 4)
    parts, whole = run("parts", 6), run("whole", 6)
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[name], whole[name]) for name in whole)
