"""Tests of the warm start: a new box learns what the old one gave, once, and without a trace in anything else."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from tiny_models import small_model
from tiny_run import tiny_checkpoint, tiny_run

from lightseek.page.views import page_views
from lightseek.training.build import stays_random
from lightseek.training.run import Run
from lightseek.training.settings import RunConfig
from lightseek.weights import warm_start as module
from lightseek.weights.swap import swap_box
from lightseek.weights.warm_start import Boxes, figures, resize, warm_start


@pytest.fixture(scope="module")
def pages():
    noise = torch.Generator().manual_seed(0)
    grids = torch.randint(0, 256, (12, 16, 16), dtype=torch.uint8, generator=noise).numpy()
    return [page_views(Image.fromarray(grid).resize((512, 512)), "tiny") for grid in grids]


def swapped(axis: str, kind: str, **settings):
    model = small_model()
    old = Boxes.of(model)
    swap_box(model, axis, kind, settings)
    return model, old


@pytest.mark.parametrize(
    ("axis", "kind", "settings", "box"),
    [
        ("compressor", "pixelshuffle", {}, "compressor"),
        ("compressor", "meanpool", {"factor": 8}, "compressor"),
        ("compressor", "conv", {"factor": 2}, "compressor"),
        ("projector", "mlp", {}, "projector"),
        ("global_stage", "clip-only", {}, "projector"),
    ],
)
def test_a_new_box_comes_nearer_to_the_old_one(tmp_path, monkeypatch, pages, axis, kind, settings, box):
    """The figures are those of a model that is asked again: the same pages, which the fit did not learn."""
    monkeypatch.setattr(module, "STEPS", 60)
    model, old = swapped(axis, kind, **settings)
    new, held = Boxes.of(model), pages[3::4]
    others = {name: value.clone() for name, value in model.state_dict().items() if f"{box}." not in name}

    def loss() -> float:
        with torch.no_grad():
            sam = model.encoder.sam(torch.stack([page.global_view for page in held]))
            if box == "compressor":
                found, target = new.compressor(sam), old.compressor(sam)
            else:
                found, target = new.project(new.compressor(sam)), old.project(old.compressor(sam))
            return (found - resize(target, found.shape[-1])).square().mean().item()

    before, rng = loss(), torch.get_rng_state()
    (fit,) = warm_start(model, old, pages, tmp_path)
    assert fit.box == box and fit.steps == 60 and fit.loss_after < 0.6 * fit.loss_before
    assert fit.loss_before == pytest.approx(before, rel=1e-4) and fit.loss_after == pytest.approx(loss(), rel=1e-4)
    assert torch.equal(torch.get_rng_state(), rng) and not model.training
    assert all(p.grad is None and p.requires_grad != ("unused_" in n) for n, p in model.named_parameters())
    assert all(torch.equal(model.state_dict()[name], value) for name, value in others.items())


def test_equal_models_boxes_and_pages_are_fitted_once(tmp_path, monkeypatch, pages):
    monkeypatch.setattr(module, "STEPS", 2)
    first, old = swapped("compressor", "meanpool")
    found = warm_start(first, old, pages, tmp_path)
    (file,) = tmp_path.iterdir()
    second, old2 = swapped("compressor", "meanpool")
    other, old3 = swapped("compressor", "meanpool")
    with monkeypatch.context() as patch:
        patch.setattr(module, "fit_all", None)
        assert warm_start(second, old2, pages, tmp_path) == found
        for name, value in first.state_dict().items():
            assert torch.equal(value, second.state_dict()[name])
        with pytest.raises(TypeError):
            warm_start(other, old3, pages[1:], tmp_path)  # other pages
        with torch.no_grad():
            next(other.encoder.sam.parameters()).mul_(2)
        with pytest.raises(TypeError):
            warm_start(other, old3, pages, tmp_path)  # other weights
    file.write_bytes(file.read_bytes()[:-9])
    third, old4 = swapped("compressor", "meanpool")
    assert warm_start(third, old4, pages, tmp_path) == found  # a file that was cut is made again


def test_a_box_that_is_not_new_has_no_warm_start(tmp_path, pages):
    for axis, kind in (("compressor", "conv"), ("projector", "linear"), ("layout", "plain"), ("global_stage", "clip")):
        model, old = swapped(axis, kind)
        assert warm_start(model, old, pages, tmp_path) == [] and figures([]) == {}
    model, old = swapped("compressor", "meanpool")
    assert warm_start(model, old, pages, tmp_path, skip=["compressor"]) == [] and not list(tmp_path.iterdir())


def test_the_projector_is_fitted_to_what_the_new_compressor_gives(tmp_path, monkeypatch, pages):
    monkeypatch.setattr(module, "STEPS", 40)
    model, old = swapped("compressor", "meanpool")
    swap_box(model, "global_stage", "compressor-only")
    one, two = warm_start(model, old, pages, tmp_path)
    assert (one.box, two.box) == ("compressor", "projector") and two.loss_after < two.loss_before
    found = figures([one, two])
    assert found["warm_start"]["loss_after"] == two.loss_after and found["warm_start"]["boxes"]["compressor"]["steps"]
    assert found["warm_start_explained"] == 100 * two.explained


@pytest.mark.parametrize(
    ("settings", "left_out"),
    [
        ({}, []),
        ({"init": "random"}, ["compressor", "projector"]),
        ({"init": "compressor:random"}, ["compressor"]),
        ({"init": "projector:random"}, ["projector"]),
        ({"init": "compressor:runs/a/model"}, []),
        ({"decoder": "dense"}, ["projector"]),
        ({"decoder": "moe"}, []),
    ],
)
def test_what_was_asked_to_be_random_stays_random(settings, left_out):
    assert stays_random(RunConfig(**settings)) == left_out


class Killed(Exception):
    pass


def test_a_run_tells_its_warm_start_and_does_not_repeat_it(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "STEPS", 3)
    config = tiny_run(tiny_checkpoint(tmp_path / "model"), compressor="meanpool", cache_dir=str(tmp_path), steps=2)
    unbroken = Run(config, tmp_path / "unbroken")
    results = unbroken.fit()
    assert results["warm_start"]["steps"] == 3 and set(results["warm_start"]["boxes"]) == {"compressor"}
    cold = Run(replace(config, warm_start=False), tmp_path / "cold")
    assert "warm_start" not in cold.fit()
    weights = [run.model.encoder.compressor.widen.weight for run in (unbroken, cold)]
    assert not torch.equal(*weights)

    def die(progress):
        raise Killed

    monkeypatch.setattr(module, "fit_all", None)  # from here on nothing can be fitted
    with pytest.raises(Killed):
        Run(replace(config, save_seconds=0.0), tmp_path / "killed").fit(die)
    resumed = Run(replace(config, save_seconds=0.0), tmp_path / "killed")
    assert resumed.fit()["warm_start"] == results["warm_start"]
    for name, value in unbroken.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
