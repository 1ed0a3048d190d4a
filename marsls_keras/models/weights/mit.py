"""Names and layouts of checkpoints of MiT, SegFormer's encoder, in Hugging Face's transformers."""

from __future__ import annotations

import re

import numpy as np

from marsls_keras.models.weights.family import Family, convolution

_PREFIX = re.compile(r"^(segformer\.)?encoder\.")
"""Prefixes of names in checkpoints of a classifier or SegFormer, and of the encoder alone."""

_STAGE = r"stage(\d)(?:_(\w+))?"
_NAMES = (
    (rf"{_STAGE}_embed_proj/(\w+)", r"patch_embeddings.\1.proj.\3"),
    (rf"{_STAGE}_embed_norm/(\w+)", r"patch_embeddings.\1.layer_norm.\3"),
    (rf"{_STAGE}_final_norm/(\w+)", r"layer_norm.\1.\3"),
    (rf"{_STAGE}_block(\d+)/attention_norm/(\w+)", r"block.\1.\3.layer_norm_1.\4"),
    (rf"{_STAGE}_block(\d+)/ffn_norm/(\w+)", r"block.\1.\3.layer_norm_2.\4"),
    (rf"{_STAGE}_block(\d+)/attention/(query|key|value)/(\w+)", r"block.\1.\3.attention.self.\4.\5"),
    (rf"{_STAGE}_block(\d+)/attention/reduce/(\w+)", r"block.\1.\3.attention.self.sr.\4"),
    (rf"{_STAGE}_block(\d+)/attention/norm/(\w+)", r"block.\1.\3.attention.self.layer_norm.\4"),
    (rf"{_STAGE}_block(\d+)/attention/out/(\w+)", r"block.\1.\3.attention.output.dense.\4"),
    (rf"{_STAGE}_block(\d+)/ffn([12])/(\w+)", r"block.\1.\3.mlp.dense\4.\5"),
    (rf"{_STAGE}_block(\d+)/ffn_depthwise/(\w+)", r"block.\1.\3.mlp.dwconv.dwconv.\4"),
)
"""Path of a variable, and the checkpoint's name for it; group 2 is the group of bands."""


class MiT(Family):
    """Checkpoints of MiT B0 to B5.

    Example:
        >>> MiT().locate("stage0_embed_proj/kernel")
        ('', 'patch_embeddings.0.proj.weight')
    """

    title = "MiT"
    stem = "patch_embeddings.0.proj.weight"

    def locate(self, path: str) -> tuple[str, str]:
        """Return the group and the name of the checkpoint's tensor; see `Family`."""
        for pattern, replacement in _NAMES:
            if found := re.fullmatch(pattern, path):
                name = re.sub(r"(kernel|gamma)$", "weight", re.sub(r"beta$", "bias", found.expand(replacement)))
                return found[2] or "", name
        return "", ""

    def prepare(self, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the tensors of the encoder, without the classifier or the decoder; see `Family`."""
        return {
            _PREFIX.sub("", name): tensor
            for name, tensor in tensors.items()
            if not re.match(r"(classifier|decode_head)\.", name)
        }

    def convert(self, name: str, tensor: np.ndarray) -> np.ndarray:
        """Convert a tensor to Keras' layout; see `Family`."""
        if ".dwconv." in name and tensor.ndim == 4:
            return tensor.transpose(2, 3, 0, 1)  # (C, 1, h, w) to (h, w, C, 1)
        return convolution(tensor)
