"""Loads models from files and saves them: the official layout, adapters, quantized weights, other boxes, and `nano`."""
