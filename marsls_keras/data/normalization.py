"""Normalise canonical bands to network input: selection of bands, optional percentile stretch, z-score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from marsls_keras.bands.derived import LATE
from marsls_keras.bands.directions import Directions, take
from marsls_keras.bands.names import ALL, BANDS, expand_bands
from marsls_keras.config import Data
from marsls_keras.data.decoded.disk_cache import DiskImages, Images, chunks
from marsls_keras.datasets import unknown_bands
from marsls_keras.json_records import Name, Record

_EPSILON = 1e-6


@dataclass(frozen=True)
class Normalizer:
    """Normalisation of one fold, stored as normalization.json.

    Attributes:
        bands: The network's input bands, in order.
        percentiles: Percentiles between which each band of a tile is stretched to [0, 1] (DualSwinFusionSeg, section
            "Preprocessing", stage 1); None for no stretch.
        mean: Means that the z-score subtracts, first those of the carried bands, then those of the late bands (see
            `Directions`), which together are `bands` if none of them has a direction; None for no z-score.
        std: Standard deviations that the z-score divides by, in the same order.

    Example:
        >>> images = np.random.default_rng(0).normal(5, 2, (2, 8, 8, 1)).astype(np.float32)
        >>> normalizer = Normalizer.fit(images, Data(bands=("dem",)), stored=("dem",))
        >>> abs(float(normalizer.apply(images, ("dem",)).mean())) < 1e-5
        True
    """

    bands: tuple[str, ...]
    percentiles: tuple[float, float] | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    @classmethod
    def fit(
        cls, images: Images, config: Data, stored: Sequence[str] = BANDS, valid: np.ndarray | None = None
    ) -> Normalizer:
        """Compute the normalisation from the statistics of training tiles, which are read in chunks.

        Args:
            images: float32 (N, H, W, C), canonical.
            config: The section `data` of the configuration.
            stored: Names of the C bands; those of a Mars tile by default.
            valid: bool (N, H, W), which pixels to use (see `moments_of_valid`); None for all.

        Raises:
            InputError: If the images lack a requested band.
        """
        bands = expand_bands(config.bands, stored)
        bare = cls(bands, config.normalization.percentiles, None, None)
        return bare.refitted(images, stored, valid) if config.normalization.zscore else bare

    def refitted(self, images: Images, stored: Sequence[str] = BANDS, valid: np.ndarray | None = None) -> Normalizer:
        """Return a copy with the same bands and stretch, and the statistics of these tiles; args as in `fit`."""
        bare = replace(self, mean=None, std=None)
        mean, std = moments_of_valid(images, valid, lambda part: bare.select(bare.apply(part, stored), bare._columns))
        # Vectors must have the same normalisation before and after a rotation.
        for row, column, _ in bare.directions.vectors:
            both = [row, column]
            std[both] = np.sqrt((std[both] ** 2 + mean[both] ** 2).mean())
            mean[both] = 0
        # A band that is constant over all training tiles carries no information, and must not be amplified in other
        # tiles.
        std = np.where(std < _EPSILON, 1.0, std)
        return replace(bare, mean=tuple(map(float, mean)), std=tuple(map(float, std)))

    @cached_property
    def directions(self) -> Directions:
        """Which bands are carried through augmentation, and which of them are vectors."""
        return Directions(self.bands)

    def apply(self, images: np.ndarray, stored: Sequence[str] = BANDS) -> np.ndarray:
        """Return the carried bands of canonical images, normalised: float32 (N, H, W, len(directions.carried)).

        Args:
            images: float32 (N, H, W, C).
            stored: Names of the C bands.
        """
        carried = self.directions.carried
        values = images[..., [stored.index(band) for band in carried]]
        if self.percentiles is not None:
            low, width = _stretch(values, self.percentiles)
            stretched = np.clip((values - low) / width, 0, 1)
            values = np.where([band in self.directions.fixed for band in carried], values, stretched)
        if self.mean is not None and self.std is not None:
            number = len(carried)
            values = (values - np.asarray(self.mean[:number], np.float32)) / np.asarray(self.std[:number], np.float32)
        return values.astype(np.float32)

    def inputs(self, images: Images, stored: Sequence[str] = BANDS) -> np.ndarray | Inputs:
        """Return `apply` of all tiles as an array; for images on disk, an `Inputs` that computes it on demand."""
        return Inputs(images, self, tuple(stored)) if isinstance(images, DiskImages) else self.apply(images, stored)

    def select(self, carried: Any, names: Sequence[str]) -> Any:
        """Select normalised bands by name from carried bands; late bands are computed.

        Args:
            carried: Normalised carried bands (..., C), an array or a tensor.
            names: Names of carried or late bands.

        Returns:
            The bands, (..., len(names)), of the same kind.
        """
        position = {band: i for i, band in enumerate(self.directions.carried)}
        found = take(carried, [position.get(name, 0) for name in names])
        scales = dict(zip(self._columns, zip(*(scale.tolist() for scale in self._scales), strict=True), strict=True))
        for name in self.directions.late:
            here = np.array([name == other for other in names], np.float32)
            total = sum(
                weight * (carried[..., position[band], None] * scales[band][1] + scales[band][0])
                for band, weight in LATE[name].items()
            )
            mean, std = scales[name]
            found = found * (1 - here) + ((total + abs(total)) / 2 - mean) / std * here  # the positive part
        return found

    def assemble(self, carried: Any) -> Any:
        """Compute network input, float32 (..., len(bands)), from augmented carried bands, an array or a tensor."""
        if self.directions.carried == self.bands:
            return carried
        select = partial(self.select, names=self.bands)
        if isinstance(carried, np.ndarray):
            return select(carried)
        from marsls_keras.data.augmentation.transform import fused  # imports TensorFlow, so not at the top

        return fused(select)(carried)

    @property
    def _columns(self) -> tuple[str, ...]:
        """Names of the carried bands, then of the late bands."""
        return (*self.directions.carried, *self.directions.late)

    @property
    def _scales(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each of `_columns`; 0 and 1 without z-score."""
        number = len(self._columns)
        return (
            (np.zeros(number), np.ones(number)) if self.mean is None else (np.asarray(self.mean), np.asarray(self.std))
        )

    def restore(self, inputs: np.ndarray) -> np.ndarray:
        """Undo the z-score of network input (..., len(bands)); a percentile stretch is not undone."""
        mean, std = (scale[[self._columns.index(band) for band in self.bands]] for scale in self._scales)
        return inputs * std + mean

    @property
    def units(self) -> tuple[float, ...]:
        """Change of each carried band for a change of 1 in the scale of tiles: 1 / std, or 1 without z-score."""
        return tuple(1 / self._scales[1][: len(self.directions.carried)])

    def to_json(self) -> dict[str, Any]:
        """Return the content of normalization.json."""
        return {"bands": self.bands, "percentiles": self.percentiles, "mean": self.mean, "std": self.std}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Normalizer:
        """Create a normalisation from the content of normalization.json."""
        fields = {
            name: tuple(value[name]) if value[name] is not None else None for name in ("percentiles", "mean", "std")
        }
        return cls(bands=tuple(value["bands"]), **fields)


class NormalizationRecord(Record):
    """Schema of normalization.json; see `Normalizer`.

    Example:
        >>> read_record(Path("runs/default/fold_0/normalization.json"), NormalizationRecord)["bands"]  # doctest: +SKIP
        ['red', 'green', 'blue', 'dem', 'slope', 'thermal', 'gray']
    """

    bands: Annotated[list[Name], Field(min_length=1)]
    percentiles: Annotated[list[Annotated[float, Field(ge=0, le=100)]], Field(min_length=2, max_length=2)] | None
    mean: list[float] | None
    std: list[Annotated[float, Field(gt=0)]] | None

    remedy: ClassVar[str] = "Restore the file from a copy, or train the fold anew with --overwrite."

    @model_validator(mode="after")
    def _possible(self) -> NormalizationRecord:
        if ALL in self.bands or unknown_bands(self.bands) or len(set(self.bands)) < len(self.bands):
            raise ValueError(f"bands should be known bands, each once, found {', '.join(self.bands)}")
        if self.percentiles is not None and self.percentiles[0] >= self.percentiles[1]:
            raise ValueError("the first of the percentiles should be below the second")
        directions = Directions(self.bands)
        number = len(directions.carried) + len(directions.late)
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std should both be there, or both be null")
        if any(values is not None and len(values) != number for values in (self.mean, self.std)):
            raise ValueError(f"mean and std should have {number} numbers for these bands")
        return self


@dataclass(frozen=True)
class Inputs:
    """Carried bands that are computed on demand from tiles in memory or on disk.

    Attributes:
        images: Canonical images, (N, H, W, C).
        normalizer: The normalisation.
        stored: Names of the C bands.

    Example:
        >>> images = np.zeros((3, 8, 8, 1), np.float32)
        >>> Inputs(images, Normalizer(("dem",), None, None, None), ("dem",))[0].shape
        (8, 8, 1)
    """

    images: Images
    normalizer: Normalizer
    stored: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all tiles: (N, H, W, carried bands)."""
        return (*self.images.shape[:3], len(self.normalizer.directions.carried))

    @property
    def places(self) -> list[int]:
        """Positions of the carried bands among the C bands."""
        return [self.stored.index(band) for band in self.normalizer.directions.carried]

    @cached_property
    def stretch(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Offset and width of the percentile stretch per tile and band, float32 (N, 1, 1, C); None without percentiles.

        A stretched value is (value - offset) / width.
        """
        if self.normalizer.percentiles is None:
            return None
        parts = [
            _stretch(self.images[part][..., self.places], self.normalizer.percentiles) for part in chunks(self.images)
        ]
        low, width = (np.concatenate(values) for values in zip(*parts, strict=True))
        return low, width

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, which: Any) -> np.ndarray:
        """Return the carried bands of selected tiles.

        Args:
            which: Position of one tile, a slice, or n positions.

        Returns:
            float32 (H, W, carried bands) for one position, else (n, H, W, carried bands).
        """
        if isinstance(which, int | np.integer):
            return self[[which]][0]
        return self.normalizer.apply(self.images[which], self.stored)

    @property
    def dtype(self) -> np.dtype:
        """Data type of the bands."""
        return np.dtype(np.float32)


def _stretch(values: np.ndarray, percentiles: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return lower percentile and distance of the percentiles for each tile and band: float32 (N, 1, 1, C)."""
    low, high = np.percentile(values, percentiles, axis=(1, 2), keepdims=True).astype(np.float32)
    return low, np.maximum(high - low, np.float32(_EPSILON))


def moments(parts: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean and standard deviation per band, float64 (C,), of images (n, H, W, C) given in chunks.

    The moments of the chunks are merged by the formulas of Chan, Golub and LeVeque ("Updating formulae and a pairwise
    algorithm for computing sample variances", 1979), which are accurate even if the mean is far from zero.

    Example:
        >>> mean, std = moments([np.array([[[[1.0]], [[3.0]]]])])
        >>> float(mean[0]), float(std[0])
        (2.0, 1.0)
    """
    number, mean, squares = 0, np.zeros(()), np.zeros(())
    for part in parts:
        values = part.reshape(-1, part.shape[-1])
        own = values.mean(axis=0, dtype=np.float64)
        away, share = own - mean, len(values) / (number + len(values))
        squares = squares + values.var(axis=0, dtype=np.float64) * len(values) + away**2 * number * share
        mean = mean + away * share
        number += len(values)
    return mean, np.sqrt(squares / number)


def moments_of_valid(
    images: Images, valid: np.ndarray | None, change: Callable[[np.ndarray], np.ndarray] = lambda part: part
) -> tuple[np.ndarray, np.ndarray]:
    """Compute `moments` of the pixels of images (N, H, W, C) that have data in every band.

    Args:
        images: The images, which are read in chunks.
        valid: bool (N, H, W), False where a band had no data and was filled; None if none was. If no pixel is valid, as
            when one band is missing from all tiles, all pixels are used.
        change: Function applied to images (n, H, W, C) before their pixels are selected.

    Example:
        >>> images, valid = np.array([[[[1.0], [9.0]]]]), np.array([[[True, False]]])
        >>> float(moments_of_valid(images, valid)[0][0])
        1.0
    """
    if valid is None or valid.all() or not valid.any():
        return moments(change(images[part]) for part in chunks(images))
    return moments(change(images[part])[valid[part]] for part in chunks(images) if valid[part].any())
