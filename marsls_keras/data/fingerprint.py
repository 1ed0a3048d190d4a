"""What a run was trained on: release, counts, band statistics, and a digest that tells whether data are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from marsls_keras.data.integrity import Tiles


def band_statistics(images: np.ndarray, bands: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return minimum, 1st percentile, mean, standard deviation, 99th percentile and maximum per band of images (N, H, W, C)."""
    table = {}
    for i, band in enumerate(bands):
        values = images[..., i].ravel()
        low, p1, p99, high = np.percentile(values, (0, 1, 99, 100))
        mean, std = values.mean(dtype=np.float64), values.std(dtype=np.float64)
        numbers = zip(("min", "p1", "mean", "std", "p99", "max"), (low, p1, mean, std, p99, high), strict=True)
        table[band] = {name: round(float(value), 6) for name, value in numbers}
    return table


def fingerprint(tiles: Tiles, root: Path) -> dict[str, Any]:
    """Return the content of fingerprint.json for the labelled tiles a run uses.

    The digest covers names, pixels and masks, not paths: it is the same for a copy of the data in another place.
    """
    digest = hashlib.sha256()
    for i in sorted(range(len(tiles)), key=lambda i: tiles.refs[i].id):
        digest.update(f"{tiles.refs[i].id} {tiles.hashes[i]} ".encode())
        digest.update(tiles.masks[i].tobytes())
    ratio = tiles.masks.mean(axis=(1, 2))
    splits = sorted({ref.split for ref in tiles.refs})
    return {
        "data_root": str(root.resolve()),
        "release": tiles.release,
        "sha256": digest.hexdigest(),
        "tiles": {split: sum(ref.split == split for ref in tiles.refs) for split in splits},
        "size": list(tiles.images.shape[1:3]),
        "foreground_ratio": {"min": float(ratio.min()), "mean": float(ratio.mean()), "max": float(ratio.max())},
        "no_data_pixels": int((~tiles.valid).sum()),
        "bands": band_statistics(tiles.images, tiles.bands),
    }
