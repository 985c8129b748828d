"""Tests on a CUDA device (`pytest -m gpu`): it gives the numbers of the CPU, and experts never wait for the CPU."""

from dataclasses import replace

import pytest
import torch
from golden import Case, reduced_config, reduced_model, relative_error

from lightseek import LightSeekOCR, PageViews
from lightseek.model.attention import Eager, Sdpa, attention_maps
from lightseek.model.grid_attention import attend_on_grid
from lightseek.model.grouped import run_grouped
from lightseek.model.layers import Linear
from lightseek.model.moe import Experts
from lightseek.model.sam import relative_logits
from lightseek.text import cuda_graph
from lightseek.text.decoding import Continuation
from lightseek.text.sampling import Sampler, Writer
from lightseek.tools.padding import pad_batch
from lightseek.training.run import Run
from lightseek.training.settings import RunConfig
from lightseek.weights.formula import formula_image
from lightseek.weights.int4 import Int4Experts, Int4Linear
from lightseek.weights.int8 import Int8Experts
from lightseek.weights.loading import load_model
from lightseek.weights.pack import pack

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def exact_products(monkeypatch):
    """By default, PyTorch's convolutions on a GPU round float32 to 10 bits (TF32)."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def test_the_reduced_model_gives_the_golden_logits_and_tokens():
    case, model = Case("tiny"), reduced_model().to("cuda")
    with torch.no_grad():
        logits = model(case.prompt.cuda(), pages=[[case.page]]).logits[0, -6:].cpu()
    assert case.error("logits", logits) <= 1e-3
    tokens = model.generate(case.prompt.cuda(), pages=[[case.page]], max_new_tokens=12)[0].tokens
    assert tokens == case.tensors["greedy"].tolist()[: len(tokens)] and tokens


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grouped_matmul_agrees_with_one_expert_after_the_other(dtype):
    ends = torch.tensor([3, 3, 8, 16], device="cuda")
    slots, gate_up, down = (
        torch.randn(shape, device="cuda").to(dtype) for shape in ((16, 64), (4, 128, 64), (4, 64, 64))
    )
    experts = Experts(*down.shape).requires_grad_(False)
    experts.gate_up.data, experts.down.data = gate_up, down
    grouped, each = run_grouped(slots, gate_up, down, ends), experts.run_each(slots, {0: 3, 2: 5, 3: 8})
    assert relative_error(grouped.float(), each.float()) <= (1e-4 if dtype == torch.float32 else 0.02)


def test_the_experts_never_wait_for_the_cpu():
    model = load_model(device="cuda", dtype="bfloat16")
    moe = model.decoder.layers[1].mlp
    x = torch.randn(2, 8, model.config.decoder.width, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        moe(x)  # the first call may compile or allocate
        torch.cuda.set_sync_debug_mode("error")
        try:
            moe(x)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("padded", [False, True])
def test_attention_over_a_text_of_a_new_length_needs_no_plan(padded):
    """cuDNN's kernel takes half a second for each new shape."""
    q, k, v = torch.randn(3, 2, 4, 37, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    mask = torch.ones(2, 1, 37, 37, dtype=torch.bool, device="cuda").tril() if padded else None
    with torch.profiler.profile() as profile:
        Sdpa()(q, k, v, mask, causal=not padded).sum().backward()
        torch.cuda.synchronize()
    kernels = [event.key for event in profile.key_averages()]
    assert any("scaled_dot_product" in kernel for kernel in kernels)
    assert not any("cudnn" in kernel for kernel in kernels)


@pytest.mark.parametrize("rows", [2, 5])
@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 5}, {"beams": 2}])
def test_graphs_write_the_texts_of_plain_steps(monkeypatch, options, rows):
    """Prompts of different lengths, whose texts end at different times."""
    model = decided(dense=rows > 2 or "beams" in options)
    ids, mask = pad_batch([[0, *range(5, 7 + row)] for row in range(rows)], 1)
    options = {"max_new_tokens": 40, "stop": range(4, 12), **options}
    recorded = []
    monkeypatch.setattr(cuda_graph, "PLACES", 16)
    monkeypatch.setattr(cuda_graph, "record", lambda work, record=cuda_graph.record: recorded.append(1) or record(work))
    graphed = model.generate(ids, mask=mask, **options)
    assert recorded
    monkeypatch.setattr("lightseek.text.decoding.can_repeat", lambda decoder, cache: False)
    plain = model.generate(ids, mask=mask, **options)
    assert [row.tokens for row in graphed] == [row.tokens for row in plain]


@torch.inference_mode()
def test_texts_that_join_a_graph_later_say_what_they_say_alone(monkeypatch):
    """Three groups join, the second after five steps and the third after ten, when some texts have ended."""
    model, stop, recorded = decided(dense=True), frozenset(range(4, 12)), []
    monkeypatch.setattr(cuda_graph, "record", lambda work, record=cuda_graph.record: recorded.append(1) or record(work))
    groups = [pad_batch([[0, *range(5, 7 + row)] for row in rows], 1) for rows in ((0, 3), (9,), (1, 2, 4))]
    writer, rows = Writer(Sampler(), None, stop), []
    for ids, mask in groups:
        rows += writer.join(Continuation(model, ids, None, mask, 40))
        for _ in range(5):
            writer.step()
    list(writer.write())
    assert len(recorded) >= 3
    monkeypatch.setattr("lightseek.text.decoding.can_repeat", lambda decoder, cache: False)
    plain = [model.generate(ids, mask=mask, max_new_tokens=40, stop=stop) for ids, mask in groups]
    assert [row.tokens for row in rows] == [row.tokens for found in plain for row in found]


def decided(dense: bool) -> LightSeekOCR:
    """Return a reduced model with random weights whose scores are far apart.

    More than two rows need a `dense` decoder: in float32, PyTorch has no kernel for grouped products.
    """
    config = reduced_config()
    if dense:
        config = config.with_(decoder=replace(config.decoder, dense_layers=config.decoder.layers))
    torch.manual_seed(0)
    model = LightSeekOCR(config).to("cuda").eval()
    for parameter in model.decoder.parameters():
        if parameter.ndim > 1:
            parameter.data *= 8  # random weights of the usual size give all tokens nearly the same score
    return model


def test_a_graph_gives_the_logits_of_nano_in_bfloat16():
    model = load_model(device="cuda", dtype="bfloat16")
    ids = torch.randint(4, 200, (8, 20))
    with torch.inference_mode():
        graphed, plain = (Continuation(model, ids, None, None, 12) for _ in range(2))
        plain.graphed = None
        for step in range(12):
            assert relative_error(graphed.logits.float(), plain.logits.float()) <= 0.03, step
            tokens = plain.logits.argmax(-1)
            graphed.step(tokens)
            plain.step(tokens)
    assert graphed.graphed.graph is not None


@torch.inference_mode()
def test_a_graph_repeats_the_encoder():
    model = load_model(device="cuda", dtype="bfloat16")
    pages = [PageViews(formula_image(name, side)) for name, side in (("a", 640), ("b", 512), ("c", 640), ("d", 640))]
    plain = [model.encode_page(page) for page in pages]
    pack(model)
    for page, tokens in zip(pages, plain, strict=True):
        assert relative_error(model.encode_page(page).float(), tokens.float()) <= 0.01
    assert len(model.encoder.forward.graphs) == 1
    with attention_maps(model, ["encoder.clip.blocks.0.attention"]) as maps:
        assert relative_error(model.encode_page(pages[0]).float(), plain[0].float()) <= 0.03
    assert maps


@pytest.mark.parametrize("kind", [None, Int8Experts, Int4Experts])
def test_a_few_slots_give_the_numbers_of_the_loop(kind):
    torch.manual_seed(0)
    experts = Experts(8, 128, 64)
    experts.reset_parameters()
    experts = (kind(experts) if kind else experts).cuda()
    slots, ends = torch.randn(5, 128, device="cuda"), torch.tensor([0, 2, 2, 3, 3, 3, 5, 5], device="cuda")
    with torch.no_grad():
        each = experts.run_each(slots, {1: 2, 3: 1, 6: 2})
        assert relative_error(experts.run_few(slots, ends), each) <= 1e-5


@pytest.mark.parametrize("side", [5, 14, 40, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_attention_on_a_grid_in_triton(side, dtype):
    kernel = pytest.importorskip("lightseek.model.triton_attention").attend_on_grid
    q, k, v = torch.randn(2, side**2, 3, 12, 64, device="cuda", dtype=dtype).permute(2, 0, 3, 1, 4)
    tables = torch.randn(2, 2 * side - 1, 64, device="cuda", dtype=dtype)
    wide = [x.double() for x in (q, k, v)]
    exact = attend_on_grid(Eager(), *wide, *relative_logits(wide[0], *tables.double(), side))
    assert relative_error(kernel(q, k, v, *tables).double(), exact) <= (1e-5 if dtype == torch.float32 else 0.02)


def test_four_bits_stand_for_the_numbers_of_the_cpu():
    """The kernel of a CUDA device takes widths that are multiples of 128; other layers widen their weights."""
    torch.manual_seed(0)
    linear = Int4Linear(Linear(256, 64).bfloat16().requires_grad_(False))
    x, whole = torch.randn(3, 256).bfloat16(), linear.widen(*linear.held("weight"), torch.float32)
    box = torch.nn.ModuleList([linear.cuda()])
    assert pack(box)
    with torch.no_grad():
        out = box[0](x.cuda()).float().cpu()
    assert relative_error(out, torch.nn.functional.linear(x.float(), whole, linear.bias.float().cpu())) <= 0.02


@pytest.mark.parametrize("precision", [None, "bf16", "fp16"])
def test_training_lowers_the_loss(precision, tmp_path):
    config = RunConfig(
        mode="tiny", train_documents=4, eval_documents=2, steps=8, batch=4, device="cuda", precision=precision
    )
    run = Run(config, tmp_path)
    run.fit()
    assert run.rows[-1]["train_loss"] < run.rows[0]["train_loss"]
