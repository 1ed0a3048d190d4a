"""Bands computed from those that a tile holds: indices and filters of its colours, derivatives of its terrain."""
