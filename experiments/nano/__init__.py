"""How `nano` was taught to read: its tokenizer, its training pages, its curriculum and its training loop."""
