"""From canonical values to network input: a choice of bands, an optional percentile stretch, z-scores."""

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
    """The normalisation of one fold; kept as normalization.json.

    Attributes:
        bands: The network's bands, in order.
        percentiles: Percentiles that a tile's band is stretched between, or None (DualSwinFusionSeg, section
            "Preprocessing", stage 1).
        mean: Subtracted, for each of the bands that are carried and then of those that are computed late
            (`Directions`), which together are `bands` if none of them has a direction; None for no z-score.
        std: Divided by, likewise.

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
        """Return the normalisation with the statistics of these training tiles, which are looked at some at a time.

        Args:
            images: float32 (N, H, W, C), canonical.
            config: The section `data` of the configuration.
            stored: Names of the C bands; those of a Mars tile by default.
            valid: bool (N, H, W), which pixels count (see `moments_of_valid`); None for all.

        Raises:
            InputError: If the images do not have a band that is asked for.
        """
        bands = expand_bands(config.bands, stored)
        bare = cls(bands, config.normalization.percentiles, None, None)
        return bare.refitted(images, stored, valid) if config.normalization.zscore else bare

    def refitted(self, images: Images, stored: Sequence[str] = BANDS, valid: np.ndarray | None = None) -> Normalizer:
        """Return the same bands and stretch with the statistics of these tiles; args as in `fit`."""
        bare = replace(self, mean=None, std=None)
        mean, std = moments_of_valid(images, valid, lambda part: bare.select(bare.apply(part, stored), bare._columns))
        # Vectors must have the same normalisation before and after a rotation.
        for row, column, _ in bare.directions.vectors:
            both = [row, column]
            std[both] = np.sqrt((std[both] ** 2 + mean[both] ** 2).mean())
            mean[both] = 0
        # A band that is constant over all training tiles carries nothing; it must not be blown up elsewhere either.
        std = np.where(std < _EPSILON, 1.0, std)
        return replace(bare, mean=tuple(map(float, mean)), std=tuple(map(float, std)))

    @cached_property
    def directions(self) -> Directions:
        """Which bands are carried while tiles are moved, and which of them turn."""
        return Directions(self.bands)

    def apply(self, images: np.ndarray, stored: Sequence[str] = BANDS) -> np.ndarray:
        """Return the bands that are carried, normalised, float32 (N, H, W, len(directions.carried)), of canonical images.

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
        """Return `apply` of all tiles: an array, or of images on disk what makes those that are asked for."""
        return Inputs(images, self, tuple(stored)) if isinstance(images, DiskImages) else self.apply(images, stored)

    def select(self, carried: Any, names: Sequence[str]) -> Any:
        """Return bands (..., len(names)) by name, carried or late, from carried bands (..., C); normalised; an array or a tensor."""
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
        """Return network input, float32 (..., len(bands)), from carried bands in their final position; an array or a tensor."""
        if self.directions.carried == self.bands:
            return carried
        select = partial(self.select, names=self.bands)
        if isinstance(carried, np.ndarray):
            return select(carried)
        from marsls_keras.data.augmentation.transform import fused  # imports TensorFlow

        return fused(select)(carried)

    @property
    def _columns(self) -> tuple[str, ...]:
        return (*self.directions.carried, *self.directions.late)

    @property
    def _scales(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of `_columns`, 0 and 1 without z-score."""
        number = len(self._columns)
        return (
            (np.zeros(number), np.ones(number)) if self.mean is None else (np.asarray(self.mean), np.asarray(self.std))
        )

    def restore(self, inputs: np.ndarray) -> np.ndarray:
        """Return network input (..., len(bands)) in the scale of tiles; a percentile stretch stays."""
        mean, std = (scale[[self._columns.index(band) for band in self.bands]] for scale in self._scales)
        return inputs * std + mean

    @property
    def units(self) -> tuple[float, ...]:
        """How much a carried band changes where that band of tiles in [0, 1] changes by 1: 1 / std of the z-score, or 1 without it."""
        return tuple(1 / self._scales[1][: len(self.directions.carried)])

    def to_json(self) -> dict[str, Any]:
        """Return the content of normalization.json."""
        return {"bands": self.bands, "percentiles": self.percentiles, "mean": self.mean, "std": self.std}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Normalizer:
        """Return the normalisation that `to_json` gave."""
        fields = {
            name: tuple(value[name]) if value[name] is not None else None for name in ("percentiles", "mean", "std")
        }
        return cls(bands=tuple(value["bands"]), **fields)


class NormalizationRecord(Record):
    """The form of normalization.json; see `Normalizer`.

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
    """Carried bands that are made, from tiles in memory or on disk, where they are asked for.

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
        """(N, H, W, carried bands)."""
        return (*self.images.shape[:3], len(self.normalizer.directions.carried))

    @property
    def places(self) -> list[int]:
        """Where in the C bands those that are carried are."""
        return [self.stored.index(band) for band in self.normalizer.directions.carried]

    @cached_property
    def stretch(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Per tile and band the value that becomes 0 and the distance that becomes 1, float32 (N, 1, 1, C); None without percentiles."""
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
        """Return the bands, float32 (n, H, W, carried bands), of a slice of the tiles or of those at n positions; (H, W, …) of one."""
        if isinstance(which, int | np.integer):
            return self[[which]][0]
        return self.normalizer.apply(self.images[which], self.stored)

    @property
    def dtype(self) -> np.dtype:
        """Type of the bands."""
        return np.dtype(np.float32)


def _stretch(values: np.ndarray, percentiles: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.percentile(values, percentiles, axis=(1, 2), keepdims=True).astype(np.float32)
    return low, np.maximum(high - low, np.float32(_EPSILON))


def moments(parts: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation per band, float64 (C,), of images (n, H, W, C) that come in parts.

    Each part's own are joined by the formulas of Chan, Golub and LeVeque ("Updating formulae and a pairwise algorithm
    for computing sample variances", 1979), which do not lose digits where the mean is far from zero.

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
    """Return `moments` of those pixels of images (N, H, W, C) that have data in every band.

    Args:
        images: The images, looked at some at a time.
        valid: bool (N, H, W), False where a band had no data and was filled; None if none was. If no pixel is valid, as
            where one band is missing from all tiles, all of them count.
        change: What is done to images (n, H, W, C) before their pixels are chosen.

    Example:
        >>> images, valid = np.array([[[[1.0], [9.0]]]]), np.array([[[True, False]]])
        >>> float(moments_of_valid(images, valid)[0][0])
        1.0
    """
    if valid is None or valid.all() or not valid.any():
        return moments(change(images[part]) for part in chunks(images))
    return moments(change(images[part])[valid[part]] for part in chunks(images) if valid[part].any())
