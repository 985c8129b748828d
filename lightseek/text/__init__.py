"""Tokens in and out: the tokenizer, prompts, and the ways to generate text."""
