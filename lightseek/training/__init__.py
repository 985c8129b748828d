"""Trains models: the training loop, the choice of the parameters that learn, the optimizer, checkpoints and logs."""
