"""From the tensors of a checkpoint to the variables of a network's encoders: every one must find its counterpart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from marsls_keras.bands.names import RGB
from marsls_keras.errors import InputError, listing
from marsls_keras.lazy_imports import keras
from marsls_keras.models.weights.sources import read_tensors


class Family(ABC):
    """How checkpoints of a family of encoders name and lay out the tensors that the encoder here has as variables.

    Attributes:
        title: What messages call it.
        stem: The checkpoint's name of the kernel of the first convolution.

    Example:
        >>> class Plain(Family):
        ...     title, stem = "plain", "conv.weight"
        ...     def locate(self, path):
        ...         return "", {"conv/kernel": "conv.weight", "conv/bias": "conv.bias"}.get(path, "")
        ...     def prepare(self, tensors):
        ...         return tensors
        ...     def convert(self, name, tensor):
        ...         return convolution(tensor)
        >>> Plain().first_kernel(np.ones((3, 3, 3, 8), np.float32), 6, ()).shape
        (3, 3, 6, 8)
    """

    title: str
    stem: str

    def read(self, path: Path) -> dict[str, np.ndarray]:
        """Return the tensors of a file by the names that they have there.

        Raises:
            InputError: If the file cannot be read.
        """
        return read_tensors(path)

    @abstractmethod
    def locate(self, path: str) -> tuple[str, str]:
        """Return the group and the checkpoint's name of the variable at a path; empty texts if it is none of this family."""

    @abstractmethod
    def prepare(self, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return a checkpoint's tensors by the names that `locate` gives, without what the encoder does not have."""

    @abstractmethod
    def convert(self, name: str, tensor: np.ndarray) -> np.ndarray:
        """Return a tensor as Keras lays it out."""

    def first_kernel(self, kernel: np.ndarray, bands: int, names: Sequence[str]) -> np.ndarray:
        """Return the kernel (h, w, 3, out) of the first convolution for other bands.

        Red, green and blue take their own kernels, by name, and every other band their mean; all times 3 / C, so that
        the sum over C bands that are alike stays as large as it was.

        Args:
            kernel: For red, green and blue.
            bands: Number of bands C.
            names: Their names; empty where nobody knows them, and then the first three are red, green and blue.
        """
        names = names or [*RGB, *("",) * bands][:bands]
        mean = kernel.mean(axis=2)
        parts = [kernel[:, :, RGB.index(name)] if name in RGB else mean for name in names]
        return np.stack(parts, axis=2) * np.float32(3 / bands)


def assign(
    model: keras.Model, family: Family, tensors: dict[str, np.ndarray], path: Path, groups: Mapping[str, Sequence[str]]
) -> None:
    """Give all encoders of a family in a network the tensors of a checkpoint; each begins with the same.

    Args:
        model: The network.
        family: The family.
        tensors: The checkpoint's, by its own names.
        path: The file, for messages.
        groups: Names of the bands of each encoder, by group.

    Raises:
        InputError: If tensors are missing, left over or of another shape; the first of them are named. Nothing has been
            changed then.

    Example:
        >>> from marsls_keras.models.weights import ViT, read_tensors  # doctest: +SKIP
        >>> assign(model, ViT(), read_tensors(path), path, {"": ["red", "green", "blue"]})  # doctest: +SKIP
    """
    variables: dict[str, list[tuple[str, keras.Variable]]] = {}
    for variable in model.weights:
        group, name = family.locate(variable.path)
        if name:
            variables.setdefault(group, []).append((name, variable))
    tensors = family.prepare(tensors)
    values, troubles = [], []
    for group, pairs in variables.items():
        for name, variable in pairs:
            if name not in tensors:
                troubles.append(f"{name}: absent, expected for {variable.path} {tuple(variable.shape)}")
                continue
            value = family.convert(name, tensors[name])
            if name == family.stem and value.ndim == 4 and value.shape[2] == len(RGB):
                value = family.first_kernel(value, variable.shape[2], groups.get(group, ()))
            if value.shape != tuple(variable.shape):
                troubles.append(
                    f"{name}: {tensors[name].shape} in the file does not fit {variable.path} {tuple(variable.shape)}"
                )
            values.append((variable, value))
        wanted = {name for name, _ in pairs}
        troubles += [
            f"{name}: {tensors[name].shape} in the file, unknown to the network"
            for name in tensors
            if name not in wanted
        ]
        if troubles:  # those of another group would be the same
            raise InputError(
                f"{path} is not a checkpoint of this network's {family.title} (encoder and encoder_options say which it is):"
                f"{listing(troubles, 8)}"
            )
    for variable, value in values:
        variable.assign(value)


def convolution(tensor: np.ndarray) -> np.ndarray:
    """Return a weight of a convolution as a kernel: (out, in, h, w) to (h, w, in, out); anything else as `linear` does.

    Example:
        >>> convolution(np.zeros((16, 3, 5, 7))).shape
        (5, 7, 3, 16)
    """
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else linear(tensor)


def linear(tensor: np.ndarray) -> np.ndarray:
    """Return a weight of a linear layer as a kernel: (out, in) to (in, out); anything else as it is.

    Example:
        >>> linear(np.zeros((16, 3))).shape, linear(np.zeros(16)).shape
        ((3, 16), (16,))
    """
    return tensor.T if tensor.ndim == 2 else tensor
