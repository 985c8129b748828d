"""Parity: each stage of the reduced model gives the numbers of the reference implementation."""

import pytest
import torch
from golden import Case, reduced_model, relative_error

from lightseek.model.moe import Experts
from lightseek.weights.names import official_gradients

TOLERANCE = 1e-4  # relative, float32
CASES = ["tiny", "base", "gundam"]


@pytest.fixture(scope="module")
def model():
    return reduced_model()


@pytest.fixture(scope="module", params=CASES)
def traced(request, model):
    """Run a golden case once, and return it with the outputs of each stage by name."""
    case, kept = Case(request.param), {}

    def keep(name):
        # a list, because in gundam the tiles (640) pass the encoder before the global view (1024)
        return lambda module, inputs, output: kept.setdefault(name, []).append(output)

    handles = [module.register_forward_hook(keep(name)) for name, module in model.named_modules()]
    with torch.no_grad():
        output = model(case.prompt, pages=[[case.page]], labels=case.labels)
        kept["inputs_embeds"] = [model.embed(case.prompt, [[case.page]])]
    for handle in handles:
        handle.remove()
    return case, kept, output


def stage(kept, name):
    """Return the output for the global view: the last view of the first run (`embed` ran the encoder again)."""
    return kept[name][len(kept[name]) // 2 - 1] if name.startswith(("encoder", "projector")) else kept[name][0]


def test_compressor_gives_one_token_per_64_pixels(traced):
    case, kept, _ = traced
    ours = stage(kept, "encoder.compressor")
    side = case.info["base_size"] // 64
    assert ours.shape == (1, 1024, side, side)
    assert case.error("sam", ours[:, ::16]) <= TOLERANCE


def test_clip_sees_the_compressed_tokens_behind_a_class_token(traced):
    case, kept, _ = traced
    ours = stage(kept, "encoder.clip")
    assert ours.shape == (1, 1 + (case.info["base_size"] // 64) ** 2, 1024)
    assert case.error("clip", ours[..., ::16]) <= TOLERANCE


def test_projector_reaches_the_decoder_width(traced):
    case, kept, _ = traced
    assert case.error("projected", stage(kept, "projector")) <= TOLERANCE


def test_layer_0_receives_tokens_newlines_and_separator_in_place_of_the_image(traced):
    case, kept, _ = traced
    assert case.error("inputs_embeds", kept["inputs_embeds"][0]) <= TOLERANCE


@pytest.mark.parametrize("layer", range(3))
def test_each_decoder_layer(traced, layer):
    case, kept, _ = traced
    ours, _ = kept[f"decoder.layers.{layer}"][0]
    assert case.error(f"layer{layer}", ours[:, ::4]) <= TOLERANCE


@pytest.mark.parametrize("layer", range(2))
def test_router_picks_the_same_experts_with_the_same_weights(traced, layer):
    case, _, output = traced
    routing = output.routing[layer]
    experts, order = routing.experts[0].sort(dim=-1)
    weights = routing.weights[0].gather(-1, order)
    assert torch.equal(experts.int(), case.tensors[f"router{layer}.experts"])
    assert case.error(f"router{layer}.weights", weights) <= TOLERANCE


def test_logits_of_the_tail_and_its_loss(traced):
    case, _, output = traced
    tail = len(case.info["prompt_tail"])
    assert output.logits.dtype == torch.float32
    assert case.error("logits", output.logits[0, -tail:]) <= TOLERANCE
    assert output.loss.item() == pytest.approx(case.info["loss"], rel=TOLERANCE)


@pytest.mark.parametrize("name", CASES)
def test_gradient_norms(model, name):
    """Gradient norms match. In evaluation mode the reference computes its routed experts without a gradient.

    So their output is detached here too. `test_transformers.py` checks the whole gradient, including the experts.
    """
    case = Case(name)
    detached = [
        module.register_forward_hook(lambda module, inputs, output: output.detach())
        for module in model.modules()
        if isinstance(module, Experts)
    ]
    model.zero_grad()
    model(case.prompt, pages=[[case.page]], labels=case.labels).loss.backward()
    for handle in detached:
        handle.remove()
    ours = official_gradients(model)
    for key, norm in case.info["grad_norms"].items():
        found = ours[key].norm().item() if key in ours else 0.0
        assert found == pytest.approx(norm, rel=TOLERANCE, abs=1e-7), key


def test_gradients_reach_every_box_down_to_the_first_pixel(model):
    """The reference cannot do this, because its encoder runs under no_grad."""
    case = Case("tiny")
    model.zero_grad()
    model(case.prompt, pages=[[case.page]], labels=case.labels).loss.backward()
    for name in ("encoder.sam.patch_embed.weight", "encoder.sam.position.weight", "encoder.compressor.conv1.weight",
                 "encoder.clip.embeddings.position.weight", "projector.layers.weight", "layout.newline",
                 "decoder.layers.1.mlp.router.weight", "decoder.layers.1.mlp.experts.gate_up"):  # fmt: skip
        gradient = model.get_parameter(name).grad
        assert gradient is not None and gradient.norm() > 0, name


def test_relative_error_notices_a_change():
    assert relative_error(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.001])) > TOLERANCE
