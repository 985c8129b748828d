"""Runs ablations (grids of runs), evaluates them, and publishes a trained model."""
