"""Tests of the reader of JSON: its limits, and that each error names the file."""

import pytest

from lightseek.tools.json_files import DEEPEST, MOST_DIGITS, JsonError, check_fields, parse_json, read_json


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"[" * 100_000, "more than 100 brackets"),
        (b"[" * 500 + b"]" * 500, "more than 100 brackets"),
        (b'{"a":' * (DEEPEST + 1) + b"1" + b"}" * (DEEPEST + 1), "more than 100 brackets"),
        (b"[" + b"7" * (MOST_DIGITS + 1) + b"]", "a whole number has 301 digits"),
        (b"\xff", "byte 0 is not UTF-8"),
        (b'{"a": 1', "Expecting ',' delimiter"),
        (b"", "Expecting value"),
    ],
)
def test_what_is_not_json_or_over_a_limit_is_one_line_that_names_the_file(tmp_path, content, complaint):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(JsonError, match=complaint) as error:
        read_json(path)
    assert str(error.value).startswith(f"{path}: not valid JSON (") and "\n" not in str(error.value)


def test_the_limits_are_the_last_values_that_pass(tmp_path):
    deepest = "[" * DEEPEST + "]" * DEEPEST
    assert len(repr(parse_json(deepest, "x"))) == 2 * DEEPEST
    assert parse_json("9" * MOST_DIGITS, "x") == 10**MOST_DIGITS - 1
    many = "[" + ", ".join(['{"a": [1]}'] * 1000) + "]"  # many brackets, and few inside each other
    assert len(parse_json(many, "x")) == 1000
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1, 2]")
    assert read_json(tmp_path / "a.json", most=9) == [1, 2]
    with pytest.raises(JsonError, match=r"a\.json is larger than"):
        read_json(tmp_path / "a.json", most=8)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "b.json")


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("a text", ["", "é"], [1, None, "half \ud800"]),
        ("a whole number", [0, 5], [-1, 1.0, True, 2**63]),
        ("a number", [0, -1.5], [float("inf"), float("nan"), "1", False]),
        ("a number or NaN", [1, float("nan")], [float("inf")]),
        ("true or false", [True], [0, "true"]),
        ("an object", [{}], [[]]),
        ("a list of texts", [[], ["a"]], [True, "a", [1], ["\udfff"]]),
        ("a list of whole numbers", [[1]], [[1.5], {}]),
        ("a list of objects", [[{}]], [[1], {}]),
    ],
)
def test_each_kind_of_field(kind, right, wrong):
    for value in right:
        assert check_fields({"x": value, "other": object}, {"x": kind})["x"] is value
    for value in wrong:
        with pytest.raises(JsonError, match=f"^FILE: 'x' must be {kind}"):
            check_fields({"x": value}, {"x": kind}, name="FILE")


def test_an_optional_field_may_be_null_and_a_required_one_may_not():
    assert check_fields({"x": None}, {}, {"x": "a text"}) == {"x": None}
    with pytest.raises(JsonError, match="'x' is missing"):
        check_fields({}, {"x": "a text"})
    with pytest.raises(JsonError, match="it is not a JSON object"):
        check_fields([], {})
