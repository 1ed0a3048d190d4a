"""Names and layouts of timm's checkpoints of SwinV2."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from marsls_keras.models.weights.family import Family, convolution, linear

_IGNORED = re.compile(r"^(head|norm)\.|\.(relative_coords_table|relative_position_index|attn_mask)$")
"""Tensors of the classifier and the normalisation before it, which encoders lack, and tables that are computed."""

_NAMES = (
    (r"embed(?:_(\w+))?_(proj|norm)/(\w+)", r"patch_embed.\2.\3"),
    (r"stage(\d)(?:_(\w+))?_merge/kernel", r"layers.\1.downsample.reduction.weight"),
    (r"stage(\d)(?:_(\w+))?_merge_norm/(\w+)", r"layers.\1.downsample.norm.\3"),
    (r"stage(\d)(?:_(\w+))?_block(\d+)/attention/(q_bias|v_bias|logit_scale)", r"layers.\1.blocks.\3.attn.\4"),
    (r"stage(\d)(?:_(\w+))?_block(\d+)/attention/cpb_mlp_(\d)/(\w+)", r"layers.\1.blocks.\3.attn.cpb_mlp.\4.\5"),
    (r"stage(\d)(?:_(\w+))?_block(\d+)/attention/(qkv|proj)/(\w+)", r"layers.\1.blocks.\3.attn.\4.\5"),
    (r"stage(\d)(?:_(\w+))?_block(\d+)/(fc[12])/(\w+)", r"layers.\1.blocks.\3.mlp.\4.\5"),
    (r"stage(\d)(?:_(\w+))?_block(\d+)/(norm[12])/(\w+)", r"layers.\1.blocks.\3.\4.\5"),
)
"""Path of a variable, and timm's name for it; group 2 is the group of bands, or group 1 for the patch embedding."""


class SwinV2(Family):
    """Checkpoints of SwinV2 of any size.

    In checkpoints of timm before 0.9, which are still on the Hugging Face Hub, the downsampling belongs to the stage
    before it. They are recognised by the downsampling in their first stage.

    Example:
        >>> SwinV2().locate("stage2_aux_block3/attention/qkv/kernel")
        ('aux', 'layers.2.blocks.3.attn.qkv.weight')
    """

    title = "SwinV2"
    stem = "patch_embed.proj.weight"

    def locate(self, path: str) -> tuple[str, str]:
        """Return the group and timm's name of a variable; see `Family`."""
        for pattern, replacement in _NAMES:
            if found := re.fullmatch(pattern, path):
                name = found.expand(replacement)
                name = re.sub(r"(kernel|gamma)$", "weight", re.sub(r"beta$", "bias", name))
                return found[1 if name.startswith("patch_embed") else 2] or "", name
        return "", ""

    def prepare(self, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the tensors under the names of timm since 0.9; see `Family`."""
        return current_names(tensors)

    def convert(self, name: str, tensor: np.ndarray) -> np.ndarray:
        """Convert a tensor to Keras' layout; see `Family`."""
        return _LAYOUTS.get(name.rsplit(".", 2)[-2], linear)(tensor)

    def first_kernel(self, kernel: np.ndarray, bands: int, names: Sequence[str]) -> np.ndarray:
        """Adapt the patch embedding to other bands, as in DualSwinFusionSeg (section 3.2); see `Family`.

        The first three bands get the kernels of red, green and blue, and all others their mean. Names are not used.
        """
        mean = np.repeat(kernel.mean(axis=2, keepdims=True), max(bands - 3, 0), axis=2)
        return np.concatenate([kernel[:, :, :bands], mean], axis=2)


def current_names(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the tensors of a Swin's stages under the names of timm since 0.9, without classifier and computed tables.

    Example:
        >>> list(current_names({"layers.0.downsample.norm.bias": np.zeros(8), "head.bias": np.zeros(2)}))
        ['layers.1.downsample.norm.bias']
    """
    kept = {name: tensor for name, tensor in tensors.items() if not _IGNORED.search(name)}
    if any(name.startswith("layers.0.downsample.") for name in kept):
        kept = {
            re.sub(r"^layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) + 1}.downsample", k): v
            for k, v in kept.items()
        }
    return kept


def _merging(tensor: np.ndarray) -> np.ndarray:
    """Convert a patch merging weight (2C, 4C), inputs ordered by column, row, channel, to a kernel (2, 2, C, 2C)."""
    out, together = tensor.shape
    return tensor.reshape(out, 2, 2, together // 4).transpose(2, 1, 3, 0)


_LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"proj": convolution, "reduction": _merging}
