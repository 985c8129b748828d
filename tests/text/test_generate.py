"""Generation: the reference's greedy tokens, batches, sampling, beam search, the guard, streaming, and `read`."""

import itertools
import json

import pytest
import torch
from golden import Case, reduced_model
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from transformers import (
    NoRepeatNGramLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    UnlimitedOcrForConditionalGeneration,
)

from lightseek import LightSeekOCR, OCRConfig
from lightseek.model.cache import Cache, KVCache
from lightseek.model.config import ClipConfig, DecoderConfig, ProjectorConfig, SamConfig
from lightseek.text.decoding import Continuation
from lightseek.text.generate import NgramGuard, generate, read, stream
from lightseek.text.kinds import PROMPTS
from lightseek.text.ngrams import find_guard
from lightseek.text.prompts import prepare
from lightseek.text.sampling import Sampler, Writer
from lightseek.text.tokenizer import Tokenizer
from lightseek.tools.errors import Note
from lightseek.tools.padding import pad_batch


@pytest.fixture(scope="module")
def model():
    """Return the reduced model. It encodes each page only once, because these tests are not about the encoder."""
    model, seen = reduced_model(), {}
    encode = model.encode_pages

    def encode_once(pages):
        return [
            seen.setdefault(id(page), (page, encode([page])[0]) if id(page) not in seen else ())[1] for page in pages
        ]

    model.encode_pages = torch.no_grad()(encode_once)
    return model


@pytest.fixture(scope="module")
def cases():
    """Return (prompt ids, page, the reference's greedy tokens) for each golden case."""
    found = {name: Case(name) for name in ("tiny", "base", "gundam")}
    return {name: (case.prompt, case.page, case.tensors["greedy"].tolist()) for name, case in found.items()}


def toy(vocabulary: int, seed: int = 0) -> LightSeekOCR:
    """Return a very small model whose scores are far enough apart that texts differ."""
    torch.manual_seed(seed)
    config = OCRConfig(
        sam=SamConfig(width=16, layers=1, heads=1, global_blocks=(0,), neck=8),
        compressor=(8, 16),
        clip=ClipConfig(width=16, layers=1, heads=1),
        projector=ProjectorConfig(input_width=32, width=16),
        decoder=DecoderConfig(width=16, layers=2, heads=2, dense_width=16, experts=4, chosen=2, shared=1,
                              expert_width=8, vocabulary=vocabulary, max_positions=512),
        image_token_id=3,
        dtype="float32",
    )  # fmt: skip
    model = LightSeekOCR(config).eval()
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            if parameter.ndim > 1:
                parameter.mul_(12)
    return model


def recite(model: LightSeekOCR, text: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `text[k]` the likeliest token after k steps, again and again. The next larger id is the second likeliest."""
    step = itertools.count()

    def logits(hidden: Tensor) -> Tensor:
        scores = torch.zeros(*hidden.shape[:-1], model.config.decoder.vocabulary)
        token = text[next(step) % len(text)]
        scores[..., token], scores[..., token + 1] = 20, 10
        return scores

    monkeypatch.setattr(model.decoder, "logits", logits)


def logprobs(model: LightSeekOCR, prompt: list[int], texts: list[list[int]]) -> list[float]:
    """Return log P(text | prompt) of texts of one length, from one pass without a cache."""
    with torch.no_grad():
        scores = model(torch.tensor([prompt + text for text in texts])).logits[:, len(prompt) - 1 : -1].log_softmax(-1)
    return scores.gather(-1, torch.tensor(texts)[..., None]).sum((1, 2)).tolist()


# Greedy


@pytest.mark.parametrize("name", ["tiny", "base", "gundam"])
def test_greedy_tokens_are_the_references_with_and_without_a_cache(model, cases, name):
    prompt, page, golden = cases[name]
    found = generate(model, prompt, pages=[[page]], max_new_tokens=12)[0]
    assert found.tokens == golden and found.finish_reason == "length" and found.text is None
    with torch.no_grad():
        x = model.embed(prompt, [[page]])
        for token in golden:
            scores = model.decoder.logits(model.decoder(x).hidden[:, -1])
            assert scores.argmax().item() == token
            x = torch.cat([x, model.decoder.embed(scores.argmax(-1))[:, None]], dim=1)


def test_a_batch_of_unlike_pages_reads_as_one_by_one(model, cases):
    """The prompts have 80, 280 and 910 positions, and one has no image. They are padded on the left."""
    text_only = [0, 7, 11, 13]
    rows = [cases[name][0][0].tolist() for name in ("tiny", "base", "gundam")] + [text_only]
    pages = [[cases[name][1]] for name in ("tiny", "base", "gundam")] + [[]]
    ids, mask = pad_batch(rows, model.config.pad_token_id)
    found = generate(model, ids, pages=pages, mask=mask, max_new_tokens=12)
    assert [row.tokens for row in found[:3]] == [cases[name][2] for name in ("tiny", "base", "gundam")]
    alone = generate(model, torch.tensor([text_only]), max_new_tokens=12)[0]
    assert found[3].tokens == alone.tokens and found[3].logprob == pytest.approx(alone.logprob, rel=1e-4)


def test_two_images_in_one_prompt(model, cases):
    (tiny, first, _), (_, second, _) = cases["tiny"], cases["base"]
    middle = [511] * 273
    prompt = torch.tensor([[*tiny[0].tolist(), *middle, 5]])
    assert len(generate(model, prompt, pages=[[first, second]], max_new_tokens=3)[0].tokens) == 3


def test_a_stop_token_ends_the_text_and_is_not_part_of_it(model, cases):
    prompt, page, golden = cases["tiny"]
    found = generate(model, prompt, pages=[[page]], max_new_tokens=12, stop=[golden[4]])[0]
    assert (found.tokens, found.finish_reason) == (golden[:4], "eos")
    full = generate(model, prompt, pages=[[page]], max_new_tokens=5)[0]
    assert found.logprob == pytest.approx(full.logprob)  # the stop token's probability counts


def test_rows_that_are_done_leave_the_batch():
    """Eight prompts stop at different times. The decoder gets fewer and fewer rows, and the texts stay the same."""
    model, stop = toy(40), [*range(4, 14)]
    rows = [[0, *range(20 + row, 23 + row)] for row in range(8)]
    sizes = []
    handle = model.decoder.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    together = generate(model, torch.tensor(rows), max_new_tokens=30, stop=stop)
    handle.remove()
    alone = [generate(model, torch.tensor([row]), max_new_tokens=30, stop=stop)[0] for row in rows]
    assert [row.tokens for row in together] == [row.tokens for row in alone]
    assert len({len(row.tokens) for row in together}) > 2
    assert sizes[0] == 8 and sizes[-1] < 8 and sizes == sorted(sizes, reverse=True)


class Rerun:
    """A CUDA graph without CUDA: each replay runs the step again."""

    def __init__(self, work):
        self.replay = work


@pytest.mark.parametrize("places", [4, 512])
@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 5}, {"beams": 3}])
def test_steps_of_fixed_shapes_write_the_texts_of_plain_steps(monkeypatch, options, places):
    """Five prompts of different lengths, which stop at different times and fill up several graphs."""
    model = toy(40)
    ids, mask = pad_batch([[0, *range(5, 7 + row)] for row in range(5)], 1)
    options = {"max_new_tokens": 30, "stop": range(4, 8), **options}
    plain = generate(model, ids, mask=mask, **options)
    recorded = []
    monkeypatch.setattr("lightseek.text.decoding.can_repeat", lambda decoder, cache: True)
    monkeypatch.setattr("lightseek.text.cuda_graph.PLACES", places)
    monkeypatch.setattr("lightseek.text.cuda_graph.record", lambda work: recorded.append(1) or Rerun(work))
    fixed = generate(model, ids, mask=mask, **options)
    assert [row.tokens for row in fixed] == [row.tokens for row in plain]
    assert [row.logprob for row in fixed] == pytest.approx([row.logprob for row in plain], rel=1e-4)
    assert len({len(row.tokens) for row in plain}) > 1 and max(len(row.tokens) for row in plain) > 12
    assert len(recorded) > (3 if places == 4 else 0)


def test_steps_are_plain_when_there_are_too_many_beams_to_record(monkeypatch):
    model, ids = toy(40), torch.tensor([[0, 5, 6], [0, 8, 9]])
    options = {"max_new_tokens": 12, "stop": ()}
    plain = [generate(model, ids, **options, beams=beams) for beams in (1, 3)]
    monkeypatch.setattr("lightseek.text.decoding.can_repeat", lambda decoder, cache: cache.rows < 4)
    recorded = []
    monkeypatch.setattr("lightseek.text.cuda_graph.record", lambda work: recorded.append(1) or Rerun(work))
    for beams, expected in zip((1, 3), plain, strict=True):
        assert [row.tokens for row in generate(model, ids, **options, beams=beams)] == [row.tokens for row in expected]
        assert len(recorded) == 1  # of the greedy texts


def test_the_cache_holds_prompt_and_new_tokens_and_no_more():
    model = toy(10)
    state = Continuation(model, torch.tensor([[0, 5, 6]]), None, None, max_new_tokens=7)
    assert state.cache.keys[0].shape == (1, 2, 3 + 7, 8)
    assert len(generate(model, torch.tensor([[0] * 500]), max_new_tokens=12, stop=[])[0].tokens) == 12


def test_timings_and_logprob_tell_the_truth():
    model, prompt = toy(20), [0, 5, 6]
    found = generate(model, torch.tensor([prompt] * 3), max_new_tokens=9, stop=[])
    assert found[0].logprob == pytest.approx(logprobs(model, prompt, [found[0].tokens])[0], rel=1e-4)
    timings = found[0].timings
    assert (timings.steps, timings.tokens) == (8, 3 * 8)
    assert timings.tokens_per_second == timings.tokens / timings.decode > 0
    assert timings.encode > 0 and timings.prefill > 0


def test_nothing_of_the_model_or_the_random_state_changes():
    """A frozen box in evaluation mode stays in evaluation mode."""
    model = toy(20).train()
    model.encoder.eval()
    state = torch.get_rng_state()
    generate(model, torch.tensor([[0, 5]]), max_new_tokens=3)
    assert model.training and model.decoder.training and not model.encoder.training
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"max_new_tokens": 0}, "at least one"),
        ({"mask": torch.tensor([[True, True, False]])}, "pad on the left"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"beams": 2, "length_penalty": float("nan")}, "length_penalty is nan"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p is 0.0"),
        ({"temperature": 1.0, "top_k": 0}, "top_k is 0"),
        ({"beams": 2, "temperature": 1.0}, "beams is 2"),
        ({"beams": 0}, "beams is 0"),
        ({"no_repeat_ngram": -1}, "at least 1 token, not -1"),
    ],
)
def test_impossible_requests_say_why(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        generate(toy(10), torch.tensor([[0, 5, 6]]), **options)


def test_a_prompt_without_room_for_a_token_is_refused():
    with pytest.raises(ValueError, match="a prompt of 512 positions leaves no room for a text in the decoder's 512"):
        generate(toy(10), torch.tensor([[0] * 512]))


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 3}, {"beams": 3}])
def test_a_text_ends_where_the_decoder_has_no_positions_left(options):
    """The official recipes ask for as many new tokens as the decoder has positions."""
    model, prompt = toy(10), torch.tensor([[0] * 500])
    with pytest.warns(Note, match="max_new_tokens=512 is more than .* where the decoder's 512 positions end"):
        found = generate(model, prompt, max_new_tokens=512, stop=[], **options)[0]
    assert found.tokens == generate(model, prompt, max_new_tokens=12, stop=[], **options)[0].tokens
    assert len(found.tokens) == 12 and found.finish_reason == "length"


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"beams": 3}])
@pytest.mark.parametrize("stop", [[], [*range(4, 9)]])
def test_each_row_has_its_own_room(options, stop):
    """A long prompt in a batch leaves the short ones all the tokens that they would get alone."""
    model, lengths = toy(40), [505, 3, 509, 60]
    rows = [[0, *(20 + (i * row) % 15 for i in range(length - 1))] for row, length in enumerate(lengths, 1)]
    ids, mask = pad_batch(rows, pad=0)
    with pytest.warns(Note):
        together = generate(model, ids, mask=mask, max_new_tokens=40, stop=stop, **options, seed=5)
    for index, (found, row) in enumerate(zip(together, rows, strict=True)):
        room = min(40, 512 - len(row))
        alone = generate(model, torch.tensor([row]), max_new_tokens=room, stop=stop, **options, seed=5 + index)[0]
        assert (found.tokens, found.finish_reason) == (alone.tokens, alone.finish_reason)
        assert found.logprob == pytest.approx(alone.logprob, rel=1e-4)
        assert stop or len(found.tokens) == room


# Sampling

DRAWS = 20_000


def frequencies(sampler: Sampler, logits: Tensor) -> Tensor:
    """Return how often each token comes when u is spread evenly."""
    u = (torch.arange(DRAWS) + 0.5) / DRAWS
    return torch.bincount(sampler(logits.expand(DRAWS, -1), u), minlength=len(logits)) / DRAWS


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.7}, {"top_k": 5, "top_p": 0.5}], ids=str)
def test_tokens_come_as_often_as_transformers_would_draw_them(options):
    logits = torch.randn(12, generator=torch.Generator().manual_seed(3)) * 2
    expected = TemperatureLogitsWarper(1.5)(None, logits[None])
    if "top_k" in options:
        expected = TopKLogitsWarper(options["top_k"])(None, expected)
    if "top_p" in options:
        expected = TopPLogitsWarper(options["top_p"])(None, expected)
    assert torch.allclose(frequencies(Sampler(1.5, **options), logits), expected.softmax(-1)[0], atol=2 / DRAWS)


def test_a_low_temperature_is_greedy_in_the_limit():
    logits = torch.tensor([1.0, 1.01, -3.0])
    for temperature in (1e-30, 1e-40, 5e-324):  # float32 has the first; the last is 0 in it
        assert frequencies(Sampler(temperature), logits).tolist() == [0, 1, 0]


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=20), st.floats(0.01, 1), st.floats(0, 1, exclude_max=True))
def test_a_draw_is_always_a_token_that_was_kept(scores, top_p, u):
    logits = torch.tensor([scores])
    token = Sampler(1.0, top_p=top_p)(logits, torch.tensor([u])).item()
    probabilities = logits.softmax(-1)[0]  # scores of 0 and 1e-14 are equally likely, and either may be kept
    likelier = probabilities[probabilities > probabilities[token] * (1 + 1e-5)].sum().item()
    assert likelier <= top_p + 1e-6


def test_a_seed_fixes_the_text_whatever_else_is_in_the_batch():
    model, options = toy(40), {"temperature": 1.0, "max_new_tokens": 12, "stop": [30, 31, 32]}
    rows = [[0, 5, 6], [0, 8], [0, 9, 9, 9]]
    ids, mask = pad_batch(rows, 2)
    together = [row.tokens for row in generate(model, ids, mask=mask, seed=7, **options)]
    assert together == [row.tokens for row in generate(model, ids, mask=mask, seed=7, **options)]
    alone = [generate(model, torch.tensor([r]), seed=7 + i, **options)[0].tokens for i, r in enumerate(rows)]
    assert together == alone
    assert together != [row.tokens for row in generate(model, ids, mask=mask, seed=70, **options)]


def test_without_a_seed_the_global_generator_decides():
    model, options = toy(40), {"temperature": 1.0, "max_new_tokens": 8}
    texts = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        texts.append(generate(model, torch.tensor([[0, 5]]), **options)[0].tokens)
    assert texts[0] == texts[1] != texts[2]


# Texts that join others


def prompts_of(lengths: list[int]) -> dict[str, Tensor]:
    ids, mask = pad_batch([[0, *(5 + place % 30 for place in range(length))] for length in lengths], 2)
    return {"input_ids": ids, "mask": mask}


@settings(deadline=None, max_examples=12)
@given(
    st.lists(st.tuples(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(0, 9)), min_size=2, max_size=4),
    st.sampled_from([0.0, 1.0]),
    st.booleans(),
)
def test_texts_that_join_later_say_what_they_say_alone(groups, temperature, fixed):
    """Groups of prompts, of these lengths, join so many steps after the group before, when some rows have ended."""
    model, stop, most = toy(40), frozenset(range(4, 8)), 20
    options = {"temperature": temperature, "max_new_tokens": most, "stop": stop, "no_repeat_ngram": 3}
    alone = [generate(model, **prompts_of(lengths), seed=5, **options) for lengths, _ in groups]
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr("lightseek.text.decoding.can_repeat", lambda decoder, cache: fixed)
        patch.setattr("lightseek.text.cuda_graph.record", Rerun)
        writer = Writer(Sampler(temperature), NgramGuard(3), stop)
        rows = []
        for lengths, later in groups:
            state = Continuation(model, **prompts_of(lengths), pages=None, max_new_tokens=most)
            rows += writer.join(state, seed=5)
            for _ in range(later):
                if writer.running:
                    writer.step()
        list(writer.write())
    expected = [row for rows in alone for row in rows]
    assert [row.number for row in rows] == list(range(len(rows)))
    assert [(row.tokens, row.finish_reason) for row in rows] == [(e.tokens, e.finish_reason) for e in expected]
    assert [row.logprob for row in rows] == pytest.approx([e.logprob for e in expected], rel=1e-3, abs=1e-4)


@torch.inference_mode()
def test_the_cache_keeps_no_place_that_all_rows_leave_empty():
    """The first text ends after 30 tokens. Nine short prompts join one after another and the cache stays short."""
    model = toy(40)
    writer = Writer(Sampler(), None, frozenset())
    rows = writer.join(Continuation(model, **prompts_of([50]), pages=None, max_new_tokens=30))
    places = []
    for _ in range(9):
        rows += writer.join(Continuation(model, **prompts_of([4]), pages=None, max_new_tokens=25))
        places.append(writer.state.cache.length)
        for _ in range(10):
            writer.step()
    assert places[:3] == [51, 61, 71]  # 50 and the first token of all, and 10 more each time
    assert max(places[3:]) <= 5 + 25  # none of its rows has more
    list(writer.write())
    assert [len(row.tokens) for row in rows] == [30] + 9 * [25]


@torch.inference_mode()
def test_a_cache_of_transformers_takes_no_other_texts():
    state = Continuation(toy(40), **prompts_of([4]), pages=None, max_new_tokens=5)
    state.cache = Cache()
    assert not state.cache.joins and KVCache.joins
    with pytest.raises(NotImplementedError, match="takes no other rows"):
        state.cache.join(state.cache, 1, 1)


# Beam search


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_wide_enough_finds_the_best_of_all_texts(penalty, seed):
    """With 4 tokens and texts of up to 4, there are 1 + 3 + 9 + 27 finished texts and 81 unfinished ones to compare."""
    model, prompt, stop, longest = toy(4, seed), [0, 3], 1, 4
    texts = {n: [[*head, stop] for head in itertools.product([0, 2, 3], repeat=n - 1)] for n in range(1, longest + 1)}
    texts[longest] += [list(text) for text in itertools.product([0, 2, 3], repeat=longest)]
    scores = {}
    for n, same_length in texts.items():
        for text, score in zip(same_length, logprobs(model, prompt, same_length), strict=True):
            scores[tuple(text)] = score / n**penalty
    best = max(scores, key=scores.get)

    found = generate(model, torch.tensor([prompt]), max_new_tokens=longest, beams=121, length_penalty=penalty)[0]
    whole = (*found.tokens, stop) if found.finish_reason == "eos" else tuple(found.tokens)
    assert whole == best
    assert found.logprob / len(whole) ** penalty == pytest.approx(scores[best], rel=1e-4)


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    """Return a toy model and the same model in transformers' classes, which read our checkpoint."""
    model, folder = toy(30, seed=5), tmp_path_factory.mktemp("toy")
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(model.config.to_transformers()))
    theirs = UnlimitedOcrForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    theirs.generation_config.pad_token_id = 2
    return model, theirs


@pytest.mark.parametrize(("beams", "penalty"), [(1, 1.0), (3, -1.0), (3, 0.5), (3, 2.0)])
@pytest.mark.parametrize("guard", [None, 2])
def test_search_agrees_with_transformers(oracle, beams, penalty, guard):
    model, theirs = oracle
    stop, reasons = [12, 13, 14], set()
    for first in range(4, 10):
        prompt = torch.tensor([[0, first, 5]])
        ours = generate(model, prompt, max_new_tokens=10, beams=beams, length_penalty=penalty, stop=stop,
                        no_repeat_ngram=guard)[0]  # fmt: skip
        expected = theirs.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=10,
                                   do_sample=False, num_beams=beams, length_penalty=penalty, eos_token_id=stop,
                                   no_repeat_ngram_size=guard or 0)[0, 3:].tolist()  # fmt: skip
        assert ours.tokens == list(itertools.takewhile(lambda token: token not in stop, expected))
        reasons.add(ours.finish_reason)
    assert reasons == ({"eos", "length"} if penalty < 2 else {"length"})


def test_searching_a_batch_is_searching_each_row():
    model, options = toy(30, seed=5), {"beams": 3, "max_new_tokens": 10, "stop": [12, 13], "no_repeat_ngram": 3}
    rows = [[0, 4, 5, 6], [0, 8], [0, 9, 9, 9, 7, 7]]
    ids, mask = pad_batch(rows, 2)
    together = generate(model, ids, mask=mask, **options)
    alone = [generate(model, torch.tensor([row]), **options)[0] for row in rows]
    assert [row.tokens for row in together] == [row.tokens for row in alone]
    assert [row.logprob for row in together] == pytest.approx([row.logprob for row in alone], rel=1e-4)


# The guard against repetition


def banned_slowly(guard: NgramGuard, text: list[int]) -> set[int]:
    """Apply the definition: look at every n-gram of the text."""
    if len(text) < guard.size - 1:
        return set()
    last = text[len(text) - (guard.size - 1) :]
    begin = max(0, len(text) - (guard.window or len(text)))
    grams = [text[i : i + guard.size] for i in range(begin, len(text) - guard.size + 1)]
    return {gram[-1] for gram in grams if gram[:-1] == last} - guard.exempt


@settings(deadline=None)
@given(
    text=st.lists(st.integers(0, 2), max_size=40),
    size=st.integers(1, 4),
    extra=st.none() | st.integers(0, 12),
    exempt=st.frozensets(st.integers(0, 2), max_size=1),
)
def test_the_guard_bans_what_would_complete_an_old_ngram(text, size, extra, exempt):
    guard = NgramGuard(size, None if extra is None else size + extra, exempt)
    for split in range(len(text) + 1):
        seen = guard.start(text[:split])
        assert set(seen.banned()) == banned_slowly(guard, text[:split])
    fork = seen.fork()
    fork.push(0)
    assert set(seen.banned()) == banned_slowly(guard, text)
    assert set(fork.banned()) == banned_slowly(guard, [*text, 0])


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(1, 4))
def test_without_a_window_it_is_transformers_guard(text, size):
    theirs = NoRepeatNGramLogitsProcessor(size)(torch.tensor([text]), torch.zeros(1, 4))[0]
    assert set(NgramGuard(size).start(text).banned()) == set(theirs.isinf().nonzero().flatten().tolist())


def test_a_loop_is_cut_after_n_tokens_came_again(monkeypatch):
    model, loop = toy(30), [10, 12, 14]
    recite(model, loop, monkeypatch)
    options = {"max_new_tokens": 12, "stop": []}
    assert generate(model, torch.tensor([[0]]), **options)[0].tokens == loop * 4
    recite(model, loop, monkeypatch)
    found = generate(model, torch.tensor([[0]]), no_repeat_ngram=4, **options)[0].tokens
    assert found[:6] == loop * 2 and found[6] == 11  # 10 12 14 10 came before, so the second choice comes
    grams = [tuple(found[i : i + 4]) for i in range(len(found) - 3)]
    assert len(set(grams)) == len(grams)


def test_the_vllm_guard_spares_table_cells_and_forgets_after_90_tokens(monkeypatch):
    tokenizer = Tokenizer.nano()
    monkeypatch.setattr(tokenizer, "id_of", {"<td>": 128821, "</td>": 128822}.get)
    guard = NgramGuard.vllm(tokenizer)
    assert guard == NgramGuard(30, window=90, exempt=frozenset({128821, 128822}), prompt=False)
    assert NgramGuard.vllm(Tokenizer.nano()).exempt == frozenset()  # nano has no table tokens
    assert guard.start(range(100)).length == 0  # the prompt does not count, but for OFFICIAL it does:
    assert NgramGuard.OFFICIAL.start(range(100)).length == 100
    cells = guard.start()
    for _ in range(40):
        cells.push(128821)
    assert cells.banned() == []  # an empty table row may have any length
    far = guard.start()
    for token in [*range(30), *range(100, 161), *range(29)]:
        far.push(token)
    assert far.banned() == []  # the 30-gram began 120 tokens ago
    near = guard.start()
    for token in [*range(30), *range(100, 131), *range(29)]:
        near.push(token)
    assert near.banned() == [29]  # it began exactly 90 tokens ago


@pytest.mark.parametrize(("size", "window"), [(0, None), (5, 4)])
def test_a_guard_that_cannot_work_is_refused(size, window):
    with pytest.raises(ValueError):
        NgramGuard(size, window)


# Text: streaming and reading


@pytest.fixture
def reader():
    """Return a toy model with the nano tokenizer."""
    model = toy(1030)
    model.tokenizer = Tokenizer.nano()
    return model


def test_a_stream_never_breaks_a_character(reader, monkeypatch):
    text = "Größe: 3 € 🙂 日本."
    ids = [*reader.tokenizer.encode(text), reader.config.eos_token_id]
    recite(reader, ids, monkeypatch)
    pieces = list(stream(reader, torch.tensor([[0]]), max_new_tokens=80))
    assert "".join(pieces) == text and len(pieces) > 3
    assert all(piece and "\N{REPLACEMENT CHARACTER}" not in piece for piece in pieces)
    recite(reader, ids, monkeypatch)
    assert generate(reader, torch.tensor([[0]]), max_new_tokens=80)[0].text == text


def test_a_stream_and_a_generation_with_the_same_options_agree(reader):
    options = {"max_new_tokens": 20, "temperature": 1.0, "top_p": 0.9, "seed": 3, "no_repeat_ngram": 2}
    assert "".join(stream(reader, torch.tensor([[0, 9]]), **options)) == (
        generate(reader, torch.tensor([[0, 9]]), **options)[0].text
    )


def test_a_stream_comes_as_it_is_made_and_leaves_the_model_as_it_was(reader):
    steps = []
    reader.decoder.register_forward_hook(lambda *_: steps.append(torch.is_inference_mode_enabled()))
    reader.train()
    pieces = stream(reader, torch.tensor([[0, 9]]), max_new_tokens=50, temperature=1.0, seed=0)
    next(pieces)
    assert all(steps) and len(steps) < 50 and not torch.is_inference_mode_enabled()
    pieces.close()
    assert reader.training


def test_tokens_can_be_watched_in_a_batch(reader):
    watched = {0: [], 1: []}
    found = generate(reader, torch.tensor([[0, 9], [0, 8]]), max_new_tokens=6,
                     on_token=lambda row, token: watched[row].append(token))  # fmt: skip
    assert [watched[0], watched[1]] == [row.tokens for row in found]


def test_read_takes_pictures_of_all_kinds(reader):
    """There are three items. One has two pages and a prompt of its own. The batch size makes no difference."""
    pictures = [Image.new("RGB", (60, 80), shade) for shade in ("white", "black", "red", "blue")]
    items = [pictures[0], [pictures[1], pictures[2]], pictures[3]]
    prompts = [PROMPTS["ocr"], "<image><image>\nCompare.", PROMPTS["figure"]]
    options = {"mode": ["tiny", "tiny", "small"], "max_new_tokens": 6, "temperature": 1.0, "seed": 1}
    found = read(reader, items, prompts, **options)
    assert [len(row.tokens) > 0 for row in found] == [True] * 3
    assert [row.text for row in found] == [row.text for row in read(reader, items, prompts, batch_size=2, **options)]
    single = read(reader, pictures[0], mode="tiny", max_new_tokens=6, temperature=1.0, seed=1)
    assert [row.tokens for row in single] == [found[0].tokens]
    inputs = prepare(reader.config, reader.tokenizer, prompts[:1], [[pictures[0]]], "tiny")
    direct = reader.generate(inputs.input_ids, inputs.pages, inputs.mask, max_new_tokens=6, temperature=1.0, seed=1)
    assert direct[0].tokens == found[0].tokens


def test_read_guards_against_loops_unless_told_otherwise(reader, monkeypatch):
    white = Image.new("RGB", (64, 64), "white")
    for options, repeats in (({}, False), ({"no_repeat_ngram": None}, True)):
        recite(reader, [40, 50], monkeypatch)
        tokens = read(reader, white, mode="tiny", max_new_tokens=90, **options)[0].tokens
        assert (tokens == [40, 50] * 45) is repeats


def test_the_default_guard_of_a_model_whose_tokens_are_characters_lets_equal_lines_pass(reader):
    """20 characters are less than a line; a loop is still cut."""
    assert NgramGuard.default(reader.tokenizer).size == 80 and NgramGuard.default(None) == NgramGuard.OFFICIAL
    line = reader.tokenizer.encode("Coffee, large 3.20 EUR\n")
    seen = NgramGuard.default(reader.tokenizer).start()
    for token in line * 3:
        assert token not in seen.banned()
        seen.push(token)
    for token in line * 2:
        seen.push(token)
    assert seen.banned() == [line[0]]


def test_a_guard_has_a_name_a_number_a_window_and_exempt_tokens(reader):
    tokenizer = reader.tokenizer
    assert find_guard("official", tokenizer) == NgramGuard.OFFICIAL and find_guard("none", tokenizer) is None
    assert find_guard("vllm", tokenizer) == NgramGuard.vllm(tokenizer) and find_guard("7", tokenizer) == NgramGuard(7)
    assert find_guard(None, tokenizer) == NgramGuard(80)
    found = find_guard("7", tokenizer, window=30, exempt=[".", "x"])
    assert found == NgramGuard(7, 30, frozenset([*tokenizer.encode("."), *tokenizer.encode("x")]))
    for arguments, message in [
        (("off", tokenizer), "unknown guard 'off': choose one of official, vllm, none"),
        (("7", tokenizer, None, ["two"]), "'two' is not one token"),
        (("none", tokenizer, 30), "without a guard"),
        (("0", tokenizer), "at least 1 token"),
    ]:
        with pytest.raises(ValueError, match=message):
            find_guard(*arguments)


def test_text_needs_a_tokenizer():
    with pytest.raises(ValueError, match="no tokenizer"):
        read(toy(10), Image.new("RGB", (8, 8)))
    with pytest.raises(ValueError, match="no tokenizer"):
        stream(toy(10), torch.tensor([[0]]))


def test_a_stream_is_of_one_prompt(reader):
    with pytest.raises((ValueError, TypeError)):
        stream(reader, torch.tensor([[0], [0]]))
