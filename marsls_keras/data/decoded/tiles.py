"""Container of decoded tiles: images, masks, validity and metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from marsls_keras.data.decoded.disk_cache import Images, select
from marsls_keras.data.decoded.leaks import Trace
from marsls_keras.data.index.tile_ref import TileRef
from marsls_keras.datasets import RELEASES


@dataclass(frozen=True)
class Tiles:
    """Decoded tiles as arrays, with the metadata of each tile.

    Attributes:
        refs: The tiles, N of them.
        images: float32 (N, H, W, C), canonical bands, not normalised; in memory or on disk.
        masks: uint8 (N, H, W) of {0, 1}; zeros for unlabelled tiles.
        valid: bool (N, H, W), False where a band was no-data and has been filled.
        hashes: SHA-256 of each tile's canonical pixels, the same for two files of equal content.
        geo: GeoTIFF tags of each tile.
        release: Name of their release.
        derived: Names of the derived bands, which follow the bands of the release.
        traces: Properties to find copies and overlaps by (`marsls_keras.data.decoded.leaks`).

    Example:
        >>> tiles = load(Dataset.open("data"))  # doctest: +SKIP
        >>> tiles.subset([0, 1]).images.shape  # doctest: +SKIP
        (2, 128, 128, 7)
    """

    refs: tuple[TileRef, ...]
    images: Images
    masks: np.ndarray
    valid: np.ndarray
    hashes: tuple[str, ...]
    geo: tuple[tuple, ...]
    release: str
    derived: tuple[str, ...] = ()
    traces: tuple[Trace, ...] = ()

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the C bands."""
        return (*RELEASES[self.release].bands, *self.derived)

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.refs)

    def subset(self, chosen: Sequence[int] | np.ndarray) -> Tiles:
        """Return the tiles at the given positions; images on disk are not copied."""
        index = np.asarray(chosen, dtype=int)

        def pick(values: tuple) -> tuple:
            return tuple(values[i] for i in index)

        return Tiles(
            pick(self.refs),
            select(self.images, index),
            self.masks[index],
            self.valid[index],
            pick(self.hashes),
            pick(self.geo),
            self.release,
            self.derived,
            pick(self.traces) if self.traces else (),
        )
