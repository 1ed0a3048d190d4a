"""Distribution shift between tiles and those of training, band by band: two-sample statistics and a plot."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from marsls_keras.data.decoded.disk_cache import take_pixels
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.errors import InputError
from marsls_keras.files import atomic

_SAMPLE = 20_000
_BINS = 60
_INK = ("#8A8A8A", "#0072B2", "#D55E00", "#009E73")  # Okabe and Ito's colours; the grey sample is the reference
FORMATS = (".png", ".svg")
"""Suffixes of the formats that a plot can be written in."""


def sample_pixels(tiles: Tiles) -> np.ndarray:
    """Draw up to 20,000 pixels with data in every band, float32 (n, C), at random with a fixed seed.

    Example:
        >>> valid = np.ones((2, 8, 8), bool)
        >>> tiles = Tiles((), np.ones((2, 8, 8, 3), "float32"), 0 * valid, valid, (), (), "mmls_v2")
        >>> sample_pixels(tiles).shape
        (128, 3)
    """
    rng = np.random.default_rng(0)
    if tiles.valid.all() or not tiles.valid.any():
        pixels = math.prod(tiles.images.shape[:3])
        return take_pixels(tiles.images, rng.choice(pixels, min(_SAMPLE, pixels), replace=False))
    known = np.flatnonzero(tiles.valid)
    return take_pixels(tiles.images, rng.choice(known, min(_SAMPLE, len(known)), replace=False))


def ks_statistics(first: np.ndarray, second: np.ndarray, bands: tuple[str, ...]) -> dict[str, float]:
    """Return the two-sample Kolmogorov-Smirnov statistic of each band: 0 for equal, 1 for disjoint distributions.

    Args:
        first: Pixels (n, C).
        second: Pixels (m, C).
        bands: Names of the C bands.

    Example:
        >>> ks_statistics(np.array([[0.0], [1.0]]), np.array([[2.0], [3.0]]), ("dem",))
        {'dem': 1.0}
    """
    from scipy.stats import ks_2samp  # slow to import; wrong input is refused before

    return {band: round(float(ks_2samp(first[:, i], second[:, i]).statistic), 4) for i, band in enumerate(bands)}


def mean_differences(
    first: Mapping[str, Mapping[str, float]], second: Mapping[str, Mapping[str, float]]
) -> dict[str, float | None]:
    """Return the standardised difference of the means of each band; None where both are constant.

    It is (mean2 - mean1) / sqrt((s1² + s2²) / 2), after Austin ("An introduction to propensity score methods",
    Multivariate Behavioral Research, 2011), where 0.1 and more counts as imbalance.

    Args:
        first: Mean and standard deviation per band, as "mean" and "std", of all pixels.
        second: Likewise.

    Example:
        >>> mean_differences({"dem": {"mean": 0.0, "std": 2.0}}, {"dem": {"mean": 1.0, "std": 2.0}})
        {'dem': 0.5}
    """
    found: dict[str, float | None] = {}
    for band, before in first.items():
        after = second[band]
        deviation = math.sqrt((before["std"] ** 2 + after["std"] ** 2) / 2)
        found[band] = round((after["mean"] - before["mean"]) / deviation, 4) if deviation else None
    return found


def require_format(path: Path) -> None:
    """Check that a plot can be written to a path.

    Raises:
        InputError: If the name does not end in .png or .svg, or the place is a folder.

    Example:
        >>> require_format(Path("shift.png"))
        >>> require_format(Path("shift.gif"))
        Traceback (most recent call last):
            ...
        marsls_keras.errors.InputError: --plot shift.gif: expected the name of a file ending in .png or .svg.
    """
    if path.suffix.lower() not in FORMATS or path.is_dir():
        raise InputError(f"--plot {path}: expected the name of a file ending in {' or '.join(FORMATS)}.")


def plot_distributions(samples: Mapping[str, np.ndarray], bands: tuple[str, ...], path: Path) -> None:
    """Plot the distribution of each band in several samples of pixels, as PNG or SVG.

    Values beyond the 0.5th and 99.5th percentile of all are left out, and each shape covers the same area as the
    others.

    Args:
        samples: Pixels (n, C) by the name of the tiles; the first is drawn as a filled shape, for the others to be
            compared with.
        bands: Names of the C bands.
        path: Where to write, ending in .png or .svg.

    Raises:
        RunError: If it cannot be written.

    Example:
        >>> samples = {"train": np.linspace(0, 1, 100)[:, None], "test": np.linspace(0.5, 2, 100)[:, None]}
        >>> plot_distributions(samples, ("dem",), Path("shift.svg"))
        >>> Path("shift.svg").exists()
        True
    """
    from matplotlib.figure import Figure  # slow to import, and not needed for the statistics

    columns = min(4, len(bands))
    rows = -(-len(bands) // columns)
    figure = Figure(figsize=(2.6 * columns, 1.9 * rows + 0.5), layout="constrained")
    for i, band in enumerate(bands):
        axes = figure.add_subplot(rows, columns, i + 1)
        low, high = np.percentile(np.concatenate([values[:, i] for values in samples.values()]), (0.5, 99.5))
        edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
        for j, (name, values) in enumerate(samples.items()):
            counts, _ = np.histogram(values[:, i], edges)
            density = counts / max(counts.sum(), 1)
            label = name if i == 0 else None
            if j == 0:
                axes.stairs(density, edges, color=_INK[j], label=label, fill=True, alpha=0.35)
            else:
                axes.stairs(density, edges, color=_INK[j % len(_INK)], label=label, linewidth=1.3)
        axes.set_title(band, fontsize=9)
        axes.set_yticks([])
        axes.tick_params(labelsize=7)
        axes.spines[["left", "top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=len(samples), fontsize=8, frameon=False)
    with atomic(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lower()[1:], dpi=150)
