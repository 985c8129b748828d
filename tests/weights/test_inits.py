"""Tests of initial weights box by box: the named boxes change, and nothing else does."""

import pytest
import torch
from tiny_models import small_model

from lightseek import LightSeekOCR
from lightseek.weights.inits import init_parts
from lightseek.weights.kinds import INIT_PARTS as PARTS
from lightseek.weights.kinds import split_init
from lightseek.weights.swap import swap_box


def changed(model: LightSeekOCR) -> set[str]:
    """The boxes in which some weight differs from those of `small_model`."""
    before = small_model().state_dict()
    names = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    return {box for box, path in PARTS.items() if any(name.startswith(f"{path}.") for name in names)}


@pytest.mark.parametrize(
    ("init", "boxes"),
    [
        ("pretrained", set()),
        ("encoder:random", {"encoder", "sam", "compressor", "clip"}),
        ("compressor:random", {"encoder", "compressor"}),
        ("projector:random+decoder:random", {"projector", "decoder"}),
    ],
)
def test_the_named_parts_start_again(init, boxes):
    model = small_model()
    init_parts(model, init, seed=5)
    assert changed(model) == boxes
    again = small_model()
    init_parts(again, init, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_part_comes_from_another_checkpoint(tmp_path):
    donor = small_model()
    init_parts(donor, "decoder:random", seed=9)
    donor.save_pretrained(tmp_path)
    model = small_model()
    init_parts(model, f"decoder:{tmp_path}")
    assert changed(model) == {"decoder"}
    assert torch.equal(model.decoder.embed.weight, donor.decoder.embed.weight)


def test_a_part_of_another_size_is_refused(tmp_path):
    donor = small_model()
    swap_box(donor, "compressor", "meanpool")
    donor.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"init compressor:.*conv1.weight is missing there, \(16, 16, 3, 3\) here"):
        init_parts(small_model(), f"compressor:{tmp_path}")


@pytest.mark.parametrize("init", ["rondom", "encoder:", "eyes:random", "encoder:random+", "encoder"])
def test_an_unknown_kind_or_part_is_refused(init):
    with pytest.raises(ValueError, match=r"choose one of pretrained, random, sam\+clip, or PART:random"):
        split_init(init)
