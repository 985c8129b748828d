"""A registry names all its kinds without loading any, and its messages list them."""

import sys

import pytest

from lightseek.tools.registry import Registry


def test_a_kind_is_imported_when_it_is_first_asked_for():
    sys.modules.pop("this", None)
    kinds = Registry("poem", {"zen": "this:d", "none": 1})
    assert list(kinds) == ["zen", "none"] and "zen" in kinds and kinds.choices == "zen, none"
    kinds.check("zen")
    assert "this" not in sys.modules
    assert kinds.find("zen")["a"] == "n" and "this" in sys.modules


def test_an_unknown_kind_is_refused_with_those_there_are():
    kinds = Registry("decoder", {"moe": 1}, {"hf:": "FOLDER_OR_ID"})
    kinds.check("hf:somewhere")
    for name in ("mo", "hf:", ""):
        with pytest.raises(ValueError, match=r"unknown decoder .*: choose one of moe, hf:FOLDER_OR_ID"):
            kinds.check(name)


def test_a_kind_of_ones_own_is_one_entry():
    kinds = Registry("colour", {"red": 1})
    kinds["green"] = 2
    assert kinds.find("green") == 2 and dict(kinds) == {"red": 1, "green": 2}
    del kinds["green"]
    with pytest.raises(ValueError, match="unknown colour 'green': choose one of red"):
        kinds.find("green")


def test_a_name_may_bring_settings_of_its_kind():
    kinds = Registry("compressor", {"conv": 1, "pool": 2}, settings=True)
    kinds.check("pool:factor=8,name=mine,flag=true")
    assert Registry.split("pool:factor=8,name=mine,flag=true") == ("pool", {"factor": 8, "name": "mine", "flag": True})
    assert Registry.split("conv") == ("conv", {})
    with pytest.raises(ValueError, match="unknown compressor 'pol:factor=8': choose one of conv, pool"):
        kinds.check("pol:factor=8")
    with pytest.raises(ValueError, match="settings of a kind are KEY=VALUE, such as factor=8, and not '8'"):
        kinds.check("pool:8")


def test_a_kind_is_called_with_the_settings_of_its_name():
    kinds = Registry("shape", {"box": lambda side, depth=1: (side, depth)}, settings=True, joined=True)
    assert kinds.call("box:depth=3", 2) == kinds.call("box:side=2,depth=3") == (2, 3)
    for name, message in {
        "box": "missing a required argument: 'side'",
        "box:side=1,hue=2": "unexpected .* 'hue'",
    }.items():
        with pytest.raises(ValueError, match=f"shape '{name}': .*{message}"):
            kinds.call(name)
    kinds.check("box+box:side=1")
    assert kinds.parts("box+box:side=1") == ["box", "box:side=1"]
    with pytest.raises(ValueError, match="unknown shape 'ball': choose one of box"):
        kinds.check("box+ball")
