"""Assign the tensors of a checkpoint to the variables of a network's encoders, with a one-to-one match of names."""

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
    """Base of the mappings from the names and layouts of a family's checkpoints to the variables of its encoders.

    Attributes:
        title: Name of the family in messages.
        stem: Name, in the checkpoint, of the kernel of the first convolution.

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
        """Read the tensors of a file, by their names in the file.

        Raises:
            InputError: If the file cannot be read.
        """
        return read_tensors(path)

    @abstractmethod
    def locate(self, path: str) -> tuple[str, str]:
        """Return the group of bands and the checkpoint's name of the variable at a path.

        Both are empty strings if the variable is not of this family.
        """

    @abstractmethod
    def prepare(self, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Rename the tensors of a checkpoint as in `locate`, and drop those that the encoder does not have."""

    @abstractmethod
    def convert(self, name: str, tensor: np.ndarray) -> np.ndarray:
        """Convert a tensor to Keras' layout."""

    def stage(self, name: str) -> str:
        """Return the stage of the encoder that a tensor belongs to, by its name in the checkpoint; "" if unknown.

        A network may use the first stages only. The tensors of stages that it lacks are skipped.
        """
        return ""

    def first_kernel(self, kernel: np.ndarray, bands: int, names: Sequence[str]) -> np.ndarray:
        """Adapt the kernel of the first convolution from red, green and blue to other bands.

        Red, green and blue keep their own kernels, by name, and every other band gets their mean. All are multiplied by
        3 / C, so that the response to C equal bands stays the same.

        Args:
            kernel: Kernel for red, green and blue, (h, w, 3, out).
            bands: Number of bands C.
            names: Names of the bands; empty if they are unknown, and then the first three are red, green and blue.

        Returns:
            (h, w, C, out).
        """
        names = names or [*RGB, *("",) * bands][:bands]
        mean = kernel.mean(axis=2)
        parts = [kernel[:, :, RGB.index(name)] if name in RGB else mean for name in names]
        return np.stack(parts, axis=2) * np.float32(3 / bands)


def assign(
    model: keras.Model, family: Family, tensors: dict[str, np.ndarray], path: Path, groups: Mapping[str, Sequence[str]]
) -> None:
    """Assign the tensors of a checkpoint to all encoders of a family in a network.

    Args:
        model: The network.
        family: The family.
        tensors: Tensors by their names in the checkpoint.
        path: The file, for error messages.
        groups: Names of the bands of each encoder, by group.

    Raises:
        InputError: If tensors are missing, left over or of another shape; the first eight are named. The network is
            unchanged then.

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
        stages = {"", *map(family.stage, wanted)}
        troubles += [
            f"{name}: {tensors[name].shape} in the file, unknown to the network"
            for name in tensors
            if name not in wanted and family.stage(name) in stages
        ]
        if troubles:  # other groups would have the same ones
            raise InputError(
                f"{path} is not a checkpoint of this network's {family.title} "
                f"(encoder and encoder_options say which it is):{listing(troubles, 8)}"
            )
    for variable, value in values:
        variable.assign(value)


def convolution(tensor: np.ndarray) -> np.ndarray:
    """Transpose a PyTorch convolution weight (out, in, h, w) to (h, w, in, out); treat others as `linear` does.

    Example:
        >>> convolution(np.zeros((16, 3, 5, 7))).shape
        (5, 7, 3, 16)
    """
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else linear(tensor)


def linear(tensor: np.ndarray) -> np.ndarray:
    """Transpose a PyTorch linear weight (out, in) to (in, out); return others unchanged.

    Example:
        >>> linear(np.zeros((16, 3))).shape, linear(np.zeros(16)).shape
        ((3, 16), (16,))
    """
    return tensor.T if tensor.ndim == 2 else tensor
