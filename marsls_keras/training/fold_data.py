"""What a fold trains on, and what it holds out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.grid.tile_grid import TileGrid
from marsls_keras.data.normalization import Inputs, Normalizer
from marsls_keras.data.pipeline.batches import TrainingBatches, evaluation_batches
from marsls_keras.data.pipeline.window_sampling import window_sides
from marsls_keras.data.splits import Fold
from marsls_keras.runs.run import Run


@dataclass(frozen=True)
class FoldData:
    """The tiles of a fold, with their normalisation.

    Attributes:
        run: The run.
        fold: Number of the fold, or "full".
        train: Training tiles, N of them.
        held_out: The tiles that the fold is judged on.
        normalizer: Normalisation with the statistics of the training tiles.
        kept: The set of weights that is kept where nothing is held out to judge them: "last", "ema" or "swa".
        weights: Weights of the pixels of the training tiles, float32 (N, H, W), 0 where there is no label; None for 1
            everywhere.

    Example:
        >>> data = FoldData(run, 0, train, held_out, Normalizer.fit(train.images, run.config.data))  # doctest: +SKIP
        >>> data.batches(batch_size=8).steps_per_epoch          # doctest: +SKIP
        54
    """

    run: Run
    fold: Fold
    train: Tiles
    held_out: Tiles
    normalizer: Normalizer
    kept: str | None = None
    weights: np.ndarray | None = None

    @property
    def inputs(self) -> Inputs:
        """The bands of the training tiles that are carried, normalised, (N, H, W, C), made where they are asked for."""
        return Inputs(self.train.images, self.normalizer, self.train.bands)

    @property
    def labels(self) -> np.ndarray:
        """The labels of the training tiles, uint8, of the pixels that have one."""
        return self.train.masks if self.weights is None else self.train.masks[self.weights > 0]

    @cached_property
    def evaluation(self) -> Any:
        """The held-out tiles in batches, as the network sees them."""
        images = Inputs(self.held_out.images, self.normalizer, self.held_out.bands)
        size = self.run.config.inference.batch_size
        return evaluation_batches(images, self.held_out.masks, batch_size=size, finish=self.normalizer.assemble)

    @property
    def window_sides(self) -> tuple[int, ...]:
        """The sides of the windows in pixels that training samples; none where it sees single tiles."""
        return window_sides(self.run.config.data, self.train.refs, *self.train.images.shape[1:3])

    def batches(self, batch_size: int) -> TrainingBatches:
        """Return the training batches of this many tiles."""
        config, (_, height, width, _) = self.run.config, self.train.images.shape
        sides = self.window_sides
        return TrainingBatches(
            self.inputs,
            self.train.masks,
            batch_size=batch_size,
            augmentation=config.augmentation,
            bands=self.normalizer.directions.carried,
            units=self.normalizer.units,
            seed=config.training.seed,
            epochs=config.training.epochs,
            grid=TileGrid.of(self.train.refs, height, width, max(sides)) if sides else None,
            sizes=sides,
            weights=self.weights,
            finish=self.normalizer.assemble,
        )
