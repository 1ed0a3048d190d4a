"""Names and layouts of the checkpoints of ResNet that torchvision, timm and segmentation_models.pytorch share."""

from __future__ import annotations

import re

import numpy as np

from marsls_keras.models.weights.family import Family, convolution

_PARTS = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_STEM = re.compile(r"resnet_stem(?:_(\w+))?_(conv1|bn1)/(\w+)")
_BLOCK = re.compile(r"resnet_stage(\d)(?:_(\w+))?_block(\d+)_(conv\d|bn\d|downsample_conv|downsample_bn)/(\w+)")
_SHORTCUT = {"downsample_conv": "downsample.0", "downsample_bn": "downsample.1"}


class ResNet(Family):
    """Checkpoints of ResNet-18, 34, 50 and 101 of any output stride.

    Example:
        >>> ResNet().locate("resnet_stage1_rgb_block0_downsample_bn/gamma")
        ('rgb', 'layer2.0.downsample.1.weight')
    """

    title = "ResNet"
    stem = "conv1.weight"

    def locate(self, path: str) -> tuple[str, str]:
        """Return the group and torchvision's name of a variable; see `Family`."""
        if found := _STEM.fullmatch(path):
            return found[1] or "", f"{found[2]}.{_PARTS[found[3]]}"
        if found := _BLOCK.fullmatch(path):
            layer = _SHORTCUT.get(found[4], found[4])
            return found[2] or "", f"layer{int(found[1]) + 1}.{found[3]}.{layer}.{_PARTS[found[5]]}"
        return "", ""

    def prepare(self, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the tensors without the classifier; see `Family`."""
        return {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}

    def stage(self, name: str) -> str:
        """Return the stage of a tensor, such as "layer3"; see `Family`."""
        return name.split(".")[0] if name.startswith("layer") else ""

    def convert(self, name: str, tensor: np.ndarray) -> np.ndarray:
        """Convert a tensor to Keras' layout; see `Family`."""
        return convolution(tensor)
