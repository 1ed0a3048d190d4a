"""Logits of convolutional baselines as independent PyTorch code computes them, and that code's parameter counts.

    pip install torch segmentation-models-pytorch==0.6.0
    git clone https://github.com/LeeJunHyun/Image_Segmentation
    git clone https://github.com/nikhilroxtomar/Semantic-Segmentation-Architecture
    python tests/references/baselines_torch.py Image_Segmentation/network.py \
        Semantic-Segmentation-Architecture/PyTorch/resunet.py

writes baselines.npz beside this file, and prints the counts of the full-size networks at seven bands. The stored logits
are those of narrow variants (WIDTH and FILTERS), with weights that are drawn by the tensors' names. The tests make the
same weights anew and need none of these."""

from __future__ import annotations

import importlib.util
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

SIZES = ((64, 64), (32, 96))
WIDTH = 8
"""Channels of the stem of the narrow ResNet, instead of 64."""
FILTERS = 4
"""Filters of the first level of the narrow U-Nets, instead of 64."""
CHANNELS = {"unet_plus_plus": 32, "pspnet": 24, "deeplab_v3": 16, "deeplab_v3_plus": 16}
"""Channels of the narrow decoders."""
RATES = (2, 3, 5)
"""Dilation rates of the narrow decoders, for maps of 8 x 8 pixels."""
SMP = {
    "unet_plus_plus": "UnetPlusPlus",
    "pspnet": "PSPNet",
    "deeplab_v3": "DeepLabV3",
    "deeplab_v3_plus": "DeepLabV3Plus",
}
"""Class of segmentation_models.pytorch by network."""


def image(size: tuple[int, int]) -> np.ndarray:
    """Return an image (1, H, W, 7)."""
    return np.random.default_rng(0).normal(0, 1, (1, *size, 7)).astype(np.float32)


def tensors(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return tensors of these shapes, drawn by their names, of a size that keeps activations near 1."""
    made = {}
    for name, shape in shapes.items():
        draw = np.random.default_rng(zlib.crc32(name.encode()))
        if len(shape) == 4:
            made[name] = draw.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        elif name.endswith(("running_var", "weight")):
            made[name] = draw.uniform(0.5, 1.5, shape)
        else:
            made[name] = draw.normal(0, 0.1, shape)
    return {name: value.astype(np.float32) for name, value in made.items()}


def shapes_of(reference: Mapping[str, np.ndarray], name: str) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the tensors that a network's logits were computed from."""
    names, shapes = reference[f"{name}/names"].tolist(), reference[f"{name}/shapes"]
    return {name: tuple(shape[shape > 0].tolist()) for name, shape in zip(names, shapes, strict=True)}


def drawn(name: str, network: Any) -> dict[str, np.ndarray]:
    """Give a network drawn weights, and return the arrays that `shapes_of` reads."""
    import torch

    state = {key: tuple(value.shape) for key, value in network.state_dict().items() if value.dtype == torch.float32}
    network.load_state_dict({key: torch.tensor(value) for key, value in tensors(state).items()}, strict=False)
    network.eval()
    return {
        f"{name}/names": np.array(list(state)),
        f"{name}/shapes": np.array([(*shape, *(0,) * (4 - len(shape))) for shape in state.values()]),
    }


def computed(name: str, network: Any) -> dict[str, np.ndarray]:
    """Give a network drawn weights, and return the names and shapes of its tensors, and its logits for each size."""
    import torch

    found = drawn(name, network)
    for size in SIZES:
        with torch.no_grad():
            logits = network(torch.tensor(image(size).transpose(0, 3, 1, 2)))
        found[f"{name}/{size[0]}"] = logits.numpy().transpose(0, 2, 3, 1)
    return found


def count(network: Any) -> tuple[int, int]:
    """Return the number of parameters with moving statistics, and of those that are trained."""
    import torch

    trained = sum(parameter.numel() for parameter in network.parameters())
    return sum(v.numel() for v in network.state_dict().values() if v.dtype == torch.float32), trained


def narrow_encoder(depth: int) -> str:
    """Register a ResNet-18 or 50 with WIDTH channels in segmentation_models.pytorch, and return its name."""
    from segmentation_models_pytorch.encoders import encoders
    from segmentation_models_pytorch.encoders.resnet import ResNetEncoder
    from torch import nn

    class Narrow(ResNetEncoder):
        """ResNet with WIDTH instead of 64 channels; torchvision fixes the 64 in its constructor."""

        def _make_layer(self, block: Any, planes: int, *arguments: Any, **options: Any) -> Any:
            if planes == 64:
                self.inplanes, self.bn1 = WIDTH, nn.BatchNorm2d(WIDTH)
                self.conv1 = nn.Conv2d(3, WIDTH, 7, 2, 3, bias=False)
            return super()._make_layer(block, planes * WIDTH // 64, *arguments, **options)

    settings, expansion = encoders[f"resnet{depth}"]["params"], 4 if depth == 50 else 1
    channels = [3, WIDTH, *(expansion * WIDTH * 2**i for i in range(4))]
    encoders["narrow"] = {"encoder": Narrow, "params": {**settings, "out_channels": channels}}
    return "narrow"


def resnet50() -> dict[str, np.ndarray]:
    """Return names, shapes and some maps of a narrow ResNet-50 of output stride 16 for seven bands."""
    import torch
    from segmentation_models_pytorch.encoders import get_encoder

    network = get_encoder(narrow_encoder(50), in_channels=7, weights=None, output_stride=16)
    found = drawn("resnet50", network)
    with torch.no_grad():
        maps = network(torch.tensor(image((64, 64)).transpose(0, 3, 1, 2)))
    return found | {f"resnet50/P{n}": maps[n].numpy().transpose(0, 2, 3, 1) for n in (1, 2, 5)}


def smp(name: str, narrow: bool) -> Any:
    """Return a network of segmentation_models.pytorch for seven bands, with its defaults, or narrow on a ResNet-18."""
    import segmentation_models_pytorch

    options: dict[str, Any] = {"encoder_weights": None, "in_channels": 7}
    if narrow:
        options["encoder_name"] = narrow_encoder(18)
        width = CHANNELS[name]
        options |= {
            "unet_plus_plus": {"decoder_channels": [width >> i for i in range(5)]},
            "pspnet": {"psp_out_channels": width},
        }.get(name, {"decoder_channels": width, "decoder_atrous_rates": RATES})
    return getattr(segmentation_models_pytorch, SMP[name])(**options)


def module(path: str) -> ModuleType:
    """Import a Python file."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def narrowed(loaded: ModuleType, blocks: tuple[str, ...]) -> None:
    """Make the blocks of a file divide the numbers of channels that the networks build them with by 64 / FILTERS."""
    inside = False

    def less(n: int) -> int:
        return n * FILTERS // 64 if n % 32 == 0 else n

    def wrap(init: Any) -> Any:
        def build(self: Any, *channels: int, **options: int) -> None:
            nonlocal inside
            if inside:  # a block of a block has narrow channels already
                init(self, *channels, **options)
                return
            inside = True
            init(self, *map(less, channels), **{key: less(value) for key, value in options.items()})
            inside = False

        return build

    for name in blocks:
        block = getattr(loaded, name)
        block.__init__ = wrap(block.__init__)


def unets(network: str, resunet: str, narrow: bool) -> dict[str, Any]:
    """Return the U-Nets of two files, for seven bands and without a sigmoid at the end."""
    from torch import nn

    unet, residual = module(network), module(resunet)
    if narrow:
        narrowed(unet, ("conv_block", "up_conv", "RRCNN_block", "Attention_block"))
        narrowed(residual, ("batchnorm_relu", "residual_block", "decoder_block"))
    found = {"attention_unet": unet.AttU_Net(7), "r2_unet": unet.R2U_Net(7), "res_unet": residual.build_resunet()}
    filters = FILTERS if narrow else 64
    if narrow:
        for name in ("attention_unet", "r2_unet"):
            found[name].Conv_1x1 = nn.Conv2d(filters, 1, 1)
    last = found["res_unet"]
    last.c11, last.c12 = nn.Conv2d(7, filters, 3, padding=1), nn.Conv2d(filters, filters, 3, padding=1)
    last.c13, last.output, last.sigmoid = nn.Conv2d(7, filters, 1), nn.Conv2d(filters, 1, 1), nn.Identity()
    return found


def main() -> None:
    """Write the logits of the narrow networks, and print the counts of the full-size ones."""
    narrow = {**{name: smp(name, True) for name in SMP}, **unets(*sys.argv[1:3], narrow=True)}
    found = resnet50()
    for name, network in narrow.items():
        found |= computed(name, network)
    np.savez_compressed(Path(__file__).parent / "baselines.npz", **found)
    for name, network in {**{name: smp(name, False) for name in SMP}, **unets(*sys.argv[1:3], narrow=False)}.items():
        print(name, *count(network))


if __name__ == "__main__":
    main()
