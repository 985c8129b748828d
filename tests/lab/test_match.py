"""Tests of `--match parameters`: the kinds of a box get as many parameters as the first one, or a reason why not."""

import pytest

from lightseek.lab.grid import grid
from lightseek.lab.skeleton import skeleton
from lightseek.model.kinds import BOXES
from lightseek.training.settings import RunConfig


def cells(tmp_path, axis: str, *kinds: str, **settings) -> list[RunConfig]:
    lists = {axis: list(kinds), **{name: [value] for name, value in settings.items()}}
    return [cell.config for cell in grid(RunConfig(), lists, tmp_path, "parameters")[0]]


def parameters(config: RunConfig, axis: str) -> int:
    return sum(p.numel() for p in skeleton(config).get_submodule(BOXES[axis].path).parameters())


@pytest.mark.parametrize(
    ("axis", "kinds"),
    [
        ("compressor", ("conv", "resampler", "pixelshuffle", "resampler:factor=8,layers=2,heads=4", "conv:factor=8")),
        ("compressor", ("pixelshuffle:factor=2", "resampler:factor=2")),
        ("projector", ("linear", "mlp")),
    ],
)
def test_every_kind_is_within_5_percent_of_the_first(tmp_path, axis, kinds):
    found = cells(tmp_path, axis, *kinds)
    target, *others = (parameters(config, axis) for config in found)
    assert getattr(found[0], axis) == kinds[0]
    assert all(abs(count - target) <= 0.05 * target for count in others), (target, others)
    for config, kind in zip(found[1:], kinds[1:], strict=True):
        name = getattr(config, axis)
        assert name.startswith(kind) and ("width=" in name or "hidden=" in name)


def test_a_size_that_the_user_gives_stays(tmp_path):
    _, config = cells(tmp_path, "compressor", "conv", "resampler:width=128")
    assert config.compressor.startswith("resampler:width=128,hidden=")


@pytest.mark.parametrize(
    ("axis", "kinds", "message"),
    [
        ("compressor", ("conv", "meanpool"), "meanpool has 16,384 parameters and conv 368,640, and this kind has no s"),
        ("compressor", ("meanpool", "conv"), "no hidden brings it to within 5%"),
        ("global_stage", ("clip", "compressor-only"), "compressor-only has 0 parameters"),
        ("layout", ("rows", "plain"), "layout plain has 0 parameters and rows 512"),
        ("compressor", ("conv",), "--match parameters needs several kinds of a box"),
    ],
)
def test_a_kind_that_cannot_be_matched_says_why(tmp_path, axis, kinds, message):
    with pytest.raises(ValueError, match=message):
        cells(tmp_path, axis, *kinds)


def test_kinds_of_the_same_size_stay_as_they_are(tmp_path):
    assert [config.global_stage for config in cells(tmp_path, "global_stage", "clip", "clip-only")] == [
        "clip",
        "clip-only",
    ]
