"""Tests of the whole model against transformers' own classes, which load a checkpoint that we saved."""

import pytest
import torch
from golden import Case, reduced_config, reduced_model, relative_error
from theirs import inputs, load_theirs, their_gradients

from lightseek import LightSeekOCR, PageViews
from lightseek.model.attention import set_attention
from lightseek.model.cache import KVCache
from lightseek.page.views import image_positions
from lightseek.weights.formula import formula_image
from lightseek.weights.names import official_gradients

TOLERANCE = 1e-4  # relative, float32


def page(name: str, side: int, tile: int = 0, grid: tuple[int, int] = (1, 1)) -> PageViews:
    """Return a page with these sides in pixels. Any multiple of 64 is possible, and small sides keep the tests fast."""
    tiles = [formula_image(f"{name}.{i}", tile) for i in range(grid[0] * grid[1])] if tile else None
    return PageViews(formula_image(name, side), torch.stack(tiles) if tiles else None, grid)


def prompt(*pages: PageViews) -> torch.Tensor:
    """Return BOS and then, for each image, its image positions and some text."""
    ids = [0]
    for i, image in enumerate(pages):
        ids += [511] * image_positions(image) + [20 + 7 * i, 30, 40, 50 + i]
    return torch.tensor([ids])


ONE = [page("one", 256)]
TILED = [page("tiled", 256, tile=128, grid=(3, 2))]
TWO = [page("first", 256), page("second", 256)]
PAGES = {"one view": ONE, "3 x 2 tiles": TILED, "two images": TWO}


@pytest.fixture(scope="module")
def ours():
    return reduced_model()


@pytest.fixture(scope="module")
def theirs(ours, tmp_path_factory):
    """transformers' model with our weights. `load_theirs` fails if a key is missing or unexpected."""
    return load_theirs(ours, tmp_path_factory.mktemp("saved"))


@pytest.fixture(params=["sdpa", "eager"])
def attention(request, ours):
    set_attention(ours, request.param)
    yield
    set_attention(ours, "sdpa")


@pytest.mark.parametrize("pages", PAGES.values(), ids=PAGES)
@torch.no_grad()
def test_same_features_and_logits(ours, theirs, attention, pages):
    ids = prompt(*pages)
    features = torch.cat(ours.encode_pages(pages))
    output = ours(ids, pages=[pages])
    expected = theirs(**inputs(ids, pages), use_cache=False)
    assert relative_error(features, torch.cat(list(expected.image_hidden_states))) <= TOLERANCE
    assert relative_error(output.logits, expected.logits) <= TOLERANCE


def test_same_loss_and_the_same_gradient_for_every_tensor(ours, theirs, tmp_path):
    """This includes the experts, the router and the encoder. The goldens have no gradients of those, because the
    reference code stops gradients there.
    """
    ids = prompt(*TILED)
    labels = torch.where(ids == 511, -100, ids)
    ours.zero_grad()
    theirs.zero_grad()
    loss = ours(ids, pages=[TILED], labels=labels).loss
    loss.backward()
    expected = theirs(**inputs(ids, TILED), labels=labels, use_cache=False).loss
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=TOLERANCE)
    mine, reference = official_gradients(ours), their_gradients(theirs, tmp_path)
    assert mine.keys() == reference.keys()
    for key, gradient in mine.items():
        scale = reference[key].abs().max()
        assert (gradient - reference[key]).abs().max() <= TOLERANCE * scale, key
        assert scale > 0 or "experts" in key, f"{key} learns nothing"  # an expert that no token chose


@torch.no_grad()
def test_same_greedy_tokens(ours, theirs):
    case = Case("tiny")
    expected = theirs.generate(
        **inputs(case.prompt, [case.page]), max_new_tokens=12, do_sample=False, eos_token_id=None
    )[0, -12:].tolist()
    assert expected == case.tensors["greedy"].tolist()  # the two oracles agree
    assert greedy(ours, case.prompt, [[case.page]], 12)[0] == expected


def greedy(model: LightSeekOCR, ids: torch.Tensor, pages, steps: int) -> list[list[int]]:
    """Decode in the simplest way: run the whole prompt once, then one token at a time with the cache."""
    cache = KVCache(model.config.decoder, len(ids), ids.shape[1] + steps, model.dtype, model.device)
    tokens = []
    for _ in range(steps):
        logits = model(ids, pages=pages, cache=cache, logits="last").logits
        ids, pages = logits[:, -1:].argmax(-1), None
        tokens.append(ids)
    return torch.cat(tokens, dim=1).tolist()


@torch.no_grad()
def test_the_cache_changes_nothing(ours):
    ids = prompt(*ONE)
    cache = KVCache(ours.config.decoder, 1, ids.shape[1], ours.dtype, "cpu")
    stop = ids.shape[1] - 3
    first = ours(ids[:, :stop], pages=[ONE], cache=cache).logits
    then = [ours(ids[:, i : i + 1], cache=cache).logits for i in range(stop, ids.shape[1] - 1)]
    last = ours(ids[:, -1:], cache=cache).logits
    whole = ours(ids, pages=[ONE]).logits
    assert relative_error(torch.cat([first, *then, last], dim=1), whole) <= TOLERANCE


@torch.no_grad()
def test_a_batch_of_unlike_pages_gives_each_row_what_it_gets_alone(ours):
    """The rows have one view, tiles, two images and no image. They are padded on the left and masked."""
    rows = [ONE, TILED, [*ONE, *TILED], []]
    prompts = [prompt(*row) for row in rows]
    longest = max(p.shape[1] for p in prompts)
    ids = torch.full((len(rows), longest), ours.config.pad_token_id)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for i, p in enumerate(prompts):
        ids[i, -p.shape[1] :], mask[i, -p.shape[1] :] = p[0], True
    together = ours(ids, pages=rows, mask=mask).logits
    for i, (row, p) in enumerate(zip(rows, prompts, strict=True)):
        alone = ours(p, pages=[row]).logits[0]
        assert relative_error(together[i, -len(alone) :], alone) <= TOLERANCE


@torch.no_grad()
def test_half_precision_stays_near_theirs(ours, tmp_path):
    """bfloat16 has 8 bits of precision, so both implementations have rounding errors. Ours are not much larger.

    The median over the positions counts: where two experts are nearly as likely, rounding may choose the other one.
    """
    half = LightSeekOCR(reduced_config()).to(torch.bfloat16).eval()
    half.load_state_dict(ours.state_dict())
    pages = [page("half", 256)]
    arguments = inputs(prompt(*pages), pages)
    arguments["pixel_values"] = arguments["pixel_values"].bfloat16()
    expected = load_theirs(half, tmp_path)(**arguments, use_cache=False).logits
    exact = ours(prompt(*pages), pages=[pages]).logits
    mine = half(prompt(*pages), pages=[pages]).logits
    mine, theirs = ((logits.float() - exact).norm(dim=-1).median() for logits in (mine, expected))
    assert 0 < mine <= 1.2 * theirs


def test_pages_that_do_not_fill_the_image_positions_are_refused(ours):
    ids = prompt(*ONE)
    with pytest.raises(ValueError, match=r"row 0 has 21 image positions .* but its 2 image\(s\) fill 42"):
        ours(ids, pages=[[*ONE, *ONE]])
    with pytest.raises(ValueError, match="pages has 2 rows and input_ids 1"):
        ours(ids, pages=[ONE, ONE])
