"""Look inside: what runs when a model runs."""
