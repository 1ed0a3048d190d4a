"""Names and layouts of checkpoints of plain vision transformers: supervised, masked autoencoders, DINOv2 and DINOv3."""

from __future__ import annotations

import re

import numpy as np

from marsls_keras.models.weights.dino import is_dino, rename_dino, resample_kernel
from marsls_keras.models.weights.family import Family, convolution

_IGNORED = re.compile(
    r"^(pooler|embeddings\.mask_token|classifier|decoder|head|head_dist|fc_norm|pre_logits)\b|^(decoder_|mask_token)"
)
"""Tensors of the classifier with its pooling, and of the decoder of masked patches."""
_PREFIX = re.compile(
    r"^(module\.)?(vit\.|dinov2\.|dinov2_with_registers\.|dinov3_vit\.|backbone\.|encoder\.(?=patch_embed|cls_token|pos_embed|blocks|norm))?"
)
"""Prefixes that enclosing networks and training on several GPUs add to names."""

_LAYER = r"vit_block(\d+)(?:_(\w+))?"
_NAMES = (
    (rf"{_LAYER}/(layernorm_(?:before|after))/(\w+)", r"encoder.layer.\1.\3.\4"),
    (rf"{_LAYER}/attention/(query|key|value)/(\w+)", r"encoder.layer.\1.attention.attention.\3.\4"),
    (rf"{_LAYER}/attention/out/(\w+)", r"encoder.layer.\1.attention.output.dense.\3"),
    (rf"{_LAYER}/(intermediate|output)/(\w+)", r"encoder.layer.\1.\3.dense.\4"),
    (rf"{_LAYER}/(scale[12])_gamma", r"encoder.layer.\1.\3"),
)
"""Path of a variable, and the checkpoint's name for it; group 2 is the group of bands."""
_TIMM = (
    (r"patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"cls_token$", "embeddings.cls_token"),
    (r"pos_embed$", "embeddings.position_embeddings"),
    (r"norm\.", "layernorm."),
    (r"blocks\.(\d+)\.norm1\.", r"encoder.layer.\1.layernorm_before."),
    (r"blocks\.(\d+)\.norm2\.", r"encoder.layer.\1.layernorm_after."),
    (r"blocks\.(\d+)\.attn\.proj\.", r"encoder.layer.\1.attention.output.dense."),
    (r"blocks\.(\d+)\.mlp\.fc1\.", r"encoder.layer.\1.intermediate.dense."),
    (r"blocks\.(\d+)\.mlp\.fc2\.", r"encoder.layer.\1.output.dense."),
)
"""Prefixes of names in timm and in the code of MAE, and those in transformers."""
_QKV = re.compile(r"blocks\.(\d+)\.attn\.qkv\.(\w+)")
_TOKENS = {
    "class_token_bias": "embeddings.cls_token",
    "positions_bias": "embeddings.position_embeddings",
    "registers_bias": "embeddings.register_tokens",
}
_PATCH, _PATCH_DINO_V2 = 16, 14


class ViT(Family):
    """Checkpoints of plain vision transformers of any size, without the feature pyramid.

    Names may be those of Hugging Face's transformers (ViTModel, ViTMAEForPreTraining), as in
    hf:jfang/mars-vit-base-ctx2m, or those of timm and the code of MAE (blocks.0.attn.qkv.weight), as in
    hf:Mirali33/MOMO/vit-b-16/momo.pth. DINOv2 and DINOv3 are read under the names of transformers
    (hf:facebook/dinov2-with-registers-base), timm (hf:timm/vit_base_patch16_dinov3.lvd1689m) and their authors.

    Example:
        >>> ViT().locate("vit_block3/attention/query/kernel")
        ('', 'encoder.layer.3.attention.attention.query.weight')
    """

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
        """Return the tensors of the transformer alone, under the names of transformers; see `Family`."""
        bare = {_PREFIX.sub("", name): tensor for name, tensor in tensors.items()}
        kept = {name: tensor for name, tensor in bare.items() if not _IGNORED.search(name)}
        dino = is_dino(kept)
        if "patch_embed.proj.weight" in kept:
            kept = _from_timm(kept)
        return rename_dino(kept) if dino else kept

    def convert(self, name: str, tensor: np.ndarray) -> np.ndarray:
        """Convert a tensor to Keras' layout; see `Family`."""
        if name == self.stem and tensor.ndim == 4:
            if tensor.shape[1] == 1:
                tensor = np.repeat(tensor, 3, axis=1) / 3  # pretrained on gray images: as three equal bands
            if tensor.shape[2:] == (_PATCH_DINO_V2, _PATCH_DINO_V2):
                tensor = resample_kernel(tensor, _PATCH)
        return convolution(tensor)


def _part(name: str) -> str:
    return {"kernel": "weight", "gamma": "weight", "beta": "bias"}.get(name, name)


def _from_timm(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename tensors from timm to transformers, and split query, key and value."""
    renamed: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        if found := _QKV.fullmatch(name):
            if len(tensor) % 3 == 0:
                parts = zip(("query", "key", "value"), np.split(tensor, 3), strict=True)
                renamed |= {
                    f"encoder.layer.{found[1]}.attention.attention.{part}.{found[2]}": value for part, value in parts
                }
                continue
        for pattern, replacement in _TIMM:
            if re.match(pattern, name):
                name = re.sub(f"^{pattern}", replacement, name)
                break
        renamed[name] = tensor
    return renamed
