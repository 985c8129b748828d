"""The settings of the documentation site, which `python docs/make_site.py` builds."""

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

project = "LightSeek"
copyright = "the authors of LightSeek, MIT licence"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]

# The root of the repository is the source, so that links such as ../README.md lead to the same files as on disk.
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "docs/*.md",
    "docs/reference/*.md",
    "notebooks/[0-9]*.ipynb",
    "experiments/*/README.md",
    "experiments/serve/vllm.md",
    "benchmarks/README.md",
]

nb_execution_mode = "off"  # the notebooks are kept with their outputs
nb_merge_streams = True  # otherwise each line that a cell prints has a box of its own
nb_ipywidgets_js: dict[str, Any] = {}  # otherwise a page with widgets would load scripts from another machine
myst_heading_anchors = 4
default_role = "literal"  # the docstrings write `code` as Markdown does

autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_inherit_docstrings = False  # PyTorch's text about `forward` says nothing about ours
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = "LightSeek"
html_show_sphinx = False


def as_rst(lines: list[str]) -> list[str]:
    """Return a docstring as reStructuredText: figures and tables stay as they are, and only backticks are markup."""
    found: list[str] = []
    for paragraph in "\n".join(lines).split("\n\n"):
        drawn = any(line.startswith(" ") or "   " in line for line in paragraph.splitlines())
        if paragraph.lstrip().startswith(">>>"):
            found += [*paragraph.splitlines(), ""]
        elif drawn and not paragraph.startswith("- "):
            found += ["::", "", *(f"    {line}" for line in paragraph.splitlines()), ""]
        else:
            pieces = re.split(r"(`[^`]*`)", paragraph)
            pieces[::2] = [re.sub(r"([\\*_|])", r"\\\1", piece) for piece in pieces[::2]]
            found += [*"".join(pieces).splitlines(), ""]
    return found


def setup(app: Any) -> None:
    def process(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
        lines[:] = as_rst(lines)

    def skip(app: Any, what: str, name: str, thing: Any, skipped: bool, options: Any) -> bool | None:
        return False if name == "forward" else None  # its signature has the shapes, even without a docstring

    app.connect("autodoc-process-docstring", process)
    app.connect("autodoc-skip-member", skip)
