"""Photometric augmentation of red, green and blue (blur, light, noise), and dropout of whole modalities."""

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
"""Groups of bands of the same origin, which are dropped together."""


class Photometric:
    """Random blur, brightness, contrast and noise of red, green and blue, to simulate other imaging conditions.

    The other bands are physical quantities (height, slope, thermal inertia), or gray, the image by which landslides are
    recognised; they are bit-identical afterwards (DualSwinFusionSeg, Table 4).

    Light changes v to contrast · v + brightness · unit, with the same two numbers for red, green and blue. v is network
    input, so contrast is about 0, which is the band's mean with z-score and black without. Nothing is clipped.

    Args:
        config: Augmentation settings; the sections blur, light and noise are used.
        bands: Names of the C bands.
        units: Change of network input for a change of 1 in the scale of tiles, [0, 1], per band.

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
            # Blurred in runs of adjacent colour bands, usually one run: bands are a tensor's last dimension, so a run
            # is one slice.
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
        """Draw the random changes of each tile.

        Returns:
            bool (number,), whether it is blurred; float32 (number,), sigma; bool (number,), whether its light changes;
            float32 (number,) and (number,), contrast and brightness; bool (number,), whether noise is added; int32
            (number, 2), the seed of the noise.
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
        """Return one transformed tile; see `Transform`."""
        image, mask, weight = tile
        blurred, sigma, lit, contrast, brightness, disturbed, seed = draws

        def noise() -> tf.Tensor:
            # Drawn outside the compiled function: XLA draws other numbers and takes several times as long.
            return tf.random.stateless_normal((*image.shape[:2], self._colours), seed, stddev=self._noise.deviation)

        if self._blur.probability:
            image = where_drawn(blurred, lambda old: self._blurred(old, sigma), image)
        if self._light.probability:
            image = where_drawn(lit, lambda old: self._lit(old, contrast, brightness), image)
        if self._noise.probability:
            image = where_drawn(disturbed, lambda old: self._disturbed(old, noise()), image)
        return image, mask, weight


def gaussian_blur(image: tf.Tensor, sigma: tf.Tensor, largest: float) -> tf.Tensor:
    """Blur an image by a Gaussian, with mirrored borders.

    Args:
        image: float32 (H, W, C).
        sigma: float32 (), in pixels.
        largest: Largest possible sigma; the kernel's radius is twice that, as for the kernels of 3 to 7 pixels in the
            paper.

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
    """Set the bands of one random modality to 0, so that the network does not rely on a single modality.

    0 is the bands' mean after the z-score. Derived bands are dropped with the bands they are derived from. All
    modalities (red, green and blue; dem and slope; thermal; gray) are equally likely. If all bands are of one modality,
    nothing is dropped.

    Args:
        probability: Probability per tile.
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
        """Draw for each tile: bool (number,), whether bands are dropped; bool (number, C), which ones."""
        u = tf.random.stateless_uniform((2, number), seed)
        return u[0] < self._probability, tf.gather(self._lost, tf.cast(u[1] * len(self._lost), tf.int32))

    def __call__(self, tile: Sample, draws: Draws, batch: Sample) -> Sample:
        """Return one transformed tile; see `Transform`."""
        (image, mask, weight), (drawn, lost) = tile, draws
        return where_drawn(drawn, lambda old: self._without(old, lost), image), mask, weight
