"""Tests a page's way through the model, stage by stage, on the trace of a real forward pass."""

import json
import math
from functools import cache
from io import StringIO

import pytest
import torch
from golden import reduced_model

from lightseek import LightSeekOCR, OCRConfig, PageViews
from lightseek.inspect.recorder import BOX, INSIDE, STAGE, Recorder
from lightseek.inspect.trace import ExpertUse, Trace, page_tokens, trace
from lightseek.model.moe import Experts, Routing
from lightseek.page.modes import MODES, positions, valid_tokens
from lightseek.weights.loading import load_model

SAM = OCRConfig.preset("nano").sam
PROMPT = 5  # text tokens after the page
# For each mode: patches per side, vision tokens, positions in the sequence.
PLAIN = {"tiny": (32, 64, 73), "small": (40, 100, 111), "base": (64, 256, 273), "large": (80, 400, 421)}


@pytest.fixture(scope="module")
def nano() -> LightSeekOCR:
    return load_model(device="cpu")


def grey_page(mode: str, grid: tuple[int, int] = (1, 1), device: str = "cpu") -> PageViews:
    sides = MODES[mode]
    columns, rows = grid
    tiles = torch.zeros(columns * rows, 3, sides.tile, sides.tile, device=device) if columns * rows > 1 else None
    return PageViews(torch.zeros(3, sides.side, sides.side, device=device), tiles, grid)


def prompt_for(model: LightSeekOCR, *pages: PageViews) -> torch.Tensor:
    image = [model.config.image_token_id] * sum(page_tokens(page).positions for page in pages)
    return torch.tensor([[model.config.bos_token_id, *image, *range(300, 300 + PROMPT)]])


def traced(model: LightSeekOCR, mode: str, grid: tuple[int, int] = (1, 1)) -> Trace:
    page = grey_page(mode, grid)
    return trace(model, prompt_for(model, page), [[page]], mode=mode)


@pytest.fixture(scope="module")
def passes(nano):
    """`passes(mode, grid)` returns a traced forward pass, which is made once for all tests."""
    return cache(lambda mode, grid=(1, 1): traced(nano, mode, grid))


@pytest.fixture(scope="module")
def tiny(passes) -> Trace:
    return passes("tiny")


# --- Shapes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", PLAIN)
def test_one_page_shrinks_from_patches_to_tokens(passes, mode):
    side, tokens, places = PLAIN[mode]
    c, stage = OCRConfig.preset("nano"), passes(mode)
    first, second = c.compressor
    assert stage["encoder.sam.patch_embed"].shape == (1, c.sam.width, side, side)  # a patch is 16 x 16 pixels
    assert stage["encoder.sam.position"].shape == (1, side, side, c.sam.width)
    assert stage["encoder.sam.blocks.3"].shape == (1, side, side, c.sam.width)
    assert stage["encoder.sam.neck"].shape == (1, c.sam.neck, side, side)
    assert stage["encoder.compressor.conv1"].shape == (1, first, side // 2, side // 2)
    assert stage["encoder.compressor"].shape == (1, second, side // 4, side // 4)  # 16x fewer
    assert stage["encoder.clip.embeddings"].shape == (1, 1 + tokens, c.clip.width)  # the class token is the 1
    assert stage["encoder.clip"].shape == (1, 1 + tokens, c.clip.width)
    assert stage["encoder.concat"].shape == (1, tokens, c.clip.width + second)  # channels joined, no class token
    assert stage["projector"].shape == (1, tokens, c.decoder.width)
    assert stage["layout"].shape == (places, c.decoder.width)  # with one newline per row and the separator
    assert stage["decoder.layers.3"].shape == (1, 1 + places + PROMPT, c.decoder.width)
    assert stage["decoder.lm_head"].shape == (1, 1, c.decoder.vocabulary)  # the next token's scores
    assert stage.pages[0].positions == places == positions(mode)


@pytest.mark.parametrize("mode, grid, per_tile", [("gundam", (2, 1), 10), ("gundam-m", (1, 2), 16)])
def test_tiles_go_through_the_encoder_together_and_before_the_global_view(passes, mode, grid, per_tile):
    stage = passes(mode, grid)
    whole = MODES[mode].side // 64
    tiles, page = stage.runs("encoder.compressor")
    assert tiles.shape[0] == 2 and tiles.shape[2:] == (per_tile, per_tile)
    assert page.shape[0] == 1 and page.shape[2:] == (whole, whole)
    assert stage["encoder.compressor"] is page
    assert [run.run for run in stage.runs("projector")] == [0, 1]
    assert stage["layout"].shape[0] == positions(mode, grid)
    assert len(stage.runs("decoder.layers.0")) == 1


def test_the_official_sizes_without_the_official_weights(monkeypatch):
    """A base page on the meta device, where tensors have shapes but no values, so 3.3 B parameters need no memory."""
    monkeypatch.setattr(Experts, "forward", lambda self, x, weights, chosen: torch.empty_like(x))  # it needs values
    with torch.device("meta"):
        model = LightSeekOCR(OCRConfig.preset("deepseek-ocr"))
    with Recorder(model) as recorder, torch.no_grad():
        rows = model.encode_page(grey_page("base", device="meta"))
        hidden, _ = model.decoder(rows[None])
        model.decoder.logits(hidden)
    shape = {stage.name: stage.shape for stage in recorder.stages}
    assert shape["encoder.sam.patch_embed"] == (1, 768, 64, 64)
    assert shape["encoder.sam.blocks.11"] == (1, 64, 64, 768)
    assert shape["encoder.sam.neck"] == (1, 256, 64, 64)
    assert shape["encoder.compressor.conv1"] == (1, 512, 32, 32)
    assert shape["encoder.compressor"] == (1, 1024, 16, 16)
    assert shape["encoder.clip.blocks.23"] == (1, 257, 1024)
    assert shape["encoder.concat"] == (1, 256, 2048)
    assert shape["projector"] == (1, 256, 1280)
    assert shape["layout"] == (273, 1280)
    assert shape["decoder.layers.11.mlp.router"] == (1, 273, 6)
    assert shape["decoder.lm_head"] == (1, 273, 129280)
    stages = [stage for stage in recorder.stages if stage.level == STAGE]
    embedding = model.decoder.embed.weight.numel()  # only text uses it, and this pass has none
    assert sum(stage.parameters for stage in stages) + embedding == 3_336_106_240
    encoder = sum(stage.parameters for stage in stages if stage.box.startswith(("encoder", "projector")))
    assert 380e6 < encoder < 402e6
    assert all(stage.minimum is None for stage in recorder.stages)


# --- Notes, parameters, values, time ----------------------------------------------------------------------------------


def test_notes_say_what_a_shape_cannot(tiny):
    kinds = ["global attention" if i in SAM.global_blocks else "window 8x8" for i in range(SAM.layers)]
    assert [tiny[f"encoder.sam.blocks.{i}"].note for i in range(SAM.layers)] == kinds
    assert tiny["encoder.sam.position"].note == "64x64 grid resized to 32x32"
    assert tiny["encoder.clip.embeddings"].note == "16x16 grid resized to 8x8"
    assert tiny["encoder.compressor.conv1"].note == "3x3, stride 2"
    assert tiny["decoder.layers.0"].note == "dense"
    assert tiny["decoder.layers.1"].note == "8 experts, top 2"


@pytest.mark.parametrize("mode, grid", [("tiny", (1, 1)), ("gundam", (2, 1))])
def test_every_parameter_belongs_to_one_stage(nano, passes, mode, grid):
    stages = [stage for stage in passes(mode, grid).stages if stage.level == STAGE and stage.run == 0]
    assert sum(stage.parameters for stage in stages) == sum(p.numel() for p in nano.parameters())


def test_active_parameters_of_nano(tiny):
    """4 layers of attention and norms, one dense MLP, 3 x (router + 2 of 8 experts + 1 shared), final norm and head."""
    d = OCRConfig.preset("nano").decoder
    attention, expert = 4 * d.width**2 + 2 * d.width, 3 * d.width * d.expert_width
    experts = d.experts * d.width + (d.chosen + d.shared) * expert
    dense, ends = 3 * d.width * d.dense_width, d.width + d.vocabulary * d.width
    assert tiny.active_parameters == 4 * attention + dense + 3 * experts + ends


@pytest.mark.parametrize("mode, grid", [("tiny", (1, 1)), ("gundam", (2, 1))])
def test_shares_of_time_add_up_without_counting_twice(passes, mode, grid):
    stage = passes(mode, grid)
    stages = sum(s.share for s in stage.stages if s.level == STAGE)
    assert 0.9 < stages <= 1.0  # the rest is time between modules
    assert sum(stage.boxes.values()) == pytest.approx(stages * stage.seconds)
    for box in (s for s in stage.stages if s.level == BOX):
        parts = [s.seconds for s in stage.stages if (s.level, s.box, s.run) == (STAGE, box.name, box.run)]
        assert box.seconds == pytest.approx(sum(parts)) and parts
    for name in ("encoder.sam.blocks.1", "decoder.layers.1"):
        inside = [s.seconds for s in stage.stages if s.name in (f"{name}.attention", f"{name}.mlp")]
        assert len(inside) == 2 * len(stage.runs(name))
        assert sum(inside) <= sum(run.seconds for run in stage.runs(name))


def test_values_are_those_of_the_tensor(nano):
    kept = []
    handle = nano.projector.register_forward_hook(lambda module, inputs, output: kept.append(output))
    stage = traced(nano, "tiny")["projector"]
    handle.remove()
    assert (stage.minimum, stage.maximum) == (kept[0].min().item(), kept[0].max().item())
    assert stage.mean == pytest.approx(kept[0].mean().item(), abs=1e-6)
    assert stage.std == pytest.approx(kept[0].std(correction=0).item(), rel=1e-4)


def test_looking_changes_nothing_and_leaves_nothing_behind(nano):
    page = grey_page("tiny")
    ids = prompt_for(nano, page)
    with torch.no_grad():
        before = nano(ids, pages=[[page]]).logits
        with Recorder(nano):
            during = nano(ids, pages=[[page]]).logits
    assert torch.equal(before, during)
    with pytest.raises(ValueError, match="image positions"):
        trace(nano, ids[:, 1:-20], [[page]])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in nano.modules())


def test_nan_shows(nano):
    broken = load_model(device="cpu", seed=1)
    broken.projector.layers.bias.data[0] = math.nan
    stage = traced(broken, "tiny")
    assert math.isnan(stage["projector"].mean) and math.isfinite(stage["encoder.concat"].mean)
    values = {s["name"]: s["mean"] for s in json.loads(json.dumps(stage.to_json(), allow_nan=False))["stages"]}
    assert values["projector"] == "nan"


def test_a_stage_that_is_not_there(tiny):
    with pytest.raises(KeyError, match=r"encoder\.sam\.blocks\.3"):
        tiny["encoder.sam.blocks.9"]


def test_a_swapped_box_shows_its_own_modules():
    """An ablation replaces the compressor, and the trace shows the new one."""
    model = load_model(device="cpu")
    c = model.config
    pool = torch.nn.Conv2d(c.sam.neck, c.compressor[-1], kernel_size=4, stride=4)
    model.encoder.compressor = pool
    stage = traced(model, "tiny")["encoder.compressor"]
    assert (stage.level, stage.note, stage.parameters) == (
        STAGE,
        "4x4, stride 4",
        pool.weight.numel() + pool.bias.numel(),
    )


# --- Token arithmetic -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("grid", [(2, 1), (2, 3), (3, 3)])
def test_page_tokens_agree_with_the_modes(mode, grid):
    grid = grid if MODES[mode].tile else (1, 1)
    count = page_tokens(grey_page(mode, grid, device="meta"), mode, size=(700, 1000), text_tokens=2000)
    assert count.patches == 16 * count.tokens == count.pixels // 256
    assert count.tokens + count.newlines + count.separators == count.positions == positions(mode, grid)
    assert count.valid == valid_tokens(mode, 700, 1000, grid)
    assert count.compression == 2000 / count.tokens


def test_the_arithmetic_in_words():
    words = str(page_tokens(grey_page("base"), "base", size=(1000, 500), text_tokens=640))
    assert "4,096 patches" in words and "256 vision tokens" in words and "273 positions" in words
    assert "128 of the 256 tokens see the page" in words and "2.50x compression" in words


def test_a_prompt_with_two_pages(nano):
    pages = [grey_page("tiny"), grey_page("small")]
    stage = trace(nano, prompt_for(nano, *pages), [pages], sizes=[(10, 10), (20, 10)], text_tokens=[None, 50])
    assert [page.positions for page in stage.pages] == [73, 111]
    assert [run.shape[0] for run in stage.runs("layout")] == [73, 111]
    assert stage.pages[1].compression == 0.5


# --- Experts ----------------------------------------------------------------------------------------------------------


def test_experts_of_the_pass():
    model = reduced_model()
    page = grey_page("tiny")
    stage = trace(model, prompt_for(model, page), [[page]])
    experts, chosen = model.config.decoder.experts, model.config.decoder.chosen
    assert [use.layer for use in stage.experts] == [1, 2]
    for use in stage.experts:
        assert sum(use.share) == pytest.approx(1) and sum(use.probability) == pytest.approx(1)
        assert sorted(use.most_used + use.unused) == list(range(experts))
        assert max(use.share) <= 1 / chosen + 1e-6  # a token takes an expert at most once
        assert 0 < use.chosen_mass <= 1 and 0 < use.entropy <= 1


def test_even_and_uneven_use():
    def route(experts):
        chosen = torch.tensor([experts])
        return Routing(torch.full(chosen.shape, 0.25), chosen, torch.full((1, len(experts), 4), 0.25))

    even = ExpertUse.of(1, route([[0, 1], [2, 3]]))
    assert even.entropy == pytest.approx(1) and even.balance_loss == pytest.approx(1) and even.unused == []
    same = ExpertUse.of(1, route([[2, 1], [2, 1]]))
    assert same.share == (0, 0.5, 0.5, 0) and same.unused == [0, 3] and same.entropy == pytest.approx(0.5)


def test_padding_is_not_counted(nano):
    page = grey_page("tiny")
    ids = prompt_for(nano, page)
    alone = trace(nano, ids, [[page]])
    padded = torch.cat([torch.full((1, 30), nano.config.pad_token_id), ids], dim=1)
    mask = torch.arange(padded.shape[1])[None] >= 30
    for use, other in zip(alone.experts, trace(nano, padded, [[page]], mask=mask).experts, strict=True):
        assert use.share == pytest.approx(other.share, abs=0.02)  # rounding may change a choice
        assert use.chosen_mass == pytest.approx(other.chosen_mass, abs=1e-4)


# --- JSON and tables --------------------------------------------------------------------------------------------------


def test_json_is_the_whole_trace(tiny):
    plain = json.loads(json.dumps(tiny.to_json(), allow_nan=False))
    assert len(plain["stages"]) == len(tiny.stages)
    first = next(stage for stage in plain["stages"] if stage["name"] == "encoder.compressor")
    assert first["shape"] == list(tiny["encoder.compressor"].shape) and first["dtype"] == "float32"
    assert plain["pages"][0]["positions"] == 73
    assert plain["experts"][0]["most_used"] == tiny.experts[0].most_used


@pytest.mark.parametrize("inside", [False, True])
def test_table_shows_every_stage(tiny, inside):
    from rich.console import Console

    console = Console(width=160, file=StringIO())
    console.print(tiny.table(inside))
    text = console.file.getvalue()
    for stage in tiny.stages:
        assert (f" {stage.name} " in text) == (stage.level < INSIDE or inside)
    assert "1 64 32 32" in text and "73 positions" in text and f"{tiny.parameters:,} parameters" in text


@pytest.mark.parametrize("name", ["trace.png", "trace.svg"])
def test_picture(tiny, tmp_path, name):
    tiny.save_picture(tmp_path / name)
    start = (tmp_path / name).read_bytes()[:100]
    assert start.startswith(b"\x89PNG") or b"<?xml" in start
    assert [path.name for path in tmp_path.iterdir()] == [name]
