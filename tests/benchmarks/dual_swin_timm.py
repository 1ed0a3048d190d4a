"""Compare the speed of dual_swin with the same network in timm and PyTorch.

A training step and inference are timed in turns, each library in its own process.

    python tests/benchmarks/dual_swin_timm.py [BATCH] [PYTHON]

PYTHON is an interpreter that has torch and timm, this one by default. Inputs are random tiles of 128 x 128 pixels and
seven bands; float32. See in_turns.py for when a ratio is meaningful."""

import os
import sys

from in_turns import keras_steps, race, serve, show

SIZES = (96, 192, 384, 768)  # filters of the pyramid of SwinV2-S


def torch_steps(batch):
    import timm
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.set_num_threads(os.cpu_count())

    def convolution(filters, new, kernel):
        parts = (
            nn.Conv2d(filters, new, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(new),
            nn.ReLU(inplace=True),
        )
        return nn.Sequential(*parts)

    class Dual(nn.Module):
        """Two encoders, 1 x 1 fusion, and UNet++ with 256 filters; node (i, j) is at level i of column j."""

        def __init__(self):
            super().__init__()
            options = {"features_only": True, "pretrained": False, "img_size": 128, "drop_path_rate": 0.1}
            self.encoders = nn.ModuleList(
                timm.create_model("swinv2_small_window8_256", in_chans=n, **options) for n in (3, 4)
            )
            self.fusions = nn.ModuleList(nn.Conv2d(2 * n, n, 1) for n in SIZES)
            self.projections = nn.ModuleList(convolution(n, 256, 1) for n in SIZES)
            double = {
                (i, j): (convolution(256 * (j + 1), 256, 3), convolution(256, 256, 3))
                for j in (1, 2, 3)
                for i in range(4 - j)
            }
            self.nodes = nn.ModuleDict({f"{i}{j}": nn.Sequential(*pair) for (i, j), pair in double.items()})
            self.refine, self.head = convolution(256, 256, 3), nn.Conv2d(256, 1, 1)

        def forward(self, x):
            pairs = zip(self.encoders[0](x[:, :3]), self.encoders[1](x[:, 3:]), strict=True)
            fused = [f(torch.cat(pair, -1).permute(0, 3, 1, 2)) for f, pair in zip(self.fusions, pairs, strict=True)]
            rows = [[p(level)] for p, level in zip(self.projections, fused, strict=True)]
            for j in (1, 2, 3):
                for i in range(4 - j):
                    below = F.interpolate(rows[i + 1][j - 1], scale_factor=2, mode="bilinear")
                    rows[i].append(self.nodes[f"{i}{j}"](torch.cat([*rows[i], below], 1)))
            last = F.dropout(self.refine(rows[0][3]), 0.1, self.training)
            return F.interpolate(self.head(last), scale_factor=4, mode="bilinear")

    network = Dual().to(memory_format=torch.channels_last)
    images = torch.randn(batch, 128, 128, 7).permute(0, 3, 1, 2)
    masks = (images[:, :1] > 0).float()
    optimizer = torch.optim.AdamW(network.parameters(), 2e-4, weight_decay=1e-4)

    def train():
        network.train()
        optimizer.zero_grad(set_to_none=True)
        logits = network(images)
        p = logits.sigmoid()
        dice = 1 - 2 * (p * masks).sum() / (p.sum() + masks.sum() + 1e-7)
        (0.5 * F.binary_cross_entropy_with_logits(logits, masks) + 0.5 * dice).backward()
        optimizer.step()

    @torch.inference_mode()
    def infer():
        network.eval()
        network(images)

    return {"training": train, "inference": infer}


def main():
    serving = sys.argv[1:2] == ["serve"]
    words = sys.argv[3:] if serving else sys.argv[1:]
    batch = int(words[0]) if words else 8
    if not serving:
        pythons = {"keras": sys.executable, "torch": words[1] if len(words) > 1 else sys.executable}
        show(
            race(
                {name: [python, __file__, "serve", name, str(batch)] for name, python in pythons.items()},
                turns=3,
                seconds=0,
            ),
            batch,
        )
    elif sys.argv[2] == "torch":
        serve(torch_steps(batch))
    else:
        from marsls_keras.config import load_config

        serve(
            keras_steps(load_config("dual_swin", ["training.ema_decay=null", "training.precision=float32"])[1], batch)
        )


if __name__ == "__main__":
    main()
