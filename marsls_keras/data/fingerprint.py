"""Fingerprint of a run's data: release, tile counts, band statistics and a SHA-256 digest to compare data by."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import AfterValidator, Field

from marsls_keras.data.decoded.disk_cache import Images, chunks, take_pixels
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.normalization import moments_of_valid
from marsls_keras.datasets import RELEASES
from marsls_keras.json_records import Digest, Name, Number, Positive, Record, Share

_EXACT = 1 << 27
_SAMPLE = 1 << 24
"""Above `_EXACT` values, percentiles are computed from about `_SAMPLE` evenly spaced values."""


def _known(release: str) -> str:
    if release not in RELEASES:
        raise ValueError(f"expected one of {', '.join(RELEASES)}")
    return release


class _Spread(Record):
    """Minimum, mean and maximum of a ratio over tiles."""

    min: Share
    mean: Share
    max: Share


class _Band(Record):
    """Statistics of a band's values over all tiles; p1 and p99 are percentiles."""

    min: float
    p1: float
    mean: float
    std: Annotated[float, Field(ge=0)]
    p99: float
    max: float


class FingerprintRecord(Record):
    """Schema of fingerprint.json; see `fingerprint`.

    Example:
        >>> read_record(Path("runs/default/fingerprint.json"), FingerprintRecord)["release"]  # doctest: +SKIP
        'mmls_v2'
    """

    data_root: Name
    release: Annotated[str, AfterValidator(_known)]
    sha256: Digest
    tiles: dict[Name, Number]
    size: Annotated[list[Positive], Field(min_length=2, max_length=2)]
    foreground_ratio: _Spread
    no_data_pixels: Number
    bands: dict[Name, _Band]
    reading: Number = 1

    remedy: ClassVar[str] = (
        "Restore the file from a copy, or train another run: what this one was trained on cannot be told without it."
    )


def band_statistics(
    images: Images, bands: Sequence[str], valid: np.ndarray | None = None
) -> dict[str, dict[str, float]]:
    """Return statistics per band of images (N, H, W, C).

    These are minimum, 1st percentile, mean, standard deviation, 99th percentile and maximum.

    Pixels where `valid`, bool (N, H, W), is False are left out, unless it is False everywhere (see `moments_of_valid`).
    Percentiles of more than 134 million values (512 MiB) are taken from every k-th pixel, 17 million values in all.

    Example:
        >>> band_statistics(np.ones((2, 4, 4, 1), np.float32), ["dem"])["dem"]["mean"]
        1.0
    """
    pixels = math.prod(images.shape[:3])
    step = 1 if pixels * len(bands) <= _EXACT else -(-pixels * len(bands) // _SAMPLE)
    valid = None if valid is None or valid.all() or not valid.any() else valid

    def extreme(function: Callable, start: float) -> np.ndarray:
        counted = ({} if valid is None else {"where": valid[part][..., None]} for part in chunks(images))
        parts = zip(chunks(images), counted, strict=True)
        return function(
            [function(images[part], axis=(0, 1, 2), initial=start, **where) for part, where in parts], axis=0
        )

    low, high = extreme(np.min, np.inf), extreme(np.max, -np.inf)
    mean, std = moments_of_valid(images, valid)
    sample = take_pixels(images, np.arange(0, pixels, step)) if step > 1 else images[:].reshape(-1, len(bands))
    if valid is not None:
        sample = sample[valid.reshape(-1)[::step]]
    table = {}
    for i, band in enumerate(bands):
        p1, p99 = np.percentile(sample[:, i], (1, 99))
        numbers = zip(
            ("min", "p1", "mean", "std", "p99", "max"), (low[i], p1, mean[i], std[i], p99, high[i]), strict=True
        )
        table[band] = {name: round(float(value), 6) for name, value in numbers}
    return table


def fingerprint(tiles: Tiles, root: Path) -> dict[str, Any]:
    """Return the content of fingerprint.json for the labelled tiles that a run uses.

    The digest covers names, pixels and masks but no paths, so a copy of the data elsewhere has the same digest.

    Example:
        >>> fingerprint(tiles, Path("data"))["tiles"]  # doctest: +SKIP
        {'train': 465, 'val': 66}
    """
    digest = hashlib.sha256()
    for i in _by_id(tiles):
        digest.update(f"{tiles.refs[i].id} {tiles.hashes[i]} ".encode())
        digest.update(tiles.masks[i].tobytes())
    ratio = tiles.masks.mean(axis=(1, 2))
    splits = sorted({ref.split for ref in tiles.refs})
    return {
        "data_root": str(root.resolve()),
        "release": tiles.release,
        "reading": RELEASES[tiles.release].reading,
        "sha256": digest.hexdigest(),
        "tiles": {split: sum(ref.split == split for ref in tiles.refs) for split in splits},
        "size": list(tiles.images.shape[1:3]),
        "foreground_ratio": {"min": float(ratio.min()), "mean": float(ratio.mean()), "max": float(ratio.max())},
        "no_data_pixels": int((~tiles.valid).sum()),
        "bands": band_statistics(tiles.images, tiles.bands, tiles.valid),
    }


def images_digest(tiles: Tiles) -> str:
    """Return one SHA-256 digest of the names and pixels of all tiles; masks and paths do not change it.

    Example:
        >>> len(images_digest(tiles))  # doctest: +SKIP
        64
    """
    return hashlib.sha256("".join(f"{tiles.refs[i].id} {tiles.hashes[i]} " for i in _by_id(tiles)).encode()).hexdigest()


def _by_id(tiles: Tiles) -> list[int]:
    """Return the positions of the tiles in the order of their ids."""
    return sorted(range(len(tiles)), key=lambda i: tiles.refs[i].id)
