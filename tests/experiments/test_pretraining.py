"""nano's pre-training: pages with the places of their characters, the recipe, the aids, and runs that resume."""

import hashlib
import json
import math
import subprocess
import sys
from dataclasses import astuple, replace
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from experiments.nano.aids import AIDS, WAVES, Watched, by_token, count, gaze
from experiments.nano.batches import Album, Batch, Batches, order
from experiments.nano.make_tokenizer import MARKS, random_words
from experiments.nano.pages import ALPHABET, CLASSES, NOWHERE, Kind, draw_page, random_code, say_again
from experiments.nano.pretrain import train
from experiments.nano.recipe import RECIPE, Phase, Recipe, main
from experiments.nano.weights import HEADS, average_with_shipped, from_nothing, from_shipped, save
from lightseek import LightSeekOCR, OCRConfig
from lightseek.data.sources import synthetic
from lightseek.model.attention import Eager
from lightseek.text.tokenizer import Tokenizer
from lightseek.training.state import STATE

ROOT = Path(__file__).parents[2]
NAMES = {number: character for character, number in CLASSES.items()}


@pytest.mark.parametrize("texts", ["letters", "words", "digits", "strings", "code", "documents"])
def test_a_page_is_the_same_every_time_and_gives_its_characters_in_reading_order(texts):
    kind = Kind(256, (5, 40), texts, batch=1)
    first, again = draw_page(kind, 0, 7), draw_page(kind, 0, 7)
    assert np.array_equal(first.pixels, again.pixels) and first.text == again.text
    assert first.pixels.shape == (256, 256) and first.pixels.min() < 100  # there is ink
    assert first.patches.shape == (16, 16) and first.centres.shape == (16, 16, 2)
    assert draw_page(kind, 0, 8).text != first.text
    if texts == "documents":
        return  # letters of 6 pixels: more than two on a patch
    letters = [c if c in ALPHABET else "?" for c in first.text if not c.isspace()]
    assert sorted(NAMES.get(number, "?") for number in first.centres.flatten() if number) == sorted(letters)
    for letter, square in zip(letters, first.squares, strict=True):
        assert letter in {NAMES.get(number, "?") for number in first.centres.reshape(256, 2)[square]}


def test_code_is_made_of_what_documentation_writes_between_words():
    """Made-up code has brackets, quotes, underscores and prompts, which a model that had seen only words misread."""
    text = "".join(random_code(Random(seed), 300) for seed in range(40))
    assert set("()[]{}'\"`_=<>*@$%\\#./") <= set(text)
    assert all(mark in text for mark in (">>>", "__", "**", "``", "\n    "))
    assert all(character in ALPHABET for character in text if not character.isspace())
    marks, words = (sum(c in MARKS for c in t) / len(t) for t in (text, random_words(Random(0), 2000)))
    assert marks > 3 * words  # 9 % of the characters


def test_words_come_again_where_others_follow():
    """So a model that goes by the word it just read, and not by its place on the page, continues at the wrong place."""
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    again = [say_again(Random(seed), " ".join(words)).split() for seed in range(40)]
    followers = [{b for a, b in pairwise(text) if a == word} for text in again for word in words]
    assert all(set(text) >= set(words) and len(text) > len(words) for text in again)
    assert sum(len(follower) > 1 for follower in followers) > len(followers) / 10
    others = [word for text in again for word in text if word not in words]
    assert 10 < len(others) < sum(map(len, again)) / 4  # "twx", "thre", "four2"
    assert all(get_close_matches(other, words, cutoff=0.4) for other in others)


@pytest.mark.parametrize("side, aspect", [(512, 0.6), (512, 1.7), (1024, 0.6), (1024, 1.7)])
def test_a_page_of_any_shape_gives_the_places_of_its_letters_in_its_square_view(side, aspect):
    """A view of 512 pixels is stretched, as in tiny; one of 1024 is padded with grey, as in base."""
    kind = Kind(side, (60, 60), "words", batch=1, rough=0.0, aspects=(aspect, aspect))
    page, grid = draw_page(kind, 0, 3), side // 16
    assert page.pixels.shape == (side, side) and page.patches.shape == (grid, grid)
    dark = page.pixels < 100
    inked = dark.reshape(grid, 16, grid, 16).any(axis=(1, 3))
    assert inked[page.patches > 0].mean() > 0.7 and inked[page.patches == 0].mean() < 0.1
    grey = (page.pixels == 127).all(axis=1 if aspect > 1 else 0).sum()  # rows above and below, or columns beside
    assert grey == (side - round(side * min(aspect, 1 / aspect)) if side == 1024 else 0)
    letters = [c for c in page.text if not c.isspace()]
    assert len(page.squares) == len(letters) > 30
    pairs = zip(letters, page.squares, strict=True)
    named = [CLASSES[letter] in page.centres.reshape(-1, 2)[square] for letter, square in pairs]
    assert all(named)


def test_pages_of_a_batch_have_one_shape_and_batches_have_many():
    """The tiles of a batch are one tensor, and 1280 x 1280 pixels have 2 x 2 tiles where 1280 x 640 have 2 x 1."""
    kind = Kind(1280, (30, 60), "words", batch=2, mode="gundam", aspects=(0.5, 2.0))
    shapes = [draw_page(kind, 0, index).pixels.shape for index in range(12)]
    assert shapes[::2] == shapes[1::2] and len(set(shapes)) == 6 and all(max(shape) == 1280 for shape in shapes)
    batch = batch_of(kind)
    assert (
        batch.tiles.shape == (2, batch.grid[0] * batch.grid[1], 1, 640, 640) and batch.views()[0][0].grid == batch.grid
    )


def test_the_cell_of_a_token_holds_the_letters_drawn_there():
    """On a page of 128 pixels with one word, its letters are on the upper patches in order, and these have ink."""
    kind = Kind(128, (4, 4), "letters", batch=1, rough=0.0)
    page = draw_page(kind, 0, 3)
    word = "".join(NAMES[number] for number in page.centres.flatten() if number)
    assert word == page.text.replace(" ", "")
    ink = page.pixels.reshape(8, 16, 8, 16).min(axis=(1, 3)) < 128
    assert (ink & (page.patches > 0)).sum() >= 0.6 * (page.patches > 0).sum() > 0


def test_the_recipe_goes_from_small_pages_to_large_ones():
    recipe = Recipe.load()
    sides = [{kind.side for kind in phase.kinds} for phase in recipe.phases]
    assert sides[0] == {128} and {512, 640, 1024} <= set.union(*sides)
    assert recipe.kind_at(0) in recipe.phases[0].kinds and recipe.kind_at(recipe.steps - 1) in recipe.phases[-1].kinds
    assert recipe.kind_at(recipe.phases[0].steps) in recipe.phases[1].kinds
    assert {recipe.kind_at(recipe.steps - i) for i in range(1, 200)} == set(recipe.phases[-1].kinds)
    assert recipe.learning_rate(recipe.warmup) == pytest.approx(recipe.phases[0].lr[0])
    assert recipe.learning_rate(recipe.steps - 1) == pytest.approx(recipe.phases[-1].lr[1], rel=0.02)


def test_the_recipe_is_the_one_that_made_the_shipped_weights():
    """All phases, with every field of their kinds and in order, have the digest of the recipe that was run.

    A new phase needs a new digest. To change an old one would make the file wrong about the shipped weights.
    """

    def numbers(kind: Kind) -> list:
        return [float(value) if isinstance(value, int) else value for value in astuple(replace(kind, name=""))]

    phases = [(p.steps, p.lr, p.again, [numbers(kind) for kind in p.kinds]) for p in Recipe.load().phases]
    assert sum(len(phase[3]) for phase in phases) == 692
    digest = hashlib.sha256(json.dumps(phases).encode()).hexdigest()
    assert digest == "df6c80aa6d9deda66b2a8cff8588b2952bf14ffc41ed46f9c10093140d341579"


def test_the_recipe_is_short_and_uses_every_kind_that_it_defines():
    recipe, names = Recipe.load(), json.loads(RECIPE.read_text(encoding="utf-8"))["kinds"].keys()
    assert RECIPE.stat().st_size < 20_000
    assert {kind.name for phase in recipe.phases for kind in phase.kinds} == set(names)


def test_a_phase_takes_what_it_does_not_name_from_the_phase_before_it(tmp_path):
    kinds = {
        "small": {"side": 128, "characters": [2, 4], "texts": "letters", "batch": 3},
        "wide": {"like": "small", "side": 256, "aspects": "wide"},
    }
    phases = [
        {
            "steps": 5,
            "lr": [1e-3, 1e-3],
            "slips": 0.5,
            "shapes": {"wide": [1.0, 2.0]},
            "still": {"wide": 1, "small": 3},
        },
        {"steps": 2, "lr": [1e-3, 1e-4], "again": 2, "change still": {"wide": 0}, "change pages": {"small": 2}},
    ]
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"kinds": kinds, "phases": phases}))
    first, second = Recipe.load(path, scale=4).phases
    small = Kind(128, (2, 4), "letters", batch=12, share=3, still=True, slips=0.5)
    assert first.kinds == (small, replace(small, side=256, share=1, aspects=(1.0, 2.0))) and first.again == 0
    assert second.kinds == (small, replace(small, share=2, still=False)) and second.again == 2

    phases[1]["change still"] = {"large": 1}
    path.write_text(json.dumps({"kinds": kinds, "phases": phases}))
    with pytest.raises(ValueError, match="does not define large"):
        Recipe.load(path)


def test_the_recipe_prints_each_phase_with_its_whole_mixture(capsys):
    main()
    phases = capsys.readouterr().out.strip().split("\n\n")
    assert len(phases) == len(Recipe.load().phases) and phases[0].endswith("small pages\n 100.0%  128 2-14")
    for phase in phases:
        shares = [float(line.split("%")[0]) for line in phase.splitlines()[1:]]
        assert sum(shares) == pytest.approx(100, abs=0.05 * len(shares))


def run(folder: Path, stop: int, steps: int = 6, shipped: bool = False, **options):
    """Train for `steps` steps on one small page each. Returns the trained `Pretraining` and its step."""
    kind = Kind(64, (1, 2), "letters", batch=1)
    recipe = Recipe(phases=(Phase(steps, (1e-3, 1e-3), (kind,)),))
    return train(recipe, folder, math.inf, torch.device("cpu"), 0, lambda row: None, stop, shipped, **options)


@pytest.fixture
def one_thread():
    """With one thread, PyTorch adds in the same order every time. With several it does not promise to."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_stopped_run_goes_on_where_it_was(tmp_path, one_thread):
    """6 steps in one run end with the same weights as 4 steps and then 2."""
    run(tmp_path / "parts", stop=4)
    (parts, step), (whole, _) = run(tmp_path / "parts", stop=6), run(tmp_path / "whole", stop=6)
    assert step == 6
    ours, theirs = parts.state_dict(), whole.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_products_may_be_bfloat16_while_what_learns_stays_float32(tmp_path):
    """The 6 steps have rates of 5e-6 to 3e-5 (the warmup). Two runs differ at most by twice the sum of these."""
    (half, _), (full, _) = run(tmp_path / "half", stop=6, bfloat16=True), run(tmp_path / "full", stop=6)
    ours, theirs = half.state_dict(), full.state_dict()
    assert all(weight.dtype == torch.float32 for weight in ours.values() if weight.is_floating_point())
    off = max((ours[name] - theirs[name]).abs().max().item() for name in theirs)
    assert 0 < off < 2.2e-4


def test_a_cpu_in_bfloat16_sees_few_shapes(tmp_path):
    """Every new shape needs new kernels. So lengths are multiples of 64, and the experts stay in float32."""
    kind = Kind(512, (5, 150), "words", batch=2)
    batches = Batches(Recipe((Phase(8, (1e-3, 1e-3), (kind,)),)), OCRConfig.preset("nano"), Tokenizer.nano(), 0, 8)
    lengths = {batches[i].ids.shape[1] for i in range(8)}
    assert len(lengths) > 1 and all(length % 64 == 0 for length in lengths)

    pretraining, _ = run(tmp_path, stop=1, bfloat16=True)
    moe = pretraining.model.decoder.layers[1].mlp
    x, weights, chosen = torch.randn(5, 256), torch.ones(5, 2), torch.tensor([[0, 1]]).expand(5, 2)
    with torch.autocast("cpu", torch.bfloat16):
        routed, shared = moe.experts(x, weights, chosen), moe.shared(x[None])
    assert routed.dtype == torch.float32 and shared.dtype == torch.bfloat16


@pytest.mark.slow
def test_two_processes_step_by_the_mean_of_their_gradients(tmp_path):
    """One step by torchrun with a page for each process has the gradient of the same step by hand."""
    kind = {"side": 64, "characters": [1, 2], "texts": "letters", "batch": 1}
    recipe = tmp_path / "recipe.json"
    phase = {"steps": 1, "lr": [1e-3, 1e-3], "pages": {"letters": 1}}
    recipe.write_text(json.dumps({"kinds": {"letters": kind}, "phases": [phase]}))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += ["-m", "experiments.nano.pretrain", "--recipe", recipe, "--out", tmp_path / "two", "--device", "cpu"]
    subprocess.run(command, check=True, timeout=300, cwd=ROOT)

    pretraining, _ = from_nothing(0)
    both = Recipe.load(recipe)
    config, tokenizer = pretraining.model.config, pretraining.model.tokenizer
    for rank in range(2):
        figures = pretraining.train()(Batches(both, config, tokenizer, 0, 1, rank, 2)[0])
        ((figures["loss"] + sum(weight * figures[name] for name, weight in AIDS.items())) / 2).backward()
    moments = load_file(tmp_path / "two" / STATE)
    clip = min(
        1.0,
        1.0 / float(torch.nn.utils.get_total_norm([p.grad for p in pretraining.parameters() if p.grad is not None])),
    )
    for name, parameter in pretraining.named_parameters():
        if parameter.grad is not None:
            first = moments[f"optimizer.{name}.exp_avg"]  # a tenth of the first gradient
            torch.testing.assert_close(first, 0.1 * clip * parameter.grad, rtol=1e-3, atol=1e-6)


def test_what_is_shipped_can_be_trained_on(tmp_path):
    """Saving the shipped weights gives the committed files again, at most 25 MB, and a run starts from them."""
    pretraining, step = from_shipped()
    save(pretraining, step, tmp_path)
    assert sum(file.stat().st_size for file in (tmp_path / "model").iterdir()) <= 25e6
    assert sum(p.numel() for p in pretraining.model.parameters()) <= 12e6
    again = LightSeekOCR.from_pretrained(tmp_path / "model")
    assert torch.equal(again.decoder.embed.weight.float(), pretraining.model.decoder.embed.weight)
    assert (tmp_path / HEADS.name).read_bytes() == HEADS.read_bytes()
    _, last = run(tmp_path / "more", stop=step + 1, steps=step + 1, shipped=True)
    assert last == step + 1


def test_what_was_trained_can_be_averaged_with_what_is_shipped():
    """Every weight, those of the reading heads too, ends halfway: after +2 it is 1 above the shipped one."""
    shipped, _ = from_shipped()
    trained, _ = from_shipped()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter += 2
    average_with_shipped(trained)
    for parameter, before in zip(trained.parameters(), shipped.parameters(), strict=True):
        torch.testing.assert_close(parameter, before + 1)


def test_the_gaze_is_told_where_each_token_of_the_text_stands():
    """A page has 4 x 4 vision tokens after BOS, with a newline after each row: their position is 1 + 5 row + column."""
    kind = Kind(256, (24, 24), "letters", batch=1, largest=56, rough=0.0)
    recipe = Recipe(phases=(Phase(1, (1e-3, 1e-3), (kind,)),))
    tokenizer = Tokenizer.nano()
    batch = Batches(recipe, OCRConfig.preset("nano"), tokenizer, 0, 1)[0]
    page = draw_page(kind, recipe.seed, 0)
    ids, (looks, places, *_) = batch.ids[0].tolist(), batch.next[0].T.tolist()
    told = [(tokenizer.decode([ids[i + 1]]).strip(), look, places[i]) for i, look in enumerate(looks) if look]
    assert "".join(text for text, _, _ in told) == page.text.replace(" ", "")
    contents = by_token(torch.from_numpy(page.centres)[None])[0]  # 16 vision tokens, 16 patches of 2 places each
    for text, look, place in told:
        if not text:
            continue  # a space looks at the letter after it
        row, column = divmod(look - 1, 5)
        assert text[0] in {
            NAMES[number] for number in contents[4 * row + column].view(16, 2)[place - 1].tolist() if number
        }
    before = [
        where for where in batch.here[0].tolist() if any(where)
    ]  # one letter earlier, so from the second token on
    row, column = divmod(page.squares[len(told[0][0]) - 1], 16)
    spot = [1 + 4 * row, 1 + 4 * column]  # in sixty-fourths of the page
    assert before[0] == [1 + row // 4 * 5 + column // 4, 1 + row % 4 * 4 + column % 4, *spot]
    assert len(before) == len(told)


def test_the_gaze_loss_is_minus_the_log_of_the_attention_on_the_place():
    attention = torch.tensor([[[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [1.0, 0.0, 0.0]]]])  # b h n n
    scores = attention.log() + 3  # a softmax takes any number added to them away
    expected = -(math.log(0.25) + math.log(0.8)) / 2
    assert gaze(scores, torch.tensor([[1, 2, 0]])).item() == pytest.approx(expected)
    assert gaze(scores.expand(1, 2, 3, 3), torch.tensor([[1, 2, 0]])).item() == pytest.approx(expected)
    assert gaze(scores, torch.tensor([[0, 0, 0]])).item() == 0


def test_a_watched_attention_is_the_fused_one_and_shows_the_scores_of_its_heads():
    """With 2 sequences of 5 positions and 3 heads of 8, it shows the maps of heads 2 and 0 that `Eager` computes."""
    q, k, v = torch.randn(3, 2, 3, 5, 8)
    shown = []
    out = Watched([2, 0], shown.append)(q, k, v, causal=True)
    eager = Eager()
    maps = []
    eager.softmax.register_forward_hook(lambda module, inputs, found: maps.append(found))
    torch.testing.assert_close(out, eager(q, k, v, causal=True))
    torch.testing.assert_close(shown[0].softmax(-1), maps[0][:, [2, 0]])


def letters_batch(letters: int = 24, **kind):
    """A batch of one page of letters, and the page."""
    kind = Kind(256, (letters, letters), "letters", batch=1, largest=56, rough=0.0, **kind)
    return batch_of(kind), draw_page(kind, 0, 0)


def batch_of(kind: Kind) -> Batch:
    recipe = Recipe(phases=(Phase(1, (1e-3, 1e-3), (kind,)),))
    return Batches(recipe, OCRConfig.preset("nano"), Tokenizer.nano(), 0, 1)[0]


def test_a_page_gives_the_places_where_its_words_begin():
    """There are as many places as words, each on the patch of a word's first letter."""
    kind = Kind(256, (24, 24), "letters", batch=1, largest=56, rough=0.0)
    page = draw_page(kind, 0, 0)
    words = page.text.split()
    assert len(words) > 2 and page.begins.sum() == len(words)
    starts = [sum(map(len, words[:i])) for i in range(len(words))]
    assert sorted(page.begins.flatten().nonzero()[0]) == sorted(page.squares[start] for start in starts)


def test_a_vision_token_is_told_how_much_of_the_text_stands_before_each_of_its_rows():
    """Each of the 4 rows of patches of 16 vision tokens has the index of its first letter, which starts at 0."""
    batch, page = letters_batch()
    letters = [number for number, character in enumerate(page.text) if character != " "]
    rows = [(square // 16, square % 16 // 4) for square in page.squares]  # of patches, and the token's column
    for row in range(16):
        for column in range(4):
            number = min((letters[i] for i, other in enumerate(rows) if other == (row, column)), default=-1)
            assert batch.order[0, 1 + 5 * (row // 4) + column, row % 4] == number
    assert (batch.order >= 0).sum() == len(set(rows)) > 4 and 0 in batch.order
    kind = Kind(640, (220, 330), "documents", batch=1, summarize=1.0, rough=0.0)
    assert (order(draw_page(kind, 0, 0)) == -1).all()  # a summary is not in the order of the page


def test_a_number_as_waves_has_error_0_from_itself_and_1_from_zeros():
    numbers = torch.arange(0, 900, 7)
    angles = 2 * math.pi * numbers[:, None] / torch.tensor(WAVES)
    waves = torch.cat([angles.cos(), angles.sin()], dim=1)
    assert count(waves, numbers).item() == pytest.approx(0, abs=1e-6)
    assert count(torch.zeros_like(waves), numbers).item() == pytest.approx(1, abs=1e-6)
    assert count(waves[:0], numbers[:0]).item() == 0
    off = [count(waves[:1], numbers[:1] + n).item() for n in (2, 8, 32)]
    assert 0 < off[0] < off[1] < off[2]


def test_a_summary_is_told_where_its_facts_stand_on_the_page():
    """The letters of the facts have a place on the page; the words between have none."""
    kind = Kind(640, (220, 330), "documents", batch=1, summarize=1.0, rough=0.0)
    for index in range(4):
        page, document = draw_page(kind, 0, index), synthetic.document("train", index, 0, 330)
        summary, letters = "".join(page.target.split()), page.centres.reshape(1600, 2)
        shown = "".join(c if square != NOWHERE else " " for c, square in zip(summary, page.squares, strict=True))
        assert page.target != page.text and document.facts
        assert all("".join(fact.split()) in shown for fact in document.facts if fact in page.text)
        for letter, square in zip(summary, page.squares, strict=True):
            assert square == NOWHERE or letter in {NAMES.get(number, letter) for number in letters[square]}


def test_slips_change_the_input_of_the_decoder_and_none_of_its_targets():
    right, _ = letters_batch(200)
    slipped, _ = letters_batch(200, slips=1.0)
    assert right.ids.shape == slipped.ids.shape
    wrong = (right.ids != slipped.ids).sum().item()
    assert 1 <= wrong < 0.3 * (right.labels > 0).sum().item()  # a tenth, about
    assert torch.equal(right.labels, slipped.labels) and torch.equal(right.next, slipped.next)
    first = right.labels[0].gt(0).nonzero()[0, 0]
    assert torch.equal(right.ids[:, :first], slipped.ids[:, :first])  # the prompt


@pytest.mark.parametrize(
    "kind", [Kind(256, (16, 16), "words", batch=2), Kind(1280, (40, 40), "words", batch=2, mode="gundam")]
)
def test_still_pages_are_read_again_as_the_encoder_gave_them(kind):
    """A page from the album gives the losses of the page itself, without a call of the encoder."""
    batch = batch_of(replace(kind, still=True))
    pretraining, _ = from_nothing(0)
    with torch.no_grad():
        first = pretraining.eval()(batch)
        album = Album()
        album.keep(batch, pretraining.pages_as_encoded(batch))
        pretraining.model.encoder.register_forward_hook(lambda *_: pytest.fail("encoded again"))
        (kept,) = album.draw(1, step=0)
        again = pretraining(kept)
    assert kept.pixels.numel() == 0 and kept.tiles is None
    assert "contents" in first and "contents" not in again
    for name in ("loss", "here", "next_place", "read", "order"):
        assert again[name].item() == pytest.approx(first[name].item(), rel=1e-5)


def test_of_a_page_in_tiles_the_decoder_is_told_where_its_letters_stand_in_the_whole():
    """In gundam, 1280 pixels are 2 x 2 tiles of 640 in 420 positions, then the view of base: 1024 in 273 positions."""
    tiled, base = (batch_of(Kind(1280, (40, 40), "words", batch=1, mode=mode)) for mode in ("gundam", "base"))
    image_token = OCRConfig.preset("nano").image_token_id
    assert tiled.tiles.shape == (1, 4, 1, 640, 640) and tiled.pixels.shape == (1, 1, 1024, 1024)
    assert (tiled.ids == image_token).sum() == 420 + 273 and (base.ids == image_token).sum() == 273
    view = tiled.views()[0][0]
    assert view.grid == (2, 2) and view.tiles.shape == (4, 3, 640, 640)

    first = (tiled.ids[0] == image_token).nonzero()[0, 0].item() + 420  # of the whole's positions: 16 rows of 17
    page = draw_page(Kind(1280, (40, 40), "words", batch=1, mode="gundam"), 0, 0)
    assert page.pixels.shape == (1280, 1280) and page.patches.shape == (64, 64)
    tokens = [(y // 4, x // 4) for y, x in (divmod(square, 64) for square in page.squares)]
    told = [position for position in tiled.next[0, :, 0].tolist() if position]
    places = [first + 17 * y + x for y, x in tokens]
    assert told[0] == places[0] and set(told) <= set(places)
    assert set((tiled.order[0] >= 0).any(dim=1).nonzero()[:, 0].tolist()) == set(places)
    assert torch.equal(tiled.centres, base.centres) and torch.equal(tiled.begins, base.begins)
    for name in ("here", "next"):
        one, other = (getattr(batch, name)[0] for batch in (tiled, base))
        assert torch.equal(one[one[:, 0] > 0, 1:], other[other[:, 0] > 0, 1:])
        assert torch.equal(one[one[:, 0] > 0, 0], other[other[:, 0] > 0, 0] + 420)
