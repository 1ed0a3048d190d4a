"""Synthetic tiles in the file layout of each release, for tests and the demo."""
