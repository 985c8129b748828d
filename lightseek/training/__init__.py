"""The one training loop, what learns in it, and what a run leaves in its folder."""
