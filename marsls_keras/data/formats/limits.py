"""How large a tile may be."""

from __future__ import annotations

MAX_VALUES = 1 << 25
"""A picture or dataset of more values is no tile, and must not take the memory: reading takes up to thirty bytes a value."""
