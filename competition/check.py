"""What is in a data folder, and what is wrong with it."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ks_2samp

from marsls_keras.data.dataset import Dataset
from marsls_keras.data.fingerprint import band_statistics
from marsls_keras.data.integrity import Tiles, examine
from marsls_keras.data.refs import Problem, TileRef
from marsls_keras.data.store import take_pixels

_SAMPLE = 20_000


def check_data(root: Path, release: str = "auto", resize: int | None = None) -> dict[str, Any]:
    """Read every tile of a data folder.

    Args:
        root: Data folder.
        release: Name of a release, or "auto" to detect it.
        resize: Height and width to bring all tiles to; None for their own.

    Returns:
        Release, size, and per split: tiles, labelled tiles, foreground ratio, neighbours per tile, filled pixels, band statistics; between
        the first split and each other one the two-sample Kolmogorov-Smirnov statistic of each band (0 alike, 1 disjoint) and how many
        tiles touch; and all problems with their severity.

    Raises:
        InputError: If the folder is missing or holds no split.
    """
    dataset = Dataset.open(root, strict=False, release=release)
    tiles, problems = examine(dataset.tiles, release, resize)
    result: dict[str, Any] = {"root": str(root), "release": None, "size": None, "splits": {}, "shift": {}, "touching": {}}
    result["problems"] = [asdict(problem) for problem in _ordered([*dataset.problems, *problems])]
    if tiles is None:
        return result
    result["release"], result["size"] = tiles.release, list(tiles.images.shape[1:3])
    splits = [name for name in ("train", "val", "test") if any(ref.split == name for ref in tiles.refs)]
    parts = {name: tiles.subset([i for i, ref in enumerate(tiles.refs) if ref.split == name]) for name in splits}
    result["splits"] = {name: _describe(part) for name, part in parts.items()}
    for name in splits[1:]:
        result["shift"][f"{splits[0]}-{name}"] = _shift(parts[splits[0]], parts[name])
        result["touching"][f"{splits[0]}-{name}"] = _touching(parts[name].refs, parts[splits[0]].refs)
    return result


def _ordered(problems: list[Problem]) -> list[Problem]:
    """Return errors before warnings, each kind together."""
    return sorted(problems, key=lambda problem: (problem.severity != "error", problem.kind))


def _describe(tiles: Tiles) -> dict[str, Any]:
    labelled = [i for i, ref in enumerate(tiles.refs) if ref.labelled]
    ratio = tiles.masks[labelled].mean(axis=(1, 2))
    return {
        "tiles": len(tiles),
        "labelled": len(labelled),
        "foreground": {"min": float(ratio.min()), "mean": float(ratio.mean()), "max": float(ratio.max())} if labelled else None,
        "neighbours": _touching(tiles.refs, tiles.refs, count_all=True) / len(tiles),
        "no_data_pixels": int((~tiles.valid).sum()),
        "bands": band_statistics(tiles.images, tiles.bands),
    }


def _shift(a: Tiles, b: Tiles) -> dict[str, float]:
    """Return the Kolmogorov-Smirnov statistic of each band, on a sample of pixels."""
    generator = np.random.default_rng(0)

    def sample(tiles: Tiles) -> np.ndarray:
        pixels = math.prod(tiles.images.shape[:3])
        return take_pixels(tiles.images, generator.choice(pixels, min(_SAMPLE, pixels), replace=False))

    first, second = sample(a), sample(b)
    return {band: round(float(ks_2samp(first[:, i], second[:, i]).statistic), 4) for i, band in enumerate(a.bands)}


def _touching(refs: tuple[TileRef, ...], others: tuple[TileRef, ...], count_all: bool = False) -> int:
    """Return how many tiles share a side with one of the others, or, with `count_all`, how many such sides there are."""
    cells = {(ref.raster, ref.cell) for ref in others if ref.cell is not None}
    sides = [
        sum((ref.raster, (ref.cell[0] + dr, ref.cell[1] + dc)) in cells for dr, dc in ((0, 1), (1, 0), (0, -1), (-1, 0)))
        for ref in refs
        if ref.cell is not None
    ]
    return sum(sides) if count_all else sum(side > 0 for side in sides)
