"""Cache of a fold's out-of-fold predictions, one array per view, valid for the weights that made them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from marsls_keras.files import DAMAGED_NPZ, atomic
from marsls_keras.inference.tta import ViewPrediction


def save_oof(path: Path, ids: list[str], views: dict[str, ViewPrediction], weights_sha256: str) -> None:
    """Write oof.npz atomically.

    Pixel probabilities are stored as float16, rounded down, so that the masks at threshold 0.5, and with them the
    scores in metrics.json, do not change. The step of float16 near 1 (0.0005) is finer than a threshold bin. Image
    probabilities, if there are any, keep their precision.

    Args:
        path: File.
        ids: Ids of the N held-out tiles.
        views: Prediction per view.
        weights_sha256: SHA-256 of the weights that made the predictions.

    Raises:
        RunError: If the file cannot be written.

    Example:
        >>> seen = ViewPrediction(np.full((1, 2, 2), 0.5, np.float32), None)
        >>> save_oof(Path("oof.npz"), ["train/a"], {"identity": seen}, "ab" * 32)
        >>> list(load_oof(Path("oof.npz"), ["train/a"], "ab" * 32))
        ['identity']
    """
    arrays: dict[str, Any] = {f"view_{name}": half(seen.probability) for name, seen in views.items()}
    arrays |= {f"landslide_{name}": seen.landslide for name, seen in views.items() if seen.landslide is not None}
    with atomic(path) as temporary:
        np.savez(temporary, ids=np.array(ids), weights=np.array(weights_sha256), **arrays)


def load_oof(
    path: Path, ids: list[str], weights_sha256: str, size: tuple[int, int] | None = None
) -> dict[str, ViewPrediction]:
    """Read oof.npz and return the prediction per view, with pixel probabilities in float16.

    The result is empty if the file is missing or damaged, or if it holds other tiles, another tile size, or predictions
    of other weights: they can be computed again.

    Args:
        path: File.
        ids: Ids of the expected tiles, in order.
        weights_sha256: SHA-256 of the expected weights.
        size: Expected height and width of the tiles; any by default.

    Example:
        >>> load_oof(Path("missing.npz"), ["train/a"], "ab" * 32)
        {}
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if str(arrays["weights"]) != weights_sha256 or list(arrays["ids"]) != ids:
                return {}
            names = [name.removeprefix("view_") for name in arrays.files if name.startswith("view_")]
            found = {name: ViewPrediction(arrays[f"view_{name}"], arrays.get(f"landslide_{name}")) for name in names}
    except DAMAGED_NPZ:
        return {}
    return found if all(_sound(seen, len(ids), size) for seen in found.values()) else {}


def _sound(seen: ViewPrediction, number: int, size: tuple[int, int] | None) -> bool:
    """Return whether a prediction has the shapes and dtypes that `save_oof` writes, and values in [0, 1] or NaN."""
    shape = seen.probability.shape
    if (
        seen.probability.dtype != np.float16
        or len(shape) != 3
        or shape[0] != number
        or (size is not None and shape[1:] != tuple(size))
    ):
        return False
    arrays = [seen.probability, *([] if seen.landslide is None else [seen.landslide])]
    if seen.landslide is not None and (seen.landslide.dtype != np.float32 or seen.landslide.shape != (number,)):
        return False
    return not any((array < 0).any() or (array > 1).any() for array in arrays)


def half(values: np.ndarray) -> np.ndarray:
    """Convert probabilities to float16, rounded down.

    Example:
        >>> float(half(np.array(0.99999, np.float32)))
        0.99951171875
    """
    nearest = values.astype(np.float16)
    return np.where(nearest > values, np.nextafter(nearest, np.float16(0)), nearest)
