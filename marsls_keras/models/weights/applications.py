"""Read pretrained weights of keras.applications from the files "…_notop.h5" that Keras publishes."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from marsls_keras.errors import InputError
from marsls_keras.lazy_imports import keras
from marsls_keras.models.weights.family import Family

_PATH = re.compile(r"stage\d(?:_(\w+?))?__(keras_\w+?)__(\w+)/(\w+)")
_SPREAD = np.array([0.229, 0.224, 0.225], np.float32)
"""Standard deviations of red, green and blue in ImageNet, for pixels in [0, 1]."""
_ABSENT = re.compile(r"^(top_|normalization|conv_1(_bn)?/)")
"""Names of layers that the encoders do not have: the last convolution, and the normalisation of pixels."""


class Applications(Family):
    """Checkpoints of one encoder of keras.applications.

    Args:
        name: Name of the encoder, a key of `encoders.applications.APPLICATIONS`.

    Example:
        >>> Applications("keras_resnet50").locate("stage0_rgb__keras_resnet50__conv1_conv/kernel")
        ('rgb', 'conv1_conv/kernel')
    """

    def __init__(self, name: str) -> None:
        self.name, self.title = name, f"encoder {name}"
        self.stem = {"r": "conv1_conv/kernel", "d": "conv1_conv/kernel", "e": "stem_conv/kernel", "m": "conv/kernel"}[
            name[len("keras_")]
        ]

    @classmethod
    def of(cls, model: keras.Model) -> list[Applications]:
        """Return a family for each keras.applications encoder of a network; empty without such encoders."""
        names = dict.fromkeys(found[2] for variable in model.weights if (found := _PATH.fullmatch(variable.path)))
        return [cls(name) for name in names]

    def read(self, path: Path) -> dict[str, np.ndarray]:
        """Read the tensors of a file by Keras' names, such as "conv1_conv/kernel".

        Raises:
            InputError: If Keras cannot load the file into this network for three bands.
        """
        from marsls_keras.models.encoders.applications import build_application

        try:
            with warnings.catch_warnings():
                # In files of its newer format, Keras only warns of missing layers.
                warnings.filterwarnings("error", "Skipping nested container", UserWarning)
                network = build_application(self.name, 3, str(path))
        except (OSError, ValueError, KeyError, UserWarning) as error:
            raise InputError(
                f"{path} is not a checkpoint of this network's {self.title}: {str(error).splitlines()[0]} "
                "Files whose names end in _notop.h5 lie at "
                "https://storage.googleapis.com/tensorflow/keras-applications/."
            ) from error
        return {variable.path: np.asarray(variable) for variable in network.weights}

    def locate(self, path: str) -> tuple[str, str]:
        """Return the group and Keras' name of a variable; see `Family`."""
        found = _PATH.fullmatch(path)
        return (found[1] or "", f"{found[3]}/{found[4]}") if found and found[2] == self.name else ("", "")

    def prepare(self, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the tensors of the layers that the encoder has; see `Family`."""
        return {name: tensor for name, tensor in tensors.items() if not _ABSENT.match(name)}

    def convert(self, name: str, tensor: np.ndarray) -> np.ndarray:
        """Return the tensor unchanged, since it is in Keras' layout; see `Family`."""
        return tensor

    def first_kernel(self, kernel: np.ndarray, bands: int, names: Sequence[str]) -> np.ndarray:
        """Adapt the first kernel to other bands, and to z-scores instead of the pixels of pretraining; see `Family`.

        A kernel for pixels of standard deviation s is multiplied by s, so that its response to z-scores is the same.
        """
        from marsls_keras.models.encoders.applications import APPLICATIONS

        pixels = APPLICATIONS[self.name].pixels
        if pixels == "caffe":
            kernel = kernel[:, :, ::-1] * (255 * _SPREAD)[:, None]  # from the order blue, green, red
        elif pixels == "tf":
            kernel = kernel * (2 * _SPREAD)[:, None]
        return super().first_kernel(kernel, bands, names)
