"""Tests of the operations that `lab/cost.py` counts: they are those of the formulas, made from the model's sizes."""

from math import ceil

import pytest
from small import SMALL
from tiny_models import bart_folder, gpt2_folder, qwen3_folder
from tiny_run import TINY, tiny_checkpoint, tiny_run

from lightseek.lab.cost import WRITTEN, count_flops
from lightseek.model.config import OCRConfig
from lightseek.page.modes import positions


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("cost"))


def sam_flops(config: OCRConfig, side: int) -> int:
    """Patches; in each block four matrices, two products of attention, two of positions and the MLP; the neck."""
    g, d, c, sam = side // 16, config.sam.width, config.sam.neck, config.sam
    total = 2 * g**2 * 3 * 256 * d
    for block in range(sam.layers):
        along = g if block in sam.global_blocks else sam.window
        rows = g**2 if block in sam.global_blocks else (ceil(g / along) * along) ** 2  # windows are filled up
        total += 2 * rows * 4 * d**2 + 2 * 2 * rows * along**2 * d + 2 * 2 * rows * along * d
        total += 2 * g**2 * 2 * sam.mlp_ratio * d**2
    return total + 2 * g**2 * (d * c + 9 * c**2)


def eyes_flops(config: OCRConfig, side: int) -> int:
    """SAM, two convolutions of stride 2, CLIP with its class token, and one linear layer."""
    g, first, last = side // 16, *config.compressor
    t, d = (g // 4) ** 2, config.clip.width
    compressor = 2 * 9 * ((g // 2) ** 2 * config.sam.neck * first + t * first * last)
    clip = config.clip.layers * (2 * (t + 1) * 12 * d**2 + 4 * (t + 1) ** 2 * d)
    return sam_flops(config, side) + compressor + clip + 2 * t * (d + last) * config.projector.width


def token_flops(config: OCRConfig, length: int) -> int:
    """Four matrices and attention over `length` positions in each layer, an MLP or the chosen experts, the scores."""
    d, sizes = config.decoder.width, config.decoder
    dense = 2 * 3 * d * sizes.dense_width
    mixture = 2 * d * sizes.experts + 2 * 3 * d * sizes.expert_width * (sizes.chosen + sizes.shared)
    mlps = sizes.dense_layers * dense + (sizes.layers - sizes.dense_layers) * mixture
    return sizes.layers * (2 * 4 * d**2 + 4 * length * d) + mlps + 2 * d * sizes.vocabulary


@pytest.mark.parametrize("mode", ["tiny", "base", "gundam"])
def test_every_operation_of_the_formulas_is_counted(folder, mode):
    found = count_flops(tiny_run(folder, mode=mode))
    grid = (2, 2) if mode == "gundam" else (1, 1)
    side, tiles = {"tiny": (512, 0), "base": (1024, 0), "gundam": (1024, 4)}[mode]
    assert found["flops_page"] == eyes_flops(TINY, side) + tiles * eyes_flops(TINY, 640)
    assert found["flops_token"] == token_flops(TINY, positions(mode, grid) + WRITTEN + 1)


def test_only_the_experts_that_a_token_chooses_count(tmp_path):
    """Twice as many experts cost one more row of the router each, and nothing else."""
    from lightseek import LightSeekOCR

    found = []
    for experts in (4, 8):
        config = SMALL.with_(decoder=SMALL.decoder.__class__(**vars(SMALL.decoder) | {"experts": experts}))
        LightSeekOCR(config).save_pretrained(tmp_path / str(experts))
        found.append(count_flops(tiny_run(tmp_path / str(experts)))["flops_token"])
    mixtures = SMALL.decoder.layers - SMALL.decoder.dense_layers
    assert found[1] - found[0] == mixtures * 4 * 2 * SMALL.decoder.width


def test_other_boxes_and_contexts_count_what_they_do(folder):
    def flops(**settings):
        return count_flops(tiny_run(folder, **settings), 200)

    official, pooled = flops(), flops(compressor="meanpool")
    convolutions = 2 * 9 * (256 * 4 * 4 + 64 * 4 * 8)
    assert official["flops_page"] - pooled["flops_page"] == convolutions - 2 * 64 * 4 * 8
    assert flops(context="text") == {"flops_page": 0, "flops_token": token_flops(TINY, 200 + WRITTEN + 1)}
    assert flops(context="truncated")["flops_token"] == token_flops(TINY, 64 + WRITTEN + 1)
    assert flops(context="conv1d")["flops_page"] == 2 * 3 * 16**2 * (100 + 50)
    few, many = flops(compressor="conv:factor=8"), flops(compressor="conv:factor=2")
    assert few["flops_token"] < official["flops_token"] < many["flops_token"]


@pytest.mark.parametrize("make", [gpt2_folder, qwen3_folder])
def test_decoders_of_transformers_count_too(folder, tmp_path, make):
    source = make(tmp_path)
    short, long = (
        count_flops(tiny_run(folder, decoder=f"hf:{source}", context="text"), length)["flops_token"]
        for length in (100, 200)
    )
    keys = {gpt2_folder: 3 * 32, qwen3_folder: 2 * 64}[make]  # layers times the heads' width
    assert long - short == 4 * 100 * keys


def test_a_model_that_needs_values_is_not_counted(tmp_path):
    source = bart_folder(tmp_path)
    assert count_flops(tiny_run(tmp_path, decoder=f"seq2seq:{source}", context="text"), 100) == {}
