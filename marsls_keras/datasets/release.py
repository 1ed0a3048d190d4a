"""Description of a published dataset: bands, scale, no-data, layout, and how synthetic tiles imitate it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from marsls_keras.bands.names import BANDS
from marsls_keras.datasets.layout import Layout
from marsls_keras.lazy_imports import np


@dataclass(frozen=True)
class StoredTile:
    """An image file whose release is to be detected.

    Attributes:
        path: The file.
        image: float32 (H, W, C), as stored, NaN where there is no data.
        kind: Type of the values in the file.

    Example:
        >>> StoredTile(Path("a.tif"), np.array([[[0.25, np.nan]]], np.float32), np.dtype(np.float32)).span
        (0.25, 0.25)
    """

    path: Path
    image: np.ndarray
    kind: np.dtype

    @cached_property
    def span(self) -> tuple[float, float]:
        """The smallest and the largest value that is not NaN; (inf, -inf) if all are."""
        return float(np.nanmin(self.image, initial=np.inf)), float(np.nanmax(self.image, initial=-np.inf))


@dataclass(frozen=True)
class SyntheticTile:
    """A synthetic tile that is to be written in the form of a dataset.

    Attributes:
        split: train, val or test.
        index: Number within the split, from 0 on.
        cell: (row, column) in its raster's grid.
        image: float32 (H, W, 7) in [0, 1], the bands of `BANDS`. It may be changed.
        mask: uint8 (H, W) of {0, 1}.

    Example:
        >>> tile = SyntheticTile("train", 0, (7, 1), np.zeros((32, 32, 7), np.float32), np.zeros((32, 32), np.uint8))
        >>> tile.split, tile.cell
        ('train', (7, 1))
    """

    split: str
    index: int
    cell: tuple[int, int]
    image: np.ndarray
    mask: np.ndarray


class SyntheticFile(NamedTuple):
    """A file of a synthetic dataset; its ending determines the container.

    Attributes:
        path: Path below the data folder, with slashes.
        array: The values.
        options: Options of the writer: keyword arguments of `tifffile.imwrite`, or the `key` of an HDF5 dataset.

    Example:
        >>> SyntheticFile("train/masks/1.png", np.zeros((32, 32), np.uint8)).options
        {}
    """

    path: str
    array: np.ndarray
    options: Mapping[str, Any] = {}


@dataclass(frozen=True)
class SyntheticForm:
    """How synthetic tiles are written in the form of a dataset (`marsls synth`).

    Attributes:
        files: Function that returns the files of a tile.
        empty: Whether tiles without landslide are published, too.
        splits: Whether there are splits; if not, all tiles are training tiles.
        own_grid: Whether each raster numbers its own cells; if not, all cells are positions on one map.

    Example:
        >>> form = SyntheticForm(lambda tile: [SyntheticFile(f"{tile.split}/masks/{tile.index}.png", tile.mask)])
        >>> form.splits
        True
    """

    files: Callable[[SyntheticTile], list[SyntheticFile]]
    empty: bool = False
    splits: bool = True
    own_grid: bool = False


@dataclass(frozen=True)
class Release:
    """Describe how a published dataset stores its tiles.

    Attributes:
        name: Name of the release, in options, configurations and run directories.
        title: Name of the dataset in sentences.
        description: One line for tables and messages.
        order: Band names in the order of the file.
        family: Releases of one family have equal canonical values, so that a run trained on one can predict the other.
        layout: Its folder layout.
        synthetic: How synthetic tiles are written in its form.
        scale: Per band in file order; canonical value = (stored value - offset) / scale. Empty for 1.
        offset: See scale. Empty for 0.
        bands: Band names in canonical order.
        relief: Metres of height per unit of the band dem.
        pixel: Side of a pixel in metres.
        limit: Largest possible absolute value in a file; beyond it the file is damaged, or marks no-data in an unknown
            way.
        no_data: Stored value that means no data, by band, for the bands that have one.
        eight_bits: Whether images are stored with 8 bits a band; others are refused.
        image_key: Name of an image's dataset, where the container is HDF5.
        mask_key: Name of a mask's dataset.
        cell: Pattern with groups `row` and `col` for the grid cell in the stem of a file; None if names have none.
        claims: Function that decides from name and values whether a file with the right ending and number of bands is
            of this release.
        certain: Function that decides whether the canonical image (H, W, C) of a claimed file identifies the release;
            if not, the release of the other files of its folder is used.
        reading: Version of the reader, raised when the meaning of pixels changes; a run that was trained with another
            version is refused.

    Example:
        >>> from marsls_keras.datasets import RELEASES
        >>> stored = np.full((1, 1, 7), 127, np.float32)
        >>> float(RELEASES["challenge"].to_canonical(stored)[0, 0, -1])  # gray is 254 times the canonical value
        0.5
    """

    name: str
    title: str
    description: str
    order: tuple[str, ...]
    family: str
    layout: Layout
    synthetic: SyntheticForm
    scale: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()
    bands: tuple[str, ...] = BANDS
    relief: float = 12822.0
    pixel: float = 232.0
    limit: float = 1e6  # well above heights in metres, the largest values
    no_data: Mapping[str, float] = field(default_factory=dict)
    eight_bits: bool = False
    image_key: str = "img"
    mask_key: str = "mask"
    cell: re.Pattern[str] | None = None
    claims: Callable[[StoredTile], bool] = lambda tile: True
    certain: Callable[[np.ndarray], bool] = lambda image: True
    reading: int = 1

    @property
    def scales(self) -> tuple[np.ndarray, np.ndarray]:
        """Scale and offset per band in file order, float64 (C,)."""
        number = len(self.order)
        return np.array(self.scale or (1.0,) * number), np.array(self.offset or (0.0,) * number)

    def missing(self, image: np.ndarray) -> np.ndarray:
        """Return where a stored image (H, W, C) has the no-data value of its band, bool (H, W, C)."""
        # A band without no-data value is compared with NaN, which equals nothing.
        return image == np.array([self.no_data.get(band, np.nan) for band in self.order], np.float32)

    def to_canonical(self, image: np.ndarray) -> np.ndarray:
        """Convert a stored image (H, W, C) to canonical band order and scale, float32 (H, W, C)."""
        scale, offset = self.scales
        values = (image.astype(np.float64) - offset) / scale
        return values[..., [self.order.index(band) for band in self.bands]].astype(np.float32)

    def from_canonical(self, image: np.ndarray) -> np.ndarray:
        """Convert a canonical image (H, W, C) to the band order and scale of the file, float32 (H, W, C)."""
        scale, offset = self.scales
        values = image[..., [self.bands.index(band) for band in self.order]].astype(np.float64)
        return (values * scale + offset).astype(np.float32)
