"""`extract`: JSON that satisfies a schema, by our model and by a second language model, with random weights."""

import json

import jsonschema
import pytest
from PIL import Image

from lightseek.__main__ import main
from lightseek.weights import loading
from tests.tiny_models import qwen3_folder, small_model

FORM = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 5}, "paid": {"type": "boolean"}},
    "required": ["name", "paid"],
    "additionalProperties": False,
}


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Call the command on a page and a schema, and return (exit code, stdout, stderr)."""
    monkeypatch.setattr(loading, "load_model", lambda *_, **__: small_model())
    Image.new("RGB", (90, 60), "white").save(tmp_path / "a.png")
    (tmp_path / "form.json").write_text(json.dumps(FORM))

    def run(*flags):
        page, schema = str(tmp_path / "a.png"), str(tmp_path / "form.json")
        code = main(["extract", page, "--schema", schema, "--mode", "tiny", *flags])
        told = capsys.readouterr()
        return code, told.out, " ".join(told.err.split())

    return run


def test_one_line_of_json(call):
    code, out, _ = call()
    assert code == 0
    jsonschema.validate(json.loads(out), FORM)


def test_json_that_the_limit_cuts_is_an_error(call):
    code, out, said = call("--max-new-tokens", "8")
    assert (code, out) == (2, "")
    assert "not complete after 8 tokens" in said


def test_a_second_language_model_with_an_adapter_writes_valid_json(call, tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from lightseek.text.post import load_writer, write

    folder = str(qwen3_folder(tmp_path / "qwen"))
    tuned = get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder), LoraConfig(target_modules=["q_proj", "v_proj"])
    )
    torch.manual_seed(0)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=2.0)
    tuned.save_pretrained(tmp_path / "adapter")
    base = call("--post", f"hf:{folder}", "--max-new-tokens", "60")
    adapted = call("--post", f"hf:{folder}", "--post-adapter", str(tmp_path / "adapter"), "--max-new-tokens", "60")
    for code, out, said in (base, adapted):
        assert code == 0, said
        jsonschema.validate(json.loads(out), FORM)
    assert base[1] != adapted[1]
    assert call("--post", f"hf:{folder}", "--max-new-tokens", "5")[0] == 2
    writer = load_writer(f"hf:{folder}")
    words = len(writer.tokenizer("Say.\n\nIt was late.")["input_ids"])
    writer.model.config.max_position_embeddings = words + 3
    inputs = []
    writer.model.register_forward_hook(lambda model, given, out: inputs.append(out.logits.shape[1]))
    assert write(writer, "Say.", "It was late.", None, 8192)[1] is False  # ends where the positions end
    assert len(inputs) == 3  # a pass for each token that was written
    with pytest.raises(ValueError, match=f"the second model has {words + 3} positions: give less text"):
        write(writer, "Say.", "It was late. " * 20)
    (tmp_path / "adapter/adapter_model.safetensors").rename(tmp_path / "adapter/adapter_model.bin")
    code, _, said = call("--post", f"hf:{folder}", "--post-adapter", str(tmp_path / "adapter"))
    assert (code, "has no adapter_model.safetensors" in said) == (2, True)
    for weights in (tmp_path / "qwen").glob("*.safetensors"):  # a pickle is not opened, whatever is in it
        weights.rename(tmp_path / "qwen/pytorch_model.bin")
    code, _, said = call("--post", f"hf:{folder}")
    assert (code, "safetensors" in said) == (2, True)
    code, _, said = call("--post", "gpt2")
    assert (code, "write hf:ID" in said) == (2, True)
