"""Data: read tile files, index data folders, normalise, split into folds, and batch for training."""

from marsls_keras.data.formats.tile import Tile, read_mask, read_tile
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.index.tile_ref import TileRef

__all__ = ["Dataset", "Tile", "TileRef", "read_mask", "read_tile"]
