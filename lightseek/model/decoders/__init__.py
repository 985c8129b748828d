"""Decoders that can follow the projector. All have the same signature, so the rest of the code works with each of them.

embed(ids) -> x             token ids to embeddings, b n d
forward(x, mask, cache)     -> DecoderOutput(hidden, routing)
logits(hidden)              -> scores over the vocabulary
new_cache(batch, capacity, dtype, device) -> a Cache for forward
recompute                   gradient checkpointing, on or off
layers                      the blocks, in order
parts                       a name for freeze policies -> a pattern for the names of its parameters
"""

from torch import nn

from lightseek.model.config import DecoderConfig, HFDecoderConfig
from lightseek.model.decoder import Decoder


def build_decoder(config: DecoderConfig | HFDecoderConfig) -> nn.Module:
    """Return a decoder of these sizes with random weights."""
    if isinstance(config, DecoderConfig):
        return Decoder(config)
    from lightseek.model.decoders.hf import HFDecoder

    return HFDecoder(config)
