"""Documents to read and to summarize: generated, found on every Python, or the user's own."""
