"""Tests the cache of encoded pages: what its keys depend on, and what a kill, a second run or a full disk does."""

import multiprocessing
import os
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from small import SMALL

from lightseek import LightSeekOCR
from lightseek.data.context import vision_cache
from lightseek.data.context.cached import PROBE
from lightseek.data.context.pages import PageMaker
from lightseek.data.context.vision_cache import VisionCache, cache_folder, encoder_digest
from lightseek.data.document import Document
from lightseek.data.examples import ExampleMaker
from lightseek.page.modes import find_mode
from lightseek.page.spec import PageSpec
from lightseek.page.views import page_views
from lightseek.text.tokenizer import Tokenizer
from lightseek.training.freeze import freeze
from lightseek.weights.formula import fill

TINY = find_mode("tiny")
DOCUMENTS = [Document(f"Page {i}. " * 20, f"It is {i}.", f"d{i}") for i in range(4)]
PAGE_BYTES = 64 * 16 * 4  # tokens x channels x float32; a file has a header too


def small_model() -> LightSeekOCR:
    model = LightSeekOCR(replace(SMALL, decoder=replace(SMALL.decoder, vocabulary=1024)))
    fill(model)
    freeze(model, "encoder")
    return model


@pytest.fixture
def model():
    return small_model()


@pytest.fixture
def encodings(model):
    """A list that grows with each pass through SAM: the number of views in it."""
    seen = []
    model.encoder.sam.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    return seen


def maker(cache: VisionCache | None, model: LightSeekOCR, mode: str = "tiny", **options) -> ExampleMaker:
    return ExampleMaker(model.config, Tokenizer.nano(), "summarize", PageSpec(mode, **options), cache=cache)


def page_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


# The result


@pytest.mark.parametrize("mode", ["tiny", "gundam"])
def test_examples_differ_in_nothing_but_that_their_pages_are_encoded(model, tmp_path, mode):
    """A gundam page has 2 x 2 tiles of 10 x 10 tokens and a global view of 16 x 16 tokens, with 8 + 8 channels each."""
    plain, cached = maker(None, model, mode), maker(VisionCache(model, tmp_path), model, mode)
    for make in (cached, cached, maker(VisionCache(model, tmp_path), model, mode)):  # new, cached, cached by another
        ours, theirs = make(DOCUMENTS[0]), plain(DOCUMENTS[0])
        assert replace(ours, pages=[]) == replace(theirs, pages=[])
        [page], [views] = ours.pages, theirs.pages
        with torch.no_grad():
            assert torch.equal(page.global_view, model.encoder(views.global_view[None])[0])
            if mode == "gundam":
                assert page.tiles.shape == (4, 100, 16) and page.grid == views.grid == (2, 2)
                assert torch.equal(page.tiles, model.encoder(views.tiles))
    assert plain.images(DOCUMENTS[0])[0].tobytes() == cached.images(DOCUMENTS[0])[0].tobytes()


def test_what_is_counted_is_counted_when_nothing_is_drawn(model, tmp_path):
    """The text has a character without a glyph, and a budget of one page cuts it."""
    long = Document("word \u4f60 " * 4000, "Words.", "long")
    expected = maker(None, model, max_pages=1)
    for make in (maker(VisionCache(model, tmp_path), model, max_pages=1) for _ in range(2)):
        assert make(long).dropped_characters == expected(long).dropped_characters > 0
        assert make.truncated.characters > 0 and make.missing_glyphs["\u4f60"] > 0


def test_each_page_is_encoded_once_and_drawn_once(model, encodings, tmp_path, monkeypatch):
    make = maker(VisionCache(model, tmp_path), model)
    for document in DOCUMENTS:
        make(document)
    assert sum(encodings) == len(DOCUMENTS) == len(page_files(tmp_path))
    monkeypatch.setattr(make.context, "draw", None)
    for document in [*DOCUMENTS, replace(DOCUMENTS[0], summary="Another.", name="copy")]:
        make(document)
    assert sum(encodings) == len(DOCUMENTS)


def test_a_loaded_page_is_the_file_itself_mapped_into_memory(model, tmp_path):
    page = maker(VisionCache(model, tmp_path), model)(DOCUMENTS[0]).pages[0]
    [file] = page_files(tmp_path)
    start = page.global_view.data_ptr()
    maps = Path("/proc/self/maps").read_text().splitlines()
    spans = {line: [int(end, 16) for end in line.split()[0].split("-")] for line in maps}
    [line] = [line for line, (first, last) in spans.items() if first <= start < last]
    assert line.endswith(file.name)


# The keys


def test_pages_are_keyed_by_content_and_mode(model, encodings, tmp_path):
    cache = VisionCache(model, tmp_path)
    white, grey = (Image.new("RGB", (80, 60), colour) for colour in ("white", "grey"))
    keys = [cache.page(image, mode)[0] for image in (white, grey) for mode in (TINY, find_mode("small"))]
    assert len(set(keys)) == len(encodings) == 4
    assert cache.page(white.copy(), TINY)[0] == keys[0] and len(encodings) == 4
    assert cache.page(white.resize((60, 80)), TINY)[0] not in keys


def test_the_folder_is_one_encoders(model):
    """The digest depends on every weight, the dtype, the sizes and the precision, but on nothing after the encoder."""
    digests = [encoder_digest(model), encoder_digest(model, "bf16")]
    other = small_model()
    with torch.no_grad():
        other.projector.layers.weight.fill_(1.0)
    assert encoder_digest(other) == digests[0]
    for part in ("sam", "compressor", "clip"):
        other = small_model()
        with torch.no_grad():
            next(other.encoder.get_submodule(part).parameters()).view(-1)[-1] += 1e-3
        digests.append(encoder_digest(other))
    digests.append(encoder_digest(small_model().to(torch.bfloat16)))
    windows = LightSeekOCR(replace(SMALL, sam=replace(SMALL.sam, window=7, heads=1)))
    fill(windows)
    digests.append(encoder_digest(windows))
    assert len(set(digests)) == len(digests)


def test_documents_are_keyed_by_what_their_pages_are_made_from(model, tmp_path, monkeypatch):
    picture = tmp_path / "scan.png"
    Image.new("RGB", (80, 60), "white").save(picture)
    cache = VisionCache(model, tmp_path / "cache")
    make, scan = maker(cache, model).context, Document("", "s", "scan", images=(picture,))
    keys = {make.key(scan), make.key(DOCUMENTS[0]), make.key(DOCUMENTS[1])}
    keys.add(make.key(Document("", "s", "scan", images=(picture.read_bytes(),))))
    for options in ({"max_pages": 2}, {"noise": "speckle"}, {"noise": "speckle", "seed": 1}):
        keys.add(maker(cache, model, **options).context.key(DOCUMENTS[0]))
    usual = make.fit(PROBE).font_size  # the test text looks the same in letters of this size
    keys.add(maker(cache, model, letters=str(usual)).context.key(DOCUMENTS[0]))
    keys.add(maker(cache, model, "small").context.key(DOCUMENTS[0]))
    Image.new("RGB", (80, 60), "grey").save(picture)
    os.utime(picture, (0, 0))
    keys.add(make.key(scan))
    assert len(keys) == 10
    assert maker(cache, model).context.key(DOCUMENTS[0]) in keys
    monkeypatch.setattr(PageMaker, "fit", lambda self, text: replace(self.style, font_size=19))
    assert maker(cache, model).context.key(DOCUMENTS[0]) not in keys  # as if another version drew texts differently


# Damage and interruptions


@pytest.mark.parametrize("length", [0, 5, 100, PAGE_BYTES])
def test_a_damaged_page_is_made_again(model, encodings, tmp_path, length):
    make = maker(VisionCache(model, tmp_path), model)
    good = make(DOCUMENTS[0]).pages[0].global_view.clone()
    [file] = page_files(tmp_path)
    file.write_bytes(file.read_bytes()[:length])
    assert torch.equal(make(DOCUMENTS[0]).pages[0].global_view, good)
    assert len(encodings) == 2 and torch.equal(make(DOCUMENTS[0]).pages[0].global_view, good)
    assert len(encodings) == 2


def test_deleted_files_are_made_again(model, encodings, tmp_path):
    make = maker(VisionCache(model, tmp_path), model)
    make(DOCUMENTS[0])
    for deleted in (*tmp_path.rglob("*.json"), *page_files(tmp_path)):
        deleted.unlink()
        make(DOCUMENTS[0])
    assert len(encodings) == 2  # a missing record made it draw again; a missing page file made it encode again


def test_a_kill_loses_the_unfinished_page_only(model, tmp_path):
    """os._exit while a page is written leaves no broken page, and the temporary file is deleted when it is old."""
    child = multiprocessing.get_context("fork").Process(target=killed_while_writing, args=(tmp_path,))
    child.start()
    child.join()
    assert child.exitcode == 9
    assert len(page_files(tmp_path)) == 2
    [unfinished] = tmp_path.rglob("*.tmp")
    assert VisionCache(model, tmp_path).pages == 2 and unfinished.exists()  # another run could be writing it
    os.utime(unfinished, (time.time() - 7200,) * 2)
    cache = VisionCache(model, tmp_path)
    assert not unfinished.exists()
    assert cache.bytes == sum(file.stat().st_size for file in page_files(tmp_path)) > 2 * PAGE_BYTES


def killed_while_writing(folder: Path) -> None:
    torch.set_num_threads(1)
    make = maker(VisionCache(small_model(), folder), small_model())
    for document in DOCUMENTS[:2]:
        make(document)
    Path.replace = lambda *_: os._exit(9)
    make(DOCUMENTS[2])


def test_two_runs_fill_one_folder_at_a_time(tmp_path):
    """Both make all pages at the same time. Then both have the same pages, and no temporary file is left."""
    context = multiprocessing.get_context("fork")
    runs = [context.Process(target=fill_folder, args=(tmp_path,)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
        assert run.exitcode == 0
    assert len(page_files(tmp_path)) == len(DOCUMENTS) and not list(tmp_path.rglob("*.tmp"))


def fill_folder(folder: Path) -> None:
    torch.set_num_threads(1)
    model = small_model()
    make = maker(VisionCache(model, folder), model)
    make.context.fill(DOCUMENTS)
    for document in DOCUMENTS:
        [page], image = make(document).pages, make.images(document)[0]
        views = page_views(image, TINY)
        with torch.no_grad():
            assert torch.equal(page.global_view, model.encoder(views.global_view[None])[0])


def test_filling_tells_how_far_it_is_and_leaves_nothing_to_encode(model, encodings, tmp_path):
    make, ticks = maker(VisionCache(model, tmp_path), model), []
    make.context.fill(DOCUMENTS, lambda done, of: ticks.append((done, of)))
    assert ticks == [(1, 4), (2, 4), (3, 4), (4, 4)] and len(encodings) == 4
    make.context.fill(DOCUMENTS)
    assert len(encodings) == 4


# Errors and messages


def test_an_encoder_that_learns_is_refused(model, tmp_path):
    freeze(model, "sam")
    with pytest.raises(
        ValueError, match=r"the encoder learns \(\d+ tensors, (compressor|clip).*: add --freeze encoder"
    ):
        VisionCache(model, tmp_path)


def test_a_limit_too_small_is_told_after_the_first_page(model, encodings, tmp_path):
    """Four pages don't fit into the room of three. The error comes after one page, not after an hour of encoding."""
    make = maker(VisionCache(model, tmp_path, limit=3 * PAGE_BYTES + 1000), model)
    with pytest.raises(ValueError, match=r"of at most 13,288, in .* has no room for .* bytes more: raise --cache-gb"):
        make.context.fill(DOCUMENTS)
    assert len(encodings) == 1


def test_a_full_disk_is_told_before_it_is_full(model, encodings, tmp_path, monkeypatch):
    usage = vision_cache.shutil.disk_usage(tmp_path)._replace(free=vision_cache.SPARE + 2 * PAGE_BYTES)
    monkeypatch.setattr(vision_cache.shutil, "disk_usage", lambda path: usage)
    make = maker(VisionCache(model, tmp_path / "not" / "there"), model)
    with pytest.raises(ValueError, match=r"its disk has 8,192 to give: delete older caches there, or .* --cache-dir"):
        make.context.fill(DOCUMENTS)
    assert len(encodings) == 1


def test_where_it_is_and_how_large_is_told_in_a_line(model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "lightseek" / "vision" and cache_folder("here") == Path("here")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "lightseek" / "vision"
    cache = VisionCache(model, tmp_path, limit=10**9)
    maker(cache, model).context.fill(DOCUMENTS)
    line = rf"vision cache: 4 pages in 1\d,\d\d\d bytes of at most 1,000,000,000, in {re.escape(str(tmp_path))}"
    assert re.fullmatch(line, str(cache)) and str(VisionCache(model, tmp_path, limit=10**9)) == str(cache)
