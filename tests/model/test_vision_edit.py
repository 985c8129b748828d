"""Edits of the vision tokens: what each does to the decoder's input, exactly, and that the model is as before after."""

from functools import cache
from io import StringIO

import pytest
import torch
from PIL import Image
from rich.console import Console
from tiny_models import SMALL, small_model

from lightseek.data.context.vision_cache import VisionCache
from lightseek.data.document import Document
from lightseek.data.examples import ExampleMaker
from lightseek.inspect.trace import trace
from lightseek.model.kinds import VISION_EDITS
from lightseek.model.ocr import DocumentModel, Untouched
from lightseek.model.vision_edit import Permuted, edited
from lightseek.page.spec import PageSpec
from lightseek.page.views import EncodedPage, page_views
from lightseek.text.generate import generate
from lightseek.text.prompts import prepare
from lightseek.weights.loading import LightSeekOCR
from lightseek.weights.swap import swap_box

EDITS = ["zeroed", "permuted", "mean", "drop:percent=50"]


@cache
def inputs(tiles: int = 0):
    """Return a model and a prompt with an encoded page of 25 vision tokens, and 16 more for each tile."""
    model = small_model()
    torch.manual_seed(0)
    page = EncodedPage(torch.randn(25, 64), torch.randn(tiles, 16, 64) if tiles else None, (max(1, tiles), 1))
    return model, prepare(model.config, model.tokenizer, ["<image>\nFree OCR."], [[page]])


@torch.no_grad()
def embedded(name: str | None, tiles: int = 0, seed: int = 0):
    """Return the decoder's input, and which positions have vision tokens, newlines and the separator among them."""
    model, given = inputs(tiles)
    with edited(model, name, seed):
        x = model.embed(given.input_ids, given.pages)[0]
    assert isinstance(model.vision_edit, Untouched)
    return x, given.input_ids[0] == model.config.image_token_id


def fillers(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Return which positions have a newline or the separator."""
    model, _ = inputs()
    vectors = torch.stack([model.layout.newline, model.layout.separator])
    return places & (x[:, None] == vectors).all(-1).any(1)


def test_the_registry_has_the_kinds_that_are_tested():
    assert list(VISION_EDITS) == [name.partition(":")[0] for name in EDITS]


@pytest.mark.parametrize("tiles", [0, 2])
def test_zeroed_is_the_prompt_with_zero_embeddings_and_the_fillers_stay(tiles):
    x, places = embedded(None, tiles)
    kept = ~places | fillers(x, places)
    assert places.sum() - (kept & places).sum() == 25 + 16 * tiles
    expected = x * kept[:, None]
    assert torch.equal(embedded("zeroed", tiles)[0], expected)
    model, given = inputs(tiles)
    with torch.no_grad(), edited(model, "zeroed"):
        logits = model(given.input_ids, given.pages).logits
        assert torch.equal(logits[0], model.decoder.logits(model.decoder(expected[None])[0])[0])
        assert not torch.equal(logits, inputs(tiles)[0].decoder.logits(model.decoder(x[None])[0]))


@pytest.mark.parametrize("tiles", [0, 2])
def test_permuted_has_the_same_tokens_elsewhere(tiles, monkeypatch):
    x, places = embedded(None, tiles)
    tokens = places & ~fillers(x, places)
    y, _ = embedded("permuted", tiles)
    assert torch.equal(y[~tokens], x[~tokens]) and not torch.equal(y, x)
    assert torch.equal(y[tokens].sort(0).values, x[tokens].sort(0).values)
    assert torch.equal(y, embedded("permuted", tiles)[0]) and not torch.equal(y, embedded("permuted", tiles, seed=1)[0])
    monkeypatch.setattr(Permuted, "order", lambda self, count, key: torch.arange(count))
    assert torch.equal(embedded("permuted", tiles)[0], x)


def test_mean_is_the_mean_of_the_image():
    x, places = embedded(None, 2)
    tokens = places & ~fillers(x, places)
    y, _ = embedded("mean", 2)
    torch.testing.assert_close(y[tokens], x[tokens].mean(0).expand(int(tokens.sum()), -1))
    assert torch.equal(y[~tokens], x[~tokens])


@pytest.mark.parametrize("tiles", [0, 2])
def test_drop_zeroes_the_weakest(tiles):
    x, places = embedded(None, tiles)
    tokens = places & ~fillers(x, places)
    assert torch.equal(embedded("drop:percent=0", tiles)[0], x)
    assert torch.equal(embedded("drop:percent=100", tiles)[0], embedded("zeroed", tiles)[0])
    y, _ = embedded("drop:percent=25", tiles)
    gone = tokens & (y == 0).all(-1)
    assert gone.sum() == round(tokens.sum().item() / 4) and torch.equal(y[~gone], x[~gone])
    norms = torch.linalg.vector_norm(x, dim=-1)
    assert norms[gone].max() <= norms[tokens & ~gone].min()


@pytest.mark.parametrize("percent", ["-1", "101", "true"])
def test_drop_needs_a_share(percent):
    with (
        pytest.raises(ValueError, match="percent must be a number from 0 to 100"),
        edited(small_model(), f"drop:percent={percent}"),
    ):
        pass


def test_a_trace_shows_an_edit_and_a_checkpoint_and_an_official_model_do_not(tmp_path):
    model = small_model()
    page = page_views(Image.radial_gradient("L"), "tiny")
    given = prepare(model.config, model.tokenizer, ["<image>"], [[page]])
    before = [stage.name for stage in trace(model, given.input_ids, given.pages, mode="tiny").stages]
    assert "vision_edit" not in before
    with edited(model, "drop:percent=50"):
        found = trace(model, given.input_ids, given.pages, mode="tiny")
        model.save_pretrained(tmp_path)
    names = [stage.name for stage in found.stages]
    assert [name for name in names if name != "vision_edit"] == before
    assert names.index("vision_edit") == names.index("projector") + 1 == names.index("layout") - 1
    assert found["vision_edit"].shape == (64, 32) and found["vision_edit"].minimum < 0 and "vision_edit" in found.boxes
    console = Console(file=StringIO(), width=150)
    console.print(found.table())
    assert "vision_edit" in console.file.getvalue()
    again = LightSeekOCR.from_pretrained(tmp_path)
    assert isinstance(again.vision_edit, Untouched) and again.config.official
    assert again.state_dict().keys() == small_model().state_dict().keys()


@pytest.mark.parametrize("name", EDITS)
def test_the_vision_cache_gives_the_same_edited_tokens(name, tmp_path):
    """The order of `permuted` follows from the seed and the document, which a page from the cache has too."""
    model = small_model()
    model.encoder.requires_grad_(False)
    documents = [Document("The pump failed at 7:15.", "It failed.", "pump"), Document("Tea?", "Yes.", "tea")]
    plain, cached = (
        ExampleMaker(model.config, model.tokenizer, "summarize", PageSpec("tiny"), cache)
        for cache in (None, VisionCache(model, tmp_path))
    )
    with torch.no_grad(), edited(model, name, seed=5):
        for document in documents:
            (one,), (other,) = plain(document).pages, cached(document).pages
            assert type(one) is not type(other) and one.key == other.key
            assert torch.equal(model.encode_page(one), model.encode_page(other))
    keys = {plain(document).pages[0].key for document in documents}
    assert len(keys) == 2 and Permuted(5).order(64, keys.pop()).tolist() != Permuted(5).order(64, keys.pop()).tolist()


@pytest.mark.parametrize("name", EDITS)
def test_edits_go_with_other_boxes_learn_and_generate(name):
    model = small_model()
    swap_box(model, "compressor", "meanpool", {"factor": 8})
    swap_box(model, "layout", "plain")
    page = page_views(Image.radial_gradient("L"), "tiny")
    given = prepare(model.config, model.tokenizer, ["<image>\nFree OCR."], [[page]])
    with edited(model, name):
        model.train()(given.input_ids, given.pages, labels=given.input_ids).loss.backward()
        learns = model.projector.layers.weight.grad
        assert (learns is not None and bool(learns.any())) == (name != "zeroed")
        generate(model.eval(), given.input_ids, given.pages, max_new_tokens=3)


def test_a_model_that_reads_text_has_no_vision_tokens():
    with pytest.raises(ValueError, match="this model reads text"), edited(DocumentModel(SMALL), "zeroed"):
        pass
