"""Tests batches of similar lengths: each epoch has every document once, the order is a pure function of seed and step.

Also tests that a padded batch has the token-weighted loss and gradient of its samples.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import SMALL

from lightseek import LightSeekOCR, OCRConfig
from lightseek.data import batches as buckets
from lightseek.data.batches import BatchOrder, estimated_lengths, padding_share
from lightseek.data.document import Document
from lightseek.data.examples import Example, ExampleMaker, collate
from lightseek.data.sources.load import load_documents
from lightseek.page.spec import PageSpec
from lightseek.page.views import PageViews
from lightseek.text.tokenizer import Tokenizer
from lightseek.weights.formula import fill, formula_image


@given(st.integers(1, 9), st.lists(st.integers(1, 99), min_size=1, max_size=40), st.integers(0, 5), st.integers(1, 4))
def test_every_epoch_has_every_document_once(batch, lengths, seed, bucket):
    order, count = BatchOrder(lengths, batch, seed, bucket), len(lengths)
    seen = [place for step in range(count) for place in order(step)]  # `count` steps are exactly `batch` epochs
    for epoch in range(batch):
        assert sorted(seen[epoch * count : (epoch + 1) * count]) == list(range(count))


@given(st.integers(0, 500), st.integers(0, 5))
def test_a_step_of_a_resumed_run_is_the_same_without_the_steps_before(step, seed):
    lengths = [3 * i % 47 for i in range(100)]
    unbroken = BatchOrder(lengths, 8, seed, bucket=5)
    for before in range(step % 30):
        unbroken(before)
    assert unbroken(step) == BatchOrder(lengths, 8, seed, bucket=5)(step)


def test_a_window_as_long_as_the_epoch_sorts_it_and_epochs_differ():
    """12 documents make 3 batches of 4: the shortest, the middle and the longest documents, in any order."""
    lengths = [5, 11, 2, 9, 7, 1, 10, 4, 12, 3, 8, 6]
    order = BatchOrder(lengths, 4, seed=0, bucket=3)
    epochs = [[[lengths[i] for i in order(step)] for step in range(3 * e, 3 * e + 3)] for e in range(6)]
    for epoch in epochs:
        assert sorted(epoch) == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]
    assert len({str(epoch) for epoch in epochs}) > 1


def test_padding_falls_from_a_half_to_a_few_percent():
    """The lengths vary as much as those of articles. 50 batches of 8 are sorted together."""
    lengths = np.random.default_rng(0).lognormal(5, 0.6, 4000).astype(int).tolist()
    steps = range(4000 // 8)
    shares = [padding_share(lengths, map(BatchOrder(lengths, 8, 0, bucket), steps)) for bucket in (1, 50)]
    assert shares[0] > 0.45 and shares[1] < 0.05


@pytest.mark.parametrize("task", ["ocr", "summarize"])
@pytest.mark.parametrize("tokenized", [0, 10**9], ids=["characters", "tokens"])
def test_estimated_lengths_sort_documents_as_true_ones_do(task, tokenized, monkeypatch):
    monkeypatch.setattr(buckets, "TOKENIZED", tokenized)
    make = ExampleMaker(OCRConfig.preset("nano"), Tokenizer.nano(), task, PageSpec("tiny"))
    documents = [
        Document(text[: 40 * 3**i], text[: 20 * 2**i], f"{i}")
        for i, text in enumerate([" ".join(d.text for d in load_documents("synthetic", "train", 40))] * 5)
    ]
    examples = [make(document) for document in documents]
    true = [len(example.prompt) + len(example.target) for example in examples]
    assert len({len(example.pages) for example in examples}) > 1  # the longest need several pages
    guessed = estimated_lengths(make, documents)
    assert np.argsort(guessed).tolist() == np.argsort(true).tolist()
    assert all(0.5 < guess / length < 2 for guess, length in zip(guessed, true, strict=True))


# What a padded batch computes


@pytest.fixture(scope="module")
def model():
    model = LightSeekOCR(replace(SMALL, decoder=replace(SMALL.decoder, balance_alpha=1.0)))
    fill(model)
    return model.train()


def example(name: str, target: list[int], pages: int = 1) -> Example:
    views = [PageViews(formula_image(f"{name}{i}", 128)) for i in range(pages)]  # 7 positions each
    return Example(Document("", "", name), views, [0, *[SMALL.image_token_id] * 7 * pages, 5], target, 4 * pages, 0)


EXAMPLES = [example("short", [7, 1]), example("long", [8, 9, 10, 11, 12, 13, 1]), example("wide", [6, 1], pages=2)]


def loss_and_gradient(model, examples, part):
    batch = collate(examples, SMALL.pad_token_id)
    output = model(batch.input_ids, pages=batch.pages, labels=batch.labels, mask=batch.mask, logits="labelled")
    model.zero_grad()
    loss = getattr(output, part)
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return loss.item(), gradient


@pytest.mark.parametrize(
    ("part", "weight"),
    [("cross_entropy", lambda example: len(example.target)), ("balance_loss", lambda example: 1)],
    ids=["tokens weigh the cross-entropy", "sequences weigh the balance loss"],
)
def test_a_padded_batch_has_the_weighted_loss_and_gradient_of_its_samples(model, part, weight):
    """The cross-entropy is a mean over target tokens; the balance loss is by definition a mean over sequences."""
    lengths = [len(example.prompt) + len(example.target) for example in EXAMPLES]
    assert lengths == [11, 16, 18]  # so two rows are padded
    whole, gradient = loss_and_gradient(model, EXAMPLES, part)
    weights = [weight(example) / sum(map(weight, EXAMPLES)) for example in EXAMPLES]
    alone = [loss_and_gradient(model, [example], part) for example in EXAMPLES]
    assert whole == pytest.approx(sum(w * loss for w, (loss, _) in zip(weights, alone, strict=True)), rel=1e-5)
    torch.testing.assert_close(
        gradient, sum(w * g for w, (_, g) in zip(weights, alone, strict=True)), rtol=1e-3, atol=1e-5
    )
    assert gradient.abs().max() > 1e-3  # not equal just because all are zero
