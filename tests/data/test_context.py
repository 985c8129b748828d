"""Tests the context `text`: the document goes into the prompt as text, without pages, for the same decoder."""

from dataclasses import replace

import pytest
import torch
from tiny_models import SMALL, gpt2_folder, small_model

from lightseek.data.batches import estimated_lengths
from lightseek.data.context.base import ContextMaker, Shown
from lightseek.data.document import Document
from lightseek.data.examples import ExampleMaker
from lightseek.data.kinds import CONTEXTS
from lightseek.lab.publish import card
from lightseek.lab.results import finish
from lightseek.lab.summary import summarise
from lightseek.page.spec import PageSpec
from lightseek.page.views import EncodedPage
from lightseek.text.tokenizer import IMAGE, Tokenizer
from lightseek.training.build import build_model
from lightseek.training.run import Run
from lightseek.training.settings import RunConfig, check

NANO = Tokenizer.nano()
DOCUMENT = Document("The cat sat on the mat. It rained.", "A cat sat.", "cat")
SETTINGS = RunConfig(
    context="text", mode="tiny", train_documents=4, eval_documents=2, steps=2, batch=2, eval_every=2, samples=1,
    max_new_tokens=6, device="cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("small")
    small_model().save_pretrained(path)
    return path


def maker(task: str = "summarize", positions: int = 400) -> ExampleMaker:
    config = SMALL.with_(decoder=replace(SMALL.decoder, max_positions=positions))
    return ExampleMaker(config, NANO, task, PageSpec("tiny"), context="text")


def test_the_prompt_holds_the_document_where_the_pages_would_be():
    example = maker()(DOCUMENT)
    words = NANO.encode("\nSummarize.")
    assert example.prompt == [SMALL.bos_token_id, *NANO.encode(DOCUMENT.text), *words]
    assert example.pages == [] and example.vision_tokens == 0
    assert example.target == [*NANO.encode("A cat sat."), SMALL.eos_token_id]


def test_a_document_cannot_spell_an_image():
    example = maker()(replace(DOCUMENT, text=f"{IMAGE} and {IMAGE}"))
    assert SMALL.image_token_id not in example.prompt


def test_a_text_longer_than_three_quarters_of_the_decoder_is_cut_and_counted():
    make, text = maker(positions=200), "One two three. " * 60
    long = replace(DOCUMENT, text=text)
    for _ in range(2):  # the same document counts once
        example = make(long)
    assert len(NANO.encode(text)) > 150 >= len(example.prompt) - 1 - len(NANO.encode("\nSummarize."))
    assert (make.truncated.documents, make.truncated.characters) == (1, example.dropped_characters)
    assert 0 < example.dropped_characters < len(text)


def test_reading_aloud_leaves_room_for_the_text_twice():
    make, text = maker("ocr", positions=200), "One two three. " * 60
    example = make(replace(DOCUMENT, text=text))
    assert len(example.prompt) + len(example.target) <= 200
    read = NANO.decode(example.target[:-1])
    assert text.startswith(read) and len(read) == len(text) - example.dropped_characters


def test_a_document_that_is_only_pictures_is_named():
    with pytest.raises(ValueError, match="document scan has no text"):
        maker()(Document("", "A scan.", "scan"))


def test_batches_are_sorted_by_the_length_of_the_text():
    make = maker(positions=4000)
    short, long = (replace(DOCUMENT, text="word " * count) for count in (10, 500))
    first, second = estimated_lengths(make, [short, long])
    assert first < second


def test_what_text_never_passes_does_not_learn(folder):
    config = replace(SETTINGS, model=str(folder))
    model, counts = build_model(config, "cpu")
    assert {count.box for count in counts if count.trainable} == {"decoder"}
    make = ExampleMaker(model.config, model.tokenizer, "summarize", PageSpec("tiny"), context="text")
    example = make(DOCUMENT)
    ids = torch.tensor([example.prompt + example.target])
    model.train()(ids, pages=[[]], labels=ids).loss.backward()
    assert all((p.grad is not None) == p.requires_grad for n, p in model.named_parameters() if "experts" not in n)
    with pytest.raises(ValueError, match="nothing is left to train"):
        build_model(replace(config, freeze="all-but-projector"), "cpu")


@pytest.mark.parametrize("decoder", [None, "dense", "gpt2"])
def test_runs_on_text_fill_the_same_table(folder, tmp_path, decoder):
    if decoder == "gpt2":
        decoder = f"hf:{gpt2_folder(tmp_path / 'gpt2')}"
    run = Run(replace(SETTINGS, model=str(folder), decoder=decoder), tmp_path / "run")
    results = finish(run, run.fit())
    assert results["vision_tokens"] == 0 and "compression_ratio" not in results
    row = summarise(run.folder).rows[0]
    assert row.settings["mode"] == "text" and row.documents == results["documents"] and row.seeds == 1
    assert (tmp_path / "run" / "page.png").is_file()  # a picture for people
    text = card(results, "me/model")  # what --save-model writes after the training
    assert "vision tokens a document" not in text and f"| rouge1 | {results['rouge1']:.1f} |" in text


def test_a_cache_of_encoded_pages_is_of_no_use_here():
    with pytest.raises(ValueError, match="context=text has none"):
        check(replace(SETTINGS, cache_vision=True, freeze="encoder"))


class Pooled(ContextMaker):
    """A context of another kind: four vectors from an encoder of its own, and the document's name as text."""

    def make(self, document):
        return Shown(text=document.name)

    def views(self, shown):
        return [EncodedPage(torch.zeros(4, 64))]

    def ids(self, shown):
        return NANO.encode(shown.text)

    def positions(self, document, tokens_per_character):
        return 7

    def visible(self, document):
        return document.name

    def pictures(self, document):
        return []


def test_a_kind_of_ones_own_needs_a_maker_and_a_name(monkeypatch):
    monkeypatch.setitem(CONTEXTS, "pooled", lambda spec: Pooled())
    make = ExampleMaker(SMALL, NANO, "summarize", PageSpec("tiny"), context="pooled")
    example = make(DOCUMENT)
    image = [SMALL.image_token_id] * (2 * (2 + 1) + 1)
    assert example.prompt == [SMALL.bos_token_id, *image, *NANO.encode("cat"), *NANO.encode("\nSummarize.")]
    assert (example.vision_tokens, example.text_tokens) == (4, len(NANO.encode("cat")))
    assert estimated_lengths(make, [DOCUMENT]) == [len(NANO.encode(DOCUMENT.summary)) + 7]
    model = small_model()
    ids = torch.tensor([example.prompt])
    assert model(ids, pages=[example.pages]).logits.shape == (1, len(example.prompt), 1024)


def test_an_unknown_kind_is_refused_with_the_kinds_there_are():
    with pytest.raises(ValueError, match="unknown context 'sound': choose one of vision, text, truncated, meantext"):
        ExampleMaker(SMALL, NANO, "summarize", PageSpec("tiny"), context="sound")
