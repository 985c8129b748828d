"""Tests that every compressor goes with every global stage and every layout, and that all count the same positions."""

import itertools
from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_models import small_model

from lightseek import LightSeekOCR, OCRConfig
from lightseek.data.context.vision_cache import VisionCache
from lightseek.inspect.trace import trace
from lightseek.model.boxes import encoder_width
from lightseek.model.kinds import BOXES, COMPRESSORS, GLOBAL_STAGES, LAYOUTS
from lightseek.page.modes import MODES, Arithmetic, find_mode, positions, vision_tokens
from lightseek.page.views import EncodedPage, image_positions, image_tokens, page_views
from lightseek.text.generate import read
from lightseek.text.prompts import prepare
from lightseek.training.freeze import freeze
from lightseek.weights.inits import init_parts
from lightseek.weights.swap import swap_box

ALL = list(itertools.product(COMPRESSORS, GLOBAL_STAGES, LAYOUTS))
CHANNELS = {"clip": 64, "clip-only": 32, "compressor-only": 32}


@cache
def page(mode: str):
    return page_views(Image.linear_gradient("L").resize((700, 500)), mode)


def combined(compressor: str = "conv", stage: str = "clip", layout: str = "rows", **factor: int) -> LightSeekOCR:
    model = small_model()
    swap_box(model, "compressor", compressor, factor)
    swap_box(model, "global_stage", stage)
    swap_box(model, "layout", layout)
    return model


@pytest.mark.parametrize(("compressor", "stage", "layout"), ALL)
def test_all_kinds_go_with_each_other(tmp_path, compressor, stage, layout):
    """They run forward and backward, and a saved model gives the same vision tokens and logits when it is loaded."""
    model = combined(compressor, stage, layout, factor=8)
    assert encoder_width(model.config) == CHANNELS[stage]
    inputs = prepare(model.config, model.tokenizer, ["<image>\nFree OCR."], [[page("tiny")]])
    output = model.train()(inputs.input_ids, inputs.pages, labels=inputs.input_ids)
    output.loss.backward()
    for box in ("encoder.sam", "encoder.compressor", "encoder.clip", "projector", "layout", "decoder"):
        for name, parameter in model.get_submodule(box).named_parameters():
            unused = "unused_" in name or "rel_pos" in name or "experts" in name
            assert unused or parameter.grad is not None, f"{box}.{name} does not learn"
    model.eval().save_pretrained(tmp_path)
    again = LightSeekOCR.from_pretrained(tmp_path)
    assert again.config == model.config
    with torch.no_grad():
        assert torch.equal(again(inputs.input_ids, inputs.pages).logits, model(inputs.input_ids, inputs.pages).logits)


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("mode", ["small", "gundam"])
def test_the_arithmetic_agrees_with_the_sequence(mode, factor, layout):
    model = combined("meanpool", "compressor-only", layout, factor=factor)
    views, arithmetic = page(mode), model.config.arithmetic
    with torch.no_grad():
        sequence = model.encode_page(views)
        tokens = model.encoder(views.global_view[None])[0]
        tiles = None if views.tiles is None else model.encoder(views.tiles)
    encoded = EncodedPage(tokens, tiles, views.grid)
    filled = len(tokens) + (0 if tiles is None else tiles.shape[0] * tiles.shape[1])
    assert filled == vision_tokens(mode, views.grid, arithmetic)
    assert filled == image_tokens(views, arithmetic) == image_tokens(encoded, arithmetic)
    assert len(sequence) == positions(mode, views.grid, arithmetic)
    assert len(sequence) == image_positions(views, arithmetic) == image_positions(encoded, arithmetic)
    assert (len(sequence) == filled) == (layout == "plain")
    torch.testing.assert_close(model.encode_page(encoded), sequence)
    inputs = prepare(model.config, model.tokenizer, ["<image>"], [[views]])
    found = trace(model, inputs.input_ids, inputs.pages, mode=mode).pages[0]
    assert (found.tokens, found.positions) == (filled, len(sequence))


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(sorted(COMPRESSORS)),
    st.sampled_from([1, 2, 3, 4, 5, 8, 16]),
    st.sampled_from(sorted(MODES)),
    st.sampled_from(sorted(LAYOUTS)),
)
def test_every_factor_of_every_kind_in_every_mode_works_or_says_why(kind, factor, mode, layout):
    """The model runs on the meta device, so only shapes are computed. 2, 4 and 8 must work in all modes."""
    with torch.device("meta"):
        try:
            model = combined(kind, layout=layout, factor=factor)
        except ValueError as error:
            assert (
                kind == "conv" and factor in (1, 3, 5) and f"its factor is 2, 4, 8, ... and not {factor}" in str(error)
            )
            return
    arithmetic, views = model.config.arithmetic, page(mode)
    sides = [view.shape[-1] for view in (views.global_view, *(() if views.tiles is None else views.tiles))]
    if any(side % (16 * factor) for side in sides):
        assert factor not in (2, 4, 8)
        with pytest.raises(ValueError, match=f"mode {mode}: a side of .* whole vision tokens of {16 * factor} pixels"):
            arithmetic.check(mode)
        return
    on_meta = replace(
        views,
        global_view=views.global_view.to("meta"),
        tiles=None if views.tiles is None else views.tiles.to("meta"),
    )
    with torch.no_grad():
        sequence = model.encode_page(on_meta)
    assert len(sequence) == positions(mode, views.grid, arithmetic) == image_positions(views, arithmetic)
    assert sum((side // (16 * factor)) ** 2 for side in sides) == vision_tokens(mode, views.grid, arithmetic)


@pytest.mark.parametrize("factor", [2, 8])
@pytest.mark.parametrize("kind", list(COMPRESSORS))
def test_a_model_with_4_or_64_times_fewer_tokens_reads_a_page(tmp_path, kind, factor):
    model = combined(kind, factor=factor)
    image = Image.new("RGB", (300, 200), "white")
    model.save_pretrained(tmp_path)
    texts = [
        read(m, [image], mode="tiny", max_new_tokens=2)[0] for m in (model, LightSeekOCR.from_pretrained(tmp_path))
    ]
    assert texts[0].tokens == texts[1].tokens
    assert OCRConfig.from_dict(model.config.to_dict()).factor == factor
    model.encoder.requires_grad_(False)
    _, encoded = VisionCache(model, tmp_path / "cache").page(image, find_mode("tiny"))
    assert len(encoded.global_view) == (32 // factor) ** 2


@settings(deadline=None)
@given(st.sampled_from(sorted(MODES)), st.sampled_from([16, 32, 64, 128]), st.integers(0, 2), st.integers(0, 2))
def test_a_count_is_the_sum_of_its_parts(mode, token_side, newlines, separators):
    arithmetic = Arithmetic(token_side, newlines, separators)
    tiled = find_mode(mode).tile is not None
    grid = (2, 3) if tiled else (1, 1)
    rows = find_mode(mode).side // token_side + (3 * find_mode(mode).tile // token_side if tiled else 0)
    found = arithmetic.of_mode(mode, grid)
    assert found.positions == vision_tokens(mode, grid, arithmetic) + newlines * rows + separators


def test_the_plain_layout_is_the_official_one_without_its_vectors():
    model = combined()
    views = page("gundam")
    with torch.no_grad():
        rows = model.encode_page(views)
        fillers = torch.stack([model.layout.newline, model.layout.separator])
        swap_box(model, "layout", "plain")
        plain = model.encode_page(views)
    kept = ~(rows[:, None] == fillers).all(-1).any(1)
    assert torch.equal(rows[kept], plain)
    assert not list(model.layout.parameters()) and (model.device.type, model.dtype) == ("cpu", torch.float32)


def test_clip_only_keeps_clips_weights_and_the_projector_is_new():
    model, official = combined(), small_model()
    swap_box(model, "projector", "mlp")
    second = model.projector.layers[2].weight.clone()
    swap_box(model, "global_stage", "clip-only")
    for name, tensor in model.encoder.clip.state_dict().items():
        assert torch.equal(tensor, official.encoder.clip.state_dict()[name])
    assert model.projector.layers[0].in_features == 32 and torch.equal(model.projector.layers[2].weight, second)
    swap_box(model, "global_stage", "clip")
    assert model.config.official and model.projector.layers[0].in_features == 64
    views = page("tiny").global_view[None]
    assert torch.equal(model.encoder(views), official.encoder(views))


def test_a_model_without_clip_traces_freezes_and_takes_the_vision_cache(tmp_path):
    model = combined("resampler", "compressor-only", "plain")
    inputs = prepare(model.config, model.tokenizer, ["<image>"], [[page("tiny")]])
    stages = trace(model, inputs.input_ids, inputs.pages, mode="tiny")
    assert stages["encoder.concat"].shape == (1, 64, 32) and stages["layout"].shape == (64, 32)
    assert "clip" not in {count.box for count in freeze(model, "encoder")}
    folders = set()
    for stage, layout in itertools.product(GLOBAL_STAGES, LAYOUTS):
        swap_box(model, "global_stage", stage)
        swap_box(model, "layout", layout)
        model.encoder.requires_grad_(False)
        cache = VisionCache(model, tmp_path)
        folders.add(cache.folder)
        _, encoded = cache.page(Image.new("RGB", (300, 300), "white"), find_mode("tiny"))
        assert encoded.global_view.shape == (64, CHANNELS[stage])
    assert len(folders) == len(GLOBAL_STAGES)  # the layout comes after what the cache keeps


def test_the_official_model_is_official_however_it_is_asked_for():
    model = small_model()
    for axis, seam in BOXES.items():
        swap_box(model, axis, seam.official)
    assert model.config.official and model.config == small_model().config


def test_parts_that_are_not_there_say_so():
    model = combined(stage="compressor-only")
    with pytest.raises(ValueError, match="freezes every parameter"):
        freeze(model, "all-but-clip")
    with pytest.raises(ValueError, match="clip:random: this model's clip is of a kind that has no weights"):
        init_parts(model, "clip:random")
