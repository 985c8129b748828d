"""Tests of freeze policies: which parameters change in training, and how much memory a frozen part needs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightseek import LightSeekOCR, OCRConfig, PageViews
from lightseek.page.modes import positions
from lightseek.training.freeze import BOXES, PARTS, count_parameters, freeze, frozen_pattern

NANO = OCRConfig.preset("nano")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return LightSeekOCR(NANO)


def step(model: LightSeekOCR) -> None:
    """Take one optimizer step on a page of noise and a text of five tokens."""
    page = PageViews(torch.rand(3, 512, 512) * 2 - 1)
    image = [NANO.image_token_id] * positions("tiny")
    input_ids = torch.tensor([[0, *image, 10, 11, 12, 13, 14]])
    labels = input_ids.clone()
    labels[:, : 1 + len(image)] = -100
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    model.train()(input_ids, pages=[[page]], labels=labels).loss.backward()
    optimizer.step()
    model.zero_grad()


@pytest.mark.parametrize(
    ("policy", "frozen"),
    {
        None: (),
        "encoder": ("encoder.",),
        "sam": ("encoder.sam.",),
        "clip": ("encoder.clip.",),
        "decoder": ("decoder.",),
        "sam+experts": ("encoder.sam.", ".experts."),
        "all-but-projector": ("encoder.", "layout.", "decoder."),
        "all-but-decoder-last-2": ("encoder.", "projector.", "layout.", "decoder.embed", "decoder.layers.0.",
                                   "decoder.layers.1.", "decoder.lm_head"),
    }.items(),
)  # fmt: skip
def test_frozen_tensors_stay_bit_for_bit_and_the_others_move(model, policy, frozen):
    freeze(model, policy)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    step(model)
    moved_maybe = []
    for name, parameter in model.named_parameters():
        same = torch.equal(parameter, before[name])
        if "unused_" in name or any(name.startswith(part) or (part == ".experts." and part in name) for part in frozen):
            assert same, f"{name} moved under --freeze {policy}"
        elif "experts" in name or "rel_pos" in name:
            moved_maybe.append(not same)  # experts that no token used, and offsets larger than the page, may stay
        else:
            assert not same, f"{name} did not move under --freeze {policy}"
    assert any(moved_maybe) or not moved_maybe


def saved_bytes(model: LightSeekOCR) -> int:
    """Return the bytes of activations, without weights, that autograd keeps for the backward pass of one page."""
    kept = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        rows = model.encode_page(PageViews(torch.zeros(3, 512, 512)))
    assert len(rows) == positions("tiny")
    return sum(kept.values())


def test_a_frozen_encoder_keeps_no_activations(model):
    freeze(model, None)
    whole = saved_bytes(model)
    freeze(model, "encoder")
    only_projector = saved_bytes(model)
    # Autograd keeps the projector's input (64 tokens of 512 channels in float32), and what the layout concatenates.
    assert only_projector <= 4 * 64 * 512 * 4 < whole / 50


def test_counts_per_box_add_up_to_the_model(model):
    counts = freeze(model, "encoder")
    assert [count.box for count in counts] == [box for box in BOXES if box != "context"]  # it has no weights here
    assert sum(count.trainable + count.frozen for count in counts) == sum(p.numel() for p in model.parameters())
    assert {count.box for count in counts if count.trainable} == {"projector", "layout", "decoder"}
    assert count_parameters(model) == counts


@settings(deadline=None)  # the first example pays for building the model
@given(st.sampled_from(sorted(set(PARTS) - {"context"})))  # nano has no text encoder
def test_all_but_a_part_is_the_complement_of_the_part(part):
    frozen, complement = frozen_pattern(part, 4), frozen_pattern(f"all-but-{part}", 4)
    with torch.device("meta"):
        names = [name for name, _ in LightSeekOCR(NANO).named_parameters()]
    assert any(frozen(name) for name in names)
    assert all(frozen(name) != complement(name) for name in names)


@pytest.mark.parametrize("policy", ["sma", "encoder+sma", "all-but-", "decoder-last-5", "all-but-decoder-last-0"])
def test_a_policy_that_is_not_there_lists_those_that_are(model, policy):
    with pytest.raises(ValueError, match=r"choose from none, encoder|N is 1 to 4"):
        freeze(model, policy)


def test_a_policy_that_leaves_nothing_to_learn_is_refused(model):
    with pytest.raises(ValueError, match="nothing is left to train"):
        freeze(model, "encoder+projector+layout+decoder")
