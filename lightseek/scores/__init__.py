"""Predictions become figures with intervals."""
