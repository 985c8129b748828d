"""Tests of settings: the defaults, JSON files, key=value, flags and grids."""

import json
from dataclasses import asdict

import pytest

from lightseek.commands.arguments import parse_run
from lightseek.training.settings import RunConfig


def parse(argv, grid=False):
    return parse_run("program", "", argv, lambda parser: parser.add_argument("--out", default="runs"), grid)


def test_nothing_given_leaves_every_default():
    settings, arguments = parse([])
    assert settings == {} and arguments.out == "runs"
    assert RunConfig().tokens == "100"


def test_later_wins_file_then_key_value_then_flag(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"steps": 10, "batch": 2, "lr": 1e-4, "tokens": 256}))
    settings, _ = parse(["--config", str(path), "batch=3", "lr=0.5", "--lr", "0.25"])
    assert settings == {"steps": 10, "batch": 3, "lr": 0.25, "tokens": "256"}


def test_lists_become_a_grid_and_single_values_lists_of_one():
    settings, _ = parse(["--tokens", "64", "100", "--freeze", "encoder", "none", "--steps", "5"], grid=True)
    assert settings == {"tokens": ["64", "100"], "freeze": ["encoder", "none"], "steps": [5]}


def test_types_are_read_from_the_dataclass():
    settings, _ = parse(["--gradient-checkpointing", "model=none", "max-new-tokens=9", "summary_column=none"])
    assert settings == {"gradient_checkpointing": True, "model": None, "max_new_tokens": 9, "summary_column": None}


def test_a_saved_config_reads_back_the_same(tmp_path):
    config = RunConfig(tokens="gundam", lr=3e-4, gradient_checkpointing=True, model=None)
    config.save(tmp_path / "config.json")
    settings, _ = parse(["--config", str(tmp_path / "config.json")])
    assert RunConfig(**settings) == config and settings == asdict(config)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["stepz=3"], "unknown setting 'stepz'"),
        (["steps=3.5"], "steps='3.5': expected int"),
        (["steps=many"], "steps='many': expected int"),
        (["nonsense"], "'nonsense' is neither a flag nor key=value"),
        (["--config", "no/such.json"], "No such file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(argv, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(argv)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_config_that_is_no_object_says_so(tmp_path, capsys):
    path = tmp_path / "x.json"
    path.write_text("[1, 2]")
    with pytest.raises(SystemExit):
        parse(["--config", str(path)])
    assert "expected a JSON object" in capsys.readouterr().err
