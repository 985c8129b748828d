"""Tests of another decoder behind the same encoder: a dense twin, or a causal language model from transformers."""

import json
import os
import shutil
import subprocess
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from hub_server import serving
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_models import END, SMALL, TEXTS, bart_folder, gpt2_folder, qwen3_folder, small_model

from lightseek.inspect.recorder import STAGE
from lightseek.inspect.trace import trace
from lightseek.model.config import ConfigError, OCRConfig
from lightseek.page.modes import positions
from lightseek.page.views import page_views
from lightseek.text.generate import generate, read
from lightseek.text.prompts import prepare
from lightseek.training.build import build_model
from lightseek.training.freeze import freeze
from lightseek.training.run import Run
from lightseek.training.settings import RunConfig
from lightseek.weights.hf import load_tokenizer
from lightseek.weights.loading import LightSeekOCR, load_model
from lightseek.weights.lora import merge
from lightseek.weights.lora_files import load_adapter, save_adapter
from lightseek.weights.swap import swap_decoder
from lightseek.weights.tensors import CheckpointError

FOLDERS = {"gpt2": gpt2_folder, "qwen3": qwen3_folder}
PAGE = Image.radial_gradient("L").convert("RGB")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    return {name: make(root / name) for name, make in FOLDERS.items()}


@pytest.fixture(scope="module", params=FOLDERS)
def swapped(request, folders):
    model = small_model()
    swap_decoder(model, f"hf:{folders[request.param]}")
    return model


def theirs(model: LightSeekOCR) -> transformers.PreTrainedModel:
    return model.decoder.model


# The dense twin


def test_the_dense_twin_has_as_many_active_parameters():
    """The MLP of layer 0 is 96 wide. In the other two layers a token uses (2 + 1) * 24 = 72. The average is 80."""
    moe, dense = SMALL.decoder, SMALL.decoder.dense_twin()
    assert (dense.dense_layers, dense.dense_width) == (3, 80)
    assert sum([moe.dense_width] + 2 * [(moe.chosen + moe.shared) * moe.expert_width]) == 3 * dense.dense_width
    assert OCRConfig.preset("deepseek-ocr").decoder.dense_twin().dense_width == 7141  # 6848 and 11 times 7168


def test_the_dense_twin_routes_nothing_and_is_an_official_checkpoint(tmp_path):
    model = small_model()
    swap_decoder(model, "dense", seed=1)
    ids = torch.tensor([[0, 5, 6]])
    output = model(ids)
    assert output.routing == [] and not [name for name, _ in model.named_parameters() if "experts" in name]
    model.save_pretrained(tmp_path)
    assert torch.equal(LightSeekOCR.from_pretrained(tmp_path)(ids).logits, output.logits)


def test_a_swap_draws_its_weights_from_the_seed_alone():
    weights = []
    for noise in range(2):
        model = small_model()
        torch.manual_seed(noise)
        before = torch.random.get_rng_state()
        swap_decoder(model, "dense", seed=5)
        assert torch.equal(torch.random.get_rng_state(), before)
        weights.append(model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


# A language model of transformers


def test_the_projector_fits_the_new_decoder(swapped):
    width = swapped.config.decoder.width
    assert width in (32, 48) and swapped.config.projector.width == width
    rows = swapped.encode_page(page_views(PAGE, "tiny"))
    assert rows.shape == (positions("tiny"), width)


def test_image_positions_enter_as_embeddings_and_logits_are_the_language_models_own(swapped):
    inputs = prepare(swapped.config, swapped.tokenizer, ["<image>\nFree OCR."], [[PAGE]], "tiny")
    with torch.no_grad():
        ours = swapped(inputs.input_ids, pages=inputs.pages).logits
        x = swapped.decoder.embed(inputs.input_ids.clamp(max=swapped.config.decoder.vocabulary - 1))
        x[0, 1 : 1 + positions("tiny")] = swapped.encode_page(inputs.pages[0][0])
        expected = theirs(swapped)(inputs_embeds=x).logits
    torch.testing.assert_close(ours, expected.float(), rtol=1e-4, atol=1e-5)


def test_the_image_token_is_an_id_that_no_text_and_no_embedding_has(swapped):
    config, tokenizer = swapped.config, swapped.tokenizer
    assert config.image_token_id >= max(config.decoder.vocabulary, tokenizer.vocab_size)
    assert tokenizer.encode("<image>", special=True) == tokenizer.encode("<image>")


def test_begin_end_and_padding_are_the_tokenizers(folders):
    """GPT-2 has one special token for everything. Qwen3 has one for the end and one for padding, but no BOS token."""
    found = {}
    for name, folder in folders.items():
        model = small_model()
        swap_decoder(model, f"hf:{folder}")
        config = model.config
        ids = (config.bos_token_id, config.eos_token_id, config.pad_token_id)
        found[name] = [model.tokenizer.bytes_of(i, keep_special=True).decode() for i in ids]
    assert found == {"gpt2": [END, END, END], "qwen3": [END, "<|im_end|>", END]}


@settings(max_examples=30)
@given(st.one_of(st.text(), st.lists(st.sampled_from([END, "<think>", "<image>", " a", "é", "12", "\n"])).map("".join)))
def test_their_tokenizers_lose_nothing(swapped, text):
    tokenizer = swapped.tokenizer
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) in (text, unicodedata.normalize("NFC", text))  # Qwen3's tokenizer composes accents
    special = {tokenizer.id_of(token) for token in (END, "<|im_end|>")} - {None}
    assert not special & set(ids)


def test_token_ids_are_the_ones_transformers_gives(swapped):
    oracle = transformers.AutoTokenizer.from_pretrained(swapped.config.decoder.name)
    for text in TEXTS[:5]:
        assert swapped.tokenizer.encode(text) == oracle(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_is_what_transformers_generates(swapped, beams):
    config = swapped.config
    ids = torch.tensor([[config.bos_token_id, *swapped.tokenizer.encode("The river Orla")]])
    ours = generate(swapped, ids, max_new_tokens=12, beams=beams)[0]
    model = theirs(swapped)
    found = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, num_beams=beams, do_sample=False,
        eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id, length_penalty=1.0,
    )  # fmt: skip
    tokens = found[0, ids.shape[1] :].tolist()
    assert ours.tokens == [token for token in tokens if token != config.eos_token_id]


@pytest.mark.parametrize("beams", [1, 2])
def test_a_page_reads_the_same_alone_and_in_a_padded_batch(swapped, beams):
    prompts = ["<image>\nFree OCR.", "<image>\nWrite a summary of what stands on this page."]
    options = dict(mode="tiny", max_new_tokens=6, beams=beams, no_repeat_ngram=None)
    together = read(swapped, [PAGE, PAGE], prompts, **options)
    alone = [read(swapped, PAGE, prompt, **options)[0] for prompt in prompts]
    assert [one.tokens for one in together] == [one.tokens for one in alone]
    assert [one.logprob for one in together] == pytest.approx([one.logprob for one in alone], rel=1e-3)


def test_padding_changes_no_loss(swapped):
    ids = torch.tensor([[1, 5, 6, 7, 8, 9], [1, 5, 6, 0, 0, 0]])
    mask = torch.tensor([[True] * 6, [True] * 3 + [False] * 3])
    labels = ids.masked_fill(~mask, -100)
    with torch.no_grad():
        together = swapped(ids, labels=labels, mask=mask).loss.item()
        alone = [swapped(ids[i : i + 1, :n], labels=ids[i : i + 1, :n]).loss.item() for i, n in ((0, 6), (1, 3))]
    assert together == pytest.approx((5 * alone[0] + 2 * alone[1]) / 7, rel=1e-5)


def test_recomputing_activations_changes_no_gradient(swapped):
    views, ids = page_views(PAGE, "tiny"), [swapped.config.image_token_id] * positions("tiny")
    input_ids = torch.tensor([[1, *ids, 5, 6, 7]])
    gradients = []
    for recompute in (False, True):
        swapped.set_gradient_checkpointing(recompute)
        swapped.zero_grad()
        labels = input_ids.masked_fill(input_ids == ids[0], -100)
        swapped.train()(input_ids, pages=[[views]], labels=labels).loss.backward()
        gradients.append([p.grad.clone() for p in swapped.parameters() if p.grad is not None])
    swapped.set_gradient_checkpointing(False)
    swapped.zero_grad()
    swapped.eval()
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-7)


def test_a_trace_shows_its_layers_by_their_own_names(swapped):
    inputs = prepare(swapped.config, swapped.tokenizer, ["<image>\nFree OCR."], [[PAGE]], "tiny")
    found = trace(swapped, inputs.input_ids, inputs.pages)
    steps = [stage for stage in found.stages if stage.level == STAGE]
    layers = [stage for stage in steps if ".h." in stage.name or "model.layers." in stage.name]
    assert [stage.shape for stage in layers] == [
        (1, inputs.input_ids.shape[1], swapped.config.decoder.width)
    ] * swapped.config.decoder.layers
    assert found.experts == []


# Freezing


def learning(model: LightSeekOCR, policy: str) -> set[str]:
    freeze(model, policy)
    names = {name.removeprefix("decoder.model.") for name, p in model.named_parameters() if p.requires_grad}
    freeze(model, None)
    return names


def test_freeze_policies_find_their_parts_whatever_they_are_called(swapped):
    gpt2 = swapped.config.decoder.name.endswith("gpt2")
    embeddings, norm, last = (
        ("transformer.wte.", "transformer.ln_f.", "transformer.h.2.")
        if gpt2
        else ("model.embed_tokens.", "model.norm.", "model.layers.1.")
    )
    everything = learning(swapped, None)
    assert everything - learning(swapped, "embeddings") == {f"{embeddings}weight"}
    last_layer = learning(swapped, "all-but-decoder-last-1")
    assert last_layer == {name for name in everything if name.startswith((norm, last))} and len(last_layer) > 8
    attention = everything - learning(swapped, "attention")
    assert attention and all((".attn." if gpt2 else ".self_attn.") in name for name in attention)
    assert not [name for name in learning(swapped, "encoder") if name.startswith("encoder.")]
    assert learning(swapped, "all-but-projector") == {"projector.layers.weight", "projector.layers.bias"}


def test_a_part_that_this_decoder_lacks_is_named_with_those_it_has(swapped):
    with pytest.raises(ValueError, match=r"no experts of its own: choose from none, encoder.*attention"):
        freeze(swapped, "sam+experts")
    if swapped.config.decoder.name.endswith("gpt2"):  # its lm_head shares the weights of its embeddings
        with pytest.raises(ValueError, match="no lm-head of its own"):
            freeze(swapped, "lm-head")
    with pytest.raises(ValueError, match="N is 1 to"):
        freeze(swapped, "decoder-last-9")


# On disk


def test_a_saved_model_comes_back_whole(swapped, tmp_path):
    swapped.save_pretrained(tmp_path)
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files >= {"lightseek.json", "boxes.safetensors", "tokenizer.json", "decoder/model.safetensors"}
    assert not [name for name in files if ".tmp" in name]
    again = load_model(str(tmp_path), device="cpu")
    assert again.config.summary() == swapped.config.summary()
    ours, back = swapped.state_dict(), again.state_dict()
    assert ours.keys() == back.keys() and all(torch.equal(ours[name], back[name]) for name in ours)
    options = dict(mode="tiny", max_new_tokens=4)
    assert read(again, PAGE, **options)[0].text == read(swapped, PAGE, **options)[0].text
    assert type(theirs(swapped)).from_pretrained(tmp_path / "decoder")  # transformers can read this folder
    assert (
        load_model(str(tmp_path), device="cpu", dtype="bfloat16").decoder.embed(torch.tensor([[1]])).dtype
        == torch.bfloat16
    )


def test_a_saved_model_that_is_damaged_is_refused(swapped, tmp_path):
    swapped.save_pretrained(tmp_path)
    boxes = load_file(tmp_path / "boxes.safetensors")
    save_file(
        {name: tensor for name, tensor in boxes.items() if name != "layout.newline"}, tmp_path / "boxes.safetensors"
    )
    with pytest.raises(CheckpointError, match=r"layout.newline is missing"):
        LightSeekOCR.from_pretrained(tmp_path)
    (tmp_path / "lightseek.json").write_text(json.dumps({"sam": {}}))
    with pytest.raises(ConfigError, match=r"lightseek.json: decoder is missing"):
        LightSeekOCR.from_pretrained(tmp_path)


# Decoders that are refused


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        ("gpt3", "unknown decoder 'gpt3': choose one of moe, dense, gpt2, qwen3, hf:"),
        ("hf:", "unknown decoder"),
        ("seq2seq:x", "reads text, not pages: add context=text"),
        ("hf:nowhere/at/all", "nowhere/at/all: there is no such folder, and a hub id looks like"),
    ],
)
def test_a_decoder_that_is_none_is_refused(decoder, message):
    with pytest.raises(ValueError, match=message):
        from lightseek.training.settings import check

        check(RunConfig(decoder=decoder))
        build_model(RunConfig(decoder=decoder), "cpu")


def test_weights_that_are_missing_are_not_made_up(folders, tmp_path):
    folder = gpt2_folder(tmp_path / "gpt2")
    weights = load_file(folder / "model.safetensors")
    del weights["transformer.h.1.mlp.c_fc.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"transformer.h.1.mlp.c_fc.weight and 0 more weights are missing"):
        swap_decoder(small_model(), f"hf:{folder}")


def test_a_tokenizer_that_is_not_byte_level_is_refused(tmp_path):
    from tokenizers import Tokenizer as Words
    from tokenizers import models

    folder = gpt2_folder(tmp_path / "gpt2")
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Words(models.WordLevel({"a": 0, "b": 1}, "a")), eos_token="a"
    )
    words.save_pretrained(folder)
    with pytest.raises(ValueError, match="not a byte-level tokenizer"):
        swap_decoder(small_model(), f"hf:{folder}")


def test_a_model_that_does_more_than_the_adapter_is_refused(tmp_path):
    """Cohere multiplies its logits by a constant, in code that our adapter of transformers' models does not call."""
    folder = gpt2_folder(tmp_path / "gpt2")
    config = transformers.CohereConfig(
        vocab_size=400,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        logit_scale=0.06,
    )
    transformers.CohereForCausalLM(config).save_pretrained(folder)
    with pytest.raises(ValueError, match="a cohere does more between its embeddings and its logits"):
        swap_decoder(small_model(), f"hf:{folder}")


def test_a_decoder_without_experts_has_no_twin(swapped):
    for decoder in ("moe", "dense"):
        with pytest.raises(ValueError, match="no experts; leave --decoder out to keep it"):
            swap_decoder(swapped, decoder)


def test_sizes_without_routing_cost_no_balance(swapped):
    assert swapped.config.decoder.balance_alpha == 0
    assert replace(swapped.config.decoder, width=7).rules() == {}


# Training


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    small_model().save_pretrained(folder)
    return RunConfig(
        model=str(folder), mode="tiny", freeze="encoder", train_documents=4, eval_documents=2, steps=4, batch=2,
        eval_every=4, samples=0, max_new_tokens=4, lr=3e-3, device="cpu",
    )  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_the_one_loop_trains_it_and_the_vision_cache_serves_it(ours, folders, tmp_path, name):
    losses = {}
    for cached in (False, True):
        config = replace(ours, decoder=f"hf:{folders[name]}", cache_vision=cached, cache_dir=str(tmp_path / "cache"))
        run = Run(config, tmp_path / str(cached))
        run.fit()
        losses[cached] = [row["train_loss"] for row in run.rows]
    assert losses[True] == pytest.approx(losses[False], rel=1e-5)
    assert losses[True][-1] < losses[True][0]


@pytest.mark.parametrize("name", ["dense", *FOLDERS])
def test_adapters_learn_on_it_come_back_and_merge(ours, folders, tmp_path, name):
    decoder = f"hf:{folders[name]}" if name in folders else name
    config = replace(ours, decoder=decoder, lora="all-linear", freeze=None, steps=2, eval_every=2)
    run, ids = Run(config, tmp_path / "run"), torch.tensor([[1, 5, 6, 7]])
    assert {name.split(".")[0] for name, p in run.model.named_parameters() if p.requires_grad} == {"decoder"}
    run.fit()
    save_adapter(run.model, tmp_path / "adapter")
    again, _ = build_model(replace(config, lora=None), "cpu")
    with torch.no_grad():
        learned, before = run.model.eval()(ids).logits, again.eval()(ids).logits
        load_adapter(again, tmp_path / "adapter")
        assert torch.equal(again(ids).logits, learned) and not torch.allclose(before, learned, atol=1e-4)
        merge(again)
        torch.testing.assert_close(again(ids).logits, learned, rtol=1e-4, atol=1e-5)


def test_the_presets_come_from_the_hub_with_their_tokenizers(folders, tmp_path):
    """The names `gpt2` and `qwen3` are enough. The models come from a hub server on this machine."""
    hub, where = tmp_path / "hub", {"gpt2": "openai-community/gpt2", "qwen3": "Qwen/Qwen3-0.6B"}
    for name, place in where.items():
        shutil.copytree(folders[name], hub / place / "main")
    child = (
        "from tiny_models import small_model\n"
        "from lightseek.weights.hf import load_tokenizer\n"
        "from lightseek.weights.swap import swap_decoder\n"
        "for name in ('gpt2', 'qwen3'):\n"
        "    model = small_model()\n"
        "    swap_decoder(model, name)\n"
        "    print(type(model.decoder.model).__name__, model.config.decoder.name, model.tokenizer.vocab_size)\n"
    )
    with serving(hub) as server:
        paths = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])
        environment = os.environ | server.environment | {"PYTHONPATH": paths}
        done = subprocess.run(
            [sys.executable, "-c", child], env=environment, capture_output=True, text=True, timeout=300
        )
    assert done.returncode == 0, done.stderr
    sizes = [len(transformers.AutoTokenizer.from_pretrained(folders[name])) for name in where]
    assert done.stdout.split("\n")[:2] == [
        f"GPT2LMHeadModel openai-community/gpt2 {sizes[0]}",
        f"Qwen3ForCausalLM Qwen/Qwen3-0.6B {sizes[1]}",
    ]


@pytest.mark.parametrize("kind", ["gpt2", "bart"])
def test_a_checkpoint_that_brings_code_is_refused_without_a_question(tmp_path, monkeypatch, kind):
    """transformers would ask on the terminal whether to run the code. In a script that pipes `yes`, it would run."""
    folder = {"gpt2": gpt2_folder, "bart": bart_folder}[kind](tmp_path / kind)
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "unheard_of"}
    names = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model", "AutoModelForSeq2SeqLM": "code.Model"}
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": names}))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer |= {"auto_map": {"AutoTokenizer": [None, "code.Tokenizer"]}, "tokenizer_class": "Unheard"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'it ran')!r}, 'w')\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    prefix = "hf" if kind == "gpt2" else "seq2seq"
    context = "vision" if kind == "gpt2" else "text"
    with pytest.raises(ValueError, match="can't load this"):
        build_model(RunConfig(decoder=f"{prefix}:{folder}", context=context), "cpu")
    with pytest.raises(ValueError, match="no tokenizer that can be used"):
        load_tokenizer(str(folder), None)
    assert not (tmp_path / "it ran").exists()


def test_pickled_weights_are_refused(tmp_path):
    folder = gpt2_folder(tmp_path / "gpt2")
    weights = transformers.GPT2LMHeadModel.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="can't load this"):
        build_model(RunConfig(decoder=f"hf:{folder}"), "cpu")
