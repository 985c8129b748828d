"""Evaluation settings: what they change and what not, and that the cells of a grid that share a training train once."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from tiny_run import tiny_checkpoint, tiny_run

from lightseek.data.corruption import corrupt
from lightseek.lab.grid import check_cells, grid, groups, run_cell
from lightseek.lab.results import finish
from lightseek.lab.summary import _Cell, _shown
from lightseek.page.noise import add_noise
from lightseek.training.run import Run
from lightseek.training.settings import EvaluationSettings, RunConfig, as_tested, as_trained, check, page_spec

EVALUATED = {"eval_corrupt": ["natural", "random"], "eval_vision": [None, "zeroed"]}
COSTS = ("seconds", "bytes")  # figures that differ between two equal runs


@pytest.fixture(autouse=True)
def without_plots(monkeypatch):
    """Plots take most of the time of so small runs."""
    monkeypatch.setattr("lightseek.lab.results.plot_losses", lambda path, rows: None)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "model")


def cells_of(model: Path, out: Path, lists: dict, **settings) -> list:
    sizes = {"train_documents": 4, "eval_documents": 2, "steps": 2, "batch": 2}
    cache = {"freeze": "encoder", "cache_vision": True, "cache_dir": str(model.parent / "cache")}
    return grid(tiny_run(model, **{"task": "ocr", **sizes, **cache, **settings}), lists, out)[0]


def result_files(folder: Path) -> dict:
    """Return what is in a cell's folder, without times and memory."""
    results = json.loads((folder / "results.json").read_text())
    predictions = [json.loads(line) for line in (folder / "predictions.jsonl").open()]
    found = {"metrics": (folder / "metrics.jsonl").read_text(), "page": (folder / "page.png").read_bytes()}
    for number, row in enumerate([results, *predictions]):
        found[number] = {key: value for key, value in row.items() if not any(cost in key for cost in COSTS)}
    return found


def test_cells_that_differ_in_evaluation_settings_train_once_and_end_as_if_each_had_trained(model, tmp_path):
    cells = cells_of(model, tmp_path / "grid", EVALUATED | {"seed": [0, 1]})
    assert [len(group) for group in groups(cells)] == [4, 4]
    (group, _), steps = groups(cells), []
    for cell in group:
        run_cell(cell, lambda progress: steps.append(progress.step))
        states = list((tmp_path / "grid").rglob("*.safetensors"))
        assert bool(states) == (cell is not group[-1]) and {s.parent for s in states} <= {group[0].training}
    assert steps == [1, 2]
    alone = []
    for cell in group:
        run = Run(cell.config, tmp_path / "alone" / cell.folder.name)
        finish(run, run.fit())
        alone.append(result_files(run.folder))
    assert [result_files(cell.folder) for cell in group] == alone
    texts = [[found[2]["prediction"], found[2]["reference"]] for found in alone]
    assert texts[0][1] != texts[2][1] == corrupt(texts[0][1], "random", 0) and texts[1][1] == texts[0][1]
    assert group[0].finished()["settings"] == vars(group[0].config)


def test_a_group_that_is_killed_anywhere_ends_as_one_that_was_not(model, tmp_path, monkeypatch):
    """The cell that owns the training is not in the grid. The cells are killed in training, before and in the test,
    and before and after the results are written.
    """
    lists = {"eval_vision": ["zeroed", "mean"]}
    whole, broken = (cells_of(model, tmp_path / name, lists, save_seconds=0.0) for name in ("whole", "broken"))
    steps = []

    class Killed(BaseException):
        pass

    def kill(*_):
        raise Killed

    def killed(cell, place=None, at_step=None, tick=None):
        def report(progress):
            steps.append(progress.step)
            if progress.step == at_step:
                kill()

        with monkeypatch.context() as patch, pytest.raises(Killed):
            if place:
                patch.setattr(place, kill)
            run_cell(cell, report, tick)

    for cell in whole:
        run_cell(cell)
    first, last = broken
    killed(first, at_step=1)
    killed(first, "lightseek.training.run.write_text")  # the training is done, and its log is not copied
    killed(first, tick=kill)
    killed(first, "lightseek.lab.results.write_json")
    run_cell(first, lambda progress: pytest.fail("it trained again"))
    killed(last, tick=kill)
    killed(last, "lightseek.training.state.remove_states")
    assert steps in ([1, 1, 2], [1, 2]) and any(first.training.glob("*.safetensors"))
    assert first.training.name not in {cell.folder.name for cell in broken}
    for one, other in zip(whole, broken, strict=True):
        run_cell(other, lambda progress: pytest.fail("it trained again"))
        assert result_files(one.folder) == result_files(other.folder)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_only_the_test_is_changed(model, tmp_path):
    changes = {"eval_corrupt": "random", "eval_noise": "speckle", "eval_letters": "20", "eval_font": "DejaVuSerif"}
    config = tiny_run(model, task="ocr", noise="jpeg", corrupt="shuffled")  # with seed 0, as all test pages
    plain, changed = Run(config, tmp_path / "a"), Run(replace(config, **changes), tmp_path / "b")
    assert plain.make_test is plain.make and plain.origin == changed.origin
    assert [d.text for d in changed.documents + changed.validation] == [
        d.text for d in plain.documents + plain.validation
    ]
    document = changed.documents[0]
    assert torch.equal(plain.make(document).pages[0].global_view, changed.make(document).pages[0].global_view)
    alike = Run(tiny_run(model, task="ocr", corrupt="random", letters="20", font="DejaVuSerif"), tmp_path / "c")
    assert [d.text for d in changed.test] == [d.text for d in alike.test] != [d.text for d in plain.test]
    (page,), (clean,) = changed.make_test.images(changed.test[0]), alike.make.images(changed.test[0])
    assert page.tobytes() == add_noise(clean, "speckle", 0).tobytes()


def test_the_training_takes_no_notice_of_the_edit_and_clean_takes_the_noise_away(model, tmp_path):
    config = tiny_run(model, task="ocr", noise="blur", letters="20", steps=1, samples=1)
    plain = Run(config, tmp_path / "plain").fit()
    run = Run(replace(config, eval_vision="zeroed", eval_noise="clean", eval_letters="fit"), tmp_path / "run")
    seen = []
    run.model.decoder.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    assert run.fit()["eval_loss"] == plain["eval_loss"]
    assert all(x[0, 1:65].any(-1).all() for x in seen)
    clean = Run(tiny_run(model, task="ocr"), tmp_path / "clean")
    assert run.make_test.images(run.test[0])[0].tobytes() == clean.make.images(run.test[0])[0].tobytes()
    seen.clear()
    finish(run, {"train_seconds": 0.0})
    newlines = [8 + 9 * row for row in range(8)]
    assert [place for place in range(73) if seen[0][0, 1 + place].any()] == [*newlines, 72]


def test_a_vision_cache_and_a_run_that_is_resumed_with_another_evaluation(model, tmp_path):
    """`train.py` may test a trained model again with other evaluation settings, without training again."""
    settings = {"task": "ocr", "freeze": "encoder", "batch": 1, "steps": 1, "train_documents": 1, "eval_documents": 1}
    config = tiny_run(model, **settings, eval_noise="blur", eval_vision="permuted")
    plain = Run(config, tmp_path / "plain")
    expected = finish(plain, plain.fit())
    config = replace(config, cache_vision=True, cache_dir=str(tmp_path / "cache"))
    Run(replace(config, eval_noise=None), tmp_path / "cached").fit()
    cached = Run(config, tmp_path / "cached")
    found = finish(cached, cached.fit(lambda progress: pytest.fail("it trained again")))
    for figure in ("train_loss", "eval_loss", "cer", "ocr_precision"):
        assert found[figure] == expected[figure]


def test_words_for_the_default_give_the_cell_of_the_default(model, tmp_path):
    def names(**lists):
        return [cell.folder.name for cell in cells_of(model, tmp_path, {n: v for n, v in lists.items()})]

    (plain,) = names(seed=[0])
    assert [plain] == names(eval_corrupt=["natural"]) == names(eval_noise=["clean"], eval_letters=["fit"])
    assert [plain] == names(noise=["clean"], letters=["fit"], eval_font=["DejaVuSans"])
    assert len(set(names(corrupt=["natural", "random"], eval_corrupt=["natural", "random", None]))) == 4
    assert (
        len(
            names(
                context=["vision", "text", "truncated"],
                noise=["blur"],
                eval_vision=[None, "zeroed"],
                eval_letters=[None, "20"],
            )
        )
        == 6
    )


def test_a_table_shows_what_the_test_had(model, tmp_path):
    cells, swept = grid(
        RunConfig(), {"corrupt": ["natural", "random"], "eval_corrupt": ["natural", "random"]}, tmp_path
    )
    rows = [_Cell(cell.folder, vars(cell.config), {}, None, None) for cell in cells]
    shown = [[_shown(row, name) for row in rows] for name in swept[2:4]]
    assert shown == [["natural", "natural", "random", "random"], ["natural", "random"] * 2]


@pytest.mark.parametrize("context", ["text", "truncated", "meantext"])
@pytest.mark.parametrize("name", ["eval_vision", "eval_noise", "eval_letters", "eval_font", "noise", "letters"])
def test_a_document_without_pages_has_nothing_of_pages(context, name):
    value = {"eval_vision": "zeroed", "eval_font": "DejaVuSans", "eval_letters": "20", "letters": "20"}.get(
        name, "blur"
    )
    with pytest.raises(ValueError, match=f"{name}={value} is for pages, and context={context} shows the model none"):
        check(RunConfig(context=context, **{name: value}))
    check(RunConfig(context=context, eval_corrupt="random"))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"eval_vision": "drop:percent=101"}, "percent must be a number from 0 to 100"),
        ({"eval_vision": "drop"}, "missing a required argument: 'percent'"),
        ({"eval_vision": "zeroed:percent=3"}, "unexpected keyword argument 'percent'"),
        ({"eval_noise": "rotate:degrees=-1"}, "degrees must be a number from 0 to 180"),
        ({"letters": "0"}, "letters=0: expected fit, pixels such as 20, or 60/line"),
        ({"eval_letters": "60/page"}, "letters=60/page: expected fit, pixels such as 20, or 60/line"),
    ],
)
def test_evaluation_settings_that_cannot_work_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        check(RunConfig(**setting))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"eval_letters": "900"}, "use a smaller font"),
        ({"eval_letters": "9000/line"}, "no room for so many characters"),
        ({"eval_font": "Nope"}, "no font 'Nope'"),
    ],
)
def test_the_pages_of_the_test_are_checked_before_the_first_step(model, tmp_path, setting, message):
    cells = cells_of(model, tmp_path, {name: [value] for name, value in setting.items()})
    with pytest.raises(ValueError, match=message):
        check_cells(cells)
    with pytest.raises(ValueError, match=message):
        Run(cells[0].config, tmp_path)


def test_the_settings_of_the_training_have_no_evaluation():
    config = RunConfig(noise="blur", eval_noise="jpeg", eval_font="DejaVuSerif", eval_vision="mean")
    assert as_trained(config) == RunConfig(noise="blur")
    assert page_spec(as_tested(config)).noise == "jpeg" and page_spec(config).font == "DejaVuSans"
    assert all(setting.default is None and setting.name.startswith("eval_") for setting in fields(EvaluationSettings))
