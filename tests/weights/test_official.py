"""Tests of checkpoints in the official layout: loading, saving, and a clear error for each kind of bad file."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from golden import FOLDER, reduced_config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small import SMALL

from lightseek import LightSeekOCR, OCRConfig
from lightseek.model.config import ClipConfig, ConfigError, DecoderConfig, ProjectorConfig, SamConfig
from lightseek.text.tokenizer import Tokenizer
from lightseek.tools.files import atomic_write
from lightseek.weights.formula import fill, formula_tensor, write_checkpoint
from lightseek.weights.names import official_key, official_tensors
from lightseek.weights.official import INDEX, WEIGHTS
from lightseek.weights.tensors import CheckpointError

NORM = "model.norm.weight"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A small checkpoint in float32."""
    write_checkpoint(tmp_path / "small", SMALL, torch.float32)
    return tmp_path / "small"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / WEIGHTS)


def rewrite(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write other weights, and remove the index, which would not agree with them."""
    save_file(tensors, folder / WEIGHTS)
    (folder / INDEX).unlink(missing_ok=True)


def shard(folder: Path, pieces: int) -> dict[str, str]:
    """Split the weights file into shards with an index. Returns the weight map."""
    tensors = weights(folder)
    (folder / WEIGHTS).unlink()
    weight_map = {}
    for number in range(pieces):
        name = f"model-{number + 1:05d}-of-{pieces:05d}.safetensors"
        part = {key: tensor for i, (key, tensor) in enumerate(tensors.items()) if i % pieces == number}
        save_file(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return weight_map


def refused(folder: Path, *says: str) -> None:
    """Check that loading raises a CheckpointError with all these words."""
    with pytest.raises(CheckpointError) as error:
        LightSeekOCR.from_pretrained(folder)
    for words in says:
        assert words in str(error.value)


# What is in a checkpoint


def test_the_official_model_has_the_official_keys_and_shapes():
    official = json.loads((FOLDER / "official_keys.json").read_text())["tensors"]
    with torch.device("meta"):
        ours = official_tensors(LightSeekOCR(OCRConfig.preset("deepseek-ocr")))
    assert {key: list(tensor.shape) for key, tensor in ours.items()} == official
    assert len(official) == 2710
    assert sum(tensor.numel() for tensor in ours.values()) == 3_336_106_240


def test_official_tensors_are_views_of_the_parameters():
    model = LightSeekOCR(SMALL)
    official_tensors(model)["model.layers.1.mlp.experts.2.up_proj.weight"].fill_(7.0)
    gate, up = model.decoder.layers[1].mlp.experts.gate_up[2].chunk(2)
    assert (up == 7).all() and not (gate == 7).any()


def test_a_name_that_is_not_ours_has_no_official_key():
    with pytest.raises(KeyError, match=r"decoder2\.norm.weight is not a parameter"):
        official_key("decoder2.norm.weight")


def test_the_formula_checkpoint_holds_the_formula(folder):
    model = LightSeekOCR.from_pretrained(folder)
    for key, tensor in official_tensors(model).items():
        assert torch.equal(tensor, formula_tensor(key, tuple(tensor.shape))), key
    filled = LightSeekOCR(SMALL)
    fill(filled)
    for (name, ours), other in zip(model.named_parameters(), filled.parameters(), strict=True):
        assert torch.equal(ours, other), name


# Load, save


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shards", [0, 3])
def test_load_then_save_gives_equal_tensors_under_equal_keys(tmp_path, dtype, shards):
    source, copy = tmp_path / "source", tmp_path / "copy"
    write_checkpoint(source, SMALL, dtype)
    before = weights(source)
    if shards:
        shard(source, shards)
    model = LightSeekOCR.from_pretrained(source)
    assert model.dtype == dtype and not model.training
    model.save_pretrained(copy)
    after = weights(copy)
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert tensor.dtype == after[key].dtype == dtype
        assert torch.equal(tensor, after[key]), key
    assert (copy / "config.json").read_bytes() == (source / "config.json").read_bytes()


def test_the_reduced_model_keeps_the_official_keys(tmp_path):
    official = json.loads((FOLDER / "reduced_config.json").read_text())["tensors"]
    write_checkpoint(tmp_path, reduced_config())
    with safe_open(tmp_path / WEIGHTS, "pt") as file:
        assert {key: file.get_slice(key).get_shape() for key in file.keys()} == official  # noqa: SIM118


def test_config_and_index_describe_the_file(folder):
    config = json.loads((folder / "config.json").read_text())
    index = json.loads((folder / INDEX).read_text())
    tensors = weights(folder)
    assert config["torch_dtype"] == config["language_config"]["torch_dtype"] == "float32"
    assert index["weight_map"] == dict.fromkeys(sorted(tensors), WEIGHTS)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    with safe_open(folder / WEIGHTS, "pt") as file:
        assert file.metadata() == {"format": "pt"}  # transformers refuses a file without it


def test_dtype_is_the_files_unless_asked_otherwise(tmp_path, folder):
    assert LightSeekOCR.from_pretrained(folder, dtype=torch.bfloat16).dtype == torch.bfloat16
    LightSeekOCR.from_pretrained(folder).save_pretrained(tmp_path / "half", dtype=torch.bfloat16)
    again = LightSeekOCR.from_pretrained(tmp_path / "half")
    assert again.dtype == torch.bfloat16 and again.config.dtype == "bfloat16"


def test_device_dtype_and_options_are_checked(folder):
    assert LightSeekOCR.from_pretrained(folder, dtype="bfloat16").dtype == torch.bfloat16
    with pytest.raises(ValueError, match="'int8' is not a floating-point type"):
        LightSeekOCR.from_pretrained(folder, dtype="int8")
    with pytest.raises(ValueError, match="device 'nowhere' cannot be used"):
        LightSeekOCR.from_pretrained(folder, device="nowhere")
    with pytest.raises(TypeError, match="torch_dtype"):
        LightSeekOCR.from_pretrained(folder, torch_dtype=torch.bfloat16)


def test_side_files_and_tokenizer_are_carried_over(tmp_path, folder):
    Tokenizer.nano().save(folder / "tokenizer.json")
    for name in ("tokenizer_config.json", "special_tokens_map.json", "modeling_deepseekocr.py"):
        (folder / name).write_text(f'"{name}"')
    (folder / "pytorch_model.bin").write_bytes(b"never")
    model = LightSeekOCR.from_pretrained(folder)
    assert model.tokenizer.encode("<image>", special=True) == [SMALL.image_token_id - 28]
    model.save_pretrained(tmp_path / "copy")
    carried = {path.name for path in (tmp_path / "copy").iterdir()}
    assert carried == {path.name for path in folder.iterdir()} - {"pytorch_model.bin"}
    assert (tmp_path / "copy" / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_a_checkpoint_whose_config_says_dtype_loads_in_that_dtype(folder):
    config = json.loads((folder / "config.json").read_text())
    for section in (config, config["language_config"]):
        section["dtype"] = section.pop("torch_dtype")
    (folder / "config.json").write_text(json.dumps(config))
    model = LightSeekOCR.from_pretrained(folder)
    assert model.dtype == torch.float32
    for key, tensor in official_tensors(model).items():
        assert torch.equal(tensor, weights(folder)[key]), key


def frequencies(theta: float = 10000.0, width: int = 4) -> torch.Tensor:
    """The rotary frequencies of SMALL's decoder, computed as transformers does."""
    return 1.0 / (theta ** (torch.arange(0, width, 2, dtype=torch.int64).float() / width))


POSITIONS = torch.arange(16 * 16 + 1)
CLIP_POSITIONS = "model.vision_model.embeddings.position_ids"
LAYER_FREQUENCIES, MODEL_FREQUENCIES = "model.layers.1.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"


@pytest.mark.parametrize("shards", [0, 3])
@pytest.mark.parametrize(
    ("key", "buffer"),
    [
        (CLIP_POSITIONS, POSITIONS[None]),
        (CLIP_POSITIONS, POSITIONS.int()),
        (LAYER_FREQUENCIES, frequencies()),
        (MODEL_FREQUENCIES, frequencies().bfloat16()),
    ],
)
def test_buffers_that_other_programs_save_are_checked_and_left_out(folder, key, buffer, shards):
    """Fine-tuned checkpoints hold buffers of the reference classes. They say nothing that the config does not say."""
    before = weights(folder)
    rewrite(folder, before | {key: buffer})
    if shards:
        shard(folder, shards)
    for name, tensor in official_tensors(LightSeekOCR.from_pretrained(folder)).items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize(
    ("key", "buffer"),
    [
        (CLIP_POSITIONS, POSITIONS.flip(0)[None]),
        (CLIP_POSITIONS, POSITIONS[:-1][None]),
        (CLIP_POSITIONS, POSITIONS + 1),
        (LAYER_FREQUENCIES, frequencies(20000.0)),
        (MODEL_FREQUENCIES, frequencies(width=8)),
        (MODEL_FREQUENCIES, frequencies() * torch.nan),
    ],
)
def test_a_buffer_with_other_values_is_refused(folder, key, buffer):
    rewrite(folder, weights(folder) | {key: buffer})
    refused(folder, WEIGHTS, key, "is a buffer and not a weight, but it does not hold")


def test_a_buffer_of_a_layer_that_does_not_exist_is_refused(folder):
    key = LAYER_FREQUENCIES.replace("layers.1", "layers.9")
    rewrite(folder, weights(folder) | {key: frequencies()})
    refused(folder, key, "is not one of the")


def test_saving_over_the_folder_it_came_from(folder):
    model = LightSeekOCR.from_pretrained(folder)
    with torch.no_grad():
        model.decoder.norm.weight.fill_(2.0)
    model.save_pretrained(folder)
    assert (LightSeekOCR.from_pretrained(folder).decoder.norm.weight == 2).all()
    assert [path for path in folder.iterdir() if path.name.startswith(".")] == []


# Wrong files


def test_missing_tensor(folder):
    tensors = weights(folder)
    del tensors[NORM], tensors["lm_head.weight"]
    rewrite(folder, tensors)
    refused(folder, WEIGHTS, "tensor lm_head.weight and 1 more are missing")


def test_extra_tensor(folder):
    rewrite(folder, weights(folder) | {"model.layers.9.extra": torch.zeros(1)})
    refused(folder, WEIGHTS, "model.layers.9.extra is not one of the")


def test_misshapen_tensor(folder):
    rewrite(folder, weights(folder) | {NORM: torch.zeros(9)})
    refused(folder, WEIGHTS, NORM, "has shape (9,), the config asks for (8,)")


def test_transposed_expert(folder):
    key = "model.layers.1.mlp.experts.0.down_proj.weight"
    rewrite(folder, weights(folder) | {key: weights(folder)[key].T.contiguous()})
    refused(folder, key, "has shape (4, 8), the config asks for (8, 4)")


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_tensor_of_another_type(folder, dtype):
    rewrite(folder, weights(folder) | {NORM: torch.ones(8).to(dtype)})
    refused(folder, WEIGHTS, NORM, "not one of F64, F32, F16, BF16")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("key", [NORM, "model.layers.1.mlp.experts.2.up_proj.weight"])
def test_a_value_that_is_not_finite(folder, key, value):
    tensors = weights(folder)
    tensors[key].view(-1)[-1] = value
    rewrite(folder, tensors)
    refused(folder, WEIGHTS, key, "not finite")


def test_a_value_too_large_for_the_dtype_asked_for(folder):
    tensors = weights(folder)
    tensors[NORM][3] = 1e6  # half precision ends at 65504
    rewrite(folder, tensors)
    with pytest.raises(CheckpointError, match=f"{NORM} holds 1e.06, too large for float16"):
        LightSeekOCR.from_pretrained(folder, dtype=torch.float16)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 5000, -1])
def test_truncated_file(folder, keep):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:keep])
    refused(folder, WEIGHTS, "truncated, or not a safetensors file")


@pytest.mark.parametrize("content", [b"PK\x03\x04 a pickle's archive", b"\xff" * 64, b"<!doctype html>" * 9])
def test_garbage_file(folder, content):
    (folder / WEIGHTS).write_bytes(content)
    refused(folder, WEIGHTS, "not a safetensors file")


@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_header_never_loads_quietly(folder, data):
    """One byte of the length or the header is changed. There is a clear error, or the tensors have the same keys and
    finite values (for example if the byte was a space).
    """
    original = (folder / WEIGHTS).read_bytes()
    header = 8 + int.from_bytes(original[:8], "little")
    place = data.draw(st.integers(0, header - 1))
    damaged = bytearray(original)
    damaged[place] ^= data.draw(st.integers(1, 255))
    (folder / WEIGHTS).write_bytes(damaged)
    try:
        loaded = official_tensors(LightSeekOCR.from_pretrained(folder))
        assert all(torch.isfinite(tensor).all() for tensor in loaded.values())
        assert loaded.keys() == weights(folder).keys()
    except CheckpointError as error:
        assert WEIGHTS in str(error) or INDEX in str(error)
    finally:
        (folder / WEIGHTS).write_bytes(original)


# Shards and their index


def test_index_names_a_file_that_is_not_there(folder):
    shard(folder, 2)
    (folder / "model-00002-of-00002.safetensors").unlink()
    refused(folder, "model-00002-of-00002.safetensors", f"{INDEX} lists this file, but it is not there")


def test_index_places_a_tensor_in_the_wrong_shard(folder):
    weight_map = shard(folder, 2)
    other = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"} - {weight_map[NORM]}
    weight_map[NORM] = other.pop()
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    refused(folder, INDEX, f"lists {NORM} in {weight_map[NORM]}, but")


@pytest.mark.parametrize("change", ["forgets", "invents"])
def test_index_and_files_must_hold_the_same_keys(folder, change):
    weight_map = shard(folder, 2)
    if change == "forgets":
        where = weight_map.pop(NORM)
        complaint = f"lists {NORM} in no file, but the tensor is in {where}"
    else:
        weight_map["invented"] = weight_map[NORM]
        complaint = f"lists invented in {weight_map[NORM]}, but the tensor is in no file"
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    refused(folder, INDEX, complaint)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'])
def test_index_that_is_none(folder, content):
    (folder / INDEX).write_text(content)
    refused(folder, INDEX, "not an index of safetensors shards")


def test_index_cannot_reach_outside_the_folder(folder, tmp_path):
    (folder / WEIGHTS).rename(tmp_path / WEIGHTS)
    keys = weights(tmp_path)
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(keys, f"../{WEIGHTS}")}))
    refused(folder, INDEX, "is not the name of a file in this folder")


def test_a_tensor_that_two_files_hold(folder):
    (folder / INDEX).unlink()
    save_file({NORM: torch.ones(8)}, folder / "another.safetensors")
    refused(folder, NORM, "another.safetensors", WEIGHTS)


# Folders


def test_folder_without_weights(folder):
    (folder / WEIGHTS).unlink()
    (folder / INDEX).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    refused(folder, str(folder), "no *.safetensors file (other formats are not read)")


@pytest.mark.parametrize(("content", "complaint"), [(None, "no such file"), ("{", "not valid JSON"), ("{}", "missing")])
def test_folder_with_a_wrong_config(folder, content, complaint):
    (folder / "config.json").unlink()
    if content:
        (folder / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=complaint) as error:
        LightSeekOCR.from_pretrained(folder)
    assert str(folder / "config.json") in str(error.value)


def test_config_of_another_model(folder):
    config = json.loads((folder / "config.json").read_text())
    for section in (config, config["language_config"]):
        section["num_hidden_layers"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, "model.layers.2.input_layernorm.weight", "missing")


def test_a_file_in_the_folders_place(folder):
    refused(folder / WEIGHTS, "is a file: give the folder")


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "/no/such/folder", Path("org/name")])
def test_a_path_that_is_neither_folder_nor_hub_id(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(name, "no such folder")


# Saving is atomic


def test_a_failed_save_leaves_the_old_checkpoint_whole(folder, monkeypatch):
    before = (folder / WEIGHTS).read_bytes()
    model = LightSeekOCR.from_pretrained(folder)
    fsync, calls = os.fsync, []

    def full_disk(handle):
        calls.append(handle)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        model.save_pretrained(folder)
    monkeypatch.setattr(os, "fsync", fsync)
    assert calls and (folder / WEIGHTS).read_bytes() == before
    assert not list(folder.glob(".*"))


def test_a_killed_save_leaves_the_old_checkpoint_whole(folder):
    """The process is killed while it writes the weights, so it cannot clean up."""
    before = (folder / WEIGHTS).read_bytes()
    code = f"""
        import os, signal, torch
        from lightseek.weights.official import WEIGHTS
        from lightseek.weights.tensors import write_safetensors
        from pathlib import Path
        def value(key):
            if key == "b":
                os.kill(os.getpid(), signal.SIGKILL)
            return torch.zeros(1 << 16)
        shapes = dict.fromkeys("abc", (1 << 16,))
        write_safetensors(Path({str(folder)!r}) / WEIGHTS, shapes, torch.float32, value)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=Path(__file__).parents[2])
    assert killed.returncode == -signal.SIGKILL
    assert (folder / WEIGHTS).read_bytes() == before
    LightSeekOCR.from_pretrained(folder)  # the temporary file is still there, but it is not part of the checkpoint


def test_atomic_write_shows_the_old_file_until_the_new_one_is_done(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")
    with atomic_write(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    with pytest.raises(RuntimeError), atomic_write(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "new" and os.listdir(tmp_path) == ["file"]  # noqa: PTH208


# Any sizes


@given(
    layers=st.integers(1, 3), dense=st.integers(0, 3), experts=st.integers(1, 4), shared=st.integers(1, 2),
    heads=st.integers(1, 2), sam_layers=st.integers(1, 2), clip_layers=st.integers(1, 2),
    kind=st.sampled_from(["linear", "mlp"]), dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)  # fmt: skip
@settings(max_examples=15, deadline=None)
def test_every_size_round_trips(
    tmp_path_factory, layers, dense, experts, shared, heads, sam_layers, clip_layers, kind, dtype
):
    config = OCRConfig(
        sam=SamConfig(width=4, layers=sam_layers, heads=2, global_blocks=(0,), neck=2, grid=8),
        compressor=(2, 4),
        clip=ClipConfig(width=4, layers=clip_layers, heads=2, image_size=56),
        projector=ProjectorConfig(kind, 8, 4 * heads),
        decoder=DecoderConfig(
            width=4 * heads, layers=layers, heads=heads, dense_layers=min(dense, layers), dense_width=3,
            experts=experts, chosen=1, shared=shared, expert_width=2, vocabulary=8,
        ),
        image_token_id=7,
        dtype=str(dtype).removeprefix("torch."),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("any")
    model = LightSeekOCR(config).to(dtype)
    model.save_pretrained(folder)
    again = LightSeekOCR.from_pretrained(folder)
    assert again.config == config
    for (name, ours), other in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert name == other[0] and torch.equal(ours, other[1]), name
