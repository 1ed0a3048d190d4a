"""What an encoder gives and a decoder takes: maps by name, Pn at stride 2^n."""

from __future__ import annotations

from typing import Any

import keras

LEVELS = ("P2", "P3", "P4", "P5")
"""Names of the maps, the finest first."""


def pyramid_model(inputs: Any, maps: dict[str, Any], name: str) -> keras.Model:
    """Return an encoder as a model from images to its maps, once these are what their names say.

    Args:
        inputs: Symbolic images (B, H, W, C).
        maps: Symbolic maps; Pn must be (B, H / 2^n, W / 2^n, any).
        name: Name of the model.

    Raises:
        ValueError: If maps are missing, or one has another stride than its name says.
    """
    model = keras.Model(inputs, maps, name=name)
    rows, columns = 64, 96
    given = model.compute_output_shape((1, rows, columns, inputs.shape[-1]))
    wanted = {level: (rows >> int(level[1]), columns >> int(level[1])) for level in LEVELS}
    found = {level: tuple(shape[1:3]) for level, shape in given.items()}
    if found != wanted:
        raise ValueError(f"{name} must give maps {wanted} for images of {rows} x {columns}. Received: {found}")
    return model
