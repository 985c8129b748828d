"""Looks inside a model while it runs: shapes, time, values and the use of experts."""
