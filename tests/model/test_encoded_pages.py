"""The model takes a page as pixels or as the output of its encoder, and gives the same result for both."""

import pytest
import torch
from small import SMALL

from lightseek import LightSeekOCR
from lightseek.page.views import EncodedPage, PageViews, image_positions
from lightseek.weights.formula import fill, formula_image

IMAGE = SMALL.image_token_id
PLAIN = PageViews(formula_image("plain", 128))
TILED = PageViews(
    formula_image("whole", 192), torch.stack([formula_image(f"tile{i}", 128) for i in range(6)]), grid=(2, 3)
)


@pytest.fixture(scope="module")
def model():
    model = LightSeekOCR(SMALL)
    fill(model)
    return model.eval()


@torch.no_grad()
def encoded(model: LightSeekOCR, page: PageViews) -> EncodedPage:
    tiles = None if page.tiles is None else model.encoder(page.tiles)
    return EncodedPage(model.encoder(page.global_view[None])[0], tiles, page.grid)


@torch.no_grad()
def test_one_batch_may_mix_pixels_and_encoded_pages(model):
    """Row 0 has a plain and a tiled page, and row 1 has a plain one. Each page comes in both forms."""
    pages = [[PLAIN, TILED], [PLAIN]]
    known = [[encoded(model, PLAIN), encoded(model, TILED)], [encoded(model, PLAIN)]]
    positions = [image_positions(PLAIN), image_positions(TILED)]
    assert positions == [2 * 3 + 1, 6 * 5 + 3 * 4 + 1]  # 2 x 2 tokens; 6 rows of 4 tokens, then 3 x 3
    assert [image_positions(page) for page in known[0]] == positions
    ids = torch.full((2, 60), 5)
    ids[0, 1 : 1 + sum(positions)] = IMAGE
    ids[1, 1 : 1 + positions[0]] = IMAGE
    expected = model(ids, pages=pages).logits
    for mixed in (known, [[PLAIN, known[0][1]], known[1]], [[known[0][0], TILED], [PLAIN]]):
        torch.testing.assert_close(model(ids, pages=mixed).logits, expected)


def test_an_encoded_page_never_meets_the_encoder_and_the_projector_still_learns(model):
    ran = []
    hook = model.encoder.register_forward_hook(lambda *_: ran.append(1))
    page = encoded(model, PLAIN)
    assert len(ran) == 1
    ids = torch.tensor([[0, *[IMAGE] * 7, 5, 6, 7]])
    model.zero_grad()
    model(ids, pages=[[page]], labels=ids).loss.backward()
    hook.remove()
    assert len(ran) == 1
    learned = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert learned == {"projector", "layout", "decoder"}


def test_generation_reads_encoded_pages(model):
    ids = torch.tensor([[0, *[IMAGE] * 7, 5]])
    written = [
        model.generate(ids, pages=[[page]], max_new_tokens=4)[0].tokens for page in (PLAIN, encoded(model, PLAIN))
    ]
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("tokens", "tiles", "grid", "message"),
    [
        ((5, 8), None, (1, 1), "t a square number"),
        ((4, 8), (2, 4, 8), (2, 2), "grid of 2 x 2 tiles does not go with 2 tiles"),
    ],
)
def test_an_encoded_page_has_a_square_of_tokens_and_the_tiles_of_its_grid(tokens, tiles, grid, message):
    with pytest.raises(ValueError, match=message):
        EncodedPage(torch.zeros(tokens), None if tiles is None else torch.zeros(tiles), grid)
