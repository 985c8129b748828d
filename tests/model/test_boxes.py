"""Single boxes against other implementations: blocks of SAM and CLIP, experts, attention cores, half precision."""

import sys
import types
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from golden import relative_error
from PIL import Image
from small import SMALL
from torch import Tensor, nn

from lightseek import LightSeekOCR, OCRConfig, PageViews
from lightseek.model import cpu, layers
from lightseek.model.attention import Eager, Flash, Sdpa, attention_maps, set_attention, without_cudnn
from lightseek.model.clip import ClipBlock
from lightseek.model.config import ClipConfig, SamConfig
from lightseek.model.grid_attention import attend_on_grid
from lightseek.model.grouped import run_grouped
from lightseek.model.moe import Experts, MoE, Routing, balance_loss
from lightseek.model.ocr import reset_parameters
from lightseek.model.sam import SamBlock
from lightseek.page.views import page_views
from lightseek.weights.formula import fill, formula_image
from lightseek.weights.int4 import Int4Experts
from lightseek.weights.int8 import Int8Experts

TOLERANCE = 1e-4  # relative, float32


def random_weights(module: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.2)
    return module.eval()


def copy_renamed(source: nn.Module, target: nn.Module, names: dict[str, str]) -> None:
    """Copy the weights of `source` into `target`. `names` maps each part of a name in `source` to that in `target`."""
    state = {}
    for name, tensor in source.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        state[name] = tensor
    target.load_state_dict(state)  # raises for a missing or an extra name


# SAM and CLIP


@pytest.mark.parametrize("window", [14, 0], ids=["window", "global"])
@pytest.mark.parametrize("side", [64, 40, 16], ids=lambda side: f"{side}x{side}")
@torch.no_grad()
def test_sam_block_is_timms(window, side):
    """The sizes are 64 x 64 patches, which is stored, and others, for which the relative positions are resized."""
    from timm.models.vision_transformer_sam import Block

    ours = random_weights(SamBlock(SamConfig(width=24, heads=2), window))
    theirs = Block(24, 2, use_rel_pos=True, window_size=window, input_size=(64, 64), norm_layer=layer_norm)
    copy_renamed(ours, theirs.eval(), {"attention": "attn", "lin1": "fc1", "lin2": "fc2"})
    x = torch.randn(2, side, side, 24)
    assert relative_error(ours(x), theirs(x)) <= TOLERANCE


@pytest.mark.parametrize("learns", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("core", [Sdpa, Eager])
def test_attention_on_a_grid_is_its_formula_whichever_kernel_computes_it(core, learns):
    """18 x 18 patches are more queries than the CPU path computes at a time."""
    torch.manual_seed(0)
    side, attend, maps = 18, core(), []
    q, k, v = (torch.randn(2, 3, side * side, 8, requires_grad=learns) for _ in range(3))
    rows, columns = (torch.randn(2, 3, side * side, side, requires_grad=learns) for _ in range(2))
    bias = (rows[..., :, None] + columns[..., None, :]).flatten(-2)
    expected = (q @ k.mT / 8**0.5 + bias).softmax(-1)
    if core is Eager:
        attend.softmax.register_forward_hook(lambda module, inputs, output: maps.append(output))
    out = attend_on_grid(attend, q, k, v, rows, columns)
    assert relative_error(out, expected @ v) <= TOLERANCE
    assert all(relative_error(seen, expected) <= TOLERANCE for seen in maps) and len(maps) == (core is Eager)
    if learns:
        for ours, exact in zip(*(torch.autograd.grad(y.pow(2).sum(), (q, k, v, rows, columns))
                                 for y in (out, expected @ v)), strict=True):  # fmt: skip
            assert relative_error(ours, exact) <= TOLERANCE


def layer_norm(width: int, **options) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-6, **options)


@torch.no_grad()
def test_clip_block_is_transformers():
    from transformers import CLIPVisionConfig
    from transformers.models.clip.modeling_clip import CLIPEncoderLayer

    ours = random_weights(ClipBlock(ClipConfig(width=32, heads=4)))
    config = CLIPVisionConfig(hidden_size=32, num_attention_heads=4, intermediate_size=128, attn_implementation="eager")
    theirs = CLIPEncoderLayer(config).eval()
    state = {}
    for name, tensor in ours.state_dict().items():
        name = name.replace("norm1", "layer_norm1").replace("norm2", "layer_norm2").replace("attention", "self_attn")
        if "qkv_proj" in name:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                state[name.replace("qkv_proj", f"{part}_proj")] = piece
        else:
            state[name] = tensor
    theirs.load_state_dict(state)
    x = torch.randn(2, 17, 32)
    expected = theirs(x, attention_mask=None)
    expected = expected[0] if isinstance(expected, tuple) else expected
    assert config.hidden_act == "quick_gelu"
    assert relative_error(ours(x), expected) <= TOLERANCE


# Mixture of experts


def test_moe_is_the_sum_over_chosen_experts():
    """Check y = Σ p_e(x) expert_e(x) + shared(x), token by token and expert by expert."""
    moe = random_weights(MoE(SMALL.decoder))
    x = torch.randn(2, 5, 8)
    y, routing = moe(x)
    for b in range(2):
        for n in range(5):
            token = x[b, n]
            probabilities = (moe.router.weight @ token).softmax(0)
            expected = moe.shared(token[None, None])[0, 0]
            for e in probabilities.argsort(descending=True)[: SMALL.decoder.chosen]:
                gate, up = (moe.experts.gate_up[e] @ token).chunk(2)
                expected = expected + probabilities[e] * (moe.experts.down[e] @ (F.silu(gate) * up))
            torch.testing.assert_close(y[b, n], expected)
            assert routing.weights[b, n].sum() < 1  # the weights are not normalised again


def run_each(slots: Tensor, gate_up: Tensor, down: Tensor, ends: Tensor) -> Tensor:
    """Run the experts of these stacks one after the other, as a CPU does."""
    experts = Experts(*down.shape)
    del experts.gate_up, experts.down
    experts.gate_up, experts.down = gate_up, down  # the tensors themselves, so that they get the gradients
    return experts.run(slots, ends)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_of_one_token_gives_its_numbers_in_a_batch_bit_for_bit(dtype):
    """A token alone takes its k experts in its own order; among others the slots are sorted by expert."""
    torch.manual_seed(0)
    experts = Experts(8, 32, 24).to(dtype)
    experts.reset_parameters()
    x, weights = torch.randn(2, 32).to(dtype), torch.rand(2, 3)
    chosen = torch.tensor([[5, 0, 3], [7, 1, 6]])  # no expert twice, so each has one slot in both ways
    with torch.no_grad():
        together = experts(x, weights, chosen)
        alone = torch.cat([experts(x[i : i + 1], weights[i : i + 1], chosen[i : i + 1]) for i in range(2)])
    assert torch.equal(alone, together)
    experts(x[:1], weights[:1], chosen[:1]).float().sum().backward()
    learns = experts.down.grad.abs().sum(dim=(1, 2)) > 0
    assert learns.tolist() == [expert in (0, 3, 5) for expert in range(8)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grouped_matmul_and_loop_agree_gradients_included(dtype):
    """Expert 1 gets no token, so its gradient must be zero in both."""
    torch.manual_seed(0)
    ends = torch.tensor([3, 3, 8, 9])  # where the slots of each expert end
    shapes = {"slots": (9, 16), "gate_up": (4, 64, 16), "down": (4, 16, 32)}
    results = []
    for run in (run_each, run_grouped):
        generator = torch.Generator().manual_seed(1)
        inputs = [torch.randn(s, generator=generator).to(dtype).requires_grad_() for s in shapes.values()]
        out = run(*inputs, ends)
        out.float().pow(2).sum().backward()
        results.append((out, *(tensor.grad for tensor in inputs)))
    tolerance = TOLERANCE if dtype == torch.float32 else 0.02
    for name, each, grouped in zip(["out", *shapes], *results, strict=True):
        assert relative_error(each.float(), grouped.float()) <= tolerance, name
    assert not results[0][2][1].any() and not results[1][2][1].any()


@pytest.mark.parametrize("before", [True, False])
def test_cudnn_is_left_out_for_a_moment(before):
    """The setting of the process is as it was afterwards, also after an error."""
    enabled = torch.backends.cuda.cudnn_sdp_enabled
    torch.backends.cuda.enable_cudnn_sdp(before)
    try:
        with pytest.raises(RuntimeError), without_cudnn():
            assert not enabled()
            raise RuntimeError
        assert enabled() == before
    finally:
        torch.backends.cuda.enable_cudnn_sdp(True)


@pytest.mark.parametrize("kind", [None, Int8Experts, Int4Experts])
def test_a_few_slots_take_copies_of_their_experts(kind):
    """Experts 1, 3 and 6 have two, one and two slots. It is the way of GPUs without a kernel for grouped products."""
    torch.manual_seed(0)
    experts = Experts(8, 128, 64)
    experts.reset_parameters()
    experts = kind(experts) if kind else experts
    slots, ends = torch.randn(5, 128), torch.tensor([0, 2, 2, 3, 3, 3, 5, 5])
    with torch.no_grad():
        each = []
        for expert, x in zip([1, 1, 3, 6, 6], slots, strict=True):
            one = torch.tensor([expert])
            gate_up, down = (experts.copies(name, one, torch.float32)[0] for name in ("gate_up", "down"))
            gate, up = (gate_up @ x).chunk(2)
            each.append(down @ (F.silu(gate) * up))
        each = torch.stack(each)
        assert relative_error(experts.run_few(slots, ends), each) <= 1e-5


def test_grouped_matmul_follows_autocast():
    """Autocast converts linear layers by itself but not this product. So float32 weights must give bfloat16."""
    torch.manual_seed(0)
    ends, gate_up, down = torch.tensor([3, 9]), torch.randn(2, 64, 16), torch.randn(2, 16, 32)
    slots = torch.randn(9, 16)
    whole = run_grouped(slots, gate_up, down, ends)
    with torch.autocast("cpu", torch.bfloat16):
        half = run_grouped(slots, gate_up, down, ends)
    assert whole.dtype == torch.float32 and half.dtype == torch.bfloat16
    assert relative_error(half.float(), whole) <= 0.02


@pytest.mark.parametrize("padded", [0, 2])
def test_balance_loss_is_its_formula(padded):
    """The loss is Σ_e f_e P_e per sequence, with f_e = experts · (slots of e) / (chosen · T). T leaves out padding."""
    torch.manual_seed(0)
    probabilities = torch.randn(3, 7, 5).softmax(-1)
    weights, experts = probabilities.topk(2)
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[1, :padded] = False
    total = 0.0
    for b in range(3):
        tokens = [n for n in range(7) if mask[b, n]]
        for e in range(5):
            share = sum((experts[b, n] == e).sum().item() for n in tokens) * 5 / (2 * len(tokens))
            total += share * sum(probabilities[b, n, e].item() for n in tokens) / len(tokens)
    loss = Routing(weights, experts, probabilities).balance_loss(mask if padded else None)
    assert loss.item() == pytest.approx(total / 3, rel=1e-5)


def test_the_balance_loss_of_all_layers_is_their_sum():
    generator = torch.Generator().manual_seed(2)
    layers = [route(torch.randn(3, 5, 4, generator=generator)) for _ in range(3)]
    for mask in (None, torch.rand(3, 5, generator=generator) > 0.3):
        torch.testing.assert_close(balance_loss(layers, mask), sum(layer.balance_loss(mask) for layer in layers))


def route(logits: Tensor) -> Routing:
    probabilities = logits.softmax(-1)
    return Routing(*probabilities.topk(2, dim=-1), probabilities)


def test_balance_loss_of_an_even_load_is_one_and_of_a_collapsed_one_more():
    even = torch.full((1, 4, 4), 0.25)
    experts = torch.tensor([[[0], [1], [2], [3]]])
    assert Routing(even[..., :1], experts, even).balance_loss().item() == pytest.approx(1)
    collapsed = torch.tensor([0.97, 0.01, 0.01, 0.01]).expand(1, 4, 4)
    all_zero = torch.zeros(1, 4, 1, dtype=torch.long)
    assert Routing(collapsed[..., :1], all_zero, collapsed).balance_loss().item() == pytest.approx(4 * 0.97)


def test_labels_and_the_positions_to_score_must_go_together():
    model = LightSeekOCR(OCRConfig.preset("nano"))
    ids = torch.tensor([[0, 5, 6]])
    for labels, logits in ((None, "labelled"), (ids, "last")):
        with pytest.raises(ValueError, match=f"logits='{logits}'"):
            model(ids, labels=labels, logits=logits)


def test_a_mask_of_integers_is_one_of_booleans():
    model = LightSeekOCR(OCRConfig.preset("nano")).eval()
    ids, mask = torch.tensor([[2, 0, 5, 6]]), torch.tensor([[0, 1, 1, 1]])
    with torch.no_grad():
        padded, alone = model(ids, mask=mask).logits[:, 1:], model(ids[:, 1:]).logits
    assert relative_error(padded, alone) <= TOLERANCE
    assert (
        model.generate(ids, mask=mask, max_new_tokens=3)[0].tokens
        == model.generate(ids, mask=mask.bool(), max_new_tokens=3)[0].tokens
    )


def test_routing_load_counts_slots_and_leaves_padding_out():
    experts = torch.tensor([[[0, 1], [0, 2], [3, 2]]])
    routing = Routing(torch.ones(1, 3, 2), experts, torch.ones(1, 3, 4))
    assert routing.load().tolist() == pytest.approx([2 / 6, 1 / 6, 2 / 6, 1 / 6])
    assert routing.load(torch.tensor([[False, True, True]])).tolist() == pytest.approx([0.25, 0, 0.5, 0.25])


# Initial weights


@pytest.mark.parametrize("stem", [(), (2, 4, 4, 8)], ids=["patches", "stem"])
def test_every_box_draws_all_of_its_own_weights(stem):
    """No old weight stays, and the same seed gives the same weights again."""
    model = LightSeekOCR(SMALL.with_(sam=replace(SMALL.sam, stem=stem)))
    drawn = []
    for old in (float("nan"), 7.0):
        for parameter in model.parameters():
            parameter.data.fill_(old)
        torch.manual_seed(0)
        reset_parameters(model)
        drawn.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    for name, weight in drawn[0].items():
        assert torch.equal(weight, drawn[1][name]), name
    weights = drawn[0]
    assert not weights["encoder.sam.blocks.0.attention.qkv.bias"].any()
    assert (weights["decoder.norm.weight"] == 1).all()
    for name in ("decoder.embed.weight", "encoder.clip.embeddings.position.weight",
                 "encoder.sam.position.weight", "decoder.layers.1.mlp.experts.gate_up"):  # fmt: skip
        assert weights[name].std().item() == pytest.approx(0.02, rel=0.1), name


def test_a_seed_gives_the_positions_last():
    """The positions came into the model after the other weights, which must stay the same for each seed."""
    model = LightSeekOCR(SMALL)
    torch.manual_seed(0)
    reset_parameters(model)
    positions, others = model.encoder.sam.position.weight.detach().clone(), model.decoder.embed.weight.detach().clone()
    model.encoder.sam.position = nn.Identity()
    torch.manual_seed(0)
    reset_parameters(model)
    assert torch.equal(model.decoder.embed.weight, others)
    assert torch.equal(torch.empty_like(positions).normal_(std=0.02), positions)


# Attention cores and the whole small model


@pytest.fixture
def small():
    model = LightSeekOCR(SMALL)
    fill(model)
    return model


IDS = torch.tensor([[0, *[31] * 7, 5, 6, 7, 8]])
PAGES = [[PageViews(formula_image("small", 128))]]


@torch.no_grad()
def test_rows_of_an_attention_map_sum_to_one_and_look_back_only(small):
    with attention_maps(small.eval()) as maps:
        small(IDS, pages=PAGES)
    expected = {f"encoder.sam.blocks.{i}.attention" for i in range(2)} | {"encoder.clip.blocks.0.attention"}
    assert maps.keys() == expected | {f"decoder.layers.{i}.attention" for i in range(2)}
    for name, rows in maps.items():
        torch.testing.assert_close(rows.sum(-1), torch.ones_like(rows.sum(-1)))
        assert ("decoder" in name) == (rows.triu(1) == 0).all().item(), name
    assert maps["decoder.layers.1.attention"].shape == (1, 2, 12, 12)
    assert maps["encoder.sam.blocks.1.attention"].shape == (1, 2, 64, 64)  # 8 x 8 patches attend to each other
    assert type(small.decoder.layers[0].attention.attend).__name__ == "Sdpa"  # the old core is back


@torch.no_grad()
def test_flash_serves_what_it_can_and_leaves_biases_to_sdpa(small, monkeypatch):
    """flash-attn needs a GPU. A fake function with its signature (`b n h k`) shows when and how it is called."""
    calls = []

    def flash_attn_func(q, k, v, causal=False, softmax_scale=None):
        calls.append((tuple(q.shape), causal))
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=softmax_scale).transpose(1, 2)

    before = small.eval()(IDS, pages=PAGES).logits
    monkeypatch.setitem(sys.modules, "flash_attn", types.SimpleNamespace(flash_attn_func=flash_attn_func))
    set_attention(small, "flash")
    assert relative_error(small(IDS, pages=PAGES).logits, before) <= TOLERANCE
    window, whole = ((1, 14 * 14, 2, 4 + 28), False), ((1, 8 * 8, 2, 4 + 16), False)  # SAM's positions are folded in
    assert calls == [window, whole, ((1, 5, 2, 4), False), *[((1, 12, 2, 4), True)] * 2]
    bias = torch.zeros(1, 1, 3, 3)
    q = torch.randn(1, 2, 3, 4)
    assert torch.equal(Flash()(q, q, q, bias), Sdpa()(q, q, q, bias)) and len(calls) == 5


def test_attention_names(small, monkeypatch):
    with pytest.raises(ValueError, match="unknown attention 'fast': choose one of sdpa, eager, flash"):
        set_attention(small, "fast")
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    with pytest.raises(ImportError, match=r"pip install 'lightseek\[flash\]'"):
        set_attention(small, "flash")
    assert not any(isinstance(module, Flash) for module in small.modules())


@pytest.mark.parametrize("frozen", [None, "encoder"])
def test_gradient_checkpointing_gives_equal_loss_and_gradients(small, frozen):
    if frozen:
        small.get_submodule(frozen).requires_grad_(False)
    small.train()
    results = []
    for on in (False, True):
        small.set_gradient_checkpointing(on)
        small.zero_grad()
        output = small(IDS, pages=PAGES, labels=IDS)
        output.loss.backward()
        gradients = {n: p.grad.clone() for n, p in small.named_parameters() if p.grad is not None}
        results.append((output.loss, gradients))
    (plain, gradients), (recomputed, again) = results
    assert torch.equal(plain, recomputed) and gradients.keys() == again.keys()
    assert any(name.startswith("encoder") for name in gradients) == (frozen is None)
    for name, gradient in gradients.items():
        torch.testing.assert_close(again[name], gradient, msg=name)


def test_labelled_logits_give_the_same_loss(small):
    labels = IDS.masked_fill(IDS == 31, -100)
    whole = small.eval()(IDS, pages=PAGES, labels=labels)
    few = small(IDS, pages=PAGES, labels=labels, logits="labelled")
    assert few.logits.shape == (4, 32)
    torch.testing.assert_close(few.loss, whole.loss)


def test_training_adds_the_balance_loss(small):
    output = small.train()(IDS, pages=PAGES, labels=IDS)
    expected = SMALL.decoder.balance_alpha * sum(layer.balance_loss() for layer in output.routing)
    torch.testing.assert_close(output.balance_loss, expected)
    torch.testing.assert_close(output.loss, output.cross_entropy + expected)
    evaluated = small.eval()(IDS, pages=PAGES, labels=IDS)
    torch.testing.assert_close(evaluated.loss, output.cross_entropy)


# Half precision on CPUs with and without its instructions


@pytest.mark.parametrize("native", [True, False], ids=["native", "upcast"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [1, 100])
def test_half_precision_products_are_float32s_rounded(monkeypatch, native, dtype, rows):
    monkeypatch.setattr(cpu, "has_instructions", lambda dtype: native)
    torch.manual_seed(0)
    linear, conv = layers.Linear(64, 48).to(dtype), layers.Conv2d(8, 16, 3, padding=1).to(dtype)
    x, image = torch.randn(2, rows, 64).to(dtype), torch.randn(2, 8, 6, 6).to(dtype)
    exact = F.linear(x.float(), linear.weight.float(), linear.bias.float())
    exact_map = F.conv2d(image.float(), conv.weight.float(), conv.bias.float(), padding=1)
    for ours, wanted in ((linear(x), exact), (conv(image), exact_map)):
        assert ours.dtype == dtype
        assert relative_error(ours.float(), wanted) <= 2 * torch.finfo(dtype).eps


def test_half_precision_products_have_float32s_gradients_rounded(monkeypatch):
    """They also keep no float32 copy of the weight, which would be 13 GB for 3.3 B parameters."""
    monkeypatch.setattr(cpu, "has_instructions", lambda dtype: False)
    torch.manual_seed(0)
    linear = layers.Linear(64, 48).bfloat16()
    x = torch.randn(2, 100, 64).bfloat16().requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        out = linear(x)
    out.float().pow(2).sum().backward()
    assert {tensor.dtype for tensor in kept} == {torch.bfloat16}
    wide = [tensor.detach().float().requires_grad_() for tensor in (x, linear.weight, linear.bias)]
    (F.linear(*wide) * (2 * out.detach().float())).sum().backward()
    for ours, exact in zip((x, linear.weight, linear.bias), wide, strict=True):
        assert ours.grad.dtype == torch.bfloat16
        assert relative_error(ours.grad.float(), exact.grad) <= 2 * torch.finfo(torch.bfloat16).eps


def test_a_cpu_takes_a_batch_of_pages_in_parts():
    """Four pages of 512 pixels, or one with its tiles, however many they are. The order stays."""
    small = [page_views(Image.new("RGB", (512, 512), (shade, 0, 0)), "tiny") for shade in range(9)]
    tiled = page_views(Image.new("RGB", (1280, 1280)), "gundam")
    parts = cpu.page_parts([*small, tiled, small[0]])
    assert [len(part) for part in parts] == [4, 4, 1, 1, 1] and parts[3][0] is tiled
    assert [page for part in parts[:3] for page in part] == small
    assert cpu.page_parts([]) == []
