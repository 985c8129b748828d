"""Tests how predictions are scored and compared: figures computed by hand, the same pages, the command's files."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lightseek.__main__ import main
from lightseek.scores.compare import LEAD, compare, costs, distinct_names, nice_edges, report, score
from lightseek.scores.metrics import evaluate
from lightseek.scores.predictions import Prediction, save_predictions

SOURCE = "The pump failed at noon. Ada fixed it. It cost 7 euros. All went home. Rain fell."
WORDS = ["ada", "noon", "pump", "rain", "euro", "home"]


def page(number: int, text: str, **more) -> Prediction:
    reference = " ".join(WORDS[: 2 + number % 4])
    fields = {"text_tokens": 100 + 10 * number, "vision_tokens": 50, "source": SOURCE, "finish_reason": "eos"}
    return Prediction(f"page-{number}", reference, text, **fields | more)


def write(path, predictions, **settings):
    save_predictions(path, {"task": "summarize"} | settings, predictions)
    return path


@pytest.fixture
def files(tmp_path):
    """Two models on 12 pages: one always writes "pump", the other two words that are right on every fourth."""
    before = write(tmp_path / "before" / "p.jsonl", [page(i, "pump") for i in range(12)])
    after = write(tmp_path / "after" / "p.jsonl", [page(i, "ada noon") for i in range(12)])
    return before, after


def run(capsys, *arguments) -> tuple[int, str, str]:
    try:
        code = main(["evaluate", *map(str, arguments)])
    except SystemExit as stopped:
        code = stopped.code
    captured = capsys.readouterr()
    return code, captured.out, " ".join(captured.err.split())


# --- Figures ----------------------------------------------------------------------------------------------------------


def test_a_models_figures_are_those_of_evaluate(files):
    scored = score(files[1])
    texts = [p.prediction for p in scored.predictions]
    expected = evaluate(texts, [p.reference for p in scored.predictions], [p.document for p in scored.predictions])
    (model,) = report([scored])["models"]
    assert {name: figure["value"] for name, figure in model["scores"].items()} == pytest.approx(expected)
    for figure in model["scores"].values():
        assert figure["low"] - 1e-9 <= figure["value"] <= figure["high"] + 1e-9


def test_bins_share_the_pages_out_as_the_papers_table(files):
    """12 pages have 100 to 210 text tokens: five below 150 and two from 200 on. Each bin has its own scores."""
    scored = score(files[1])
    bins = report([scored], [150, 200])["models"][0]["bins"]
    assert [(row["bin"], row["pages"]) for row in bins] == [("<150", 5), ("150-200", 5), ("200+", 2)]
    assert [row["compression_ratio"] for row in bins] == [pytest.approx(x) for x in (2.4, 3.4, 4.1)]
    last = scored.predictions[-2:]
    alone = evaluate([p.prediction for p in last], [p.reference for p in last])
    assert bins[-1]["scores"]["rouge1"]["value"] == pytest.approx(alone["rouge1"])


def test_bins_are_the_papers_where_the_pages_are():
    assert nice_edges(list(range(600, 1300))) == [600, 700, 800, 900, 1000, 1100, 1200, 1300]
    assert nice_edges([0, 0]) == []  # unknown lengths
    assert nice_edges([137] * 9) == [130, 140]


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=50))
def test_bins_are_few_and_round_and_hold_most_pages(tokens):
    edges = nice_edges(tokens)
    assert edges == sorted(edges) and len(edges) <= 9
    steps = np.diff([0, *edges] if len(edges) == 1 else edges)
    assert len(set(steps)) == 1 and int(str(steps[0]).rstrip("0")) in (1, 2, 5)
    low, high = np.quantile(tokens, [0.05, 0.95])
    assert high < edges[-1] and (edges[0] <= low or edges[0] == steps[0])  # a bin that starts at 0 needs no lower bound


def test_costs_are_per_page_and_what_is_not_known_is_left_out():
    pages = [
        page(0, "x", seconds=1.0, peak_bytes=5, finish_reason="length"),
        page(2, "x", seconds=3.0, peak_bytes=9),
    ]
    assert costs(pages) == {
        "text_tokens": 110,
        "vision_tokens": 50,
        "compression_ratio": 2.2,
        "seconds": 2,
        "peak_bytes": 9,
        "cut_off": 50,
    }
    assert costs([Prediction("a", "b", "c")]) == {"cut_off": 0}


# --- One model against another ----------------------------------------------------------------------------------------


def test_a_difference_is_that_of_the_figures_and_has_a_sign(files):
    before, after = (score(file) for file in files)
    there, back = compare(before, after), compare(after, before)
    for name in ("rouge1", "cer", "wer"):
        gap = after.tallies[name].value - before.tallies[name].value
        assert there[name]["difference"] == pytest.approx(gap) == pytest.approx(-back[name]["difference"])
        assert there[name]["p"] == back[name]["p"]
    assert there["rouge1"]["low"] > 0 and there["rouge1"]["p"] < 0.01  # better on all but a few of 12 pages
    assert compare(before, before)["rouge1"] == {"difference": 0, "low": 0, "high": 0, "p": 1}


def test_a_summary_alone_is_compared_with_the_first_three_sentences(files):
    found = report([score(files[0])])
    lead3 = ["The pump failed at noon. Ada fixed it. It cost 7 euros."] * 12
    references = [page(i, "").reference for i in range(12)]
    assert found["lead3"]["rouge1"]["value"] == pytest.approx(evaluate(lead3, references)["rouge1"])
    assert [(c["of"], c["against"]) for c in found["comparisons"]] == [("p", LEAD)]
    assert report([score(files[0], task="ocr")])["lead3"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pages: pages[:2], "number 3 is page-2 in p and missing in other"),
        (lambda pages: [pages[0], pages[2]], "number 2 is page-1 in p and page-2 in other"),
        (lambda pages: [pages[0], Prediction("page-1", "another", "x")], "page-1 has another reference in other"),
    ],
)
def test_models_must_have_read_the_same_pages(tmp_path, files, change, message):
    pages = change([page(i, "x") for i in range(3)])
    other = score(write(tmp_path / "other.jsonl", pages), name="other")
    with pytest.raises(ValueError, match=f"the models have read different documents: {message}"):
        report([score(files[0]), other])


def test_one_page_natural_and_corrupted_is_one_page(tmp_path):
    """A model may be compared with itself on corrupted text: the pages are the same, but their text is different."""
    settings = {"task": "ocr", "corrupt": "natural"}
    natural = write(tmp_path / "natural.jsonl", [Prediction(f"{i}", "ab cd", "ab cd") for i in range(8)], **settings)
    random = [Prediction(f"{i}", "xq vw", "xq ab") for i in range(8)]
    settings["corrupt"] = "random"
    scored = [score(natural), score(write(tmp_path / "random.jsonl", random, **settings))]
    (comparison,) = report(scored)["comparisons"]
    assert comparison["scores"]["ocr_precision"]["difference"] == pytest.approx(-40)  # two characters of five


def test_names_tell_files_apart():
    def names(*paths):
        return distinct_names([Path(path) for path in paths])

    assert names("runs/a/predictions.jsonl", "runs/b/predictions.jsonl") == ["a", "b"]
    assert names("x/one.jsonl", "x/two.jsonl") == ["one", "two"]
    assert names("a.jsonl", "x/a.jsonl") == ["a", "x/a"] and names("a.jsonl", "a/b.jsonl") == ["a", "a/b"]
    assert names("x/one.jsonl") == ["one"]
    with pytest.raises(ValueError, match=r"is given twice: a.jsonl, a.jsonl"):
        names("a.jsonl", "a.jsonl")


# --- The command ------------------------------------------------------------------------------------------------------


def test_evaluate_compares_two_files_in_a_table_json_and_plots(files, tmp_path, capsys):
    out = tmp_path / "out"
    code, shown, _ = run(capsys, *files, "--out", out, "--bins", "150,200")
    assert code == 0
    for words in ("12 documents", "lead-3", "ROUGE-Lsum", "after minus before", "150-200", "compression"):
        assert words in shown
    found = json.loads((out / "evaluation.json").read_text())
    assert [model["name"] for model in found["models"]] == ["before", "after"]
    assert found["comparisons"][0]["scores"]["rouge1"]["difference"] > 0
    for name in ("scores.png", "lengths.png", "differences.png"):
        assert Image.open(out / name).size > (900, 500)


def test_evaluate_scores_another_programs_lines_and_says_what_is_missing(tmp_path, capsys):
    path = tmp_path / "theirs.jsonl"
    path.write_text('{"id": "a", "reference": "one two", "prediction": "one two"}\n')
    code, shown, _ = run(capsys, path, "--task", "ocr")
    assert code == 0 and "OCR precision %" in shown and "100.0" in shown and "ROUGE" not in shown
    text = write(tmp_path / "cut.jsonl", [page(0, "x"), page(1, "x")]).read_text()
    (tmp_path / "cut.jsonl").write_text(text[: text.rindex('"source"')])
    code, _, told = run(capsys, tmp_path / "cut.jsonl")
    assert code == 0 and "has 1 of 2 predictions: `generate` was stopped" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no/such/file.jsonl"], "no/such/file.jsonl: there is no such file of predictions"),
        (["empty.jsonl"], "holds no predictions yet"),
        (["empty.jsonl", "--bins", "200,100"], "'200,100': bins are rising numbers of tokens"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    write(Path("empty.jsonl"), [])
    code, _, told = run(capsys, *arguments)
    assert code == 2 and message in told


def test_a_script_that_rouge_does_not_see_is_told_and_not_scored_0(tmp_path, capsys):
    from lightseek.__main__ import main

    texts = {"chinese": ["渡轮晚点了。", "船上有两个人。"], "mixed": ["渡轮晚点了。", "Two people were on board."]}
    for name, lines in texts.items():
        rows = [{"id": str(i), "reference": t, "prediction": t, "text_tokens": 9 * i + 1} for i, t in enumerate(lines)]
        for file in (name, f"{name}-again"):
            (tmp_path / f"{file}.jsonl").write_text(
                "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
            )
        files = [str(tmp_path / f"{file}.jsonl") for file in (name, f"{name}-again")]
        out = tmp_path / f"{name}-scores"
        assert main(["evaluate", *files, "--task", "summarize", "--bins", "5", "--out", str(out)]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        found = json.loads((out / "evaluation.json").read_text())
        scores = found["models"][0]["scores"]
        if name == "chinese":
            assert "rouge1" not in scores and "ROUGE-1 not computable not computable" in shown
            assert "not computable for 2 of these documents, whose references are in other scripts" in shown
            assert "wer" not in scores and "WER % not computable not computable" in shown
            assert "not computable for 2 of these documents, whose references have no spaces between words" in shown
        else:
            assert scores["rouge1"]["value"] == 100 and "not computable for 1 of these documents" in shown
        assert scores["cer"]["value"] == 0 and (out / "lengths.png").stat().st_size > 0
