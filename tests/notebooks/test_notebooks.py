"""Tests of the notebooks: the committed outputs belong to the sources, and the notebooks run (marker `notebooks`)."""

import json
import re

import nbformat
import pytest

from notebooks.build import execute, notebook, sources

BOOKS = sources()
LARGEST = 600_000  # bytes of a notebook with its outputs
FOREIGN = re.compile(r"/tmp/|/home/|/root/|\bhttps?://")


@pytest.mark.parametrize("source", BOOKS, ids=lambda path: path.stem)
def test_the_outputs_are_those_of_the_source(source):
    """Run `python -m notebooks.build NN` if this fails."""
    kept, fresh = nbformat.read(source.with_suffix(".ipynb"), as_version=4), notebook(source)
    nbformat.validate(kept)
    assert [(cell.cell_type, cell.source) for cell in kept.cells] == [
        (cell.cell_type, cell.source) for cell in fresh.cells
    ]
    code = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert all(output.output_type != "error" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("source", BOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_names_no_folder_of_its_machine(source):
    text = source.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert len(text) < LARGEST
    kept = json.loads(text)
    told = [output for cell in kept["cells"] for output in cell.get("outputs", [])]
    for output in told:
        output.get("data", {}).pop("image/png", None)
    assert not FOREIGN.search(json.dumps(told))


@pytest.mark.parametrize("source", BOOKS, ids=lambda path: path.stem)
def test_each_exercise_of_the_notebook_is_unsolved_in_it(source):
    text = source.read_text(encoding="utf-8")
    asked = re.findall(r'^check\("(\d\d\.\d)", ', text, re.MULTILINE)
    assert asked == [f"{source.name[:2]}.{i + 1}" for i in range(len(asked))] and 3 <= len(asked) <= 6
    assert len(re.findall(r"^ +raise NotImplementedError$", text, re.MULTILINE)) == len(asked)


@pytest.mark.notebooks
@pytest.mark.parametrize("source", BOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(source):
    execute(source)  # raises the error of a cell
