"""The contract between encoders and decoders: feature maps by name, Pn at stride 2^n up to an output stride."""

from __future__ import annotations

from typing import Any

import keras

LEVELS = ("P2", "P3", "P4", "P5")
"""Names of the maps that every encoder returns, the finest first."""

FINEST = "P1"
"""Name of the map at stride 2 that some encoders return as well."""


def pyramid_model(inputs: Any, maps: dict[str, Any], name: str, output_stride: int = 32) -> keras.Model:
    """Build an encoder as a model from images to its feature maps, after checking their strides.

    Args:
        inputs: Symbolic images (B, H, W, C).
        maps: Symbolic maps P2 to P5, and P1 if there is one; Pn must be (B, H / s, W / s, any), s the smaller
            of 2^n and output_stride.
        name: Name of the model.
        output_stride: Largest stride of a map; below 32 the encoder dilates instead.

    Raises:
        ValueError: If maps are missing, or one has another stride than its name says.

    Example:
        >>> image = keras.Input((None, None, 3))
        >>> maps = {f"P{n}": keras.layers.AveragePooling2D(2**n)(image) for n in (2, 3, 4, 5)}
        >>> sorted(pyramid_model(image, maps, "pooling").output)
        ['P2', 'P3', 'P4', 'P5']
    """
    model = keras.Model(inputs, maps, name=name)
    rows, columns = 64, 96
    given = model.compute_output_shape((1, rows, columns, inputs.shape[-1]))
    levels = (FINEST, *LEVELS) if FINEST in maps else LEVELS
    strides = {level: min(2 ** int(level[1]), output_stride) for level in levels}
    wanted = {level: (rows // stride, columns // stride) for level, stride in strides.items()}
    found = {level: tuple(shape[1:3]) for level, shape in given.items()}
    if found != wanted:
        raise ValueError(f"{name} must give maps {wanted} for images of {rows} x {columns}. Received: {found}")
    return model
