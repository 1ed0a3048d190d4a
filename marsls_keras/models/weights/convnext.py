"""Names and layouts of timm's checkpoints of ConvNeXt and ConvNeXtV2."""

from __future__ import annotations

import re

import numpy as np

from marsls_keras.models.weights.family import Family, convolution

_IGNORED = re.compile(r"^(head|norm_pre)\.")
"""Tensors of the classifier and of the normalisation before it."""

_STAGE = r"stage(\d)(?:_(\w+))?"
_NAMES = (
    (rf"{_STAGE}_downsample_norm/(\w+)", r"stages.\1.downsample.0.\3"),
    (rf"{_STAGE}_downsample_proj/(\w+)", r"stages.\1.downsample.1.\3"),
    (rf"{_STAGE}_block(\d+)/(conv_dw|norm)/(\w+)", r"stages.\1.blocks.\3.\4.\5"),
    (rf"{_STAGE}_block(\d+)/mlp_(fc1|fc2|grn)/(\w+)", r"stages.\1.blocks.\3.mlp.\4.\5"),
)
"""Path of a variable, and timm's name for it; group 2 is the group of bands."""


class ConvNeXt(Family):
    """Checkpoints of ConvNeXt and ConvNeXtV2 of any size.

    Example:
        >>> ConvNeXt().locate("stage1_rgb_block0/mlp_fc1/kernel")
        ('rgb', 'stages.1.blocks.0.mlp.fc1.weight')
    """

    title = "ConvNeXt"
    stem = "stem.0.weight"

    def locate(self, path: str) -> tuple[str, str]:
        """Return the group and timm's name of a variable; see `Family`."""
        if found := re.fullmatch(rf"{_STAGE}_block(\d+)/gamma", path):
            return found[2] or "", f"stages.{found[1]}.blocks.{found[3]}.gamma"
        if found := re.fullmatch(r"stem(?:_(\w+))?_(proj|norm)/(\w+)", path):
            return found[1] or "", f"stem.{int(found[2] == 'norm')}.{_part(found[3])}"
        for pattern, replacement in _NAMES:
            if found := re.fullmatch(pattern, path):
                name, _, part = found.expand(replacement).rpartition(".")
                return found[2] or "", f"{name}.{_part(part)}"
        return "", ""

    def prepare(self, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the tensors without the classifier; see `Family`."""
        return {name: tensor for name, tensor in tensors.items() if not _IGNORED.search(name)}

    def convert(self, name: str, tensor: np.ndarray) -> np.ndarray:
        """Convert a tensor to Keras' layout; see `Family`."""
        if ".conv_dw." in name and tensor.ndim == 4:
            return tensor.transpose(2, 3, 0, 1)  # (C, 1, h, w) to (h, w, C, 1)
        if ".mlp.fc" in name and tensor.ndim == 4:
            tensor = tensor[:, :, 0, 0]  # some small networks have 1 x 1 convolutions instead of linear layers
        return convolution(tensor)


def _part(name: str) -> str:
    return {"kernel": "weight", "gamma": "weight", "beta": "bias"}.get(name, name)
