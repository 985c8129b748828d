"""What vLLM's class takes: names of tensors, sizes, files beside the weights, adapters. vLLM itself is not needed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lightseek.__main__ import main
from lightseek.model.config import OCRConfig
from lightseek.model.ocr import DeepSeekOCR
from lightseek.text.tokenizer import Tokenizer
from lightseek.tools.files import write_json
from lightseek.weights.lora import add_lora
from lightseek.weights.lora_files import save_adapter
from lightseek.weights.names import official_tensors
from lightseek.weights.official import WEIGHTS
from lightseek.weights.tensors import CheckpointError
from lightseek.weights.vllm import check_adapter, check_model, vllm_name
from tests.tiny_models import SMALL, small_model

KEYS = json.loads((Path(__file__).parents[1] / "goldens/official_keys.json").read_text())["tensors"]
# vLLM's encoder has fixed sizes, so only the decoder is small here.
CONFIG = OCRConfig(decoder=SMALL.decoder, projector=replace(OCRConfig().projector, width=32), image_token_id=3)


def test_every_official_key_has_a_name_in_vllm():
    names = {key: vllm_name(key) for key in KEYS}
    assert len(set(names.values())) == 2710
    assert names["model.layers.3.mlp.experts.7.up_proj.weight"] == (
        "language_model.model.layers.3.mlp.experts.7.up_proj.weight"
    )
    assert names["lm_head.weight"] == "language_model.lm_head.weight"
    assert names["model.sam_model.net_2.weight"] == "sam_model.net_2.weight"
    assert names["model.view_seperator"] == "view_seperator"
    with pytest.raises(KeyError, match="no part of vLLM's class"):
        vllm_name("model.compressor.pool")


def hollow(folder: Path, config: OCRConfig) -> Path:
    """Write a checkpoint whose file of weights has a true header, and nothing but holes behind it."""
    with torch.device("meta"):
        tensors = official_tensors(DeepSeekOCR(config))
    header, end = {}, 0
    for key, tensor in tensors.items():
        header[key] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [end, end + 2 * tensor.numel()]}
        end += 2 * tensor.numel()
    text = json.dumps(header).encode()
    with (folder / WEIGHTS).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    write_json(folder / "config.json", config.to_dict())
    Tokenizer.nano().save(folder / "tokenizer.json")
    return folder


def test_a_model_gets_the_files_that_it_lacks_and_is_the_same_model(tmp_path, capsys):
    folder = hollow(tmp_path, CONFIG)
    (folder / "special_tokens_map.json").write_text("{}")
    assert main(["export", str(folder), "--for", "vllm"]) == 0
    said = capsys.readouterr().out
    assert "vllm serve" in said and "processor_config.json: written" in said and "special" not in said
    values = json.loads((folder / "config.json").read_text())
    assert (values["architectures"], values["model_type"]) == (["DeepseekOCRForCausalLM"], "deepseek_vl_v2")
    assert "auto_map" not in values and "auto_map" not in values["language_config"]
    assert OCRConfig.from_dict(values) == CONFIG
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    assert Tokenizer.nano().id_of(tokenizer["eos_token"]) == 1
    assert json.loads((folder / "generation_config.json").read_text())["temperature"] == 0.0  # greedy, as here
    assert (folder / "special_tokens_map.json").read_text() == "{}"
    assert main(["export", str(folder), "--for", "vllm"]) == 0
    assert "written" not in capsys.readouterr().out


def test_the_files_of_code_of_a_checkpoint_keep_their_auto_map(tmp_path):
    (hollow(tmp_path, CONFIG) / "modeling_deepseekocr.py").write_text("")
    assert main(["export", str(tmp_path), "--for", "vllm"]) == 0
    assert "auto_map" in json.loads((tmp_path / "config.json").read_text())


def test_what_vllm_cannot_build_is_one_line(tmp_path, capsys):
    write_json(tmp_path / "config.json", SMALL.to_dict())
    assert main(["export", str(tmp_path), "--for", "vllm"]) == 2
    assert "vLLM's class has the sam" in " ".join(capsys.readouterr().err.split())
    hollow(tmp_path, CONFIG)
    write_json(tmp_path / "config.json", replace(CONFIG, image_token_id=7).to_dict())
    with pytest.raises(CheckpointError, match=r"<image> is token 3 in tokenizer\.json, and 7 here"):
        check_model(tmp_path)


def adapter(folder: Path, targets: str, rank: int = 4, **options) -> Path:
    model = small_model()
    add_lora(model, targets, rank, 8.0, 0.0, **options)
    save_adapter(model, folder)
    return folder


def test_adapters_of_the_decoder_are_for_vllm_and_others_are_not(tmp_path, capsys):
    good = adapter(tmp_path / "news", "attention")
    assert main(["export", str(good), "--for", "vllm"]) == 0
    assert f"--max-lora-rank 8 --lora-modules news={good}" in capsys.readouterr().out
    assert main(["export", str(adapter(tmp_path / "experts", "experts", rank=8)), "--for", "vllm"]) == 0
    assert (
        "--max-lora-rank 16" in capsys.readouterr().out
    )  # the settings have gate and up as one stack of twice the rank
    weights = {
        f"base_model.model.model.vision_model.transformer.layers.0.self_attn.out_proj.lora_{half}.weight": torch.ones(
            4, 4
        )
        for half in "AB"
    }
    (tmp_path / "seen").mkdir()
    save_file(weights, tmp_path / "seen/adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}
    write_json(tmp_path / "seen/adapter_config.json", settings)
    with pytest.raises(CheckpointError, match="is not in the decoder"):
        check_adapter(tmp_path / "seen")
    write_json(good / "adapter_config.json", settings | {"alpha_pattern": {"q_proj": 4}})
    with pytest.raises(CheckpointError, match="another rank or scale"):
        check_adapter(good)
