"""Answers of `extract` against the right ones: fields by hand, and base against tuned with random small models."""

import json

import pytest
from PIL import Image

from lightseek.__main__ import main
from lightseek.scores.fields import ALL, compare_fields, read_answers, values_of

RIGHT = {
    "a": {"seller": {"name": "Ada"}, "lines": [{"price": 3}, {"price": 3}, {"price": 5}], "paid": True},
    "b": {"seller": {"name": "Bo"}, "lines": []},
}


def test_the_fields_of_an_answer():
    found = values_of(RIGHT["a"])
    assert found["seller.name"] == {'"Ada"': 1}
    assert found["lines[].price"] == {"3": 2, "5": 1}
    assert found["paid"] == {"true": 1}
    assert found[ALL].total() == 5
    assert values_of(RIGHT["b"])["lines"] == {"[]": 1}
    assert values_of(2.0)["answer"] == values_of(2)["answer"] == {"2": 1}
    assert values_of("2") != values_of(2)


def test_exact_and_f1_by_hand():
    base = {"a": {"seller": {"name": "Ada"}, "lines": [{"price": 3}, {"price": 4}], "paid": False}}  # nothing for b
    tuned = RIGHT | {"b": {"seller": {"name": "Bo"}, "lines": [], "extra": 1}}
    found = compare_fields(RIGHT, [("base", base), ("tuned", tuned)])
    one, two = (model["scores"] for model in found["models"])
    assert found["fields"] == [ALL, "seller.name", "lines[].price", "paid", "lines", "extra"]
    assert one["seller.name: exact"]["value"] == one["seller.name: F1"]["value"] == 50.0
    assert one["lines[].price: exact"]["value"] == 0.0
    assert one["lines[].price: F1"]["value"] == pytest.approx(100 * 2 * 1 / (3 + 2))
    assert two["paid: exact"]["value"] == 100.0  # of the one document that has it
    assert two["extra: F1"]["value"] == 0.0
    assert one["extra: exact"]["value"] == 100.0  # rightly not written
    assert two[f"{ALL}: exact"]["value"] == 50.0
    assert one[f"{ALL}: F1"]["value"] == pytest.approx((100 * 2 * 2 / (5 + 4) + 0) / 2)
    (difference,) = found["comparisons"]
    assert difference["scores"]["seller.name: exact"]["difference"] == 50.0
    with pytest.raises(ValueError, match="base has an answer for c"):
        compare_fields(RIGHT, [("base", {"c": 1})])


def test_lines_that_are_no_answers(tmp_path):
    path = tmp_path / "a.jsonl"
    for text, words in (
        ("", "holds no answers"),
        ('{"file": "a"}', "line 1 has no value"),
        ('{"file": "a", "value": 1}\n{"file": "a", "value": 2}', "line 2 is the second one"),
        ('{"value": 1}', "'file' is missing"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=words):
            read_answers(path)


def test_base_against_tuned_on_the_same_documents(tmp_path, monkeypatch, capsys):
    """Random weights write valid JSON, so each model has an answer for each document."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from lightseek.weights import loading
    from tests.tiny_models import qwen3_folder, small_model

    monkeypatch.setattr(loading, "load_model", lambda *_, **__: small_model())
    pages = [tmp_path / "a.png", tmp_path / "b.png"]
    for page in pages:
        Image.new("RGB", (90, 60), "white").save(page)
    form = {"type": "object", "properties": {"paid": {"type": "boolean"}, "sum": {"enum": [1, 2, 3, 4]}}}
    (tmp_path / "form.json").write_text(json.dumps(form | {"required": ["paid", "sum"], "additionalProperties": False}))
    folder = str(qwen3_folder(tmp_path / "qwen"))
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), LoraConfig(target_modules=["q_proj"]))
    torch.manual_seed(0)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=2.0)
    tuned.save_pretrained(tmp_path / "adapter")
    common = [
        "--schema",
        str(tmp_path / "form.json"),
        "--mode",
        "tiny",
        "--max-new-tokens",
        "30",
        "--post",
        f"hf:{folder}",
    ]
    for name, more in (("base", []), ("tuned", ["--post-adapter", str(tmp_path / "adapter")])):
        assert main(["extract", *map(str, pages), *common, "--post", f"hf:{folder}", *more]) == 0
        (tmp_path / f"{name}.jsonl").write_text(capsys.readouterr().out)
    files = [str(tmp_path / "base.jsonl"), str(tmp_path / "tuned.jsonl")]
    assert main(["evaluate", *files, "--answers", files[0], "--out", str(tmp_path)]) == 0
    assert "tuned minus base" in capsys.readouterr().out
    told = json.loads((tmp_path / "evaluation.json").read_text())
    assert told["documents"] == 2
    assert told["models"][0]["scores"][f"{ALL}: exact"]["value"] == 100.0
