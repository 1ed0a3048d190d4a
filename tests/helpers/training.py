"""Train a run with the library alone, in the same way as the command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from marsls_keras.config import load_config
from marsls_keras.data.fingerprint import fingerprint
from marsls_keras.data.load_folder import load_folder
from marsls_keras.data.splits import make_splits
from marsls_keras.report import save_curves
from marsls_keras.runs.run import Run, read_history


def train_run(
    recipe: Path, data: Path, path: Path, settings: Sequence[str] = (), folds: Sequence[int] = (0,)
) -> tuple[Run, list[dict[str, Any]]]:
    """Train folds of a new run in a folder, and return it and the content of each fold's metrics.json."""
    from marsls_keras.training.train_fold import train_fold

    _, config = load_config(str(recipe), list(settings))
    tiles = load_folder(data, config.data)
    splits = make_splits(tiles, config.data, config.training.seed)
    pool = {tile["id"] for tile in splits.tiles}
    tiles = tiles.subset([i for i, ref in enumerate(tiles.refs) if ref.id in pool])
    run = Run.create(path, config, splits, fingerprint(tiles, data), False)
    metrics = [train_fold(run, fold, tiles) for fold in folds]
    for fold in folds:
        folder = run.fold_path(fold)
        save_curves(folder / "curves.png", read_history(folder / "history.csv"), f"{run.name}, fold {fold}")
    return run, metrics
