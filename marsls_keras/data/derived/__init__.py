"""Bands that are computed from those a tile holds: indices and filters of its colours, and derivatives of its terrain."""

from marsls_keras.data.derived.names import DERIVED, LATE, VECTORS, Derived

__all__ = ["DERIVED", "LATE", "VECTORS", "Derived"]
