"""Scores predictions: metrics with intervals, comparisons of models, tables and plots."""
