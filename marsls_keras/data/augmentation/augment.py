"""Apply all augmentations to batches of training tiles inside tf.data."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import tensorflow as tf

from marsls_keras.config import Augmentation
from marsls_keras.data.augmentation.geometric import Geometric
from marsls_keras.data.augmentation.mixing import CutMix, Mosaic
from marsls_keras.data.augmentation.photometric import ChannelDropout, Photometric
from marsls_keras.data.augmentation.transform import Sample, Transform
from marsls_keras.plugins import construct

AUGMENTATIONS: dict[str, Callable[[Augmentation, Sequence[str], Sequence[float]], Transform]] = {
    "mosaic": lambda config, bands, units: Mosaic(config.mosaic),
    "cutmix": lambda config, bands, units: CutMix(config.cutmix),
    "geometric": lambda config, bands, units: Geometric(config, bands),
    "photometric": lambda config, bands, units: Photometric(config, bands, units),
    "channel_dropout": lambda config, bands, units: ChannelDropout(config.channel_dropout, bands),
}
"""Transforms by name, in order of application, as functions of configuration, band names and units (see `Augment`)."""

_STREAMS = {
    name: number for number, name in enumerate(("mosaic", "cutmix", "geometric", "photometric", "channel_dropout"))
}
"""Fixed numbers of the first transforms' random streams, so that a resumed training draws as before."""


def stream(name: str) -> int:
    """Return the number of a transform's random stream, which depends on its name alone.

    Switching a transform on or off, or adding one, therefore leaves the draws of the others unchanged.

    Example:
        >>> stream("cutmix"), stream("fog")
        (1, 44625171)
    """
    return _STREAMS.get(name, zlib.crc32(name.encode()) & 0x7FFFFFFF)


class Augment:
    """Augment a batch of training tiles: mosaic, CutMix, geometric, photometric, channel dropout, in this order.

    Each tile draws its own transforms, and only those are computed. Transforms of probability 0 are not part of the
    graph. Flips and quarter turns are done by the pipeline when it fetches tiles, where they cost almost nothing.

    `Geometric` transforms bands and mask together; `Photometric` changes red, green and blue only.

    Args:
        config: Probabilities and strengths of the transforms.
        bands: Names of the C bands, in order.
        units: Change of network input for a change of 1 in the scale of tiles, [0, 1], per band (`Normalizer.units`),
            so that a brightness of 0.2 means the same with and without z-score.

    Example:
        >>> augment = Augment(Augmentation(cutmix=0.5), ("red", "dem"), (1.0, 1.0))
        >>> image, mask = tf.random.normal((4, 32, 32, 2)), tf.zeros((4, 32, 32, 1))
        >>> augment(image, mask, tf.ones_like(mask), tf.constant([0, 1]))[0].shape
        TensorShape([4, 32, 32, 2])
    """

    def __init__(self, config: Augmentation, bands: Sequence[str], units: Sequence[float]) -> None:
        built = {name: build(config, bands, units) for name, build in AUGMENTATIONS.items()}
        built |= {name: construct(name, options, "augmentation.custom") for name, options in config.custom.items()}
        self._transforms = [(stream(name), transform) for name, transform in built.items() if transform.active]

    def __call__(
        self, image: tf.Tensor, mask: tf.Tensor, weight: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Augment a batch.

        Args:
            image: float32 (B, H, W, C) with static H, W and C.
            mask: float32 (B, H, W, 1) of {0, 1}.
            weight: float32 (B, H, W, 1).
            seed: int32 (2,); equal seeds give equal results.

        Returns:
            Image, mask and weight of the same shapes; no new values occur in mask and weight.
        """
        batch = image, mask, weight
        if not self._transforms:
            return batch
        tiles = tf.shape(image)[0]
        _, height, width, _ = image.shape
        fold_in = tf.random.experimental.stateless_fold_in
        draws = tuple(
            transform.draw(tiles, height, width, fold_in(seed, number)) for number, transform in self._transforms
        )

        def changed(arguments: tuple) -> Sample:
            position, draws = arguments
            tile = image[position], mask[position], weight[position]
            for (_, transform), drawn in zip(self._transforms, draws, strict=True):
                tile = transform(tile, drawn, batch)
            return tile

        # Tile by tile, so that intermediate results stay in the CPU's cache; tf.data makes several batches in parallel.
        signature = tuple(tf.TensorSpec(values.shape[1:]) for values in batch)
        result = tf.map_fn(changed, (tf.range(tiles), draws), fn_output_signature=signature, parallel_iterations=2)
        return tuple(tf.ensure_shape(new, old.shape) for new, old in zip(result, batch, strict=True))
