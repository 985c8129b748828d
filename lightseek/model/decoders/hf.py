"""An adapter that makes any causal language model of transformers the decoder: GPT-2, Qwen3, Llama, ...

All models of transformers have the same `forward`, but each names its parts differently. The adapter passes our
embeddings, mask and cache to their `forward`, and finds the parts that freeze policies name.
"""

import json
import re

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, PreTrainedModel

from lightseek.model.cache import Cache
from lightseek.model.config import HFDecoderConfig
from lightseek.model.decoder import DecoderOutput, token_positions

KERNELS = {"sdpa": "sdpa", "eager": "eager", "flash": "flash_attention_2"}  # our name -> that of transformers


class HFCache(Cache):
    """The cache of transformers. It grows as needed, and it knows which layers only look back over a window."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.layers = DynamicCache(config=model.config)
        self.length = 0

    def select(self, rows: Int[Tensor, " b2"]) -> None:
        self.layers.batch_select_indices(rows)


class HFDecoder(nn.Module):
    """Has the signature of `lightseek.model.decoder.Decoder`. `model` is the unchanged model of transformers."""

    def __init__(self, config: HFDecoderConfig, model: PreTrainedModel | None = None) -> None:
        """Make a model with random weights, unless a `model` of this config is given."""
        super().__init__()
        self.config = config
        self.model = model or AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**config.transformers), trust_remote_code=False
        )
        self._recompute = False

    @property
    def embed(self) -> nn.Module:
        """Token ids to embeddings."""
        return self.model.get_input_embeddings()

    def forward(
        self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b m"] | None = None, cache: HFCache | None = None
    ) -> DecoderOutput:
        """Return the hidden states of the n new positions.

        `mask` is false at padding. It covers all m keys: first the cached positions, then the new ones.
        """
        found = self.model.base_model(
            inputs_embeds=x,
            attention_mask=None if mask is None else mask.long(),
            position_ids=token_positions(x, cache.length if cache else 0, mask),
            past_key_values=cache.layers if cache else None,
            use_cache=cache is not None,
        )
        if cache:
            cache.length += x.shape[1]
        return DecoderOutput(found.last_hidden_state, [])

    def logits(self, hidden: Float[Tensor, "*n d"]) -> Float[Tensor, "*n v"]:
        """Return the scores over the vocabulary, in float32."""
        return self.model.get_output_embeddings()(hidden).float()

    def new_cache(self, batch: int, capacity: int, dtype: torch.dtype, device: torch.device | str) -> HFCache:
        """Return an empty cache for `forward`. It takes its sizes from the first call, and not from these arguments."""
        return HFCache(self.model)

    @property
    def recompute(self) -> bool:
        """Whether gradient checkpointing is on."""
        return self._recompute

    @recompute.setter
    def recompute(self, on: bool) -> None:
        name = f"checkpointing_{'enable' if on else 'disable'}"
        switch = getattr(self.model, f"activation_{name}", None) or getattr(
            self.model, f"gradient_{name}"
        )  # older name
        if on != self._recompute:
            switch(*([{"use_reentrant": False}] if on else []))
        self._recompute = on

    def set_attention(self, name: str) -> None:
        """Choose the attention core: `sdpa`, `eager` or `flash`, as in `lightseek.model.attention.set_attention`."""
        self.model.set_attn_implementation(KERNELS[name])

    @property
    def layers(self) -> nn.ModuleList:
        return self.model.get_submodule(self._path_of_layers())

    def _path_of_layers(self) -> str:
        inside = set(self.model.get_decoder().modules())
        for name, module in self.model.named_modules():
            if isinstance(module, nn.ModuleList) and len(module) == self.config.layers and module in inside:
                return name
        raise ValueError(f"{self.config.name}: the model has no list of {self.config.layers} layers")

    @property
    def norm(self) -> nn.Module:
        """The final norm, or the identity if the model has none."""
        body = self.model.get_submodule(self._path_of_layers().rpartition(".")[0])
        norms = [m for name, m in body.named_children() if "Norm" in type(m).__name__ and "emb" not in name]
        return norms[-1] if norms else nn.Identity()

    @property
    def stages(self) -> dict[str, nn.Module]:
        """The steps of a forward pass by their paths, for a trace."""
        paths = {module: name for name, module in self.model.named_modules()}
        body = self.model.get_submodule(self._path_of_layers().rpartition(".")[0])
        others = [child for child in body.children() if child not in (self.embed, self.layers)]
        steps = [self.embed, *self.layers, *others, self.model.get_output_embeddings()]
        return {f"model.{paths[step]}": step for step in steps}

    @property
    def parts(self) -> dict[str, str]:
        """The parts of this model that a freeze policy can name. The values match the names of their parameters."""
        paths = {module: name for name, module in self.model.named_modules()}
        blocks, norm = self._path_of_layers(), self.norm
        embeddings, head = self.embed, self.model.get_output_embeddings()
        attention = [
            name
            for name, child in self.layers[0].named_children()
            if re.search("attn|attention", name) and "Norm" not in type(child).__name__
        ]
        found = {"embeddings": re.escape(paths[embeddings]), "decoder-layers": rf"{re.escape(blocks)}\.\d+"}
        if norm in paths:
            found["final-norm"] = re.escape(paths[norm])
        if attention:
            found["attention"] = rf"{re.escape(blocks)}\.\d+\.({'|'.join(attention)})"
        if head is not None and head.weight is not embeddings.weight:  # a tied head goes by the name of the embeddings
            found["lm-head"] = re.escape(paths[head])
        return {part: rf"model\.{pattern}\." for part, pattern in found.items()}


def describe(model: PreTrainedModel, name: str) -> HFDecoderConfig:
    """Return our config of a model of transformers. `name` is where the model came from."""
    config = model.config.get_text_config(decoder=True)
    rows, width = model.get_input_embeddings().weight.shape
    return HFDecoderConfig(
        name=name,
        transformers=json.loads(model.config.to_json_string(use_diff=False)),
        width=width,
        layers=config.num_hidden_layers,
        vocabulary=rows,
        max_positions=getattr(config, "max_position_embeddings", None) or 8192,  # some models have no limit
    )


@torch.no_grad()
def check_adapter(decoder: HFDecoder) -> None:
    """Raise ValueError if the adapter does not give the same logits as the model alone."""
    ids = torch.arange(2, device=decoder.embed(torch.zeros(1, 1, dtype=torch.long)).device)[None]
    agree(decoder.config, decoder.logits(decoder(decoder.embed(ids)).hidden), decoder.model(ids).logits)


def agree(config: HFDecoderConfig, ours: Float[Tensor, "b n v"], theirs: Float[Tensor, "b n v2"]) -> None:
    ours, theirs = ours.float(), theirs.float()
    if not theirs.isfinite().all():
        raise ValueError(f"{config.name}: its weights give logits that are no finite numbers")
    if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=1e-2, atol=1e-2 * theirs.abs().max().item()):
        raise ValueError(
            f"{config.name}: a {config.transformers.get('model_type')} does more between its embeddings and its logits "
            "than this adapter; use GPT-2, Qwen, Llama or BART, for example"
        )
