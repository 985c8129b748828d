"""Tests of the kinds of compressors: their shapes, what each keeps of a page, and the factors that fit a page."""

import pytest
import torch
from tiny_models import SMALL
from tiny_run import tiny_checkpoint, tiny_run

from lightseek.lab.grid import check_model
from lightseek.model.boxes import build_box
from lightseek.model.kinds import COMPRESSORS
from lightseek.model.ocr import reset_parameters
from lightseek.training.run import Run


def compressor(kind: str, **settings) -> torch.nn.Module:
    torch.manual_seed(0)
    box = build_box("compressor", SMALL.with_box("compressor", kind, settings))
    reset_parameters(box)
    return box


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("kind", list(COMPRESSORS))
def test_every_kind_takes_every_factor_and_every_side(kind, factor):
    """4, 16 or 64 times fewer tokens, and every patch of the page has a part in them."""
    box = compressor(kind, factor=factor)
    for side in (32, 40, 64):
        x = torch.randn(2, SMALL.sam.neck, side, side, requires_grad=True)
        tokens = box(x)
        assert tokens.shape == (2, SMALL.clip.width, side // factor, side // factor)
    tokens.square().sum().backward()
    assert (x.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize(("factor", "channels"), [(2, [32]), (4, [16, 32]), (8, [16, 32, 32]), (16, [16, 32, 32, 32])])
def test_conv_halves_as_often_as_its_factor_asks(factor, channels):
    box = compressor("conv", factor=factor)
    assert [conv.out_channels for conv in box.children()] == channels
    assert [name for name, _ in box.named_children()] == [f"conv{i + 1}" for i in range(len(channels))]


def test_the_official_factor_is_the_official_model():
    assert SMALL.with_box("compressor", "conv", {"factor": 4}) == SMALL
    assert not SMALL.with_box("compressor", "conv", {"factor": 8}).official


def test_pixelshuffle_tells_the_patches_of_a_token_apart_and_meanpool_does_not():
    x = torch.randn(1, SMALL.sam.neck, 4, 4)
    turned = x.flip(-1)
    assert torch.allclose(compressor("meanpool")(x), compressor("meanpool")(turned), atol=1e-6)
    assert not torch.allclose(compressor("pixelshuffle")(x), compressor("pixelshuffle")(turned), atol=1e-3)


def test_a_query_of_the_resampler_knows_places_and_sees_the_whole_page():
    box = compressor("resampler", layers=2, heads=4)
    x = torch.randn(1, SMALL.sam.neck, 8, 8, requires_grad=True)
    tokens = box(x)
    assert not torch.allclose(tokens, box(x.flip(-1)).flip(-1), atol=1e-4)
    tokens[0, :, 0, 0].sum().backward()
    assert (x.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize(("mode", "side"), [("small", 640), ("gundam", 640)])
def test_a_mode_without_whole_tokens_is_refused_before_the_first_step(tmp_path, mode, side):
    config = tiny_run(tiny_checkpoint(tmp_path / "model"), compressor="meanpool:factor=16", mode=mode)
    message = f"mode {mode}: a side of {side} pixels does not hold whole vision tokens of 256 pixels"
    with pytest.raises(ValueError, match=message):
        check_model(config)
    with pytest.raises(ValueError, match=message):
        Run(config, tmp_path / "run")
