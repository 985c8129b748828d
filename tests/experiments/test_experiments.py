"""Tests that each experiment can be run, that its tables are those of the committed results, and how they are made."""

import json
import shutil
from pathlib import Path

import pytest

import experiments.__main__ as program
from experiments import tables
from experiments.results import compact, stored
from lightseek.commands.arguments import parse_run
from lightseek.lab.grid import grid
from lightseek.scores.kinds import METRICS
from lightseek.training.settings import RunConfig

HERE = Path(program.__file__).parent
GRIDS = [path for name in program.names() for path in program.grids(HERE / name)]


def figure(value: float, spread: float = 1) -> dict:
    return {"value": value, "low": value - spread, "high": value + spread}


def row(mode: str, size: str, value: float, kind: str = "cell") -> dict:
    return {
        "name": f"mode={mode}, characters={size}", "kind": kind, "settings": {"mode": mode, "characters": size},
        "figures": {"cer": figure(value), "words": figure(7)}, "seeds": 3, "documents": 48, "cut": 2,
        "cost": {"official_ratio": 1.5}, "error": None, "cells": [],
    }  # fmt: skip


ROWS = [row("64 (tiny)", "128", 20), row("100 (small)", "128", 10), row("64 (tiny)", "256", 60)]
DIFFERENCE = {
    "row": ROWS[1]["name"], "baseline": ROWS[0]["name"], "metric": "cer", "figure": figure(-10),
    "p": 0.001, "adjusted": 0.002, "detectable": 3, "resolved": True,
}  # fmt: skip
SUMMARY = {"task": "ocr", "swept": ["mode", "characters"], "rows": ROWS, "differences": [DIFFERENCE]}


def test_there_are_eight_experiments_and_each_has_a_question(capsys):
    expected = "autoencoding compression compressor crutch decoder freezing global-stage real-text"
    assert program.main([]) == 0
    listed = capsys.readouterr().out
    assert program.names() == expected.split() and all(f"{name}: " in listed for name in program.names())
    assert all(program.question(HERE / name).count("?") for name in program.names())


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_each_grid_is_one_and_its_readme_shows_it(path, tmp_path):
    lists, _ = parse_run("ablate.py", "", ["--config", str(path)], lambda parser: None, grid=True)
    cells, _ = grid(RunConfig(), lists, tmp_path)
    assert len(cells) >= 1 and not [name for name in lists if name == "seed"]
    text = (path.parent / "README.md").read_text()
    shown = [match for match in tables.MARK.findall(text) if match[2].split()[0] == path.stem]
    names = {name for match in shown for pair in match[2].split() if "metrics=" in pair for name in pair[8:].split(",")}
    assert shown and names <= set(METRICS)


def test_the_tables_are_those_of_the_committed_results():
    assert program.main(["--check"]) == 0


def test_a_claim_names_an_experiment_and_a_metric():
    for claim in json.loads((HERE / "claims.json").read_text()):
        if test := claim.get("test"):
            assert (HERE / test["experiment"] / f"{test.get('grid', 'config')}.json").is_file()
            assert test["metric"] in METRICS and test["is"] in ("higher", "lower")


def test_a_list_has_intervals_and_the_difference_from_the_baseline():
    lines = tables.listed(SUMMARY, ["cer", "words"]).strip().splitlines()
    assert lines[0] == "|  | CER % | words | difference | documents x seeds | cut off |"
    assert lines[2].endswith("| 20.0 (19.0 to 21.0) | 7.00 (6.00 to 8.00) | baseline | 48 x 3 | 2 |")
    assert "| -10.0 (-11.0 to -9.00), p = 0.002 |" in lines[3] and len(lines) == 5


def test_a_crossed_table_has_a_column_for_each_value_and_the_ratio_of_each_length():
    lines = tables.table(SUMMARY, "cer,words", "mode").strip().splitlines()
    assert lines[1:] == [
        "",
        "| characters | 64 (tiny) | 100 (small) |",
        "|---|---|---|",
        "| 128 | 20.0 / 7.00 (1.5x) | 10.0 / 7.00 (1.5x) |",
        "| 256 | 60.0 / 7.00 (1.5x) |  |",
    ]


def test_a_page_is_filled_between_its_marks_only(tmp_path):
    one, other = (f"<!-- table {name} metrics=cer -->\n" for name in ("config", "other"))
    page = f"a\n{one}old\n<!-- end -->\nb\n{other}<!-- end -->\n"
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "config.json").write_text(json.dumps(SUMMARY))
    filled = tables.fill(page, tmp_path)
    assert filled.startswith("a\n<!-- table config metrics=cer -->\n") and "old" not in filled and "\nb\n" in filled
    assert filled.count("20.0 (19.0 to 21.0)") == 1 and filled.count(tables.MISSING) == 1
    assert tables.fill(filled, tmp_path) == filled
    with pytest.raises(ValueError, match="a table has no rows: <!-- table config rows=1 -->"):
        tables.fill("<!-- table config rows=1 -->\n<!-- end -->", tmp_path)


@pytest.mark.parametrize(
    ("than", "row", "direction", "verdict"),
    [
        ("128 tiny", "128 small", "lower", "held"),  # by the difference
        ("128 tiny", "128 small", "higher", "did not hold"),
        ("128 small", "256 tiny", "higher", "held"),  # by intervals that are apart
        ("128 small", "128 small", "higher", "not resolved"),
        ("128 small", "512 small", "higher", "open"),
    ],
)
def test_a_claim_is_held_if_its_difference_is_resolved(tmp_path, than, row, direction, verdict):
    def wanted(text: str) -> dict[str, str]:
        return dict(zip(("characters", "mode"), text.split(), strict=True))

    test = {"experiment": "x", "metric": "cer", "is": direction, "row": wanted(row), "than": wanted(than)}
    entry = {"claim": "c", "source": "s", "unknown": "u", "test": test}
    assert tables.verdict(entry, tmp_path)[0] == "not run yet"
    (tmp_path / "x" / "results").mkdir(parents=True)
    (tmp_path / "x" / "results" / "config.json").write_text(json.dumps(SUMMARY))
    assert tables.verdict(entry, tmp_path)[0] == verdict
    assert tables.verdict({"claim": "c"}, tmp_path)[0] == "open"


def test_a_claim_is_open_if_the_upper_line_is_below_its_rows(tmp_path):
    """The CER of the three rows is 20, 40 and 60 %, and a low one is good."""
    rows = [
        {"kind": kind, "name": kind, "settings": {}, "documents": 4, "seeds": 1, "figures": {"cer": figure}}
        for kind, figure in (
            (kind, dict.fromkeys(("value", "low", "high"), value))
            for kind, value in (("good", 20.0), ("poor", 40.0), ("bad", 60.0))
        )
    ]
    (tmp_path / "x" / "results").mkdir(parents=True)
    (tmp_path / "x" / "results" / "config.json").write_text(json.dumps({"rows": rows, "differences": []}))
    test = {"experiment": "x", "metric": "cer", "is": "lower", "row": {"kind": "poor"}, "than": {"kind": "bad"}}
    assert tables.verdict({"test": test}, tmp_path)[0] == "held"
    assert tables.verdict({"test": test | {"upper": {"kind": "good"}}}, tmp_path)[0] == "held"
    found, why = tables.verdict({"test": test | {"upper": {"kind": "bad"}}}, tmp_path)
    assert found == "open" and "but the upper line, bad, has 60.0" in why


def test_numbers_are_short_and_json():
    assert compact({"a": [0.123456789, float("nan")], "b": (1, "x")}) == {"a": [0.12346, None], "b": [1, "x"]}


def test_check_tells_a_page_that_differs(tmp_path, monkeypatch, capsys):
    for name in ("experiments/decoder", "docs"):
        shutil.copytree(HERE.parent / name, tmp_path / name)
    shutil.copy(HERE / "claims.json", tmp_path / "experiments")
    monkeypatch.setattr(program, "HERE", tmp_path / "experiments")
    page = tmp_path / "experiments" / "decoder" / "README.md"
    program.check(write=True)
    text = page.read_text()
    page.write_text(text.replace("metrics=bits -->\n", "metrics=bits -->\nby hand\n"))
    capsys.readouterr()
    assert program.main(["--check"]) == 1
    assert "experiments/decoder/README.md differs from the committed results" in " ".join(
        capsys.readouterr().out.split()
    )
    program.check(write=True)
    assert page.read_text() == text and program.main(["--check"]) == 0
    assert stored(page.parent, "missing") is None
