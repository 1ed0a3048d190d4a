"""Names and layouts of timm's checkpoints of PP-HGNetV2."""

from __future__ import annotations

import re

import numpy as np

from marsls_keras.models.weights.family import Family, convolution

_IGNORED = re.compile(r"^head\.|num_batches_tracked$")
"""Tensors of the last convolution and the classifier, and counters."""
_PARTS = {
    "conv/kernel": "conv.weight",
    "bn/gamma": "bn.weight",
    "bn/beta": "bn.bias",
    "bn/moving_mean": "bn.running_mean",
    "bn/moving_variance": "bn.running_var",
    "lab/gamma": "lab.scale",
    "lab/beta": "lab.bias",
}
_STAGE = r"hgnet_stage(\d)(?:_(\w+))?"
_NAMES = (
    (rf"{_STAGE}_downsample_", r"stages.\1.downsample."),
    (rf"{_STAGE}_block(\d+)_layer(\d+)_(conv[12])_", r"stages.\1.blocks.\3.layers.\4.\5."),
    (rf"{_STAGE}_block(\d+)_layer(\d+)_", r"stages.\1.blocks.\3.layers.\4."),
    (rf"{_STAGE}_block(\d+)_aggregation(\d)_", r"stages.\1.blocks.\3.aggregation.\4."),
)
"""Beginning of the path of a variable, and timm's name for it; group 2 is the group of bands."""


class HGNetV2(Family):
    """Checkpoints of PP-HGNetV2 of any size.

    Example:
        >>> HGNetV2().locate("hgnet_stage2_rgb_block1_layer0_conv2_bn/moving_mean")
        ('rgb', 'stages.2.blocks.1.layers.0.conv2.bn.running_mean')
    """

    title = "HGNetV2"
    stem = "stem.stem1.conv.weight"

    def locate(self, path: str) -> tuple[str, str]:
        """Return the group and timm's name of a variable; see `Family`."""
        layer, _, variable = path.rpartition("/")
        place, _, kind = layer.rpartition("_")
        part = _PARTS.get(f"{kind}/{variable}", "")
        if not part:
            return "", ""
        if found := re.fullmatch(r"hgnet_stem(?:_(\w+))?_(stem\w+)", place):
            return found[1] or "", f"stem.{found[2]}.{part}"
        for pattern, replacement in _NAMES:
            if found := re.fullmatch(pattern, f"{place}_"):
                return found[2] or "", found.expand(replacement) + part
        return "", ""

    def prepare(self, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the tensors without the classifier; see `Family`."""
        return {name: tensor for name, tensor in tensors.items() if not _IGNORED.search(name)}

    def convert(self, name: str, tensor: np.ndarray) -> np.ndarray:
        """Convert a tensor to Keras' layout; see `Family`."""
        depthwise = ".downsample." in name or ".conv2." in name
        if depthwise and tensor.ndim == 4:
            return tensor.transpose(2, 3, 0, 1)  # (C, 1, h, w) to (h, w, C, 1)
        return convolution(tensor)
