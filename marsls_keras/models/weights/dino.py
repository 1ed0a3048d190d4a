"""Names and layouts of checkpoints of DINOv2 and DINOv3: of transformers, of timm, and of the authors."""

from __future__ import annotations

import math
import re

import numpy as np

_IGNORED = re.compile(r"(^|\.)(mask_token|local_cls_norm|periods|bias_mask)(\.|$)")
"""Tensors of pretraining, and tables that are computed."""
_LAYER = r"^(?:encoder\.|model\.)?(?:layer|blocks)\.(\d+)\."
_ATTENTION = r"encoder.layer.\1.attention.attention"
_NAMES = (
    (r"^embeddings\.patch_embeddings\.(weight|bias)$", r"embeddings.patch_embeddings.projection.\1"),
    (r"^(storage_tokens|register_tokens|reg_token)$", "embeddings.register_tokens"),
    (r"^norm\.", "layernorm."),
    (rf"{_LAYER}norm1\.", r"encoder.layer.\1.layernorm_before."),
    (rf"{_LAYER}norm2\.", r"encoder.layer.\1.layernorm_after."),
    (rf"{_LAYER}attention\.q_proj\.", rf"{_ATTENTION}.query."),
    (rf"{_LAYER}attention\.k_proj\.", rf"{_ATTENTION}.key."),
    (rf"{_LAYER}attention\.v_proj\.", rf"{_ATTENTION}.value."),
    (rf"{_LAYER}attn\.q_bias$", rf"{_ATTENTION}.query.bias"),
    (rf"{_LAYER}attn\.v_bias$", rf"{_ATTENTION}.value.bias"),
    (rf"{_LAYER}attention\.o_proj\.", r"encoder.layer.\1.attention.output.dense."),
    (rf"{_LAYER}(?:layer_scale|ls|gamma_)([12])(?:\.lambda1|\.gamma)?$", r"encoder.layer.\1.scale\2"),
    (rf"{_LAYER}mlp\.(?:fc1|up_proj)\.", r"encoder.layer.\1.intermediate.dense."),
    (rf"{_LAYER}mlp\.(?:fc2|down_proj)\.", r"encoder.layer.\1.output.dense."),
)
"""Names in checkpoints, and those of the plain vision transformer of transformers."""


def is_dino(tensors: dict[str, np.ndarray]) -> bool:
    """Return whether the tensors of a vision transformer are those of a DINO, that is, with LayerScale.

    Example:
        >>> is_dino({"blocks.0.ls1.gamma": np.ones(8)}), is_dino({"blocks.0.norm1.weight": np.ones(8)})
        (True, False)
    """
    return any(re.search(r"\.(layer_scale1\.lambda1|ls1\.gamma|gamma_1)$", name) for name in tensors)


def rename_dino(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename the tensors of a DINO as those of the plain vision transformer of transformers.

    Position embeddings without one for the class token, as timm has them with registers, get one of zeros. In DINOv3,
    biases of queries and values that are not there are zeros, and biases of keys, which change nothing, are left out.

    Example:
        >>> list(rename_dino({"layer.3.attention.o_proj.bias": np.zeros(8), "norm.weight": np.ones(8)}))
        ['encoder.layer.3.attention.output.dense.bias', 'layernorm.weight']
    """
    renamed = {_name(name): tensor for name, tensor in tensors.items() if not _IGNORED.search(name)}
    positions = renamed.get("embeddings.position_embeddings")
    if positions is None:
        for name, tensor in list(renamed.items()):
            if name.endswith((".query.weight", ".value.weight")):
                renamed.setdefault(f"{name.removesuffix('weight')}bias", np.zeros(len(tensor), np.float32))
        return {name: tensor for name, tensor in renamed.items() if not name.endswith(".key.bias")}
    if positions.ndim == 3 and math.isqrt(positions.shape[1]) ** 2 == positions.shape[1]:
        renamed["embeddings.position_embeddings"] = np.pad(positions, ((0, 0), (1, 0), (0, 0)))
    return renamed


def resample_kernel(kernel: np.ndarray, side: int) -> np.ndarray:
    """Resample the kernel of a patch embedding to patches of another size.

    A patch that is enlarged from the kernel's size by cubic interpolation gives the same token as the patch before
    with the kernel before (pseudo-inverse of the interpolation).

    Args:
        kernel: (out, in, h, h), as in PyTorch.
        side: Side of the new patches, at least h.

    Returns:
        float32 (out, in, side, side).

    Reference:
        Beyer et al., "FlexiViT", CVPR 2023, section 3.4.

    Example:
        >>> resample_kernel(np.ones((8, 3, 14, 14), np.float32), 16).shape
        (8, 3, 16, 16)
    """
    from marsls_keras.layers.vision_transformer import cubic_matrix

    enlarged = np.asarray(cubic_matrix(kernel.shape[-1], side, antialias=True), np.float64)  # (side, h)
    inverse = np.linalg.pinv(enlarged.T)  # (side, h)
    resampled = np.einsum("ij,ocjk,lk->ocil", inverse, kernel, inverse, optimize=True)
    return resampled.astype(np.float32)


def _name(name: str) -> str:
    for pattern, new in _NAMES:
        if re.search(pattern, name):
            return re.sub(pattern, new, name)
    return name
