"""Checkpoints of plain vision transformers as Hugging Face's transformers has them: supervised ones, and masked autoencoders."""

from __future__ import annotations

import re

import numpy as np

from marsls_keras.models.weights.family import Family, convolution

_IGNORED = re.compile(r"^(vit\.)?(pooler|embeddings\.mask_token)|^(classifier|decoder)\b")
"""The classifier and what prepares for it, and what rebuilds masked patches."""

_LAYER = r"vit_block(\d+)(?:_(\w+))?"
_NAMES = (
    (rf"{_LAYER}/(layernorm_(?:before|after))/(\w+)", r"encoder.layer.\1.\3.\4"),
    (rf"{_LAYER}/attention/(query|key|value)/(\w+)", r"encoder.layer.\1.attention.attention.\3.\4"),
    (rf"{_LAYER}/attention/out/(\w+)", r"encoder.layer.\1.attention.output.dense.\3"),
    (rf"{_LAYER}/(intermediate|output)/(\w+)", r"encoder.layer.\1.\3.dense.\4"),
)
"""Path of a variable, and the checkpoint's name for it; group 2 is the group of bands."""
_TOKENS = {"class_token_bias": "embeddings.cls_token", "positions_bias": "embeddings.position_embeddings"}


class ViT(Family):
    """Plain vision transformers of any size, without the pyramid on top."""

    title = "ViT"
    stem = "embeddings.patch_embeddings.projection.weight"

    def locate(self, path: str) -> tuple[str, str]:
        """Return the group and the name of the checkpoint's tensor; see `Family`."""
        if found := re.fullmatch(r"vit_embed(?:_(\w+))?_tokens/(\w+)", path):
            return found[1] or "", _TOKENS[found[2]]
        if found := re.fullmatch(r"vit_embed(?:_(\w+))?_proj/(\w+)", path):
            return found[1] or "", f"embeddings.patch_embeddings.projection.{_part(found[2])}"
        if found := re.fullmatch(r"vit_norm(?:_(\w+))?/(\w+)", path):
            return found[1] or "", f"layernorm.{_part(found[2])}"
        for pattern, replacement in _NAMES:
            if found := re.fullmatch(pattern, path):
                name, _, part = found.expand(replacement).rpartition(".")
                return found[2] or "", f"{name}.{_part(part)}"
        return "", ""

    def prepare(self, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the tensors of the transformer alone; see `Family`."""
        return {name.removeprefix("vit."): tensor for name, tensor in tensors.items() if not _IGNORED.search(name)}

    def convert(self, name: str, tensor: np.ndarray) -> np.ndarray:
        """Return a tensor as Keras lays it out; see `Family`."""
        if name == self.stem and tensor.ndim == 4 and tensor.shape[1] == 1:
            tensor = np.repeat(tensor, 3, axis=1) / 3  # of gray pictures, which have three bands that are alike
        return convolution(tensor)


def _part(name: str) -> str:
    return {"kernel": "weight", "gamma": "weight", "beta": "bias"}.get(name, name)
