"""Values for the variables of layers and networks."""

from __future__ import annotations

from collections.abc import Iterable

import keras
import numpy as np


def scramble(target: keras.Layer | keras.Model, seed: int = 1, spread: float = 0.3):
    """Give every weight, also offsets and moving statistics, a random value, and return the layer or network.

    Scales lie around 1 and variances are positive. A hidden layer of one unit is not switched off by its ReLU.
    """
    rng = np.random.default_rng(seed)
    for variable in target.weights:
        value = rng.normal(0, spread, variable.shape)
        if "variance" in variable.name:
            value = np.abs(value) + 0.5
        variable.assign(value + ("gamma" in variable.name or variable.path.endswith("squeeze/bias")))
    return target


def perturb(model: keras.Model, seed: int = 1):
    """Change every weight but the kernels, which are random already, and return the network.

    Unlike `scramble` it keeps the scale of the values in a network of many layers.
    """
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if "kernel" not in variable.name:
            change = rng.normal(0, 0.1, variable.shape)
            variable.assign_add(
                np.abs(change) if "variance" in variable.name else change + variable.path.endswith("squeeze/bias")
            )
    return model


def parameters(variables: Iterable, begin: str = "") -> int:
    """Return the number of values in the variables whose path begins with a text."""
    return sum(int(np.prod(v.shape)) for v in variables if v.path.startswith(begin))


def silent(variables: Iterable, gradients: Iterable, least: float = 0.0) -> list[str]:
    """Return the paths of variables whose gradient is missing, not finite, or nowhere larger than a least size."""
    pairs = zip(variables, gradients, strict=True)
    return [v.path for v, g in pairs if g is None or not np.isfinite(g).all() or np.abs(g).max() <= least]
