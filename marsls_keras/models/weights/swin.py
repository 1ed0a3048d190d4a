"""Names and layouts of checkpoints of Swin Transformer (V1), of timm, transformers and the authors."""

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
_TRANSFORMERS = (
    (r"^swin\.", ""),
    (r"^encoder\.", ""),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"^layernorm\.", "norm."),
    (r"^classifier\.", "head.fc."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.self\.", ".attn."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)
"""From the names of transformers to those of timm, applied one after the other."""


class Swin(Family):
    """Checkpoints of Swin Transformer (V1) of any size.

    Names may be those of timm, also before its version 0.9, of the authors' code, or of Hugging Face's transformers, as
    in hf:microsoft/swin-tiny-patch4-window7-224.

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
        if any(".attention.self.query." in name for name in tensors):
            tensors = _from_transformers(tensors)
        return current_names(tensors)

    def convert(self, name: str, tensor: np.ndarray) -> np.ndarray:
        """Convert a tensor to Keras' layout; see `Family`."""
        return tensor if name.endswith("bias_table") else convolution(tensor)


def _part(name: str) -> str:
    return {"kernel": "weight", "gamma": "weight", "beta": "bias"}.get(name, name)


def _from_transformers(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename tensors from transformers to timm, and join query, key and value."""
    renamed: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        for pattern, new in _TRANSFORMERS:
            name = re.sub(pattern, new, name)
        renamed[name] = tensor
    for name in [name for name in renamed if ".attn.query." in name]:
        parts = [name.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        if all(part in renamed for part in parts):
            renamed[name.replace(".query.", ".qkv.")] = np.concatenate([renamed.pop(part) for part in parts])
    return renamed
