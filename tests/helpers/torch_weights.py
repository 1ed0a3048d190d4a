"""Give a network the weights of a PyTorch network, by rules from paths of variables to names of tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import keras
import numpy as np

_PARTS = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_TORCH_EPSILON = 1e-5
"""Epsilon of PyTorch's batch normalisation; Keras has 1e-3, and the difference is taken off the variance."""


def torch_name(path: str, rules: Sequence[tuple[str, str]]) -> str:
    """Return the name of the tensor of a variable: the first rule that matches the whole path, and PyTorch's words."""
    for pattern, replacement in rules:
        if found := re.fullmatch(pattern, path):
            head, _, last = found.expand(replacement).rpartition(".")
            return ".".join(filter(None, (head, _PARTS.get(last, last))))
    raise AssertionError(f"no rule for {path}")


def assign(model: keras.Model, tensors: Mapping[str, np.ndarray], rules: Sequence[tuple[str, str]]) -> None:
    """Assign each tensor to its variable; every tensor must be used once."""
    used = []
    for variable in model.weights:
        name = torch_name(variable.path, rules)
        value = tensors[name]
        if value.ndim == 4:
            depthwise = value.shape[1] == 1 and "depthwise" in variable.path
            value = value.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
        elif value.ndim == 2 and name.endswith("weight"):
            value = value.T
            if len(variable.shape) == 4:  # a linear layer as a 1 x 1 convolution
                value = value[None, None]
        if variable.name == "moving_variance":
            value = value + _TORCH_EPSILON - model.get_layer(variable.path.split("/")[0]).epsilon
        variable.assign(value)
        used.append(name)
    assert sorted(used) == sorted(tensors)
