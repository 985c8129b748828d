"""Tests files of predictions: what a line holds, and how a killed program continues its file."""

import io
import json
import re
from dataclasses import replace

import pytest
import torch
import transformers
from PIL import Image

from lightseek.__main__ import main
from lightseek.data.context.pages import PageMaker
from lightseek.data.corruption import corrupt
from lightseek.data.document import Document
from lightseek.data.examples import ExampleMaker
from lightseek.data.sources.load import load_documents
from lightseek.model.decoders.hf import HFDecoder, describe
from lightseek.page.spec import PageSpec
from lightseek.scores.predictions import Prediction, append_predictions, done_before, predict, read_predictions
from lightseek.text.generate import generate
from lightseek.tools.errors import Note
from lightseek.tools.padding import pad_batch
from lightseek.weights.loading import load_model
from lightseek.weights.swap import attach, with_decoder

SETTINGS = {"data": "synthetic", "beams": 4}
QUICK = ["--mode", "tiny", "--max-new-tokens", "3", "--limit", "3", "--device", "cpu"]


@pytest.fixture(scope="module")
def nano():
    return load_model(device="cpu")


@pytest.fixture(scope="module")
def documents():
    return load_documents("synthetic", "test", 5)


def made_up(documents) -> list[Prediction]:
    return [
        Prediction(d.name, d.summary, f"saw\u2028{d.facts[0]}", 9, 3, 0.5, 100, "eos", d.text, d.facts)
        for d in documents
    ]


def append(path, documents, found=None) -> None:
    list(append_predictions(path, SETTINGS, len(documents), made_up(documents) if found is None else found))


# --- The model --------------------------------------------------------------------------------------------------------


def test_a_prediction_tells_what_was_wanted_written_and_spent(nano, documents):
    make = ExampleMaker(nano.config, nano.tokenizer, "summarize", PageSpec("tiny"))
    (found,) = predict(nano, make, documents[:1], beams=2, length_penalty=2.0, max_new_tokens=3)
    document = documents[0]
    assert (found.id, found.reference, found.source) == (document.name, document.summary, document.text)
    assert found.facts == document.facts and found.prediction and found.finish_reason == "length"
    assert found.vision_tokens == 64 and found.text_tokens == len(nano.tokenizer.encode(document.text))
    assert 0 < found.seconds < 60 and found.peak_bytes > 1e6


def test_a_text_does_not_depend_on_its_batch(nano, documents):
    """Three documents in one batch, padded to the longest prompt, give the same texts as one by one."""
    make = ExampleMaker(nano.config, nano.tokenizer, "ocr", PageSpec("tiny"))
    together = [p.prediction for p in predict(nano, make, documents[:3], batch=3, max_new_tokens=4)]
    apart = [p.prediction for p in predict(nano, make, documents[:3], batch=1, max_new_tokens=4)]
    assert together == apart and all(together)


@pytest.mark.parametrize("beams", [1, 2])
def test_a_long_document_does_not_cut_a_short_one_of_its_batch(nano, monkeypatch, beams):
    """A question fills the decoder's positions but for six, and the other document still gets its 30 tokens."""
    small = nano.config.with_(decoder=replace(nano.config.decoder, max_positions=200))
    monkeypatch.setattr(nano, "config", small)
    make = ExampleMaker(small, nano.tokenizer, "answer", PageSpec("tiny"), context="text")
    short = Document("The ferry left.", "ok", "short", question="What does the page say?")
    room = 200 - len(make(short).prompt)
    documents = [replace(short, name="long", question=short.question + "?" * (room - 6)), short]
    assert [200 - len(make(document).prompt) for document in documents] == [6, room]
    options = {"beams": beams, "max_new_tokens": 30}
    with pytest.warns(Note, match="max_new_tokens=30 is more than there is room for"):
        together, apart = (list(predict(nano, make, documents, batch=batch, **options)) for batch in (2, 1))
    assert [(p.prediction, p.finish_reason) for p in together] == [(p.prediction, p.finish_reason) for p in apart]
    assert len(nano.tokenizer.encode(together[1].prediction)) > 6


def test_a_text_does_not_depend_on_its_batch_with_learned_positions(monkeypatch):
    """GPT-2 has a table of positions. A row that ended must not be read on behind the last of them."""
    model = load_model(device="cpu")
    decoder = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=349, n_embd=16, n_layer=1, n_head=2, n_positions=40)
    )
    fresh = HFDecoder(describe(decoder, "tiny"), decoder).eval()
    attach(model, fresh, with_decoder(model.config, fresh.config, {}))
    rows = [[0, *range(20, 58)], [0, 9]]
    ids, mask = pad_batch(rows, pad=0)
    with pytest.warns(Note):
        together = generate(model, ids, mask=mask, max_new_tokens=30, stop=[])
    assert [len(found.tokens) for found in together] == [1, 30]
    assert together[1].tokens == generate(model, torch.tensor(rows[1:]), max_new_tokens=30, stop=[])[0].tokens


# --- The file ---------------------------------------------------------------------------------------------------------


def test_what_is_read_is_what_was_written(tmp_path, documents):
    append(tmp_path / "new" / "p.jsonl", documents)
    head, found = read_predictions(tmp_path / "new" / "p.jsonl")
    assert head == {"settings": SETTINGS, "pages": 5} and found == made_up(documents)


def test_a_kill_anywhere_leaves_lines_to_go_on_from(tmp_path, documents):
    """The file is cut at every byte. Whole lines are kept, the rest is made again, and the result is the same file."""
    path = tmp_path / "p.jsonl"
    append(path, documents)
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in [*range(0, ends[0] + 3), *(end + offset for end in ends[1:] for offset in (-2, -1, 0))]:
        path.write_bytes(whole[:cut])
        done, left_out = done_before(path, SETTINGS, documents)
        assert done == max(0, sum(end <= cut for end in ends) - 1) and left_out == []
        append(path, documents, made_up(documents)[done:])
        assert path.read_bytes() == whole


def test_documents_that_got_no_prediction_are_known_and_the_rest_is_made(tmp_path, documents):
    """Documents 2 and 3 could not be shown to the model, and the program was killed after document 4."""
    path = tmp_path / "p.jsonl"
    append(path, documents, made_up([documents[0], documents[3]]))
    assert done_before(path, SETTINGS, documents) == (4, [documents[1].name, documents[2].name])


def test_other_settings_or_documents_are_refused(tmp_path, documents):
    path = tmp_path / "p.jsonl"
    append(path, documents[:2])
    with pytest.raises(
        ValueError, match=r"other settings \(beams was 4 and is 1\): choose another --out, or delete it"
    ):
        done_before(path, SETTINGS | {"beams": 1}, documents)
    with pytest.raises(ValueError, match=rf"holds {documents[1].name}, which is none of the data's documents from"):
        done_before(path, SETTINGS, [documents[0], documents[2]])
    assert len(read_predictions(path)[1]) == 2  # untouched


def test_another_programs_lines_will_do(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(
        '{"id": "a", "reference": "r", "prediction": "p", "seconds": 2, "model": "theirs"}\n\n{"id": "b", "ref', "utf-8"
    )
    assert read_predictions(path) == ({}, [Prediction("a", "r", "p", seconds=2.0)])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[]", "line 2 is not a prediction: it is not a JSON object"),
        ('{"id": "a", "reference": "r"}', "line 2 is not a prediction: 'prediction' is missing"),
        ('{"id": 7}', "line 2 is not a prediction: 'id' must be a text, not 7"),
        ("{", "line 2 is not a prediction: not valid JSON .Expecting property name"),
        ('{"id": "a", "reference": "r", "prediction": "p", "seconds": "1"}', "'seconds' must be a number, not '1'"),
    ],
)
def test_a_line_that_is_no_prediction_is_named(tmp_path, line, message):
    path = tmp_path / "p.jsonl"
    path.write_text(f'{{"settings": {{}}}}\n{line}\n')
    with pytest.raises(ValueError, match=message):
        read_predictions(path)


# --- The command ------------------------------------------------------------------------------------------------------


def test_generate_goes_on_where_it_was_killed(tmp_path, capsys):
    path = tmp_path / "p.jsonl"
    command = ["generate", "synthetic", "--out", str(path), "--batch", "2", *QUICK]
    assert main(command) == 0
    head, whole = read_predictions(path)
    settings = head["settings"]
    assert (settings["beams"], settings["length_penalty"], settings["task"], settings["mode"]) == (
        4,
        2,
        "summarize",
        "tiny",
    )
    assert [p.id for p in whole] == [d.name for d in load_documents("synthetic", "test", 3)]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:20])
    assert main(command) == 0
    strip = [replace(p, seconds=0.0, peak_bytes=0) for p in whole]
    assert [replace(p, seconds=0.0, peak_bytes=0) for p in read_predictions(path)[1]] == strip
    assert "has 1 of 3 predictions: the command continues" in capsys.readouterr().err
    written = path.stat().st_mtime_ns
    assert main(command) == 0 and path.stat().st_mtime_ns == written  # nothing is left to do, and it says so
    assert "has all 3 predictions already" in capsys.readouterr().err
    assert main([*command, "--beams", "2"]) == 2
    assert "beams was 4 and is 2" in " ".join(capsys.readouterr().err.split())


def test_generate_names_a_broken_picture_and_writes_about_the_others(tmp_path, capsys, documents):
    pages = PageMaker(PageSpec("tiny"))
    rows = [{"image": f"{i}.png", "text": d.text} for i, d in enumerate(documents[:3])]
    for i, document in enumerate(documents[:3]):
        pages.render(document.text).images[0].save(tmp_path / f"{i}.png")
    broken = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(broken[: len(broken) // 2])
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "p.jsonl"
    command = ["generate", str(tmp_path / "test.jsonl"), "--task", "ocr", *QUICK, "--out", str(path)]
    assert main(command) == 2
    assert "document test.jsonl:2" in capsys.readouterr().err
    assert [p.id for p in read_predictions(path)[1]] == ["test.jsonl:1", "test.jsonl:3"]
    assert main(command) == 2  # nothing is left to do
    told = " ".join(capsys.readouterr().err.split())
    assert "has no prediction for test.jsonl:2, which failed before" in told and "has all 2 predictions" in told
    Image.new("L", (512, 512)).save(tmp_path / "0.png")  # another page, behind the same table
    assert main(command) == 2
    assert "was made with other settings (documents was" in " ".join(capsys.readouterr().err.split())


def test_generate_reads_corrupted_pages(tmp_path):
    """Reading is greedy. The reference is the corrupted text, because that is what the page shows."""
    path = tmp_path / "p.jsonl"
    assert main(["generate", "synthetic", "--out", str(path), "--task", "ocr", "--corrupt", "random", *QUICK]) == 0
    head, found = read_predictions(path)
    assert head["settings"]["beams"] == 1 and found[0].source == ""
    assert found[0].reference == corrupt(load_documents("synthetic", "test", 1)[0].text, "random", 0)


def test_generate_with_edited_vision_tokens(tmp_path):
    """Without its vision tokens, the model writes the same about every page of the same size."""
    command = ["generate", "synthetic", "--task", "ocr", "--eval-vision", "zeroed", "--letters", "40", *QUICK]
    assert main([*command, "--out", str(tmp_path / "p.jsonl"), "--limit", "2"]) == 0
    head, found = read_predictions(tmp_path / "p.jsonl")
    assert (head["settings"]["eval_vision"], head["settings"]["letters"]) == ("zeroed", "40")
    assert found[0].prediction == found[1].prediction and found[0].reference != found[1].reference


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no/such/file.jsonl"], "there is no such file or folder"),
        (["synthetic", "--batch", "0"], "--batch must be at least 1, got 0"),
        (["synthetic", "--corrupt", "noise"], "unknown kind of text 'noise'"),
        (["synthetic", "--eval-vision", "drop"], "missing a required argument: 'percent'"),
        (
            ["synthetic", "--eval-vision", "mean", "--context", "text"],
            "is for pages, and --context text shows the model",
        ),
        (["synthetic", "--letters", "big"], "letters=big: expected fit, pixels such as 20, or 60/line"),
        (["synthetic", "--model", "no/such/model"], "no/such/model"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, capsys, arguments, message):
    try:
        code = main(["generate", *arguments, "--out", str(tmp_path / "p.jsonl")])
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2 and message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "p.jsonl").exists()


# --- summarize --------------------------------------------------------------------------------------------------------


def summarize(capsys, *arguments) -> tuple[int, str, str]:
    code = main(["summarize", *map(str, arguments), "--mode", "tiny", "--max-new-tokens", "3", "--device", "cpu"])
    captured = capsys.readouterr()
    return code, captured.out, " ".join(captured.err.split())


def test_a_texts_summary_is_what_generate_writes_of_it(tmp_path, capsys, nano, documents):
    """The same pages, prompt, beams (4) and length penalty (2) give the same text, and stdout has nothing else."""
    article = tmp_path / "article.txt"
    article.write_text(documents[0].text, encoding="utf-8")
    code, out, told = summarize(capsys, article)
    make = ExampleMaker(nano.config, nano.tokenizer, "summarize", PageSpec("tiny"))
    (found,) = predict(nano, make, documents[:1], beams=4, length_penalty=2.0, max_new_tokens=3)
    assert code == 0 and out == f"{found.prediction}\n"
    assert "article.txt: 64 vision tokens" in told and "cut off at --max-new-tokens" in told


def test_a_long_text_becomes_several_pages_in_one_prompt(tmp_path, capsys):
    article = tmp_path / "article.md"
    article.write_text("Nothing happened, at length. " * 250, encoding="utf-8")
    _, _, told = summarize(capsys, article, "--beams", "1")
    tokens = int(re.search(r"(\d+) vision tokens", told)[1])
    assert tokens > 64 and tokens % 64 == 0
    _, _, told = summarize(capsys, article, "--beams", "1", "--pages", "1")
    assert ": 64 vision tokens" in told and "1 documents need more pages than they may have" in told


def test_pdfs_and_pictures_are_summarized_as_they_are(tmp_path, capsys):
    pages = [Image.new("RGB", (300, 400), colour) for colour in ("white", "grey")]
    pages[0].save(tmp_path / "doc.pdf", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "page.png")
    code, out, told = summarize(capsys, tmp_path / "doc.pdf", tmp_path / "page.png", "--beams", "1")
    assert code == 0 and out.count("---") == 4
    assert "doc.pdf: 128 vision tokens" in told and "page.png: 64 vision tokens" in told


def test_what_cannot_be_summarized_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b" \n"), "ascii"))
    assert summarize(capsys, "-")[::2] == (2, "error: - is empty")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\xff")
    assert "a.txt is not UTF-8 text" in summarize(capsys, tmp_path / "a.txt")[2]
    code, _, told = summarize(capsys, tmp_path / "none.pdf")
    assert code == 2 and "none.pdf" in told
