"""Decoders that can stand behind the projector. They share one signature, so nothing else knows which one is there.

embed(ids) -> x             token ids to embeddings, b n d
forward(x, mask, cache)     -> DecoderOutput(hidden, routing)
logits(hidden)              -> scores over the vocabulary
new_cache(batch, capacity, dtype, device) -> a Cache for forward
recompute                   gradient checkpointing, on or off
layers                      the blocks, in order
parts                       what a freeze policy can name -> what its parameters' names look like
"""

from torch import nn

from lightseek.model.config import DecoderConfig, HFDecoderConfig
from lightseek.model.decoder import Decoder


def build_decoder(config: DecoderConfig | HFDecoderConfig) -> nn.Module:
    """A decoder of these sizes, with random weights."""
    if isinstance(config, DecoderConfig):
        return Decoder(config)
    from lightseek.model.decoders.hf import HFDecoder

    return HFDecoder(config)
