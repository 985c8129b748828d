"""A second language model that works on a text which was read: any causal model of transformers, with an adapter.

writer = load_writer("hf:Qwen/Qwen3-0.6B", adapter=None)
write(writer, "Extract as JSON.", text, JsonSchema.of(schema))
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import snapshot_download
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessor, LogitsProcessorList, StoppingCriteria

from lightseek.text.schema import JsonSchema, Rule, keep


@dataclass
class Writer:
    """A model of transformers and its tokenizer."""

    model: Any
    tokenizer: Any


class Written(NamedTuple):
    """What a model wrote."""

    text: str
    ended: bool  # before the limit
    tokens: int


def load_writer(name: str, adapter: str | None = None, device: str | None = None) -> Writer:
    """Load `hf:ID`, where ID is a hub id or a folder, and an adapter of peft.

    No code of a repository is run, and weights are read from safetensors files only, because a pickle may run code.
    Raises ValueError for another kind of name or an adapter without such a file, and OSError if there is no such model.
    """
    kind, _, found = name.partition(":")
    if kind != "hf" or not found:
        raise ValueError(f"--post {name}: write hf:ID, such as hf:Qwen/Qwen3-0.6B, or hf:FOLDER")
    model = AutoModelForCausalLM.from_pretrained(found, trust_remote_code=False, use_safetensors=True)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter_folder(adapter))
    return Writer(model.to(device or "cpu").eval(), AutoTokenizer.from_pretrained(found, trust_remote_code=False))


def adapter_folder(name: str) -> str:
    """Return the folder of an adapter, after a download if `name` is a hub id. Raises ValueError without its file."""
    weights = "adapter_model.safetensors"
    folder = name
    if not Path(name).is_dir():
        folder = snapshot_download(name, allow_patterns=["adapter_config.json", weights])
    if not (Path(folder) / weights).is_file():
        raise ValueError(f"the adapter {name} has no {weights}, and a pickle (adapter_model.bin) is not read")
    return folder


def write(
    writer: Writer,
    prompt: str,
    text: str,
    schema: JsonSchema | None = None,
    max_new_tokens: int = 1024,
    given_up: Callable[[], bool] = lambda: False,
) -> Written:
    """Return what the model writes about a text, greedily. It stops early once `given_up()` is true.

    If the tokenizer has a chat template, prompt and text are the words of a user. With a schema the result is JSON.
    The text also ends where the model has no positions left. Raises ValueError for a model without a token that ends a
    text, or a text that fills all positions, and SchemaError.
    """
    tokenizer, words = writer.tokenizer, f"{prompt}\n\n{text}"
    if tokenizer.chat_template:
        chat = [{"role": "user", "content": words}]
        words = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    inputs = tokenizer(words, return_tensors="pt", add_special_tokens=not tokenizer.chat_template)
    inputs = inputs.to(writer.model.device)
    length, positions = inputs["input_ids"].shape[1], getattr(writer.model.config, "max_position_embeddings", None)
    room = max_new_tokens if positions is None else min(max_new_tokens, positions - length)
    if room < 1:
        raise ValueError(
            f"the text needs {length} tokens, and the second model has {positions} positions: give less text"
        )
    stop = tokenizer.eos_token_id
    if stop is None:
        raise ValueError("this model has no token that ends a text (eos_token)")
    held = LogitsProcessorList()
    if schema is not None:
        from llguidance.hf import from_tokenizer

        vocabulary = writer.model.config.vocab_size
        held.append(Held(Rule(schema.grammar, from_tokenizer(tokenizer), vocabulary, stop)))
    with torch.inference_mode():
        ids = writer.model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=room,
            do_sample=False,
            num_beams=1,
            eos_token_id=stop,
            pad_token_id=stop,
            logits_processor=held,
            stopping_criteria=[GivenUp(given_up)],
        )[0, length:].tolist()
    ended = stop in ids or any(one.written is not None and one.written.complete for one in held)
    return Written(tokenizer.decode(ids, skip_special_tokens=True), ended, len(ids))


class Held(LogitsProcessor):
    """Holds the one text of a batch to a schema."""

    def __init__(self, rule: Rule) -> None:
        self.rule, self.written = rule, None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self.written is None:
            self.written = self.rule.start()
        else:
            self.written.push(int(input_ids[0, -1]))
        return keep(scores, [self.written.allowed()])


class GivenUp(StoppingCriteria):
    """Ends a text that nobody wants any more."""

    def __init__(self, given_up: Callable[[], bool]) -> None:
        self.given_up = given_up

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor | None, **_: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self.given_up(), device=input_ids.device)
