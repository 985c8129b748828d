"""Ablations: a grid of runs, its results, and what is published of them."""
