"""Tests the bits of a true text, and the exact answers."""

import pytest
import torch
from tiny_models import SMALL, small_model

from lightseek.data.document import Document
from lightseek.data.examples import ExampleMaker
from lightseek.page.spec import PageSpec
from lightseek.scores.compare import score
from lightseek.scores.likelihood import likelihood, target_bits
from lightseek.scores.metrics import evaluate
from lightseek.scores.predictions import Prediction, predict, save_predictions

DOCUMENTS = [Document("one two three", "four five", "a"), Document("six", "seven eight nine ten eleven", "b")]


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture
def make(model):
    return ExampleMaker(SMALL, model.tokenizer, "continue", PageSpec("tiny"), context="text")


def test_bits_are_the_log_probability_of_the_target_alone(model, make):
    """Two rows of different lengths in one batch cost what each costs alone. EOS does not count."""
    examples = [make(document) for document in DOCUMENTS]
    bits = target_bits(model, examples)
    for example, found in zip(examples, bits, strict=True):
        ids = torch.tensor([example.prompt + example.target_text])
        with torch.no_grad():
            logs = model(ids).logits[0].log_softmax(-1) / torch.log(torch.tensor(2.0))
        first = len(example.prompt)
        alone = -sum(logs[place - 1, ids[0, place]] for place in range(first, ids.shape[1]))
        assert found == pytest.approx(alone.item(), rel=1e-4)
    assert bits[0] > len(examples[0].target_text), "a random model knows nothing: more than a bit for each token"


def test_predictions_of_the_task_keep_their_bits_and_a_file_is_scored_by_them(model, make, tmp_path):
    found = list(predict(model, make, DOCUMENTS, max_new_tokens=2))
    path = tmp_path / "predictions.jsonl"
    save_predictions(path, {"task": "continue"}, found)
    scored = score(path)
    assert next(iter(scored.tallies)) == "bits" and [p.bits for p in scored.predictions] == [p.bits for p in found]
    characters = sum(len(document.summary) for document in DOCUMENTS)
    assert scored.tallies["bits"].value == pytest.approx(sum(p.bits for p in found) / characters)
    make.task = "summarize"
    (other,) = predict(model, make, DOCUMENTS[:1], max_new_tokens=1)
    assert other.bits is None and likelihood([*found, other]) == {}


def test_an_exact_answer_is_equal_but_for_white_space():
    assert evaluate(["40 $", "May  3", "may 3"], ["40 $", "May 3", "May 3"], None, "recall")["exact"] == pytest.approx(
        200 / 3
    )
    assert "exact" not in evaluate(["a"], ["a"], None, "summarize")


def test_bits_must_be_a_number(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"id": "a", "reference": "b", "prediction": "c", "bits": "many"}\n')
    with pytest.raises(ValueError, match="line 1 is not a prediction: 'bits' must be a number"):
        score(path)
    assert Prediction("a", "b", "c").bits is None
