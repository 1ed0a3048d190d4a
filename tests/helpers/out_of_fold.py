"""Synthetic out-of-fold predictions for tests."""

from pathlib import Path

import numpy as np

from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.index.dataset import TileRef
from marsls_keras.tuning.out_of_fold import OutOfFold
from marsls_keras.view_sets import VIEWS


def out_of_fold(
    masks: np.ndarray, views: dict[str, np.ndarray], folds: list[int], blocks: list | None = None, **others
) -> OutOfFold:
    """Return synthetic out-of-fold predictions of one or more runs; the tiles have masks, but no pixels."""
    number = len(masks)
    refs = tuple(
        TileRef(f"train/{i}", Path(f"{i}.tif"), Path(f"{i}.tif"), "train", "base", None) for i in range(number)
    )
    tiles = Tiles(
        refs, np.zeros((number, 0, 0, 7), np.float32), masks, masks == masks, ("",) * number, ((),) * number, "mmls_v2"
    )
    blocks = list(range(number)) if blocks is None else blocks
    runs = {
        run: {name: values.astype(np.float16) for name, values in each.items()}
        for run, each in {"run": views, **others}.items()
    }
    members = {run: {str(fold): "ab" * 32 for fold in sorted(set(folds))} for run in runs}
    return OutOfFold(tiles, np.array(folds), np.array(blocks), runs, members)


def made_up(
    seed: int, folds: int = 3, tiles: int = 9, size: int = 6, contrast: float = 0.12, names: tuple[str, ...] = VIEWS
) -> OutOfFold:
    """Return predictions whose best threshold is far from 0.5 and whose views differ in noise.

    Some seeds gain by tuning, some do not.
    """
    rng = np.random.default_rng(seed)
    masks = (rng.random((tiles, size, size)) < 0.4).astype(np.uint8)
    middle = rng.uniform(0.4, 0.5)
    shared = middle + contrast * (masks - 0.5) + rng.normal(0, 0.1, masks.shape)
    views = {name: np.clip(shared + rng.normal(0, rng.uniform(0, 0.1), masks.shape), 0, 1) for name in names}
    return out_of_fold(masks, views, [i % folds for i in range(tiles)])
