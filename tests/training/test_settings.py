"""Tests of settings: the defaults, JSON files, key=value, flags and grids."""

import json
import re
from dataclasses import asdict, fields

import pytest

from lightseek.commands.arguments import parse_run
from lightseek.training.settings import ALIASES, GROUPS, RunConfig, check, current, shown


def parse(argv, grid=False):
    return parse_run("program", "", argv, lambda parser: parser.add_argument("--out", default="runs"), grid)


def test_nothing_given_leaves_every_default():
    settings, arguments = parse([])
    assert settings == {} and arguments.out == "runs"
    assert RunConfig().mode == "small"


def test_later_wins_file_then_key_value_then_flag(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"steps": 10, "batch": 2, "lr": 1e-4, "tokens": 256}))
    settings, _ = parse(["--config", str(path), "batch=3", "lr=0.5", "--lr", "0.25"])
    assert settings == {"steps": 10, "batch": 3, "lr": 0.25, "mode": "256"}


def test_lists_become_a_grid_and_single_values_lists_of_one():
    settings, _ = parse(["--tokens", "64", "100", "--freeze", "encoder", "none", "--steps", "5"], grid=True)
    assert settings == {"mode": ["64", "100"], "freeze": ["encoder", None], "steps": [5]}


def test_key_value_stands_anywhere_in_a_grid_too():
    argv = ["lr=1e-3", "--tokens", "64", "100", "--freeze", "encoder", "none", "steps=6", "--task", "ocr", "batch=2"]
    settings, arguments = parse([*argv, "--out", "here", "seed=1"], grid=True)
    assert settings == {
        "lr": [1e-3], "mode": ["64", "100"], "freeze": ["encoder", None], "steps": [6], "task": ["ocr"], "batch": [2],
        "seed": [1],
    }  # fmt: skip
    assert arguments.out == "here"


def test_values_that_are_written_like_settings_stay_values():
    argv = ["--lr-boxes", "none", "encoder=1e-5", "steps=6", "--data", "steps=6.jsonl"]
    settings, _ = parse(argv, grid=True)
    assert settings == {"lr_boxes": [None, "encoder=1e-5"], "steps": [6], "data": ["steps=6.jsonl"]}


def test_an_unknown_key_behind_the_values_of_a_flag_is_told(capsys):
    with pytest.raises(SystemExit):
        parse(["--freeze", "encoder", "none", "stpes=6"], grid=True)
    assert "unknown setting 'stpes'; did you mean steps?" in capsys.readouterr().err


@pytest.mark.parametrize("grid", [False, True])
@pytest.mark.parametrize("alias", ALIASES)
def test_every_alias_works_as_flag_as_key_and_in_a_file(alias, grid, tmp_path):
    name = ALIASES[alias]
    path = tmp_path / "x.json"
    path.write_text(json.dumps({alias: 64}))
    ways = [["--" + alias.replace("_", "-"), "64"], [f"{alias}=64"], ["--config", str(path)]]
    for argv in [*ways, ["--" + name.replace("_", "-"), "64"], [f"{name}=64"]]:
        settings, _ = parse(argv, grid)
        (value,) = settings[name] if grid else [settings[name]]
        assert list(settings) == [name] and float(value) == 64


@pytest.mark.parametrize("given", ["64", "tiny"])
def test_a_mode_is_stored_by_its_name(given):
    config = RunConfig(mode=given)
    assert config.mode == "tiny" and shown("mode", config.mode) == "64 (tiny)" and shown("mode", "gundam") == "gundam"
    with pytest.raises(ValueError, match="unknown mode '65'"):
        RunConfig(mode="65")


def test_nothing_is_none_on_the_command_line_and_in_the_files_of_older_runs():
    optional = [setting.name for setting in fields(RunConfig) if "None" in str(setting.type)]
    assert {"freeze", "lora", "quantize", "precision", "best", "decoder"} <= set(optional)
    settings, _ = parse([f"{name}=none" for name in optional])
    assert settings == dict.fromkeys(optional)
    assert parse(["precision=no"])[0] == {"precision": None}
    old = {"tokens": "100", "freeze": "none", "lora": "none", "precision": "no", "clip": 1.0, "pages": 8, "lr": 0.5}
    assert current(old) == {
        "mode": "small", "freeze": None, "lora": None, "precision": None,
        "max_grad_norm": 1.0, "max_pages": 8, "lr": 0.5,
    }  # fmt: skip


def test_the_groups_have_every_setting_once_and_the_help_tells_its_kinds(capsys):
    grouped = [name for group in GROUPS for name in group.__annotations__]
    assert grouped == [setting.name for setting in fields(RunConfig)]
    with pytest.raises(SystemExit):
        parse(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    for group in GROUPS:
        assert group.__doc__.partition(":")[0] + ":" in told
    for setting in fields(RunConfig):
        assert f"--{setting.name.replace('_', '-')}" in told
        for kind in setting.metadata["kinds"] or ():
            assert kind in told


@pytest.mark.parametrize("name", [setting.name for setting in fields(RunConfig) if setting.metadata["kinds"]])
def test_a_kind_that_is_not_in_the_registry_is_refused_with_the_choices(name):
    kinds = RunConfig.__dataclass_fields__[name].metadata["kinds"]
    with pytest.raises(ValueError, match=re.escape(f"unknown {kinds.what} 'x y': choose one of {kinds.choices}")):
        check(RunConfig(**{name: "x y"}))


def test_types_are_read_from_the_dataclass():
    settings, _ = parse(["--gradient-checkpointing", "model=none", "max-new-tokens=9", "summary_column=none"])
    assert settings == {"gradient_checkpointing": True, "model": None, "max_new_tokens": 9, "summary_column": None}


def test_a_saved_config_reads_back_the_same(tmp_path):
    config = RunConfig(mode="gundam", lr=3e-4, gradient_checkpointing=True, model=None)
    config.save(tmp_path / "config.json")
    settings, _ = parse(["--config", str(tmp_path / "config.json")])
    assert RunConfig(**settings) == config and settings == asdict(config)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["stepz=3"], "unknown setting 'stepz'; did you mean steps?"),
        (["wholly_else=3"], "unknown setting 'wholly_else'; the settings are model, init,"),
        (["--toknes", "64"], "unrecognized arguments: --toknes; did you mean --tokens?"),
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


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e400, -1.0, 1e12])
@pytest.mark.parametrize(
    "name", ["lr", "weight_decay", "epochs", "max_grad_norm", "save_seconds", "lora_alpha", "warmup"]
)
def test_numbers_of_a_run_are_finite_and_bounded(name, value):
    with pytest.raises(ValueError, match=f"{name} (must be|is a share)"):
        check(RunConfig(**{name: value}))


@pytest.mark.parametrize("name", ["steps", "batch", "lora_r", "train_documents", "max_pages", "eval_every"])
@pytest.mark.parametrize("value", [10**12, 0, -1])
def test_counts_of_a_run_are_positive_and_bounded(name, value):
    if (name, value) == ("steps", 0):  # a run without steps only evaluates
        return check(RunConfig(steps=0))
    with pytest.raises(ValueError, match=f"{name} must be"):
        check(RunConfig(**{name: value}))


@pytest.mark.parametrize("rate", ["inf", "nan", "1e400", "-1"])
def test_rates_of_parts_are_finite(rate):
    with pytest.raises(ValueError, match="expected PART=RATE"):
        check(RunConfig(lr_boxes=f"encoder={rate}"))


@pytest.mark.parametrize("text", ["1e400", "Infinity", "NaN"])
def test_a_json_file_with_a_number_that_is_none_is_refused_in_one_line(tmp_path, text, capsys):
    (tmp_path / "settings.json").write_text(f'{{"steps": {text}}}')
    with pytest.raises(SystemExit):
        parse_run("train.py", "", ["--config", str(tmp_path / "settings.json")], lambda parser: None)
    assert "steps=" in capsys.readouterr().err
