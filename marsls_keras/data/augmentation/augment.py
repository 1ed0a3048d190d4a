"""Random changes of whole batches of training tiles inside tf.data."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from marsls_keras.config import Augmentation
from marsls_keras.data.augmentation.geometric import Warp
from marsls_keras.data.augmentation.mixing import CutMix, Mosaic
from marsls_keras.data.augmentation.photometric import ChannelDropout, Photometry
from marsls_keras.data.augmentation.transform import Change, Tile


class Augment:
    """Random changes of a batch: mosaic and CutMix, then geometry, then photometry of the colours, then the loss of a modality.

    Each tile draws for itself, and only what is drawn is computed. Changes of probability 0 add nothing to the graph. Flips and
    quarter turns are not among them: they cost next to nothing where tiles are fetched, so the pipeline does them there.

    Geometry moves bands and mask together, photometry changes red, green and blue only; see `Warp` and `Photometry` for what that means.

    Args:
        config: What is changed, how often and how strongly.
        bands: Names of the C bands, in order.
        units: For each band, how much of network input 1 in the scale of tiles, [0, 1], is (`Normalizer.units`), so that a brightness of
            0.2 means the same with and without z-score.
    """

    def __init__(self, config: Augmentation, bands: Sequence[str], units: Sequence[float]) -> None:
        changes: tuple[Change, ...] = (
            Mosaic(config.mosaic),
            CutMix(config.cutmix),
            Warp(config, bands),
            Photometry(config, bands, units),
            ChannelDropout(config.channel_dropout, bands),
        )
        # Each has a seed of its own, so that switching one on or off leaves the draws of the others as they are.
        self._changes = [(number, change) for number, change in enumerate(changes) if change.active]

    def __call__(self, image: tf.Tensor, mask: tf.Tensor, weight: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Change a batch.

        Args:
            image: float32 (B, H, W, C), of known H, W and C.
            mask: float32 (B, H, W, 1) of {0, 1}.
            weight: float32 (B, H, W, 1).
            seed: int32 (2,); equal seeds give equal results.

        Returns:
            image, mask and weight of the same shapes; mask and weight have no values that they did not have before.
        """
        batch = image, mask, weight
        if not self._changes:
            return batch
        tiles = tf.shape(image)[0]
        _, height, width, _ = image.shape
        fold_in = tf.random.experimental.stateless_fold_in
        plans = tuple(change.draw(tiles, height, width, fold_in(seed, number)) for number, change in self._changes)

        def changed(arguments: tuple) -> Tile:
            position, plans = arguments
            tile = image[position], mask[position], weight[position]
            for (_, change), plan in zip(self._changes, plans, strict=True):
                tile = change(tile, plan, batch)
            return tile

        # Tile by tile, so that what lies in between stays in the processor's cache; tf.data makes several batches side by side.
        signature = tuple(tf.TensorSpec(values.shape[1:]) for values in batch)
        result = tf.map_fn(changed, (tf.range(tiles), plans), fn_output_signature=signature, parallel_iterations=2)
        return tuple(tf.ensure_shape(new, old.shape) for new, old in zip(result, batch, strict=True))
