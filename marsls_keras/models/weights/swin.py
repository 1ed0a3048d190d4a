"""Names and layouts of timm's checkpoints of Swin Transformer (V1)."""

from __future__ import annotations

import re

import numpy as np

from marsls_keras.models.weights.family import Family, convolution
from marsls_keras.models.weights.swin_v2 import current_names

_STAGE = r"swin_stage(\d)(?:_(\w+))?"
_NAMES = (
    (rf"{_STAGE}_merge/(norm|reduction)/(\w+)", r"layers.\1.downsample.\3.\4"),
    (rf"{_STAGE}_block(\d+)/attention/(relative_position_bias_table)", r"layers.\1.blocks.\3.attn.\4"),
    (rf"{_STAGE}_block(\d+)/attention/(qkv|proj)/(\w+)", r"layers.\1.blocks.\3.attn.\4.\5"),
    (rf"{_STAGE}_block(\d+)/(fc[12])/(\w+)", r"layers.\1.blocks.\3.mlp.\4.\5"),
    (rf"{_STAGE}_block(\d+)/(norm[12])/(\w+)", r"layers.\1.blocks.\3.\4.\5"),
)
"""Path of a variable, and timm's name for it; group 2 is the group of bands."""


class Swin(Family):
    """Checkpoints of Swin Transformer (V1) of any size, of timm, also before its version 0.9, and of the authors.

    Example:
        >>> Swin().locate("swin_stage2_aux_block3/attention/qkv/kernel")
        ('aux', 'layers.2.blocks.3.attn.qkv.weight')
    """

    title = "Swin"
    stem = "patch_embed.proj.weight"

    def locate(self, path: str) -> tuple[str, str]:
        """Return the group and timm's name of a variable; see `Family`."""
        if found := re.fullmatch(r"swin_embed(?:_(\w+))?_(proj|norm)/(\w+)", path):
            return found[1] or "", f"patch_embed.{found[2]}.{_part(found[3])}"
        for pattern, replacement in _NAMES:
            if found := re.fullmatch(pattern, path):
                name, _, part = found.expand(replacement).rpartition(".")
                return found[2] or "", f"{name}.{_part(part)}"
        return "", ""

    def prepare(self, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the tensors under the names of timm since 0.9; see `Family`."""
        return current_names(tensors)

    def convert(self, name: str, tensor: np.ndarray) -> np.ndarray:
        """Convert a tensor to Keras' layout; see `Family`."""
        return tensor if name.endswith("bias_table") else convolution(tensor)


def _part(name: str) -> str:
    return {"kernel": "weight", "gamma": "weight", "beta": "bias"}.get(name, name)
