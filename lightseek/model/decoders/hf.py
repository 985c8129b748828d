"""Any causal language model of transformers as the decoder: GPT-2, Qwen3, Llama, ...

transformers' models differ in how they name their parts and agree on how they are called. This is the translation, both
ways: our embeddings, mask and cache into their `forward`, their names into what freeze policies can say.
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

KERNELS = {"sdpa": "sdpa", "eager": "eager", "flash": "flash_attention_2"}  # ours -> transformers'


class HFCache(Cache):
    """transformers' own cache. It grows as it goes, and knows the layers that look back a window only."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.layers = DynamicCache(config=model.config)
        self.length = 0

    def select(self, rows: Int[Tensor, " b2"]) -> None:
        self.layers.batch_select_indices(rows)


class HFDecoder(nn.Module):
    """The signature of `lightseek.model.decoder.Decoder`. `model` is transformers' own, untouched."""

    def __init__(self, config: HFDecoderConfig, model: PreTrainedModel | None = None) -> None:
        """With random weights, unless a `model` of this config is given."""
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
        """`mask` is false at padding, over all m keys: the cached positions and then the n new ones."""
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
        """Scores over the vocabulary, in float32."""
        return self.model.get_output_embeddings()(hidden).float()

    def new_cache(self, batch: int, capacity: int, dtype: torch.dtype, device: torch.device | str) -> HFCache:
        """An empty cache for `forward`; what it needs to know it sees from the first call."""
        return HFCache(self.model)

    @property
    def recompute(self) -> bool:
        """Gradient checkpointing."""
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
        """`sdpa`, `eager` or `flash`, as `lightseek.model.attention.set_attention` has them."""
        self.model.set_attn_implementation(KERNELS[name])

    @property
    def layers(self) -> nn.ModuleList:
        return self.model.get_submodule(self._path_of_layers())

    def _path_of_layers(self) -> str:
        inside = set(self.model.get_decoder().modules())
        for name, module in self.model.named_modules():
            if isinstance(module, nn.ModuleList) and len(module) == self.config.layers and module in inside:
                return name
        raise ValueError(f"{self.config.name}: found no list of {self.config.layers} layers in it")

    @property
    def stages(self) -> dict[str, nn.Module]:
        """The steps of a forward pass, by their paths: what a trace shows."""
        paths = {module: name for name, module in self.model.named_modules()}
        body = self.model.get_submodule(self._path_of_layers().rpartition(".")[0])
        others = [child for child in body.children() if child not in (self.embed, self.layers)]
        steps = [self.embed, *self.layers, *others, self.model.get_output_embeddings()]
        return {f"model.{paths[step]}": step for step in steps}

    @property
    def parts(self) -> dict[str, str]:
        """What a freeze policy can name -> how its parameters' names begin, for the parts this model has."""
        paths = {module: name for name, module in self.model.named_modules()}
        blocks = self._path_of_layers()
        body = self.model.get_submodule(blocks.rpartition(".")[0])
        norms = [m for name, m in body.named_children() if "Norm" in type(m).__name__ and "emb" not in name]
        embeddings, head = self.embed, self.model.get_output_embeddings()
        attention = [
            name
            for name, child in self.layers[0].named_children()
            if re.search("attn|attention", name) and "Norm" not in type(child).__name__
        ]
        found = {"embeddings": re.escape(paths[embeddings]), "decoder-layers": rf"{re.escape(blocks)}\.\d+"}
        if norms:
            found["final-norm"] = re.escape(paths[norms[-1]])
        if attention:
            found["attention"] = rf"{re.escape(blocks)}\.\d+\.({'|'.join(attention)})"
        if head is not None and head.weight is not embeddings.weight:  # tied, it goes by the embeddings' name
            found["lm-head"] = re.escape(paths[head])
        return {part: rf"model\.{pattern}\." for part, pattern in found.items()}


def describe(model: PreTrainedModel, name: str) -> HFDecoderConfig:
    """What our config holds of a model of transformers."""
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
    """ValueError if what we compute through the adapter is not what the model computes by itself."""
    ids = torch.arange(2, device=decoder.embed(torch.zeros(1, 1, dtype=torch.long)).device)[None]
    agree(decoder.config, decoder.logits(decoder(decoder.embed(ids)).hidden), decoder.model(ids).logits)


def agree(config: HFDecoderConfig, ours: Float[Tensor, "b n v"], theirs: Float[Tensor, "b n v2"]) -> None:
    ours, theirs = ours.float(), theirs.float()
    if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=1e-2, atol=1e-2 * theirs.abs().max().item()):
        raise ValueError(
            f"{config.name}: a {config.transformers.get('model_type')} does more between its embeddings and its logits "
            "than this adapter; GPT-2, Qwen, Llama and BART, for example, do not"
        )
