"""Run the notebooks: each `NN_name.py` (jupytext's percent format) becomes `NN_name.ipynb` with its outputs.

    python -m notebooks.build            # all of them, some minutes
    python -m notebooks.build 02 04      # only these

Needs `pip install -e ".[notebooks]"`.
"""

import resource
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parent
LIMIT = 1200  # seconds a cell, on a busy machine too


def sources(numbers: list[str] | None = None) -> list[Path]:
    """Return the notebooks' sources in order, or those with the given numbers. Raises ValueError if one is unknown."""
    found = sorted(FOLDER.glob("[0-9][0-9]_*.py"))
    if unknown := [number for number in numbers or [] if number not in {path.name[:2] for path in found}]:
        raise ValueError(f"no notebook {unknown[0]}: there are {', '.join(path.stem for path in found)}")
    return [path for path in found if not numbers or path.name[:2] in numbers]


def notebook(source: Path) -> NotebookNode:
    """Return the notebook of a source, without outputs. The same source always gives the same notebook."""
    book = jupytext.read(source)
    for number, cell in enumerate(book.cells):
        cell.id = f"{source.stem[:2]}-{number:02}"  # the default is random
    book.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return book


def execute(source: Path) -> NotebookNode:
    """Run a notebook from its beginning, in its folder, and return it with its outputs. Raises an error of a cell."""
    book = notebook(source)
    NotebookClient(
        book, timeout=LIMIT, kernel_name="python3", record_timing=False, resources={"metadata": {"path": str(FOLDER)}}
    ).execute()
    book.metadata.pop("language_info", None)  # it names the version of Python
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not is_progress(output)]
    return book


def is_progress(output: NotebookNode) -> bool:
    """Return whether an output is a progress bar or a warning, which are not parts of the lesson."""
    return output.get("name") == "stderr" or (output.output_type == "display_data" and "image/png" not in output.data)


def cpu() -> float:
    """Return the CPU time of the notebooks that ended so far, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(numbers: list[str]) -> None:
    for source in sources(numbers):
        began, before = time.monotonic(), cpu()
        book = execute(source)
        nbformat.write(book, source.with_suffix(".ipynb"))
        size = source.with_suffix(".ipynb").stat().st_size / 1e3
        print(
            f"{source.stem}: {time.monotonic() - began:.0f} s, {cpu() - before:.0f} s of CPU, {size:.0f} kB", flush=True
        )


if __name__ == "__main__":
    main(sys.argv[1:])
