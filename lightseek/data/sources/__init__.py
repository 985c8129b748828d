"""Where documents come from: generated, found on this machine, on the hub, or the user's own files."""
