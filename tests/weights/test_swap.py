"""Tests of `swap_box`: a model with a box of another kind can be saved, loaded, traced, frozen and adapted."""

import json

import pytest
import torch
from PIL import Image
from tiny_models import SMALL, small_model
from torch import nn

from lightseek import LightSeekOCR, OCRConfig
from lightseek.data.context.vision_cache import VisionCache
from lightseek.inspect.trace import trace
from lightseek.model.config import ConfigError
from lightseek.model.kinds import BOXES, COMPRESSORS
from lightseek.page.modes import Arithmetic, find_mode, positions, vision_tokens
from lightseek.page.views import page_views
from lightseek.text.prompts import prepare
from lightseek.training.freeze import freeze
from lightseek.weights.loading import load_model
from lightseek.weights.lora import adapters, add_lora
from lightseek.weights.lora_files import load_adapter, save_adapter
from lightseek.weights.swap import swap_box

PAGE = Image.new("RGB", (640, 640), "white")


def swapped(kind: str = "meanpool", **settings) -> LightSeekOCR:
    model = small_model()
    swap_box(model, "compressor", kind, settings)
    return model


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_tokens_and_positions_follow_the_factor(factor):
    """A page of 640 pixels has 40 x 40 patches, which become 400, 100 or 25 vision tokens."""
    model = swapped(factor=factor)
    arithmetic = model.config.arithmetic
    assert vision_tokens("small", arithmetic=arithmetic) == (40 // factor) ** 2
    inputs = prepare(model.config, model.tokenizer, ["<image>\nFree OCR."], [[PAGE]], "small")
    is_image = inputs.input_ids == model.config.image_token_id
    assert (
        is_image.sum().item() == positions("small", arithmetic=arithmetic) == len(model.encode_page(inputs.pages[0][0]))
    )
    assert torch.isfinite(model(inputs.input_ids, pages=inputs.pages).logits).all()
    tiles = prepare(model.config, model.tokenizer, ["<image>"], [[Image.new("RGB", (1300, 700))]], "gundam")
    assert len(model.encode_page(tiles.pages[0][0])) == (tiles.input_ids == model.config.image_token_id).sum()


def test_a_factor_that_does_not_fit_the_page_is_refused():
    with pytest.raises(ValueError, match="a side of 640 pixels does not hold whole vision tokens of 48 pixels"):
        positions("small", arithmetic=Arithmetic(token_side=48))


def test_meanpool_takes_the_mean_of_a_tokens_patches():
    """Here all patches of a token have the same value, so their mean has it too. Then it is mapped to CLIP's width."""
    pool = swapped().encoder.compressor
    x = torch.arange(4.0).repeat_interleave(4)[None, None, None].expand(1, SMALL.sam.neck, 16, 16)
    expected = pool.widen(torch.arange(4.0)[None, None, None].expand(1, SMALL.sam.neck, 4, 4))
    torch.testing.assert_close(pool(x), expected)


@pytest.mark.parametrize("kind", ["conv", "meanpool"])
def test_a_swapped_model_is_saved_and_loaded_in_the_layout_that_fits_it(tmp_path, kind):
    model = swapped(kind)
    model.save_pretrained(tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    assert ("config.json" in files) == (kind == "conv") and ("lightseek.json" in files) == (kind == "meanpool")
    again = LightSeekOCR.from_pretrained(tmp_path)
    assert again.config == model.config and type(again.encoder.compressor) is COMPRESSORS[kind]
    views = page_views(PAGE, "tiny")
    assert torch.equal(again.encode_page(views), model.encode_page(views))
    assert again.tokenizer is not None and again.folder == tmp_path
    fresh = load_model(str(tmp_path), init="random", seed=1)
    assert fresh.config.boxes == model.config.boxes
    assert not torch.equal(next(fresh.encoder.compressor.parameters()), next(model.encoder.compressor.parameters()))


def test_the_seed_decides_the_new_weights_and_nothing_else_changes():
    one, two, other = swapped(), swapped(), small_model()
    swap_box(other, "compressor", "meanpool", seed=1)
    assert torch.equal(one.encoder.compressor.widen.weight, two.encoder.compressor.widen.weight)
    assert not torch.equal(one.encoder.compressor.widen.weight, other.encoder.compressor.widen.weight)
    untouched = small_model().state_dict()
    assert all(torch.equal(v, untouched[k]) for k, v in one.state_dict().items() if "compressor" not in k)


def test_a_box_that_already_has_the_kind_keeps_its_weights():
    model = small_model()
    box = model.encoder.compressor
    swap_box(model, "compressor", "conv")
    assert model.encoder.compressor is box and model.config.official


def test_a_swapped_model_is_traced_and_frozen_and_takes_an_adapter(tmp_path):
    model = swapped()
    inputs = prepare(model.config, model.tokenizer, ["<image>\nFree OCR."], [[PAGE]], "tiny")
    seen = trace(model, inputs.input_ids, inputs.pages, mode="tiny")
    assert seen["encoder.compressor.widen"].shape == (1, 32, 8, 8)
    counts = {count.box: count for count in freeze(model, "all-but-compressor")}
    assert counts["compressor"].trainable == SMALL.sam.neck * 32 and not counts["decoder"].trainable
    add_lora(model, "attention", r=2)
    save_adapter(model, tmp_path)
    other = swapped()
    load_adapter(other, tmp_path)
    assert adapters(other) == ["default"]


def test_the_vision_cache_keeps_kinds_apart(tmp_path):
    """Pages that one compressor encoded are not used with another compressor."""
    folders = set()
    for model in (small_model(), swapped(), swapped(factor=2)):
        model.encoder.requires_grad_(False)
        cache = VisionCache(model, tmp_path)
        folders.add(cache.folder)
        _, page = cache.page(PAGE, find_mode("tiny"))
        assert len(page.global_view) == (512 // model.config.token_side) ** 2
        assert torch.equal(model.encode_page(page), model.encode_page(page_views(PAGE, "tiny")))
    assert len(folders) == 3


class Strided(nn.Module):
    """A user's own kind of compressor, with settings of every JSON type."""

    def __init__(self, config, factor=4, name="", weights=(), options=None, bias=False):
        super().__init__()
        self.settings = (factor, name, weights, options, bias)
        self.pick = nn.Conv2d(config.sam.neck, config.compressor[-1], kernel_size=1, stride=factor, bias=bias)

    def forward(self, x):
        return self.pick(x)


def test_a_kind_of_a_user_is_a_registry_entry(tmp_path, monkeypatch):
    monkeypatch.setitem(COMPRESSORS, "strided", Strided)
    settings = {"factor": 2, "name": "mine", "weights": [0.5, None, 1], "options": {"a": [True]}, "bias": True}
    model = swapped("strided", **settings)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "lightseek.json").read_text())["boxes"]["compressor"]["settings"] == settings
    again = LightSeekOCR.from_pretrained(tmp_path)
    assert again.encoder.compressor.settings == tuple(settings.values())
    assert OCRConfig.from_dict(model.config.to_dict()) == model.config
    monkeypatch.delitem(COMPRESSORS, "strided")
    with pytest.raises(ConfigError, match=r"lightseek.json: compressor: unknown compressor 'strided': choose"):
        LightSeekOCR.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("axis", "kind", "settings", "message"),
    [
        (
            "compressor",
            "meanpol",
            {},
            "unknown compressor 'meanpol': choose one of conv, meanpool, pixelshuffle, resam",
        ),
        ("compressor", "conv", {"factor": 3}, "its factor is 2, 4, 8, ... and not 3"),
        ("compressor", "resampler", {"heads": 5}, "its width 32 must be a multiple of 4 and of heads=5"),
        ("compressor", "resampler", {"layers": 0}, "at least one layer, got layers=0"),
        ("compresor", "conv", {}, "there is no box to choose at 'compresor', only at compressor"),
        ("compressor", "meanpool", {"side": 3}, "does not take the settings"),
        ("compressor", "meanpool", {"factor": 0}, "factor must be a whole number"),
        ("compressor", "meanpool", {"factor": {1}}, "not JSON serializable"),
    ],
)
def test_an_impossible_box_is_refused_and_the_model_stays_the_same(axis, kind, settings, message):
    model = small_model()
    box, config = model.encoder.compressor, model.config
    with pytest.raises(ValueError, match=message):
        swap_box(model, axis, kind, settings)
    assert model.encoder.compressor is box and model.config is config


def test_another_projector_is_saved_in_the_official_layout(tmp_path):
    model = small_model()
    swap_box(model, "projector", "mlp")
    assert model.config.official and model.config.projector.kind == "mlp"
    model.save_pretrained(tmp_path)
    assert LightSeekOCR.from_pretrained(tmp_path).config == model.config


def test_every_registered_kind_can_be_built():
    for axis, seam in BOXES.items():
        for kind in seam.kinds:
            model = small_model()
            swap_box(model, axis, kind)
            assert torch.isfinite(model.encode_page(page_views(PAGE, "tiny"))).all()
            assert model.config.box(axis).kind == kind
