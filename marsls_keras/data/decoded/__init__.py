"""Decoded tiles: loading with all problems at once, the cache on disk, leaks between splits."""
