"""What an encoder gives and a decoder takes: maps by name, Pn at stride 2^n."""

from __future__ import annotations

from typing import Any

import keras

LEVELS = ("P2", "P3", "P4", "P5")
"""Names of the maps that every encoder gives, the finest first."""

FINEST = "P1"
"""The map that an encoder may give besides."""


def pyramid_model(inputs: Any, maps: dict[str, Any], name: str) -> keras.Model:
    """Return an encoder as a model from images to its maps, once these are what their names say.

    Args:
        inputs: Symbolic images (B, H, W, C).
        maps: Symbolic maps P2 to P5, and P1 if there is one; Pn must be (B, H / 2^n, W / 2^n, any).
        name: Name of the model.

    Raises:
        ValueError: If maps are missing, or one has another stride than its name says.
    """
    model = keras.Model(inputs, maps, name=name)
    rows, columns = 64, 96
    given = model.compute_output_shape((1, rows, columns, inputs.shape[-1]))
    levels = (FINEST, *LEVELS) if FINEST in maps else LEVELS
    wanted = {level: (rows >> int(level[1]), columns >> int(level[1])) for level in levels}
    found = {level: tuple(shape[1:3]) for level, shape in given.items()}
    if found != wanted:
        raise ValueError(f"{name} must give maps {wanted} for images of {rows} x {columns}. Received: {found}")
    return model
