"""Logits of transformer baselines as PyTorch computes them, from weights that the tensors' names give.

    pip install torch transformers timm && python tests/references/transformer_baselines_torch.py

writes transformer_baselines.npz beside this file. SegFormer is that of transformers; the others are put
together here from its encoder, from timm's Swin blocks and patch merging and from PyTorch's layers. Modules are named
like the layers of marsls_keras where they are not those of a library. `tests/benchmarks/transformers_speed.py` times
the same networks."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SIZES = {
    "segformer": (64, 96),
    "mmsformer": (32, 64),
    "trans_unet": (32, 48),
    "swin_unet": (64, 64),
    "swin_fpn": (64, 64),
}
"""Height and width of the image by network."""

GROUPS = {"rgb": [0, 1, 2], "aux": [5, 4, 3, 6]}
"""Channels of each encoder of MMSFormer."""

TRANS_UNET = {"width": 8, "units": (2, 1, 1), "embed_dim": 16, "depth": 2, "heads": 2, "grid": 3}
DECODER = (16, 12, 8, 4)
SWIN_UNET = {"embed_dim": 8, "depths": (2, 2, 1, 1), "heads": (1, 2, 2, 4), "window": 4}
"""Options of the thin variants."""


def image(size: tuple[int, int]) -> np.ndarray:
    """Return an image (1, H, W, 7)."""
    return np.random.default_rng(0).normal(0, 1, (1, *size, 7)).astype(np.float32)


def tensors(shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Return tensors of these shapes, drawn by their names, of a size that keeps activations near 1."""
    made = {}
    for name, shape in shapes.items():
        draw = np.random.default_rng(zlib.crc32(name.encode()))
        if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            value = draw.uniform(0.5, 1.5, shape)
        elif len(shape) == 1 or name.endswith("table"):
            value = draw.normal(0, 0.1, shape)
        elif name.endswith("positions"):
            value = draw.normal(0, 1, shape)
        else:
            gain = 2 if len(shape) == 4 and shape[-1] > 1 else 1  # a ReLU follows
            value = draw.normal(0, np.sqrt(gain / np.prod(shape[1:])), shape)
        made[name] = value.astype(np.float32)
    return made


WIDE = [64, 128, 320, 512]
MIT = {
    "mit_thin": ([1, 1, 1, 1], [8, 16, 20, 32]),
    "mit_b0": ([2, 2, 2, 2], [32, 64, 160, 256]),
    "mit_b1": ([2, 2, 2, 2], WIDE),
    "mit_b2": ([3, 4, 6, 3], WIDE),
}
"""Blocks and channels of the encoders."""


def segformer(encoder: str, channels: int) -> Any:
    """Return SegFormer of transformers with seven bands and one label."""
    from transformers import SegformerForSemanticSegmentation

    return SegformerForSemanticSegmentation(_mit(encoder, 7, num_labels=1, decoder_hidden_size=channels))


def _mit(name: str, bands: int, **options: Any) -> Any:
    from transformers import SegformerConfig

    depths, widths = MIT[name]
    return SegformerConfig(num_channels=bands, depths=depths, hidden_sizes=widths, layer_norm_eps=1e-5, **options)


def mmsformer(encoders: Mapping[str, str], channels: int) -> Any:
    """Return MMSFormer on two MiT of transformers."""
    import torch
    from torch import nn
    from torch.nn import functional as F
    from transformers import SegformerModel

    class Fusion(nn.Module):
        def __init__(self, c: int, maps: int) -> None:
            super().__init__()
            hidden = max(1, c // 16)
            self.linear, self.mix_in = nn.Conv2d(maps * c, c, 1), nn.Conv2d(c, c, 1)
            for k in (3, 5, 7):
                self.add_module(f"depthwise{k}", nn.Conv2d(c, c, k, padding=k // 2, groups=c))
            self.pointwise, self.bn, self.mix_out = nn.Conv2d(c, c, 1), nn.BatchNorm2d(c), nn.Conv2d(c, c, 1)
            self.squeeze, self.excite = (nn.Linear(*pair, bias=False) for pair in ((c, hidden), (hidden, c)))

        def forward(self, maps: Any) -> Any:
            x = self.linear(torch.cat(maps, 1))
            y = self.mix_in(x)
            y = y + self.depthwise3(y) + self.depthwise5(y) + self.depthwise7(y)
            y = self.mix_out(F.gelu(self.bn(self.pointwise(y))))
            weight = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()
            return y + x * weight[:, :, None, None]

    class MMSFormer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            made = {group: SegformerModel(_mit(name, len(GROUPS[group]))) for group, name in encoders.items()}
            self.encoders = nn.ModuleDict(made)
            widths = made["rgb"].config.hidden_sizes
            self.fusions = nn.ModuleDict({f"P{n}": Fusion(c, len(made)) for n, c in enumerate(widths, 2)})
            self.projections = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in widths)
            self.fuse_conv, self.fuse_bn = nn.Conv2d(4 * channels, channels, 1, bias=False), nn.BatchNorm2d(channels)
            self.logits = nn.Conv2d(channels, 1, 1)

        def forward(self, x: Any) -> Any:
            pyramids = [
                net(x[:, GROUPS[group]], output_hidden_states=True).hidden_states[-4:]
                for group, net in self.encoders.items()
            ]
            fused = [
                fuse(list(maps)) for fuse, maps in zip(self.fusions.values(), zip(*pyramids, strict=True), strict=True)
            ]
            maps = [project(y) for project, y in zip(self.projections, fused, strict=True)]
            maps = [F.interpolate(y, maps[0].shape[2:], mode="bilinear") for y in maps]
            y = self.fuse_bn(self.fuse_conv(torch.cat(maps, 1))).relu()
            y = F.dropout(y, 0.1, self.training)
            return F.interpolate(self.logits(y), x.shape[2:], mode="bilinear")

    return MMSFormer()


def trans_unet(
    decoder: Sequence[int], width: int, units: Sequence[int], embed_dim: int, depth: int, heads: int, grid: int
) -> Any:
    """Return TransUNet from PyTorch's layers, with half-integer pixel centres in all interpolations."""
    import torch
    from timm.layers import StdConv2d
    from torch import nn
    from torch.nn import functional as F

    def conv(a: int, b: int, k: int, stride: int = 1) -> nn.Module:
        return StdConv2d(a, b, k, stride, padding=k // 2, eps=1e-5)

    def norm(c: int) -> nn.Module:
        return nn.GroupNorm(int(np.gcd(32, c)), c, eps=1e-6)

    class Unit(nn.Module):
        def __init__(self, a: int, c: int, stride: int) -> None:
            super().__init__()
            if stride > 1 or a != 4 * c:
                self.shortcut, self.shortcut_norm = conv(a, 4 * c, 1, stride), nn.GroupNorm(4 * c, 4 * c)
            self.conv1, self.conv2, self.conv3 = conv(a, c, 1), conv(c, c, 3, stride), conv(c, 4 * c, 1)
            self.norm1, self.norm2, self.norm3 = norm(c), norm(c), norm(4 * c)

        def forward(self, x: Any) -> Any:
            y = self.norm1(self.conv1(x)).relu()
            y = self.norm2(self.conv2(y)).relu()
            return (
                self.norm3(self.conv3(y)) + (self.shortcut_norm(self.shortcut(x)) if hasattr(self, "shortcut") else x)
            ).relu()

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layernorm_before, self.layernorm_after = (nn.LayerNorm(embed_dim, eps=1e-6) for _ in range(2))
            self.attention = nn.ModuleDict(
                {k: nn.Linear(embed_dim, embed_dim) for k in ("query", "key", "value", "out")}
            )
            self.intermediate, self.output = nn.Linear(embed_dim, 4 * embed_dim), nn.Linear(4 * embed_dim, embed_dim)

        def forward(self, x: Any) -> Any:
            y = self.layernorm_before(x)
            q, k, v = (
                self.attention[n](y).unflatten(-1, (heads, -1)).transpose(1, 2) for n in ("query", "key", "value")
            )
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = x + self.attention["out"](y)
            return x + self.output(F.gelu(self.intermediate(self.layernorm_after(x))))

    def double(a: int, b: int) -> nn.Sequential:
        return nn.Sequential(single(a, b), single(b, b))

    def single(a: int, b: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU())

    class TransUNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem_conv, self.stem_norm = conv(7, width, 7, 2), norm(width)
            self.stages = nn.ModuleList()
            last = width
            for i, number in enumerate(units):
                self.stages.append(nn.Sequential())
                for j in range(number):
                    self.stages[i].append(Unit(last, width * 2**i, 2 if i and not j else 1))
                    last = 4 * width * 2**i
            self.embed_proj = nn.Conv2d(last, embed_dim, 1)
            self.positions = nn.Parameter(torch.zeros(grid, grid, embed_dim))
            self.token_blocks = nn.ModuleList(Block() for _ in range(depth))
            self.token_norm = nn.LayerNorm(embed_dim, eps=1e-6)
            self.p4 = single(embed_dim, 2 * decoder[0])
            ins, skips = (2 * decoder[0], *decoder[:-1]), (8 * width, 4 * width, width, 0)
            self.up = nn.ModuleList(double(a + s, b) for a, s, b in zip(ins, skips, decoder, strict=True))
            self.logits = nn.Conv2d(decoder[-1], 1, 3, padding=1)

        def forward(self, x: Any) -> Any:
            x = self.stem_norm(self.stem_conv(x)).relu()
            skips = [x]
            x = F.max_pool2d(x, 3, 2, ceil_mode=True)
            for stage in self.stages:
                x = stage(x)
                skips.append(x)
            x = self.embed_proj(x)
            size = x.shape[2:]
            positions = F.interpolate(self.positions.permute(2, 0, 1)[None], size, mode="bilinear")
            x = F.dropout(x + positions, 0.1, self.training).flatten(2).transpose(1, 2)
            for block in self.token_blocks:
                x = block(x)
            x = self.p4(self.token_norm(x).transpose(1, 2).unflatten(2, size))
            for up, skip in zip(self.up, (skips[2], skips[1], skips[0], None), strict=True):
                x = F.interpolate(x, scale_factor=2, mode="bilinear")
                x = up(x if skip is None else torch.cat([x, skip], 1))
            return self.logits(x)

    return TransUNet()


def swin_unet(
    size: tuple[int, int],
    embed_dim: int,
    depths: Sequence[int],
    heads: Sequence[int],
    window: int,
    drop_path: float = 0.0,
) -> Any:
    """Return Swin-Unet on timm's Swin blocks and patch merging, for images of one square size."""
    import torch
    from timm.models.swin_transformer import PatchMerging, SwinTransformerBlock
    from torch import nn

    class Expand(nn.Module):
        def __init__(self, a: int, factor: int, c: int) -> None:
            super().__init__()
            self.factor, self.expand, self.norm = factor, nn.Linear(a, factor**2 * c, bias=False), nn.LayerNorm(c)

        def forward(self, x: Any) -> Any:
            b, h, w, _ = x.shape
            x = self.expand(x).view(b, h, w, self.factor, self.factor, -1).transpose(2, 3)
            return self.norm(x.reshape(b, h * self.factor, w * self.factor, -1))

    def stage(i: int) -> nn.Sequential:
        side = size[0] // 4 // 2**i
        rates = [drop_path * k / max(sum(depths) - 1, 1) for k in range(sum(depths))][sum(depths[:i]) :]
        return nn.Sequential(
            *(
                SwinTransformerBlock(
                    embed_dim * 2**i,
                    (side, side),
                    heads[i],
                    window_size=min(window, side),
                    shift_size=window // 2 * (j % 2) if side > window else 0,
                    drop_path=rates[j],
                )
                for j in range(depths[i])
            )
        )

    class SwinUnet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed_proj, self.embed_norm = nn.Conv2d(7, embed_dim, 4, 4), nn.LayerNorm(embed_dim)
            self.stages = nn.ModuleList(stage(i) for i in range(4))
            self.merges = nn.ModuleList(PatchMerging(embed_dim * 2**i) for i in range(3))
            self.bottom_norm, self.decode_norm = nn.LayerNorm(embed_dim * 8), nn.LayerNorm(embed_dim)
            self.expands = nn.ModuleList(Expand(embed_dim * 2 ** (i + 1), 2, embed_dim * 2**i) for i in range(3))
            self.joins = nn.ModuleList(nn.Linear(embed_dim * 2 ** (i + 1), embed_dim * 2**i) for i in range(3))
            self.decodes = nn.ModuleList(stage(i) for i in range(3))
            self.final_expand, self.logits = Expand(embed_dim, 4, embed_dim), nn.Conv2d(embed_dim, 1, 1, bias=False)

        def forward(self, x: Any) -> Any:
            x = self.embed_norm(self.embed_proj(x).permute(0, 2, 3, 1))
            entered = []
            for i in range(4):
                x = self.merges[i - 1](x) if i else x
                entered.append(x)
                x = self.stages[i](x)
            x = self.bottom_norm(x)
            for i in (2, 1, 0):
                x = self.decodes[i](self.joins[i](torch.cat([self.expands[i](x), entered[i]], -1)))
            x = self.final_expand(self.decode_norm(x))
            return self.logits(x.permute(0, 3, 1, 2))

    return SwinUnet()


def thin() -> dict[str, Any]:
    """Return the networks of the references by name."""
    return {
        "segformer": segformer("mit_thin", 16),
        "mmsformer": mmsformer({"rgb": "mit_thin", "aux": "mit_thin"}, 16),
        "trans_unet": trans_unet(DECODER, **TRANS_UNET),
        "swin_unet": swin_unet(SIZES["swin_unet"], **SWIN_UNET),
    }


def main() -> None:
    """Compute the logits of all networks, and write them with the names and shapes of the weights."""
    import torch

    found = {}
    for name, network in thin().items():
        state = network.state_dict()
        skip = ("num_batches_tracked", "relative_position_index", "attn_mask")
        shapes = {key: tuple(value.shape) for key, value in state.items() if not key.endswith(skip)}
        drawn = {key: torch.tensor(value) for key, value in tensors(shapes).items()}
        network.load_state_dict({**state, **drawn})
        with torch.no_grad():
            y = network.eval()(torch.tensor(image(SIZES[name]).transpose(0, 3, 1, 2)))
        y = getattr(y, "logits", y).numpy().transpose(0, 2, 3, 1)
        print(name, y.shape, y.std(), sum(v.numel() for v in network.parameters()))
        found |= {
            f"{name}/logits": y,
            f"{name}/names": np.array(list(shapes)),
            f"{name}/shapes": np.array([(*s, *(0,) * (4 - len(s))) for s in shapes.values()]),
        }
    np.savez_compressed(Path(__file__).parent / "transformer_baselines.npz", **found)


if __name__ == "__main__":
    main()
