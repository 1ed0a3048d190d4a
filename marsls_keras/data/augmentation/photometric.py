"""Blur, brightness, contrast and noise, of red, green and blue only; and the loss of a whole modality."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import numpy as np
import tensorflow as tf

from marsls_keras.bands.directions import sources_of
from marsls_keras.config import Augmentation
from marsls_keras.data.augmentation.transform import Draws, Sample, between, fused, where_drawn

COLOURS = ("red", "green", "blue")
MODALITIES = (COLOURS, ("dem", "slope"), ("thermal",), ("gray",))
"""Bands of one origin, which go missing together."""


class Photometric:
    """Random blur, brightness, contrast and noise of red, green and blue, as of another camera on another day.

    The other bands are physical quantities (height, steepness, thermal inertia), or, as gray, the picture by which
    landslides are told; they stay as they are, to the bit (DualSwinFusionSeg, Table 4).

    Light turns v into contrast · v + brightness · unit, with the same two numbers for red, green and blue. v is network
    input, so contrast is about 0: the band's mean after the z-score, black without one. Nothing is clipped.

    Args:
        config: The sections blur, light and noise count.
        bands: Names of the C bands.
        units: For each band, how much of network input 1 in the scale of tiles, [0, 1], is.

    Example:
        >>> Photometric(Augmentation(light={"probability": 0.3}), ("dem", "slope"), (1.0, 1.0)).active  # no colours
        False
    """

    def __init__(self, config: Augmentation, bands: Sequence[str], units: Sequence[float]) -> None:
        self._blur, self._light, self._noise = config.blur, config.light, config.noise
        coloured = np.array([band in COLOURS for band in bands])
        scale = np.where(coloured, np.asarray(units, np.float32), 0)
        self._colours = int(coloured.sum())
        self.active = self._colours > 0 and max(part.probability for part in (self._blur, self._light, self._noise)) > 0
        runs = [
            (is_colour, [i for i, _ in run]) for is_colour, run in groupby(enumerate(coloured), lambda band: band[1])
        ]

        def blur(image: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
            # Runs of neighbouring colours, mostly one, since bands are a tensor's last and closest dimension.
            parts = [(is_colour, image[..., run[0] : run[-1] + 1]) for is_colour, run in runs]
            return tf.concat(
                [gaussian_blur(part, sigma, self._blur.sigma[1]) if is_colour else part for is_colour, part in parts],
                -1,
            )

        def light(image: tf.Tensor, contrast: tf.Tensor, brightness: tf.Tensor) -> tf.Tensor:
            return tf.where(coloured, image * contrast + brightness * scale, image)

        def disturb(image: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
            order = np.maximum(coloured.cumsum() - 1, 0)
            return tf.where(coloured, image + tf.gather(noise, order, axis=-1) * scale, image)

        self._blurred, self._lit, self._disturbed = fused(blur), fused(light), fused(disturb)

    def draw(self, number: tf.Tensor, height: int, width: int, seed: tf.Tensor) -> Draws:
        """Draw for each tile.

        Returns:
            bool (number,), whether it is blurred; float32 (number,), sigma; bool (number,), whether it is lit; float32
            (number,) and (number,), contrast and brightness; bool (number,), whether it gets noise; int32 (number, 2),
            the seed of that.
        """
        seed, noises = tf.unstack(tf.random.experimental.stateless_split(seed))
        blur, light, noise, *u = tf.unstack(tf.random.stateless_uniform((6, number), seed))
        return (
            blur < self._blur.probability,
            between(self._blur.sigma, u[0]),
            light < self._light.probability,
            between((1 - self._light.contrast, 1 + self._light.contrast), u[1]),
            between((-self._light.brightness, self._light.brightness), u[2]),
            noise < self._noise.probability,
            tf.random.experimental.stateless_split(noises, number),
        )

    def __call__(self, tile: Sample, draws: Draws, batch: Sample) -> Sample:
        """Return one tile changed; see `Transform`."""
        image, mask, weight = tile
        blurred, sigma, lit, contrast, brightness, disturbed, seed = draws

        def noise() -> tf.Tensor:
            # Drawn outside of the fused part: XLA draws other numbers, and several times as slowly.
            return tf.random.stateless_normal((*image.shape[:2], self._colours), seed, stddev=self._noise.deviation)

        if self._blur.probability:
            image = where_drawn(blurred, lambda old: self._blurred(old, sigma), image)
        if self._light.probability:
            image = where_drawn(lit, lambda old: self._lit(old, contrast, brightness), image)
        if self._noise.probability:
            image = where_drawn(disturbed, lambda old: self._disturbed(old, noise()), image)
        return image, mask, weight


def gaussian_blur(image: tf.Tensor, sigma: tf.Tensor, largest: float) -> tf.Tensor:
    """Blur a picture by a Gaussian that is mirrored at the borders.

    Args:
        image: float32 (H, W, C).
        sigma: float32 (), in pixels.
        largest: Largest possible sigma; the kernel reaches twice as far, as those of 3 to 7 pixels in the paper do.

    Example:
        >>> gaussian_blur(tf.ones((8, 8, 3)), tf.constant(1.0), 1.4).shape
        TensorShape([8, 8, 3])
    """
    reach = math.ceil(2 * largest)
    weights = tf.exp(-((np.arange(-reach, reach + 1, dtype=np.float32) / sigma) ** 2) / 2)
    weights /= tf.reduce_sum(weights)
    for axis in (0, 1):
        size = image.shape[axis]
        padded = tf.pad(image, [[reach, reach] if axis == i else [0, 0] for i in range(3)], "SYMMETRIC")
        shifted = [padded[k : k + size] if axis == 0 else padded[:, k : k + size] for k in range(2 * reach + 1)]
        image = tf.add_n([weights[k] * values for k, values in enumerate(shifted)])
    return image


class ChannelDropout:
    """Set the bands of one modality to 0, their mean after the z-score, so that no modality is relied on alone.

    Derived bands go missing with what they are derived from.

    Each modality (red, green and blue; dem and slope; thermal; gray) is as likely as another. Where all bands are of
    one, it is kept.

    Args:
        probability: How often per tile.
        bands: Names of the C bands.

    Example:
        >>> ChannelDropout(0.1, ("red", "green", "blue")).active  # all of one modality
        False
    """

    def __init__(self, probability: float, bands: Sequence[str]) -> None:
        self._probability = probability
        of = [[any(source in modality for source in sources_of(band)) for band in bands] for modality in MODALITIES]
        self._lost = np.array([lost for lost in of if any(lost)])
        self.active = probability > 0 and len(self._lost) > 1
        self._without = fused(lambda image, lost: tf.where(lost, 0.0, image))

    def draw(self, number: tf.Tensor, height: int, width: int, seed: tf.Tensor) -> Draws:
        """Draw for each tile: bool (number,), whether it loses bands; bool (number, C), which."""
        u = tf.random.stateless_uniform((2, number), seed)
        return u[0] < self._probability, tf.gather(self._lost, tf.cast(u[1] * len(self._lost), tf.int32))

    def __call__(self, tile: Sample, draws: Draws, batch: Sample) -> Sample:
        """Return one tile changed; see `Transform`."""
        (image, mask, weight), (drawn, lost) = tile, draws
        return where_drawn(drawn, lambda old: self._without(old, lost), image), mask, weight
