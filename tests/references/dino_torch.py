"""Maps of DINOv2 and DINOv3 as transformers and timm compute them, from weights that the tensors' names give.

    pip install torch timm transformers && python tests/references/dino_torch.py

writes dino.npz beside this file. The tests make the same weights anew and need neither package. The networks are thin;
of the published ones, and of a ViT and a masked autoencoder, only the names and shapes of tensors are stored.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from timm_torch import drawn, pixels
from transformers_torch import VIT_SIZES, image, loaded, shapes_of, tensors, with_shapes

__all__ = ["VIT_SIZES", "image", "shapes_of", "tensors"]

DEPTH, WIDTH, HEADS, GRID, REGISTERS = 2, 32, 4, 4, 4
THIN = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "intermediate_size": 4 * WIDTH,
    "image_size": 16 * GRID,
    "patch_size": 16,
}
"""Sizes under the names of transformers."""
THIN_TIMM = {
    "patch_size": 16,
    "img_size": 16 * GRID,
    "embed_dim": WIDTH,
    "depth": DEPTH,
    "num_heads": HEADS,
    "dynamic_img_size": True,
}
PUBLISHED = {
    **{f"dinov2_{size}": f"vit_{size}_patch14_dinov2" for size in ("small", "base")},
    **{f"dinov2_reg_{size}": f"vit_{size}_patch14_reg4_dinov2" for size in ("small", "base")},
    **{f"dinov3_{size}": f"vit_{size}_patch16_dinov3" for size in ("small", "base")},
}


def of_transformers() -> dict[str, tuple[Any, dict[str, tuple[int, ...]]]]:
    """Return networks of transformers, and the shapes of their tensors."""
    from transformers import (
        Dinov2Config,
        Dinov2Model,
        Dinov2WithRegistersConfig,
        Dinov2WithRegistersModel,
        DINOv3ViTConfig,
        DINOv3ViTModel,
    )

    third = DINOv3ViTConfig(**THIN, num_register_tokens=REGISTERS)
    return {
        "dinov2": loaded(Dinov2Model(Dinov2Config(**THIN))),
        "dinov2_reg": loaded(
            Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**THIN, num_register_tokens=REGISTERS))
        ),
        "dinov3": loaded(DINOv3ViTModel(third)),
    }


def of_timm() -> dict[str, tuple[Any, dict[str, tuple[int, ...]]]]:
    """Return networks of timm, and the shapes of their tensors."""
    import timm

    second = timm.create_model("vit_small_patch14_reg4_dinov2", **THIN_TIMM, num_classes=0)
    names = {"dinov3": "vit_small_patch16_dinov3", "dinov3_qkvb": "vit_small_patch16_dinov3_qkvb"}
    third = {key: drawn(timm.create_model(name, **THIN_TIMM, num_classes=0)) for key, name in names.items()}
    return {"dinov2_reg": drawn(second), **third}


def dino() -> dict[str, np.ndarray]:
    """Return names, shapes and last maps of the thin networks, and what is stored of the published ones."""
    import timm
    import torch
    from timm.layers.patch_embed import resample_patch_embed
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    found: dict[str, np.ndarray] = {}
    for source, networks in (("transformers", of_transformers()), ("timm", of_timm())):
        for name, (network, shapes) in networks.items():
            key = f"{source}/{name}"
            found |= with_shapes(key, shapes)
            for height, width in VIT_SIZES:
                with torch.no_grad():
                    x = pixels((height, width))
                    tokens = network(x).last_hidden_state if source == "transformers" else network.forward_features(x)
                tokens = tokens.numpy()[:, -(height // 16) * (width // 16) :]
                found[f"{key}/{height}x{width}"] = tokens.reshape(1, height // 16, width // 16, -1)
    plain = timm.create_model("vit_small_patch16_224", **THIN_TIMM, num_classes=5)
    found |= with_shapes("timm/vit", {name: tuple(value.shape) for name, value in plain.state_dict().items()})
    masked = ViTMAEForPreTraining(ViTMAEConfig(**THIN, decoder_hidden_size=16, decoder_num_hidden_layers=1))
    found |= with_shapes("transformers/vit_mae", loaded(masked)[1])
    for ours, theirs in PUBLISHED.items():
        network = timm.create_model(theirs)
        found |= with_shapes(ours, {name: tuple(value.shape) for name, value in network.state_dict().items()})
    kernel = np.random.default_rng(0).normal(0, 1, (4, 3, 14, 14)).astype(np.float32)
    return {**found, "kernel": kernel, "resampled": resample_patch_embed(torch.tensor(kernel), [16, 16]).numpy()}


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).parent / "dino.npz", **dino())
