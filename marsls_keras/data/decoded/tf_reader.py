"""Read and normalise network input from disk with TensorFlow operations.

No Python runs in the pipeline. When a pipeline is abandoned, as by early stopping, it waits for the steps under way;
if those waited for the Python interpreter, both would block.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from marsls_keras.data.decoded.disk_cache import DiskImages
from marsls_keras.data.normalization import Inputs


class TfReader:
    """Read tiles of network input from disk; the values are bit-identical to those of `Inputs`.

    Args:
        inputs: The tiles, on disk.

    Example:
        >>> TfReader(normalizer.inputs(tiles.images, tiles.bands))(tf.constant([0, 5])).shape  # doctest: +SKIP
        TensorShape([2, 128, 128, 7])
    """

    def __init__(self, inputs: Inputs) -> None:
        images, normalizer = inputs.images, inputs.normalizer
        if not isinstance(images, DiskImages):
            raise TypeError(f"{len(images)} tiles in memory have no files to be read from.")
        self._shape, self._places = images.shape[1:], inputs.places
        self._stretch = None if inputs.stretch is None else [tf.constant(values) for values in inputs.stretch]
        self._files = tf.constant(images.files, tf.string)
        self._fixed = [band in normalizer.directions.fixed for band in normalizer.directions.carried]
        self._scale = None
        if normalizer.mean is not None and normalizer.std is not None:
            number = len(self._places)  # statistics of late bands follow after these
            self._scale = (
                np.asarray(normalizer.mean[:number], np.float32),
                np.asarray(normalizer.std[:number], np.float32),
            )

    def __call__(self, positions: tf.Tensor) -> tf.Tensor:
        """Return the tiles at n positions: float32 (n, H, W, C) with static H, W and C."""
        data = tf.map_fn(
            tf.io.read_file, tf.gather(self._files, positions), fn_output_signature=tf.string, parallel_iterations=4
        )
        values = tf.reshape(tf.io.decode_raw(data, tf.float32), (-1, *self._shape))
        values.set_shape((positions.shape[0], *self._shape))
        if self._places != list(range(self._shape[2])):
            values = tf.gather(values, self._places, axis=-1)
        if self._stretch is not None:
            low, width = (tf.gather(part, positions) for part in self._stretch)  # (n, 1, 1, C)
            values = tf.where(self._fixed, values, tf.clip_by_value((values - low) / width, 0, 1))
        if self._scale is not None:
            mean, std = self._scale
            values = (values - mean) / std
        return values
