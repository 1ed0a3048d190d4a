"""Decoded tiles: loading with a full list of problems, disk cache, and detection of leaks between splits."""
