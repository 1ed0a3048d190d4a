"""From files to batches: one reader, one index, one order of the bands."""

from marsls_keras.data.dataset import Dataset, TileRef
from marsls_keras.data.tile import Tile, read_mask, read_tile

__all__ = ["Dataset", "Tile", "TileRef", "read_mask", "read_tile"]
