"""Tests of runs with --cache-vision. The losses equal those of runs without it bit for bit, and the encoder runs only
once per page.
"""

import json
from dataclasses import replace

import pytest
import torch
from tiny_run import tiny_checkpoint, tiny_run

from lightseek.data.batches import BatchOrder, padding_share
from lightseek.lab.results import finish
from lightseek.training.run import Run


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return tiny_run(
        tiny_checkpoint(folder / "model"),
        freeze="encoder",
        train_documents=4,
        eval_documents=2,
        steps=2,
        batch=1,  # pages must be encoded alone, because in a batch such a small model rounds the last bit differently
        samples=1,
        cache_vision=True,
        cache_dir=str(folder / "cache"),
    )


def test_a_run_with_the_cache_is_the_run_without(settings, tmp_path):
    """The encoder sees 2 + 2 + 2 pages once. The 2 steps, the evaluation and the final outputs do not run it again."""
    plain, cached = Run(replace(settings, cache_vision=False), tmp_path / "plain"), Run(settings, tmp_path / "cached")
    views = []
    cached.model.encoder.register_forward_pre_hook(lambda module, inputs: views.append(len(inputs[0])))
    ticks = []
    cached.encode_pages(lambda done, of: ticks.append((done, of)))
    assert ticks[-1] == (6, 6) and sum(views) == cached.cache.pages == 6
    results = [finish(run, run.fit()) for run in (plain, cached)]
    assert sum(views) == 6
    for figure in ("train_loss", "eval_loss", "cer", "rouge1", "compression_ratio"):
        assert results[0][figure] == results[1][figure], figure
    for (name, ours), theirs in zip(cached.model.named_parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    rows = [[json.loads(line) for line in (run.folder / "metrics.jsonl").open()] for run in (plain, cached)]
    assert rows[0] == rows[1]
    assert all((tmp_path / name / "page.png").is_file() for name in ("plain", "cached"))


def test_mixed_precision_finds_what_mixed_precision_left(settings, tmp_path):
    """With mixed precision the losses are again those of a run without the cache, and the cache has another folder."""
    settings = replace(settings, precision="bf16", steps=1)
    plain, cached = Run(replace(settings, cache_vision=False), tmp_path / "plain"), Run(settings, tmp_path / "cached")
    assert plain.fit()["eval_loss"] == cached.fit()["eval_loss"]
    assert cached.cache.folder != Run(replace(settings, precision=None), tmp_path / "full").cache.folder


def test_pages_that_no_step_visits_are_left_alone(settings, tmp_path):
    """The run uses 2 of the 4 training documents (one per step), and 2 + 2 documents for evaluation."""
    run = Run(replace(settings, cache_dir=str(tmp_path)), tmp_path / "run")
    run.encode_pages()
    assert run.cache.pages == 2 + 2 + 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"freeze": None}, "the encoder learns .*: add --freeze encoder"),
        ({"freeze": "sam"}, "the encoder learns .*: add --freeze encoder"),
        ({"context": "text"}, "context=text has none"),
        ({"cache_gb": 0.0}, "cache_gb must be greater than 0"),
        ({"bucket": 0}, "bucket must be at least 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        Run(replace(settings, **change), tmp_path)


def test_a_cache_too_small_ends_before_the_first_step(settings, tmp_path):
    run = Run(replace(settings, cache_gb=2e-5, cache_dir=str(tmp_path / "cache")), tmp_path / "run")
    with pytest.raises(ValueError, match="raise --cache-gb"):
        run.fit()
    assert not (run.folder / "metrics.jsonl").exists()


def test_steps_have_documents_of_like_length(settings, tmp_path):
    """There are 96 docstrings in 12 batches. Their lengths are those of the texts that the model learns to write."""
    changes = {"data": "pydoc", "task": "ocr", "train_documents": 96, "batch": 8, "cache_vision": False}
    run = Run(replace(settings, **changes), tmp_path)
    lengths = [len(run.model.tokenizer.encode(document.text)) for document in run.documents]
    chance = BatchOrder(lengths, batch=8, seed=0, bucket=1)
    shares = [padding_share(lengths, (order(step) for step in range(12))) for order in (chance, run.order)]
    assert shares[0] > 0.25 and shares[1] < 0.07
