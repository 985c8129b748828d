"""Measures how much text a model reads from a vision token, and how well it reads pages of other shapes."""
