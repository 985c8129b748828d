"""Every kind of every box, by name. This file loads no PyTorch, so help texts and checks can name the kinds at once."""

HF_DECODERS = {"gpt2": "hf:openai-community/gpt2", "qwen3": "hf:Qwen/Qwen3-0.6B"}  # names for the usual ones
