"""From files to batches: one reader, one index, one order of the bands."""

from marsls_keras.data.formats.tile import Tile, read_mask, read_tile
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.index.tile_ref import TileRef

__all__ = ["Dataset", "Tile", "TileRef", "read_mask", "read_tile"]
