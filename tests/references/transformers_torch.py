"""Maps of encoders as Hugging Face's transformers computes them, from weights that the tensors' names give.

    pip install torch transformers && python tests/references/transformers_torch.py

writes mit.npz, convnext.npz, vit.npz and swin_transformers.npz beside this file. The tests make the same weights anew
and need neither package."""

from __future__ import annotations

import re
import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

SIZES = ((64, 96), (32, 32))

_SCALES = ("weight", "gamma", "gamma_1", "gamma_2", "lambda1", "running_var", "scale")
"""Ends of the names of vectors that lie around 1."""


def image(size: tuple[int, int]) -> np.ndarray:
    """Return an image (1, H, W, 3)."""
    return np.random.default_rng(0).normal(0, 1, (1, *size, 3)).astype(np.float32)


def tensors(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return tensors of these shapes, drawn by their names, of a size that keeps activations near 1."""
    made = {}
    for name, shape in shapes.items():
        draw = np.random.default_rng(zlib.crc32(name.encode()))
        if len(shape) == 1:
            made[name] = draw.uniform(0.5, 1.5, shape) if name.endswith(_SCALES) else draw.normal(0, 0.1, shape)
        elif len(shape) == 3:  # tokens and positions
            made[name] = draw.normal(0, 1, shape)
        else:
            made[name] = draw.normal(0, np.sqrt(1 / np.prod(shape[1:])), shape)
    return {name: value.astype(np.float32) for name, value in made.items()}


def shapes_of(reference: Mapping[str, np.ndarray], name: str) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the tensors that maps were computed from."""
    names, shapes = reference[f"{name}/names"].tolist(), reference[f"{name}/shapes"]
    return {name: tuple(shape[shape > 0].tolist()) for name, shape in zip(names, shapes, strict=True)}


def with_shapes(name: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return the arrays that `shapes_of` reads."""
    return {
        f"{name}/names": np.array(list(shapes)),
        f"{name}/shapes": np.array([(*s, *(0,) * (4 - len(s))) for s in shapes.values()]),
    }


def loaded(network: Any, rename: Callable[[str], str] = str) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """Return a network of transformers with drawn weights, saved and loaded by its own code, and the tensors' shapes.

    Args:
        network: The network.
        rename: From the name in the file to that by which a tensor is known to the tests, without axes of 1 in front.
    """
    from safetensors.numpy import load_file, save_file

    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        file = Path(folder) / "model.safetensors"
        there = {name: value.shape for name, value in load_file(file).items()}
        shapes = {rename(name): shape[3:] if shape[:3] == (1, 1, 1) else shape for name, shape in there.items()}
        drawn = tensors(shapes)
        save_file({name: drawn[rename(name)].reshape(shape) for name, shape in there.items()}, file, {"format": "pt"})
        return type(network).from_pretrained(folder).eval(), shapes


def maps(network: Any, size: tuple[int, int]) -> list[np.ndarray]:
    """Return the maps of all stages (1, h, w, C)."""
    import torch

    with torch.no_grad():
        found = network(torch.tensor(image(size).transpose(0, 3, 1, 2)), output_hidden_states=True).hidden_states
    return [x.numpy().transpose(0, 2, 3, 1) for x in found[-4:]]


def mit() -> dict[str, np.ndarray]:
    """Return names, shapes and maps of MiT B0."""
    from transformers import SegformerConfig, SegformerModel

    network, shapes = loaded(SegformerModel(SegformerConfig()))
    found = with_shapes("mit_b0", shapes)
    for size in SIZES:
        found |= {f"mit_b0/{size[0]}/P{n}": x for n, x in enumerate(maps(network, size), 2)}
    return found


TIMM = (
    (r"^embeddings\.patch_embeddings\.", "stem.0."),
    (r"^embeddings\.layernorm\.", "stem.1."),
    (r"^layernorm\.", "head.norm."),
    (r"^encoder\.", ""),
    (r"\.downsampling_layer\.", ".downsample."),
    (r"\.layers\.", ".blocks."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.layernorm\.", ".norm."),
    (r"\.pwconv([12])\.", r".mlp.fc\1."),
    (r"\.grn\.", ".mlp.grn."),
    (r"\.layer_scale_parameter$", ".gamma"),
)
"""From the names of ConvNeXt in transformers to those in timm, applied one after the other."""


def as_timm(name: str) -> str:
    """Return timm's name of a tensor of ConvNeXt."""
    for pattern, new in TIMM:
        name = re.sub(pattern, new, name)
    return name


THIN = {"depths": [2, 1, 2, 1], "hidden_sizes": [24, 48, 96, 192]}
"""A ConvNeXt smaller than any that is published."""


def convnext() -> dict[str, np.ndarray]:
    """Return timm's names, shapes and maps of a thin ConvNeXt and of ConvNeXtV2 atto."""
    from transformers import ConvNextConfig, ConvNextModel, ConvNextV2Config, ConvNextV2Model

    atto = ConvNextV2Config(depths=[2, 2, 6, 2], hidden_sizes=[40, 80, 160, 320])
    found: dict[str, np.ndarray] = {}
    for name, made in (("thin", ConvNextModel(ConvNextConfig(**THIN))), ("convnext_v2_atto", ConvNextV2Model(atto))):
        network, shapes = loaded(made, as_timm)
        found |= with_shapes(name, shapes)
        for size in SIZES:
            found |= {f"{name}/{size[0]}/P{n}": x for n, x in enumerate(maps(network, size), 2)}
    return found


VIT_SIZES = ((64, 64), (64, 96), (32, 32))
"""The first is that of the grid; for the others positions are interpolated."""


def vit() -> dict[str, np.ndarray]:
    """Return names, shapes and last maps of a thin vision transformer with a grid of 4 x 4, without its pooler."""
    import torch
    from transformers import ViTConfig, ViTModel

    thin = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "image_size": 64,
    }
    network, shapes = loaded(ViTModel(ViTConfig(**thin), add_pooling_layer=False))
    found = with_shapes("thin", shapes)
    for height, width in VIT_SIZES:
        with torch.no_grad():
            pixels = torch.tensor(image((height, width)).transpose(0, 3, 1, 2))
            tokens = network(pixels, interpolate_pos_encoding=True).last_hidden_state.numpy()
        found[f"thin/{height}x{width}"] = tokens[:, 1:].reshape(1, height // 16, width // 16, -1)
    return found


def swin_transformers() -> dict[str, np.ndarray]:
    """Return names, shapes and the last map of a thin Swin at its own size, 224 x 224."""
    import torch
    from transformers import SwinConfig, SwinModel

    thin = SwinConfig(embed_dim=16, depths=[2, 2, 2, 2], num_heads=[1, 2, 2, 4])
    network, shapes = loaded(SwinModel(thin))
    with torch.no_grad():
        maps = network(torch.tensor(image((224, 224)).transpose(0, 3, 1, 2)), output_hidden_states=True)
    last = maps.reshaped_hidden_states[-1].numpy().transpose(0, 2, 3, 1)
    return with_shapes("thin", shapes) | {"thin/P5": last}


if __name__ == "__main__":
    for make in (mit, convnext, vit, swin_transformers):
        np.savez_compressed(Path(__file__).parent / f"{make.__name__}.npz", **make())
