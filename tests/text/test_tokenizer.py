"""Text to ids and back: nothing is lost, documents cannot make special tokens, and streams give whole characters."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightseek.data.sources import synthetic
from lightseek.text.tokenizer import BEGIN, END, IMAGE, PAD, Tokenizer

NANO = Tokenizer.nano()
ADDED = [BEGIN, END, PAD, IMAGE, "<|ref|>", "<|/ref|>", "<|grounding|>", "<td>", "</td>", "<|User|>"]
anything = st.one_of(st.text(), st.lists(st.sampled_from([*ADDED, "a ", "é", "12", "\n", "😀"])).map("".join))


@pytest.fixture(scope="module")
def deepseek(tmp_path_factory):
    """Return a tokenizer like the official one: special tokens 0-2, byte-level BPE with its splits, added tokens."""
    from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors, trainers
    from tokenizers import Tokenizer as Trainable

    tokenizer = Trainable(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"),
            pre_tokenizers.Split(Regex(r"[一-龥぀-ゟ゠-ヿ]+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=ADDED[:3], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([document.text for document in synthetic.documents("train", 50)], trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in ADDED[3:]])
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[(BEGIN, 0)])
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer.save(str(folder / "tokenizer.json"))
    return Tokenizer.from_file(folder)


def test_nano_vocabulary():
    assert NANO.vocab_size == 349
    assert [NANO.id_of(token) for token in (BEGIN, END, PAD, IMAGE)] == [0, 1, 2, 3]
    assert {NANO.bytes_of(i) for i in range(4, 260)} == {bytes([byte]) for byte in range(256)}
    merged = [NANO.bytes_of(i) for i in range(260, 349)]
    assert len(set(merged)) == 89
    whole = [token.decode() for token in merged if token not in (b"\xe2\x82", b"\xe2\x80")]  # parts of "€" and "—"
    assert all(len(character) == 1 for character in whole) and {"é", "€", "ł", "ß", "—"} <= set(whole)
    assert NANO.id_of("no such token") is None


def test_a_token_of_nano_is_a_character():
    text = "Ærø: €12,480 – naïve"
    assert [NANO.decode([i]) for i in NANO.encode(text)] == list(text)
    documents = synthetic.documents("test", 100)
    text = "".join(document.text for document in documents)
    assert len(NANO.encode(text)) == len(text)


@given(anything)
def test_nano_loses_nothing(text):
    ids = NANO.encode(text)
    assert NANO.decode(ids) == text
    assert min(ids, default=4) >= 4  # no text becomes a special token
    assert NANO.decode(NANO.encode(text, special=True), keep_special=True) == text


@given(anything)
def test_a_deepseek_style_file_loses_nothing(deepseek, text):
    ids = deepseek.encode(text)
    assert deepseek.decode(ids) == text
    assert not set(ids) & {deepseek.id_of(token) for token in ADDED}
    assert deepseek.decode(deepseek.encode(text, special=True), keep_special=True) == text


def test_a_deepseek_style_file_adds_cuts_and_pads_nothing(deepseek):
    assert deepseek.vocab_size == 407
    assert [deepseek.id_of(token) for token in ADDED] == [0, 1, 2, *range(400, 407)]
    assert len(deepseek.encode("x " * 20)) >= 20
    assert deepseek.encode("") == []


@pytest.mark.parametrize("special", [False, True])
def test_only_the_prompt_may_hold_an_image(deepseek, special):
    for tokenizer in (NANO, deepseek):
        ids = tokenizer.encode("<image>\nFree OCR.", special=special)
        assert ids.count(tokenizer.id_of(IMAGE)) == special
        assert tokenizer.decode(ids) == ("\nFree OCR." if special else "<image>\nFree OCR.")


def test_decoding_agrees_with_the_library(deepseek):
    from tokenizers import Tokenizer as Oracle

    for tokenizer in (NANO, deepseek):
        oracle = Oracle.from_str(tokenizer._definition)
        for start in range(0, 400, 7):
            ids = list(range(start, min(start + 40, 400)))
            for keep in (False, True):
                assert tokenizer.decode(ids, keep) == oracle.decode(ids, skip_special_tokens=not keep)


def test_ids_without_a_token_and_torn_characters():
    letter = NANO.encode("a")
    assert NANO.decode([5000, *letter, -1]) == "a"
    euro = [i for i in range(4, 260) for byte in "é".encode() if NANO.bytes_of(i) == bytes([byte])]
    assert len(euro) == 2
    assert NANO.decode(euro[:1]) == "�"


@given(st.lists(st.integers(0, 1023)), st.booleans())
def test_streaming_equals_decoding(ids, keep_special):
    stream = NANO.stream(keep_special)
    for _ in range(2):  # after a flush it starts a new text
        pieces = [stream.push(i) for i in ids] + [stream.flush()]
        assert "".join(pieces) == NANO.decode(ids, keep_special)


@given(st.text())
def test_streaming_shows_whole_characters_only(text):
    stream = NANO.stream()
    shown = ""
    for i in NANO.encode(text):
        shown += stream.push(i)
        assert text.startswith(shown)
    assert shown == text and stream.flush() == ""


def test_saving_keeps_the_file(deepseek, tmp_path):
    for tokenizer in (NANO, deepseek):
        tokenizer.save(tmp_path / "tokenizer.json")
        again = Tokenizer.from_file(tmp_path)
        assert again.encode("Zoë <td> 12", special=True) == tokenizer.encode("Zoë <td> 12", special=True)
        assert again._definition == tokenizer._definition


def test_unusable_files_are_named(tmp_path):
    from tokenizers import Tokenizer as Other
    from tokenizers import models

    path = tmp_path / "tokenizer.json"
    with pytest.raises(FileNotFoundError, match=r"no tokenizer at .*tokenizer\.json"):
        Tokenizer.from_file(tmp_path)
    for content in ("{", "[]", json.dumps({"model": {}})):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"can't use .*tokenizer\.json: not a tokenizer\.json"):
            Tokenizer.from_file(path)
    Other(models.WordLevel({"a": 0}, unk_token="a")).save(str(path))
    with pytest.raises(ValueError, match="not a byte-level tokenizer"):
        Tokenizer.from_file(path)


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(ValueError, match="not valid Unicode"):
        NANO.encode("a\ud800")


def test_the_committed_file_is_what_its_script_makes():
    script = Path(__file__).parents[2] / "experiments" / "nano" / "make_tokenizer.py"
    subprocess.run(
        [sys.executable, script, "--check"], check=True, env=os.environ | {"PYTHONPATH": str(script.parents[2])}
    )
