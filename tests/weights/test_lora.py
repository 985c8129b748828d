"""Tests of LoRA: which parameters learn, merging, and adapter files, which other programs can read too."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from golden import reduced_config, reduced_model, relative_error
from safetensors.torch import load_file, save_file
from theirs import load_theirs
from torch import Tensor

from lightseek import LightSeekOCR
from lightseek.model.decoders.hf import HFDecoder, describe
from lightseek.text.generate import generate
from lightseek.training.build import build_model, choose_what_learns
from lightseek.training.freeze import count_parameters
from lightseek.training.run import Run
from lightseek.training.settings import RunConfig, check
from lightseek.weights.lora import adapters, add_lora, find_targets, lora_layers, merge, use_adapter
from lightseek.weights.lora_files import load_adapter, save_adapter, save_trained
from lightseek.weights.names import official_tensors
from lightseek.weights.swap import attach, with_decoder
from lightseek.weights.tensors import CheckpointError

IDS = torch.tensor([[0, *range(20, 60)]])
EVERYTHING = "all-linear+experts"
# The decoder of the reduced model. Its first layer is dense, and the others have 8 experts of width 64.
WIDTH, LAYERS = 128, 3


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return reduced_model().state_dict()


@pytest.fixture
def model(weights) -> LightSeekOCR:
    return fresh_model(weights)


def fresh_model(weights: dict[str, Tensor]) -> LightSeekOCR:
    with torch.device("meta"):
        fresh = LightSeekOCR(reduced_config()).eval()
    fresh.load_state_dict({name: tensor.clone() for name, tensor in weights.items()}, assign=True)
    return fresh


def learn(model: LightSeekOCR, seed: int = 0) -> None:
    """Give each B random values, as if it had been trained. B is zero at the start."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name and parameter.requires_grad:
            parameter.data.normal_(std=0.05, generator=generator)


@torch.no_grad()
def logits(model: LightSeekOCR) -> Tensor:
    return model(IDS).logits


@pytest.mark.parametrize(
    ("targets", "parameters"),
    {
        "attention": LAYERS * 2 * 4 * (WIDTH + WIDTH),  # A and B of rank 4 for q_proj and v_proj
        "q_proj+o_proj": LAYERS * 2 * 4 * (WIDTH + WIDTH),
        "experts": 2 * 8 * 4 * ((WIDTH + 2 * 64) + (64 + WIDTH)),  # per expert; gate and up share A
        "projector.layers": 4 * (2048 + WIDTH),
    }.items(),
)
def test_only_the_adapters_learn_and_at_first_they_change_nothing(model, targets, parameters):
    before = logits(model)
    add_lora(model, targets, r=4)
    assert torch.equal(logits(model), before)
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all(".lora_" in name and p.dtype == torch.float32 for name, p in learning.items())
    assert {c.box: c.trainable for c in count_parameters(model) if c.trainable} == {"lora": parameters}


def test_all_linear_is_every_linear_layer_of_the_decoder_but_the_last(model):
    names = find_targets(model, "all-linear").linears
    dense, experts = 4 + 3, 4 + 3  # linear layers of attention and MLP, and of attention and the shared experts
    assert len(names) == dense + 2 * experts and all(name.startswith("decoder.layers.") for name in names)


@pytest.mark.parametrize("targets", ["attention", EVERYTHING])
def test_merged_equals_unmerged_and_leaves_no_trace(model, targets):
    names, before = list(model.state_dict()), logits(model)
    add_lora(model, targets, r=4)
    assert all(module is not model.adapters.tuner for module in model.modules())  # it has the model inside it
    learn(model)
    unmerged = logits(model)
    assert relative_error(unmerged, before) > 0.1
    merge(model)
    assert relative_error(logits(model), unmerged) <= 1e-5
    assert list(model.state_dict()) == names and adapters(model) == [] and model.adapters is None


@pytest.mark.parametrize("targets", ["attention", EVERYTHING])
def test_an_adapter_saved_and_loaded_gives_the_same_logits(model, weights, targets, tmp_path):
    add_lora(model, targets, r=4, alpha=12.0)
    learn(model)
    save_adapter(model, tmp_path / "a")
    expected = logits(model)
    merge(model)
    model.load_state_dict(weights)
    load_adapter(model, tmp_path / "a")
    assert torch.equal(logits(model), expected)
    save_adapter(model, tmp_path / "again")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_file_has_the_official_names(model, tmp_path):
    add_lora(model, "v_proj+experts", r=4)
    save_adapter(model, tmp_path)
    shapes = {key: tuple(tensor.shape) for key, tensor in load_file(tmp_path / "adapter_model.safetensors").items()}
    layer = "base_model.model.model.layers"
    assert shapes[f"{layer}.0.self_attn.v_proj.lora_A.weight"] == (4, WIDTH)
    assert shapes[f"{layer}.2.mlp.experts.7.up_proj.lora_B.weight"] == (64, 4)
    assert shapes[f"{layer}.1.mlp.experts.0.down_proj.lora_A.weight"] == (4, 64)
    assert len(shapes) == 2 * (LAYERS + 2 * 8 * 3)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 4, 32)


@pytest.mark.parametrize("targets", ["attention", "all-linear", EVERYTHING])
def test_peft_loads_a_file_onto_transformers_classes(model, targets, tmp_path):
    """transformers and peft implement the model and the adapter in another way, and they stack experts differently."""
    from peft import PeftModel

    theirs = load_theirs(model, tmp_path / "base")
    add_lora(model, targets, r=4)
    learn(model)
    save_adapter(model, tmp_path / "adapter")
    adapted = PeftModel.from_pretrained(theirs, str(tmp_path / "adapter")).eval()
    with torch.no_grad():
        assert relative_error(logits(model), adapted(input_ids=IDS, use_cache=False).logits) <= 1e-5


@pytest.mark.parametrize("unlike", [False, True], ids=["one rank for all", "ranks by layer"])
def test_an_adapter_from_elsewhere_is_added_to_the_official_weights(model, weights, unlike, tmp_path):
    """Other programs have separate As for gate and up. They may leave out experts, and set rank and alpha by layer."""
    names = ["layers.0.self_attn.o_proj", "layers.0.mlp.down_proj", "layers.2.mlp.shared_experts.up_proj"]
    names += [f"layers.1.mlp.experts.{e}.{kind}_proj" for e in (0, 5) for kind in ("gate", "up", "down")]
    names += ["layers.2.mlp.experts.3.up_proj"]  # without an adapter for the gate
    generator, tensors, official = torch.Generator().manual_seed(0), {}, official_tensors(model)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["o_proj"]}
    if unlike:
        config |= {"rank_pattern": {"layers.0.mlp.down_proj": 6}, "alpha_pattern": {"o_proj": 5}}
    expected = {}
    for name in names:
        out, into = official[f"model.{name}.weight"].shape
        rank = 6 if unlike and name == "layers.0.mlp.down_proj" else 4
        a, b = (torch.randn(size, generator=generator) * 0.1 for size in ((rank, into), (out, rank)))
        tensors |= {f"base_model.model.model.{name}.lora_{x}.weight": t for x, t in (("A", a), ("B", b))}
        alpha = 5 if unlike and name.endswith("o_proj") else 8
        expected[f"model.{name}.weight"] = official[f"model.{name}.weight"] + alpha / rank * b @ a
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    load_adapter(model, tmp_path)
    adapted = logits(model)
    save_adapter(model, tmp_path / "again")  # a gate and an up with separate As have twice the rank in our file
    merge(model)
    before = official_tensors(fresh_model(weights))
    for key, tensor in official_tensors(model).items():
        torch.testing.assert_close(tensor, expected.get(key, before[key]), msg=key)
    model.load_state_dict(weights)
    load_adapter(model, tmp_path / "again")
    assert relative_error(logits(model), adapted) <= 1e-6


def test_switching_between_adapters_and_none(model):
    plain = logits(model)
    add_lora(model, "attention", r=4, name="reports")
    learn(model, seed=1)
    reports = logits(model)
    add_lora(model, "o_proj", r=2, name="letters")
    learn(model, seed=2)
    letters = logits(model)
    for name, expected in (("reports", reports), (None, plain), ("letters", letters), ("reports", reports)):
        use_adapter(model, name)
        assert torch.equal(logits(model), expected)
    learning = [name for name, p in model.named_parameters() if p.requires_grad]
    assert learning and all(".reports." in name for name in learning)
    with pytest.raises(ValueError, match=r"no adapter 'notes': this model has reports, letters"):
        use_adapter(model, "notes")
    with pytest.raises(ValueError, match="called 'letters' already"):
        add_lora(model, name="letters")
    use_adapter(model, None)
    with pytest.raises(ValueError, match="no adapter is in use: switch to one of reports, letters"):
        merge(model)


# --- In a run ---------------------------------------------------------------------------------------------------------


TINY = RunConfig(
    mode="tiny", task="ocr", train_documents=2, eval_documents=2, steps=4, batch=2, lr=5e-3, max_new_tokens=4,
    lora="attention", lora_r=4,
)  # fmt: skip


def changed(config: RunConfig, **settings) -> RunConfig:
    return RunConfig(**vars(config) | settings)


def test_a_run_lowers_the_loss_and_leaves_the_base_bit_for_bit(tmp_path):
    run = Run(TINY, tmp_path)
    before = {name: p.clone() for name, p in run.model.named_parameters()}
    run.fit()
    assert run.rows[-1]["train_loss"] < run.rows[0]["train_loss"]
    for name, parameter in run.model.named_parameters():
        assert torch.equal(parameter, before[name]) != (".lora_" in name), name
    expected = run.model(IDS).logits
    save_trained(run.model, tmp_path, whole=True)  # merged, in the official layout
    base, _ = build_model(changed(TINY, lora=None))
    load_adapter(base.eval(), tmp_path / "adapter")
    assert torch.equal(base(IDS).logits, expected)
    whole = LightSeekOCR.from_pretrained(tmp_path / "model")
    assert relative_error(whole(IDS).logits, expected) <= 1e-5
    options = {"max_new_tokens": 5}
    assert generate(whole, IDS, **options)[0].tokens == generate(base, IDS, **options)[0].tokens


def test_parts_that_freeze_leaves_open_learn_beside_the_adapter_and_are_saved_with_it(model, weights, tmp_path):
    """With lora everything is frozen except the parts in `all-but-PART`. Each adapter has its own copy of those."""
    counts = choose_what_learns(model, changed(TINY, freeze="all-but-projector+layout+experts"))
    assert {count.box for count in counts if count.trainable} == {"projector", "layout", "decoder", "lora"}
    assert sum(count.trainable + count.frozen for count in counts[:-1]) == sum(t.numel() for t in weights.values())
    other = fresh_model(weights)
    counts = choose_what_learns(other, changed(TINY, freeze="encoder"))
    assert {count.box for count in counts if count.trainable} == {"lora"}
    plain = logits(other)
    learn(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and ".lora_" not in name:
                parameter.mul_(1.5)
    expected, newline = logits(model), model.layout.newline.clone()
    save_adapter(model, tmp_path)
    whole = json.loads((tmp_path / "adapter_config.json").read_text())["modules_to_save"]
    assert "image_newline" in whole and "layers.1.mlp.experts.0.up_proj" in whole
    load_adapter(other, tmp_path, name="second")
    assert torch.equal(logits(other), expected) and torch.equal(other.layout.newline, newline)
    use_adapter(other, None)
    assert torch.equal(logits(other), plain)
    use_adapter(other, "second")
    merge(other)
    assert relative_error(logits(other), expected) <= 1e-5
    assert list(other.state_dict()) == list(weights)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora": "attenton"}, r"lora=attenton: nothing here is called 'attenton'; choose from attention, all-linear"),
        ({"freeze": "all-but-attention"}, "q_proj would learn .* and have an adapter"),
        ({"lora": "experts", "freeze": "all-but-experts"}, "experts would learn .* and have an adapter"),
        ({"lora_r": 0}, "lora_r must be at least 1"),
        ({"lora_dropout": 1.0}, "lora_dropout must be less than 1"),
        ({"quantize": "int8", "lora": "experts"}, "adapters on quantized experts are not possible"),
    ],
)
def test_settings_that_cannot_work_are_refused(model, settings, message):
    with pytest.raises(ValueError, match=message):
        check(changed(TINY, **settings))
        choose_what_learns(model, changed(TINY, **settings))


def test_a_model_with_adapters_is_not_saved_as_if_it_had_none(model, tmp_path):
    add_lora(model)
    with pytest.raises(ValueError, match="has an adapter on it: merge it first"):
        model.save_pretrained(tmp_path)
    assert not any(tmp_path.iterdir())


# --- Bad files --------------------------------------------------------------------------------------------------------


def break_config(folder: Path, **settings) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def break_tensor(folder: Path, change) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    key = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"
    change(tensors, key)
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "adapter_config.json").unlink(), "no adapter_config.json"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "not a LoRA adapter's settings"),
        (lambda folder: break_config(folder, r="many"), "not a LoRA adapter's settings"),
        (lambda folder: break_config(folder, peft_type="IA3"), "peft_type is 'IA3'"),
        (lambda folder: break_config(folder, r=8), r"the rank of .*q_proj is 8, but lora_A and lora_B have 4"),
        (lambda folder: break_config(folder, r=0), "not a LoRA adapter's settings .*0 is not a positive number"),
        (lambda folder: break_config(folder, lora_alpha=float("nan")), "nan is not a positive number"),
        (lambda folder: break_config(folder, alpha_pattern={"q_proj": float("inf")}), "inf is not a positive number"),
        (lambda folder: break_config(folder, rank_pattern=["q_proj"]), "not a LoRA adapter's settings"),
        (lambda folder: break_config(folder, lora_dropout=1.5), "lora_dropout is 1.5"),
        (lambda folder: break_config(folder, modules_to_save=["lm_head"]), "no tensor of lm_head, which modules_to_"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "no adapter_model.safetensors"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"torn"), "not a safetensors file"),
        (lambda folder: break_tensor(folder, lambda t, k: t.pop(k)), r"q_proj needs lora_A \(r x in\) and lora_B"),
        (lambda folder: break_tensor(folder, lambda t, k: t[k].fill_(torch.nan)), "not finite"),
        (lambda folder: break_tensor(folder, lambda t, k: t.update({k: torch.ones(4, 9)})), r"shape \(128, 9\), the"),
        (
            lambda folder: break_tensor(folder, lambda t, k: t.update({k.replace("layers.1", "layers.7"): t[k].clone(),
                                        k.replace("layers.1", "layers.7").replace("_A", "_B"): torch.ones(2, 4)})),
            r"layers\.7\.self_attn\.q_proj \(out x in\) is nothing in this model",
        ),
        (lambda folder: break_tensor(folder, lambda t, k: t.update({"head": t[k].clone()})), "head is nothing in this"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_by_name_and_changes_nothing(model, good_adapter, damage, message, tmp_path):
    shutil.copytree(good_adapter, tmp_path, dirs_exist_ok=True)
    damage(tmp_path)
    names = list(model.state_dict())
    with pytest.raises(CheckpointError, match=message):
        load_adapter(model, tmp_path)
    assert list(model.state_dict()) == names and adapters(model) == []


@pytest.fixture(scope="module")
def good_adapter(weights, tmp_path_factory) -> Path:
    folder, model = tmp_path_factory.mktemp("adapter"), fresh_model(weights)
    add_lora(model, r=4)
    save_adapter(model, folder)
    load_adapter(fresh_model(weights), folder)  # the undamaged adapter loads, so the refusals are due to the damage
    return folder


OTHER_KINDS = {
    "use_dora": True,
    "lora_bias": True,
    "bias": "all",
    "layer_replication": [[0, 2], [1, 3]],
    "alora_invocation_tokens": [5],
    "trainable_token_indices": {"embed_tokens": [0, 1]},
    "megatron_config": {"tensor_model_parallel_size": 2},
    "loftq_config": {"loftq_bits": 4},
    "use_qalora": True,
    "ensure_weight_tying": True,
    "arrow_config": {"top_k": 2},
    "an_option_of_tomorrow": 3,
}


@pytest.mark.parametrize(("key", "value"), OTHER_KINDS.items())
def test_an_adapter_of_another_kind_is_refused_by_its_key(model, good_adapter, key, value, tmp_path):
    shutil.copytree(good_adapter, tmp_path, dirs_exist_ok=True)
    break_config(tmp_path, **{key: value})
    with pytest.raises(CheckpointError, match=f"adapter_config.json: {key} is "):
        load_adapter(model, tmp_path)
    assert adapters(model) == []


def test_every_setting_of_peft_is_known_or_off_by_default(good_adapter, model, tmp_path):
    """A file with all settings of the installed peft at their defaults is plain LoRA, and one more that is off too."""
    from peft import LoraConfig

    shutil.copytree(good_adapter, tmp_path, dirs_exist_ok=True)
    before = json.loads((tmp_path / "adapter_config.json").read_text())
    defaults = {key: value for key, value in LoraConfig().to_dict().items() if key not in before}
    break_config(tmp_path, **defaults, an_option_of_tomorrow=None, layers_to_transform=[0, 1, 2], peft_version="9.9")
    load_adapter(model, tmp_path)
    assert adapters(model) == ["default"]


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_16", "olora", "corda", "lora_ga"])
def test_an_adapter_on_a_residual_of_the_weights_is_refused_with_the_way_to_convert_it(
    model, good_adapter, init, tmp_path
):
    """Such an adapter fits W - B0 A0. Added to W itself it would give wrong texts without an error."""
    shutil.copytree(good_adapter, tmp_path, dirs_exist_ok=True)
    break_config(tmp_path, init_lora_weights=init)
    with pytest.raises(CheckpointError, match=f"'{init}'.* W - B0 A0.*path_initial_model_for_weight_conversion"):
        load_adapter(model, tmp_path)


@pytest.mark.parametrize("init", ["loftq", "something_new", 1, None, ["pissa"]])
def test_other_initial_weights_are_refused(model, good_adapter, init, tmp_path):
    shutil.copytree(good_adapter, tmp_path, dirs_exist_ok=True)
    break_config(tmp_path, init_lora_weights=init)
    with pytest.raises(CheckpointError, match=r"init_lora_weights is .*not implemented here"):
        load_adapter(model, tmp_path)


@pytest.mark.parametrize("init", [True, False, "gaussian", "eva", "orthogonal"])
def test_initial_weights_that_leave_the_base_alone_do_not_matter(model, good_adapter, init, tmp_path):
    shutil.copytree(good_adapter, tmp_path, dirs_exist_ok=True)
    break_config(tmp_path, init_lora_weights=init)
    load_adapter(model, tmp_path)
    assert adapters(model) == ["default"]


def test_patterns_with_the_names_of_transformers_are_found(model, weights, tmp_path):
    """There `language_model` stands in the name of each layer, in the keys of the tensors and in the patterns."""
    add_lora(model, "decoder.layers.0.attention.q_proj+decoder.layers.1.attention.q_proj", r=4, alpha=8.0)
    learn(model)
    save_adapter(model, tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = {key.replace("model.layers", "model.language_model.layers"): t for key, t in load_file(path).items()}
    save_file(tensors, path)
    break_config(tmp_path, alpha_pattern={r"model\.language_model\.layers\.1\.self_attn\.q_proj": 20})
    other = fresh_model(weights)
    load_adapter(other, tmp_path)
    scales = [layer.scaling["default"] for _, layer in lora_layers(other, "default")]
    assert scales == [2.0, 5.0]


# Tied embeddings


@pytest.fixture
def tied(model) -> LightSeekOCR:
    """A model with a GPT-2, whose output layer is its embedding."""
    sizes = transformers.GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2, n_positions=64)
    theirs = transformers.GPT2LMHeadModel(sizes)
    decoder = HFDecoder(describe(theirs, "tiny"), theirs).eval()
    attach(model, decoder, with_decoder(model.config, decoder.config, {}))
    assert theirs.lm_head.weight is theirs.transformer.wte.weight
    return model


@pytest.mark.parametrize(
    ("settings", "layer"),
    [
        ({"lora": "lm_head"}, "lm_head"),
        ({"lora": "all-linear+lm_head"}, "lm_head"),
        ({"lora": "c_attn", "freeze": "all-but-embeddings"}, "wte"),  # it would learn beside the adapter, in a copy
    ],
)
def test_an_adapter_on_tied_weights_is_refused(tied, settings, layer):
    """Merged into the output layer it would change the embeddings too, which training did not."""
    with pytest.raises(ValueError, match=rf"{layer} shares its weights with .*tied embeddings"):
        choose_what_learns(tied, changed(TINY, **settings))
    assert adapters(tied) == []


def test_beside_tied_weights_merged_equals_unmerged(tied):
    add_lora(tied, "all-linear", r=2)
    learn(tied)
    unmerged = logits(tied)
    merge(tied)
    assert relative_error(logits(tied), unmerged) <= 1e-5


def test_an_output_layer_of_its_own_may_have_an_adapter(model):
    add_lora(model, "lm_head", r=2)
    learn(model)
    unmerged = logits(model)
    merge(model)
    assert relative_error(logits(model), unmerged) <= 1e-5
