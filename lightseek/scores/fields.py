"""Scores what `extract` read out of documents, field by field, against the right answers.

A field is a path such as `seller.name` or `lines[].price`: all places of a list count as one field. In each document a
field has the values that the answer has there. `exact` is the share of documents in which they are the right ones. `F1`
is the mean over documents of 2 · right / (written + wanted), where a value counts as often as it occurs.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightseek.scores.compare import differences, figures
from lightseek.scores.metrics import Tally
from lightseek.tools.json_files import check_fields, parse_json

ALL = "all fields"
NONE: Counter[str] = Counter()
Values = dict[str, Counter[str]]  # field -> how often each value, as JSON, is there


def read_answers(path: Path) -> dict[str, Any]:
    """Return file -> value from the lines that `extract` prints for several files.

    Raises ValueError, which names the line, for anything else.
    """
    found = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if line.strip():
            place = f"{path}, line {number}"
            row = check_fields(parse_json(line, place), {"file": "a text"}, {}, place)
            if "value" not in row or row["file"] in found:
                what = "has no value" if "value" not in row else "is the second one for its file"
                raise ValueError(f"{place} {what}: write one line for each file, as `extract` does")
            found[row["file"]] = row["value"]
    if not found:
        raise ValueError(f"{path} holds no answers")
    return found


def values_of(answer: Any) -> Values:
    """Return the values of each field of an answer, and all of them together."""
    found: Values = {ALL: Counter()}
    for field, value in leaves(answer):
        found.setdefault(field, Counter())[value] += 1
        found[ALL][f"{field}: {value}"] += 1
    return found


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (field, value as JSON) for everything in an answer but objects and lists that hold something."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from leaves(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value:
        for inner in value:
            yield from leaves(inner, f"{path}[]")
    else:
        number = isinstance(value, float) and value.is_integer()
        yield path or "answer", json.dumps(int(value) if number else value, ensure_ascii=False)  # 2.0 is 2


def compare_fields(right: dict[str, Any], models: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Return the figures of each model, and the differences to the first one.

    `right` and the answers of each model are file -> value. A file without an answer counts as one in which every field
    is missing. Raises ValueError for an answer about a file that is not among the right ones.
    """
    for name, answers in models:
        if others := sorted(answers.keys() - right.keys()):
            raise ValueError(f"{name} has an answer for {others[0]}, which is not among the right answers")
    wanted = [values_of(value) for value in right.values()]
    written = [[values_of(a[file]) if file in a else {} for file in right] for _, a in models]
    documents = list(zip(wanted, *written, strict=True))
    fields = [ALL, *dict.fromkeys(f for rows in (wanted, *written) for row in rows for f in row if f != ALL)]
    asked = {field: [any(field in row for row in rows) for rows in documents] for field in fields}
    scored = [tallies_of(wanted, rows, asked) for rows in written]
    names = [name for name, _ in models]
    return {
        "documents": len(right),
        "fields": fields,
        "models": [{"name": n, "scores": figures(tallies)} for n, tallies in zip(names, scored, strict=True)],
        "comparisons": [
            {"of": n, "against": names[0], "scores": differences(scored[0], tallies)}
            for n, tallies in zip(names[1:], scored[1:], strict=True)
        ],
    }


def tallies_of(wanted: list[Values], written: list[Values], asked: dict[str, list[bool]]) -> dict[str, Tally]:
    """Return two tallies for each field. `asked` says in which documents the field is, in any of the answers."""
    found = {}
    for field, known in asked.items():
        pairs = [(want.get(field, NONE), got.get(field, NONE)) for want, got in zip(wanted, written, strict=True)]
        found[f"{field}: exact"] = over(known, [100.0 * (want == got) for want, got in pairs])
        found[f"{field}: F1"] = over(known, [f1(want, got) for want, got in pairs])
    return found


def over(asked: list[bool], values: list[float]) -> Tally:
    return Tally.mean([value if known else None for known, value in zip(asked, values, strict=True)])


def f1(want: Counter[str], got: Counter[str]) -> float:
    """Return F1 in percent. It is 100 if nothing was wanted and nothing was written."""
    both = want.total() + got.total()
    return 200.0 * (want & got).total() / both if both else 100.0
