"""Tests of the contexts that keep a text to the budget of a page: they fill as many positions as the vision tokens."""

import pytest
import torch
from tiny_models import SMALL, small_model
from tiny_run import tiny_checkpoint, tiny_run

from lightseek import LightSeekOCR
from lightseek.data.document import Document
from lightseek.data.examples import ExampleMaker, collate
from lightseek.lab.grid import check_model, grid
from lightseek.model.boxes import build_box
from lightseek.model.kinds import TEXT_ENCODERS
from lightseek.page.spec import PageSpec
from lightseek.text.tokenizer import Tokenizer
from lightseek.training.run import Run
from lightseek.weights.swap import swap_box

DOCUMENT = Document(name="one", text="The quick brown fox jumps over the lazy dog. " * 6, summary="A fox jumps.")
SHORT = ("meantext", "conv1d")


def maker(context: str, mode: str = "tiny") -> ExampleMaker:
    return ExampleMaker(SMALL, Tokenizer.nano(), "summarize", PageSpec(mode), context=context)


def model_for(kind: str) -> LightSeekOCR:
    model = small_model()
    swap_box(model, "text_encoder", kind)
    return model


@pytest.mark.parametrize("kind", SHORT)
def test_a_text_fills_the_positions_of_a_page_and_saves_with_its_box(tmp_path, kind):
    example, model = maker(kind)(DOCUMENT), model_for(kind)
    assert example.prompt.count(SMALL.image_token_id) == example.vision_tokens == 64
    assert example.text_tokens == len(Tokenizer.nano().encode(DOCUMENT.text))
    batch = collate([example, maker(kind)(Document(name="two", text="cat", summary="A cat."))], SMALL.pad_token_id)
    output = model.train()(batch.input_ids, batch.pages, batch.labels, batch.mask)
    output.loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.context.parameters())
    model.eval().save_pretrained(tmp_path)
    again = LightSeekOCR.from_pretrained(tmp_path)
    with torch.no_grad():
        one, two = (m(batch.input_ids, batch.pages, mask=batch.mask).logits for m in (model, again))
    assert torch.equal(one, two)


def test_means_are_means_and_every_token_has_a_part():
    x = torch.arange(12.0)[None, :, None].expand(1, 12, 32).clone().requires_grad_()
    mean = build_box("text_encoder", SMALL.with_box("text_encoder", "meantext"))(x, 4)
    assert mean[0, :, 0].tolist() == [1, 4, 7, 10]
    conv = build_box("text_encoder", SMALL.with_box("text_encoder", "conv1d", {"layers": 3}))
    for length in (1, 2, 5, 12):
        assert conv(x[:, :length], 4).shape == (1, 4, 32)
    conv(x, 4).square().sum().backward()
    assert (x.grad.abs().sum(-1) > 0).all()


@pytest.mark.parametrize(("mode", "tokens"), [("tiny", 64), ("small", 100)])
def test_truncated_is_the_beginning_of_the_text(mode, tokens):
    make = maker("truncated", mode)
    example, ids = make(DOCUMENT), Tokenizer.nano().encode(DOCUMENT.text)
    assert len(ids) > tokens and example.pages == []
    assert example.prompt[1 : 1 + example.text_tokens] == ids[: example.text_tokens]
    assert tokens - 1 <= example.text_tokens <= tokens and make.truncated.documents == 1


def test_a_model_without_a_text_encoder_says_so():
    batch = collate([maker("meantext")(DOCUMENT)], SMALL.pad_token_id)
    with pytest.raises(ValueError, match="no text encoder: give it one with the setting context=meantext or conv1d"):
        small_model()(batch.input_ids, batch.pages)


@pytest.mark.parametrize("context", ["truncated", *SHORT])
def test_a_run_learns_from_it(tmp_path, context):
    config = tiny_run(tiny_checkpoint(tmp_path / "model"), context=context, steps=1, train_documents=2, batch=2)
    check_model(config)
    run = Run(config, tmp_path / "run")
    learning = {count.box for count in run.counts if count.trainable}
    assert learning == {"decoder"} | ({"context"} if context == "conv1d" else set())
    assert run.model.config.box("text_encoder").kind == (context if context in TEXT_ENCODERS else "none")


def test_a_grid_gives_boxes_for_pages_to_pages_only(tmp_path):
    base = tiny_run(tiny_checkpoint(tmp_path / "model"))
    lists = {"context": ["vision", "meantext", "text"], "compressor": ["conv", "meanpool"], "mode": ["tiny", "small"]}
    cells, _ = grid(base, lists, tmp_path / "out")
    assert len(cells) == 2 * 2 + 2 + 1
