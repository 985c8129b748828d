"""Files to models and back: the official layout, adapters, quantized weights, other decoders, and `nano`."""
