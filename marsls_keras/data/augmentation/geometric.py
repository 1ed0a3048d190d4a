"""Geometric augmentation: affine transform, random resized crop and elastic deformation in one resampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import tensorflow as tf

from marsls_keras.bands.directions import Directions
from marsls_keras.config import Augmentation
from marsls_keras.data.augmentation.transform import Draws, Sample, between, fused, where_drawn


class Geometric:
    """Resample tiles by random affine transforms, crops and elastic deformation.

    Bands are interpolated bilinearly, masks and weights by the nearest pixel. Tiles are mirrored at their borders,
    bands, mask and weight alike, so that every pixel has its true label.

    Bands that are components of a vector are rotated by the rotation nearest to the transform, and reflected where the
    tile is mirrored; elastic deformation does not change them. Two effects are ignored: rotation also turns the
    direction of light in the gray band, and enlarged terrain would be less steep per pixel, but the values of all bands
    (such as slope, which is a steepness) are kept.

    Args:
        config: Augmentation settings; the sections affine, crop and elastic are used.
        bands: Names of the C bands; by default none of them has a direction.

    Example:
        >>> warp = Geometric(Augmentation(affine={"probability": 1.0}), ("red", "dem"))
        >>> warp.active
        True
    """

    def __init__(self, config: Augmentation, bands: Sequence[str] = ()) -> None:
        self._affine, self._crop, self._elastic = config.affine, config.crop, config.elastic
        self.active = max(self._affine.probability, self._crop.probability, self._elastic.probability) > 0
        self._directions = Directions(bands)
        self._resample, self._turn = fused(partial(resample, directions=self._directions)), fused(self._directions.turn)

    def draw(self, number: tf.Tensor, height: int, width: int, seed: tf.Tensor) -> Draws:
        """Draw the random transform of each tile.

        Returns:
            bool (number,), whether it is resampled; float32 (number, 2, 3), its matrix as in `resample`; bool
            (number,), whether it is deformed as well; int32 (number, 2), the seed of its displacement field.
        """
        seed, fields = tf.unstack(tf.random.experimental.stateless_split(seed))
        affine, crop, elastic, *u = tf.unstack(tf.random.stateless_uniform((11, number), seed))
        affine, crop, elastic = (
            affine < self._affine.probability,
            crop < self._crop.probability,
            elastic < self._elastic.probability,
        )
        turn, shift = math.radians(self._affine.rotation), self._affine.shift
        matrix = affine_matrix(
            tf.where(affine, between(self._affine.scale, u[0]), 1.0),
            tf.where(affine, between((-turn, turn), u[1]), 0.0),
            tf.where(affine, between((-shift, shift), u[2]), 0.0),
            tf.where(affine, between((-shift, shift), u[3]), 0.0),
            height,
            width,
        )
        area = between(self._crop.area, u[4])
        # Uniform on a logarithmic scale, so that wide crops are as likely as tall ones.
        low, high = map(math.log, self._crop.aspect)
        aspect = tf.exp(between((low, high), u[5]))
        tall, wide = (tf.where(crop, tf.minimum(tf.sqrt(share), 1.0), 1.0) for share in (area / aspect, area * aspect))
        cropped = crop_matrix(tall, wide, u[6] * (1 - tall), u[7] * (1 - wide), height, width)
        seeds = tf.random.experimental.stateless_split(fields, number)
        return affine | crop | elastic, _compose(matrix, cropped), elastic, seeds

    def __call__(self, tile: Sample, draws: Draws, batch: Sample) -> Sample:
        """Return one transformed tile; see `Transform`."""
        moved, matrix, displaced, seed = draws
        height, width = tile[0].shape[:2]

        def move(tile: Sample) -> Sample:
            if not self._elastic.probability:
                return self._turned(self._resample(*tile, matrix), matrix)
            still = tf.zeros((2, height, width))
            field = tf.cond(
                displaced,
                lambda: smooth_field(height, width, self._elastic.amplitude, self._elastic.distance, seed),
                lambda: still,
            )
            return self._turned(self._resample(*tile, matrix, field), matrix)

        return where_drawn(moved, move, tile)

    def _turned(self, tile: Sample, matrix: tf.Tensor) -> Sample:
        """Rotate the vector bands of a tile that was resampled by a matrix."""
        # Not inside the compiled `resample`: XLA would then interpolate twice.
        image, mask, weight = tile
        return self._turn(image, _turn(matrix)) if self._directions.vectors else image, mask, weight


def affine_matrix(
    scale: tf.Tensor, rotation: tf.Tensor, down: tf.Tensor, right: tf.Tensor, height: int, width: int
) -> tf.Tensor:
    """Return matrices that scale the tile, rotate it about its centre, then shift it.

    Args:
        scale: float32 (B,); above 1 enlarges.
        rotation: float32 (B,), radians, counterclockwise in the image.
        down: float32 (B,), downward shift as a share of the height.
        right: float32 (B,), shift to the right as a share of the width.
        height: Height of the tile in pixels.
        width: Its width.

    Returns:
        float32 (B, 2, 3), as `resample` takes it.

    Example:
        >>> still = [tf.constant([value]) for value in (1.0, 0.0, 0.0, 0.0)]
        >>> affine_matrix(*still, 32, 32).shape
        TensorShape([1, 2, 3])
    """
    cosine, sine = tf.cos(rotation) / scale, tf.sin(rotation) / scale
    turn = tf.stack([tf.stack([cosine, sine], -1), tf.stack([-sine, cosine], -1)], -2)
    centre = tf.constant([(height - 1) / 2, (width - 1) / 2], tf.float32)
    moved = centre + tf.stack([down * height, right * width], -1)
    return tf.concat([turn, centre[:, None] - turn @ moved[..., None]], -1)


def crop_matrix(
    tall: tf.Tensor, wide: tf.Tensor, top: tf.Tensor, left: tf.Tensor, height: int, width: int
) -> tf.Tensor:
    """Return matrices that enlarge a crop of the tile to its full size.

    Args:
        tall: float32 (B,), height of the crop as a share of the tile's height.
        wide: float32 (B,), width of the crop as a share of the tile's width.
        top: float32 (B,), first row of the crop as a share of the tile's height.
        left: float32 (B,), first column of the crop as a share of the tile's width.
        height: Height of the tile in pixels.
        width: Its width.

    Returns:
        float32 (B, 2, 3), as `resample` takes it.

    Example:
        >>> crop_matrix(*[tf.constant([0.5])] * 4, 32, 32).shape
        TensorShape([1, 2, 3])
    """
    share = tf.stack([tall, wide], -1)
    # Pixels are squares whose centres have integer coordinates.
    start = tf.stack([top * height, left * width], -1) + (share - 1) / 2
    return tf.concat([tf.linalg.diag(share), start[..., None]], -1)


def _compose(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Return the composition of two affine maps, float32 (B, 2, 3); `second` is applied first."""
    turn, shift = first[..., :2], first[..., 2:]
    return tf.concat([turn @ second[..., :2], turn @ second[..., 2:] + shift], -1)


def smooth_field(height: int, width: int, amplitude: float, distance: float, seed: tf.Tensor) -> tf.Tensor:
    """Draw a smooth random displacement field.

    It is white Gaussian noise smoothed by a Gaussian (Simard et al., "Best practices for convolutional neural
    networks", ICDAR 2003). Its standard deviation is `amplitude` everywhere, and the correlation between pixels r apart
    is exp(-(r / distance)²).

    Args:
        height: Rows.
        width: Columns.
        amplitude: Standard deviation in pixels.
        distance: Correlation length in pixels.
        seed: int32 (2,).

    Returns:
        float32 (2, height, width): row and column offset from each pixel to its source.

    Example:
        >>> smooth_field(32, 32, 4.0, 32.0, tf.constant([0, 1])).shape
        TensorShape([2, 32, 32])
    """
    rows, columns = _smoothing(height, distance), _smoothing(width, distance)
    nodes = tf.random.stateless_normal((2, rows.shape[1], columns.shape[1]), seed, stddev=amplitude)
    return rows @ nodes @ columns.T


def _smoothing(size: int, distance: float) -> np.ndarray:
    """Return weights that smooth white noise at nodes to pixels: float32 (size, nodes), rows of unit norm."""
    # White noise smoothed by a Gaussian of standard deviation s has the correlation exp(-r² / 4s²). Nodes s apart are
    # as good as one per pixel.
    deviation = distance / 2
    nodes = np.arange(-4 * deviation, size - 1 + 4 * deviation + deviation, deviation)
    kernel = np.exp(-(((np.arange(size)[:, None] - nodes) / deviation) ** 2) / 2)
    return (kernel / np.linalg.norm(kernel, axis=1, keepdims=True)).astype(np.float32)


def resample(
    image: tf.Tensor,
    mask: tf.Tensor,
    weight: tf.Tensor,
    matrix: tf.Tensor,
    displacement: tf.Tensor | None = None,
    directions: Directions | None = None,
) -> Sample:
    """Resample a tile by an affine matrix and an optional displacement field.

    The new pixel (i, j) is taken from the old position `matrix` @ (i + down, j + right, 1), where (down, right) is its
    displacement.

    Args:
        image: float32 (H, W, C), interpolated bilinearly.
        mask: float32 (H, W, 1), resampled by the nearest pixel.
        weight: float32 (H, W, 1), likewise.
        matrix: float32 (2, 3).
        displacement: float32 (2, H, W) in pixels, or None.
        directions: Which bands are vectors; these are reflected where the tile is mirrored, but not rotated. None if
            there are none.

    Example:
        >>> image, mask = tf.random.normal((8, 8, 2)), tf.zeros((8, 8, 1))
        >>> moved, _, _ = resample(image, mask, mask, tf.constant([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
        >>> bool(tf.reduce_all(moved == image))
        True
    """
    height, width, bands = image.shape
    rows, columns = tf.range(height, dtype=tf.float32)[:, None], tf.range(width, dtype=tf.float32)
    if displacement is not None:
        rows, columns = rows + displacement[0], columns + displacement[1]
    down, right = (matrix[i, 0] * rows + matrix[i, 1] * columns + matrix[i, 2] for i in (0, 1))
    y, x = _mirrored(down, height), _mirrored(right, width)
    top, left = tf.floor(y), tf.floor(x)
    first, second = _whole(top) * width, _whole(tf.minimum(top + 1, height - 1)) * width
    near, far = _whole(left), _whole(tf.minimum(left + 1, width - 1))
    pixels = tf.reshape(image, (-1, bands))
    lower, later = (y - top)[..., None], (x - left)[..., None]
    above = tf.gather(pixels, first + near) * (1 - later) + tf.gather(pixels, first + far) * later
    below = tf.gather(pixels, second + near) * (1 - later) + tf.gather(pixels, second + far) * later
    image = above * (1 - lower) + below * lower
    if directions is not None and directions.vectors:
        sides = (
            tf.broadcast_to(_side(down, height), (height, width)),
            tf.broadcast_to(_side(right, width), (height, width)),
        )
        image = directions.mirror(image, tf.stack(sides, -1))
    nearest = _whole(tf.floor(y + 0.5)) * width + _whole(tf.floor(x + 0.5))
    mask, weight = (tf.gather(tf.reshape(values, (-1, 1)), nearest) for values in (mask, weight))
    return image, mask, weight


def _mirrored(position: tf.Tensor, size: int) -> tf.Tensor:
    """Map any position into [0, size - 1] by mirroring at the borders, where the last pixel is repeated once."""
    around = tf.math.floormod(position + 0.5, 2.0 * size)
    return tf.clip_by_value(tf.minimum(around, 2.0 * size - around) - 0.5, 0, size - 1)


def _side(position: tf.Tensor, size: int) -> tf.Tensor:
    """Return -1 where `_mirrored` reflects the position, else 1."""
    return 1 - 2 * tf.cast(tf.math.floormod(position + 0.5, 2.0 * size) >= size, tf.float32)


def _turn(matrix: tf.Tensor) -> tf.Tensor:
    """Return the rotation, float32 (2, 2), of vectors (down the rows, along the columns) for a matrix, float32 (2, 3).

    The matrix maps the new tile to the old one, so vectors are rotated by the transpose of its rotation.
    """
    angle = tf.atan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1])
    return tf.stack([tf.stack([tf.cos(angle), tf.sin(angle)]), tf.stack([-tf.sin(angle), tf.cos(angle)])])


def _whole(value: tf.Tensor) -> tf.Tensor:
    """Convert to int32."""
    return tf.cast(value, tf.int32)
