"""Maps of EfficientNet-Lite as the package efficientnet-lite-pytorch computes them, from weights that a seed gives.

    pip install torch efficientnet-lite-pytorch && python tests/references/efficientnet_lite_torch.py

writes efficientnet_lite.npz beside this file. The tests make the same weights anew and need neither package.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

BLOCKS = {"efficientnet_lite0": (0, 2, 4, 10, 15), "efficientnet_lite2": (0, 3, 6, 14, 20)}
"""The last block of each map of the pyramid, P1 first."""


def image() -> np.ndarray:
    """Return two images (2, 32, 64, 3)."""
    return np.random.default_rng(0).normal(0, 1, (2, 32, 64, 3)).astype(np.float32)


def tensors(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return tensors of these shapes, drawn by their names, of a size that keeps activations near 1."""
    made = {}
    for name, shape in shapes.items():
        draw = np.random.default_rng(zlib.crc32(name.encode()))
        if len(shape) == 4:
            made[name] = draw.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        elif name.endswith("running_var") or name.endswith("weight"):
            made[name] = draw.uniform(0.5, 1.5, shape)
        else:
            made[name] = draw.normal(0, 0.1, shape)
    return {name: value.astype(np.float32) for name, value in made.items()}


def main() -> None:
    """Compute the maps and write them."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    found: dict[str, np.ndarray] = {}
    for name, blocks in BLOCKS.items():
        network = EfficientNet.from_name(name.replace("_", "-"), image_size=None).eval()  # padded for any size
        shapes = {k: tuple(v.shape) for k, v in network.state_dict().items() if v.dtype == torch.float32}
        network.load_state_dict({k: torch.tensor(v) for k, v in tensors(shapes).items()}, strict=False)
        kept = {k: s for k, s in shapes.items() if not k.startswith(("_conv_head", "_bn1", "_fc"))}
        found[f"{name}/names"] = np.array(list(kept))
        found[f"{name}/shapes"] = np.array([(*s, *(0,) * (4 - len(s))) for s in kept.values()])
        with torch.no_grad():
            x = network._swish(network._bn0(network._conv_stem(torch.tensor(image().transpose(0, 3, 1, 2)))))
            for i, block in enumerate(network._blocks):
                x = block(x)
                if i in blocks:
                    found[f"{name}/P{blocks.index(i) + 1}"] = x.numpy().transpose(0, 2, 3, 1)
    np.savez_compressed(Path(__file__).parent / "efficientnet_lite.npz", **found)


if __name__ == "__main__":
    main()
