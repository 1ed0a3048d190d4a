"""Training and held-out tiles of one fold, as batches for the network."""

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
    """Hold the training and held-out tiles of one fold, and build batches of them.

    Attributes:
        run: The run.
        fold: Number of the fold, or "full".
        train: Training tiles, N of them.
        held_out: Tiles that the fold is evaluated on; empty in the refit on all tiles.
        normalizer: Normalisation with the statistics of the training tiles.
        kept: Weight set to keep where no tile is held out: "last", "ema" or "swa"; None keeps the best one.
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
        """The normalised training tiles, (N, H, W, C), computed on access.

        They hold only the bands that augmentation carries; `Normalizer.assemble` derives the others from them.
        """
        return Inputs(self.train.images, self.normalizer, self.train.bands)

    @property
    def labels(self) -> np.ndarray:
        """The labels of all labelled training pixels, uint8: (N, H, W), or flat if some pixels have no label."""
        return self.train.masks if self.weights is None else self.train.masks[self.weights > 0]

    @cached_property
    def evaluation(self) -> Any:
        """The held-out tiles in batches, normalised as the network input."""
        images = Inputs(self.held_out.images, self.normalizer, self.held_out.bands)
        size = self.run.config.inference.batch_size
        return evaluation_batches(images, self.held_out.masks, batch_size=size, finish=self.normalizer.assemble)

    @property
    def window_sides(self) -> tuple[int, ...]:
        """The side lengths, in pixels, of the windows that training samples; empty if it samples single tiles."""
        return window_sides(self.run.config.data, self.train.refs, *self.train.images.shape[1:3])

    def batches(self, batch_size: int) -> TrainingBatches:
        """Return augmented training batches of `batch_size` tiles, or of windows with as many pixels."""
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
