"""`config.json`: official files are written again unchanged, and an error names the key that is wrong."""

import copy
import json
import subprocess
import sys

import pytest
from golden import FOLDER
from hypothesis import given, settings
from hypothesis import strategies as st

from lightseek.model.config import (
    PRESETS,
    ClipConfig,
    ConfigError,
    DecoderConfig,
    OCRConfig,
    ProjectorConfig,
    SamConfig,
)

OFFICIAL = json.loads((FOLDER / "official_config.json").read_text())
REDUCED = json.loads((FOLDER / "reduced_config.json").read_text())["config"]


def changed(path: str, value: object) -> dict:
    """Return the official file with one key, given as `a.b.c`, set to `value`. The value `...` removes the key."""
    config = copy.deepcopy(OFFICIAL)
    *sections, key = path.split(".")
    place = config
    for section in sections:
        place = place[section]
    if value is ...:
        del place[key]
    else:
        place[key] = value
    return config


@pytest.mark.parametrize("official", [OFFICIAL, REDUCED], ids=["official", "reduced"])
def test_official_files_round_trip_unchanged(official):
    assert OCRConfig.from_dict(official).to_dict() == official


def test_the_official_file_is_the_preset():
    assert OCRConfig.from_dict(OFFICIAL) == OCRConfig.preset("deepseek-ocr")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name):
    config = OCRConfig.preset(name)
    assert OCRConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(ConfigError, match="unknown preset 'giant': choose one of deepseek-ocr, nano"):
        OCRConfig.preset("giant")


@st.composite
def configs(draw: st.DrawFn) -> OCRConfig:
    """Draw small models whose sizes fit together."""
    size = st.integers(1, 4)
    heads, clip_width = draw(size), 8 * draw(size)
    layers, experts = draw(size), draw(size)
    width = 4 * heads * draw(size)
    sam_heads, sam_layers = draw(size), draw(size)
    return OCRConfig(
        sam=SamConfig(
            width=4 * sam_heads * draw(size),
            layers=sam_layers,
            heads=sam_heads,
            global_blocks=tuple(draw(st.lists(st.integers(0, sam_layers - 1), unique=True).map(sorted))),
            window=draw(st.integers(1, 14)),
            grid=draw(st.sampled_from([32, 64])),
            neck=draw(size),
        ),
        compressor=(draw(size), clip_width),
        clip=ClipConfig(width=clip_width, layers=draw(size), heads=draw(st.sampled_from([1, 2, 4]))),
        projector=ProjectorConfig(draw(st.sampled_from(["linear", "mlp"])), 2 * clip_width, width),
        decoder=DecoderConfig(
            width=width,
            layers=layers,
            heads=heads,
            dense_layers=draw(st.integers(0, layers)),
            experts=experts,
            chosen=draw(st.integers(1, experts)),
            shared=draw(size),
            expert_width=draw(size),
            dense_width=draw(size),
            vocabulary=draw(st.integers(16, 64)),
            rope_theta=draw(st.sampled_from([1e4, 5e5])),
            balance_alpha=draw(st.sampled_from([0.0, 0.001, 0.1])),
        ),
        pad_token_id=draw(st.integers(2, 3)),
        image_token_id=draw(st.integers(4, 15)),
        dtype=draw(st.sampled_from(["float32", "bfloat16"])),
    )


@pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # from beartype, for each list it checks
@given(configs())
def test_every_config_survives_the_official_schema(config):
    assert OCRConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


REQUIRED = [
    "language_config", "vision_config", "projector_config", "vision_config.width", "vision_config.width.sam_vit_b",
    "language_config.hidden_size", "language_config.n_routed_experts", "language_config.bos_token_id",
    "projector_config.projector_type", "projector_config.input_dim", "vision_config.width.sam_vit_b.width",
    "vision_config.width.sam_vit_b.downsample_channels", "vision_config.width.clip-l-14-224.image_size",
]  # fmt: skip


@pytest.mark.parametrize("path", REQUIRED)
def test_missing_key_is_named_with_its_path(path):
    with pytest.raises(ConfigError, match=f"^{path} is missing"):
        OCRConfig.from_dict(changed(path, ...))


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("language_config", [1], "language_config must be dict"),
        ("language_config.hidden_size", "1280", "hidden_size must be int, got '1280'"),
        ("language_config.hidden_size", True, "hidden_size must be int, got True"),
        ("language_config.hidden_size", 1280.0, "hidden_size must be int, got 1280.0"),
        ("language_config.rope_theta", "10000", "rope_theta must be a number"),
        ("vision_config.width.sam_vit_b.window_size", 14.5, "window_size must be an integer, got 14.5"),
        ("vision_config.width.sam_vit_b.global_attn_indexes", [2, "5"], "global_attn_indexes must be a list of integ"),
        ("image_token_id", 1.5, "image_token_id must be an integer"),
        ("torch_dtype", 16, "torch_dtype must be str, got 16"),
        ("language_config.dtype", 16, "language_config.dtype must be str, got 16"),
    ],
)
def test_wrong_types(path, value, complaint):
    with pytest.raises(ConfigError, match=complaint):
        OCRConfig.from_dict(changed(path, value))


@pytest.mark.parametrize("section", ["", "language_config."])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_mla", True),
        ("topk_method", "noaux_tc"),
        ("n_group", 8),
        ("norm_topk_prob", True),
        ("scoring_func", "sigmoid"),
        ("routed_scaling_factor", 2.5),
        ("tie_word_embeddings", True),
        ("rope_scaling", {"type": "yarn"}),
        ("num_key_value_heads", 2),
    ],
)
def test_options_that_would_change_the_arithmetic_are_refused(section, key, value):
    with pytest.raises(ConfigError, match=f"{section}{key} is "):
        OCRConfig.from_dict(changed(section + key, value))


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("projector_config.projector_type", "downsample_mlp_gelu", "only .*'linear'.* are known"),
        ("vision_config.width.sam_vit_b.downsample_channels", [512, 768, 1024], "exactly two convolutions"),
        ("projector_config.n_embed", 1024, "projector output must be the decoder's width"),
        ("projector_config.input_dim", 1024, r"projector input must be CLIP width \+ compressor"),
        ("vision_config.width.clip-l-14-224.width", 512, "last channels must equal CLIP's width"),
        ("vision_config.width.clip-l-14-224.heads", 3, "CLIP width must be a multiple"),
        ("vision_config.width.clip-l-14-224.heads", 0, "ClipConfig.heads must be positive, got 0"),
        ("vision_config.width.clip-l-14-224.patch_size", 225, "at least one patch"),
        ("vision_config.width.sam_vit_b.heads", 5, "SAM width must be a multiple"),
        ("vision_config.width.sam_vit_b.patch_size", 14, "SAM patches must be 16 pixels"),
        ("vision_config.width.sam_vit_b.global_attn_indexes", [2, 12], "global attention blocks must exist"),
        ("vision_config.width.sam_vit_b.layers", -1, "SamConfig.layers must be positive, got -1"),
        ("language_config.num_experts_per_tok", 65, "must not exceed the experts"),
        ("language_config.first_k_dense_replace", 13, "dense layers must not exceed"),
        ("language_config.vocab_size", 128000, "special tokens must be in the vocabulary"),
    ],
)
def test_sizes_that_do_not_fit(path, value, complaint):
    config = changed(path, value)
    if path.startswith("language_config."):  # the file holds the decoder's sizes twice
        config[path.removeprefix("language_config.")] = value
    with pytest.raises(ConfigError, match=complaint):
        OCRConfig.from_dict(config)


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("language_config.rms_norm_eps", float("nan"), "DecoderConfig.norm_eps must be positive, got nan"),
        ("language_config.rms_norm_eps", -1e-6, "DecoderConfig.norm_eps must be positive, got -1e-06"),
        ("language_config.rope_theta", float("inf"), "DecoderConfig.rope_theta must be at most .*, got inf"),
        ("language_config.aux_loss_alpha", float("nan"), "DecoderConfig.balance_alpha must be positive, got nan"),
        ("language_config.num_hidden_layers", 10**6, "DecoderConfig.layers must be at most 1,000, got 1000000"),
        ("language_config.n_routed_experts", 10**8, "DecoderConfig.experts must be at most 4,096, got 100000000"),
        ("language_config.max_position_embeddings", 10**200, "DecoderConfig.max_positions must be at most"),
        ("language_config.vocab_size", 10**9, "DecoderConfig.vocabulary must be at most"),
        ("vision_config.width.sam_vit_b.layers", 10**6, "SamConfig.layers must be at most"),
        ("vision_config.width.sam_vit_b.position_grid", 10**6, "SamConfig.grid must be at most"),
        ("vision_config.width.clip-l-14-224.image_size", 10**7, "ClipConfig.image_size must be at most"),
        ("vision_config.width.sam_vit_b.downsample_channels", [10**9, 1024], "OCRConfig.compressor must be at most"),
    ],
)
def test_sizes_that_are_not_finite_or_that_nobody_can_build(tmp_path, path, value, complaint):
    config = changed(path, value)
    if path.startswith("language_config."):
        config[path.removeprefix("language_config.")] = value
    (tmp_path / "config.json").write_text(json.dumps(config))  # Python writes and reads NaN and Infinity
    with pytest.raises(ConfigError, match=complaint):
        OCRConfig.from_json(tmp_path / "config.json")


def test_the_two_copies_of_the_decoders_sizes_must_agree():
    with pytest.raises(
        ConfigError, match=r"^hidden_size is 2560 but language_config.hidden_size 1280: they must agree"
    ):
        OCRConfig.from_dict(changed("hidden_size", 2560))


@pytest.mark.parametrize("key", ["torch_dtype", "dtype"])
@pytest.mark.parametrize("section", ["", "language_config."])
def test_the_dtype_has_two_names_and_two_places(section, key):
    """transformers renamed `torch_dtype` to `dtype`. A file may have either, at the top and in `language_config`."""
    config = changed("torch_dtype", None)
    del config["language_config"]["torch_dtype"]
    assert OCRConfig.from_dict(config).dtype == "bfloat16"
    place = config["language_config"] if section else config
    place[key] = "float32"
    assert OCRConfig.from_dict(config).dtype == "float32"
    place[key] = "torch.float16"
    assert OCRConfig.from_dict(config).dtype == "float16"
    place[key] = "int8"
    with pytest.raises(ConfigError, match="dtype must be one of bfloat16, float16"):
        OCRConfig.from_dict(config)


@pytest.mark.parametrize("path", ["torch_dtype", "dtype", "language_config.torch_dtype", "language_config.dtype"])
def test_dtypes_that_disagree_are_refused(path):
    with pytest.raises(ConfigError, match=f"{path} is 'float32'.*they must agree"):
        OCRConfig.from_dict(changed(path, "float32"))
    assert OCRConfig.from_dict(changed(path, "bfloat16")).dtype == "bfloat16"


def test_a_file_that_transformers_rewrote_still_loads():
    """When transformers saves a file, it writes the defaults at the top level."""
    spelt_out = {"rope_theta": 10000.0, "rms_norm_eps": 1e-6, "hidden_act": "silu", "norm_topk_prob": False,
                 "scoring_func": "softmax", "pad_token_id": None, "rope_scaling": None, "use_cache": True}  # fmt: skip
    assert OCRConfig.from_dict({**OFFICIAL, **spelt_out}) == OCRConfig.preset("deepseek-ocr")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "there is no such file"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[]", "the configuration must be an object, got list"),
        (b"{}", "language_config is missing"),
    ],
)
def test_every_error_names_the_file(tmp_path, content, complaint):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=complaint) as error:
        OCRConfig.from_json(path)
    assert str(error.value).startswith(f"{path}: ")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from([*REQUIRED, "torch_dtype", "image_token_id", "topk_method"]), json_values)
@settings(max_examples=200)
def test_no_value_anywhere_gives_anything_but_a_config_or_a_config_error(path, value):
    try:
        OCRConfig.from_dict(changed(path, value))
    except ConfigError as error:
        assert str(error)


def test_transformers_schema_has_the_linear_projector_only():
    nano = OCRConfig.preset("nano")
    with pytest.raises(ConfigError, match="linear projector only"):
        nano.with_(projector=ProjectorConfig("mlp", 512, 256)).to_transformers()


@pytest.mark.parametrize("module", ["lightseek", "lightseek.model.config", "lightseek.page.modes"])
def test_sizes_can_be_read_without_waiting_for_pytorch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
