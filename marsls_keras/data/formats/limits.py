"""Size limit of tiles."""

from __future__ import annotations

MAX_VALUES = 1 << 25
"""Largest number of values of an image. Reading takes up to thirty bytes a value, so more could exhaust the memory."""
