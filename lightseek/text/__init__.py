"""Text becomes tokens and tokens become text: the tokenizer, prompts, and the ways to generate text."""
