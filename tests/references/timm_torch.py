"""Maps of encoders as timm computes them, from weights that the tensors' names give.

    pip install torch timm && python tests/references/timm_torch.py

writes swin.npz and hgnet_v2.npz beside this file. The tests make the same weights anew and need neither package. Of
thin networks the whole maps are stored, of published ones a part of the channels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from transformers_torch import image, shapes_of, tensors, with_shapes

__all__ = ["image", "shapes_of", "tensors"]

SIZES = ((128, 128), (32, 96))
"""Images whose grids are no multiples of a Swin's windows of 7 x 7, down to grids of 4 x 4 and 1 x 3."""

HGNET_SIZES = ((64, 96), (32, 32))

PART = 32
"""Every how many channels of a published network are stored."""


def drawn(network: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """Give a network of timm drawn weights, and return it with the names and shapes of its tensors."""
    import torch

    shapes = {name: tuple(v.shape) for name, v in network.state_dict().items() if v.dtype == torch.float32}
    shapes = {name: shape for name, shape in shapes.items() if not name.startswith("head.")}
    network.load_state_dict({name: torch.tensor(v) for name, v in tensors(shapes).items()}, strict=False)
    return network.eval(), shapes


def pixels(size: tuple[int, int]) -> Any:
    """Return the image as a tensor (1, 3, H, W)."""
    import torch

    return torch.tensor(image(size).transpose(0, 3, 1, 2))


THIN_SWIN = {"embed_dim": 16, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 2, 4)}


def swin() -> dict[str, np.ndarray]:
    """Return names, shapes and maps of a thin Swin, and of the published ones."""
    import timm
    import torch
    from timm.models.swin_transformer import SwinTransformer

    found: dict[str, np.ndarray] = {}
    networks = {"thin": SwinTransformer(**THIN_SWIN, dynamic_img_size=True)}
    for size in ("tiny", "small", "base"):
        networks[f"swin_{size}"] = timm.create_model(f"swin_{size}_patch4_window7_224", dynamic_img_size=True)
    for name, made in networks.items():
        network, shapes = drawn(made)
        found |= with_shapes(name, shapes)
        for size in SIZES:
            with torch.no_grad():
                x = network.patch_embed(pixels(size))
                for n, stage in enumerate(network.layers, 2):
                    x = stage(x)
                    found[f"{name}/{size[0]}/P{n}"] = x.numpy()[..., :: 1 if name == "thin" else PART]
    return found


def hgnet_v2() -> dict[str, np.ndarray]:
    """Return names, shapes and a part of the maps of HGNetV2 B0 to B4, without classifier."""
    import timm
    import torch

    found: dict[str, np.ndarray] = {}
    for i in range(5):
        name = f"hgnetv2_b{i}"
        network, shapes = drawn(timm.create_model(name))
        found |= with_shapes(name, shapes)
        for size in HGNET_SIZES:
            with torch.no_grad():
                maps = network.forward_intermediates(pixels(size), intermediates_only=True)
            found |= {
                f"{name}/{size[0]}/P{n}": x.numpy().transpose(0, 2, 3, 1)[..., ::PART] for n, x in enumerate(maps, 2)
            }
    return found


if __name__ == "__main__":
    for make in (swin, hgnet_v2):
        np.savez_compressed(Path(__file__).parent / f"{make.__name__}.npz", **make())
