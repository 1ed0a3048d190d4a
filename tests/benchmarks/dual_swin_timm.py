"""Time dual_swin beside the same network in timm and PyTorch: a training step and inference, in turns, each library in its own process.

    python tests/benchmarks/dual_swin_timm.py [BATCH] [PYTHON]

PYTHON is an interpreter that has torch and timm, this one by default. On a machine with other work the ratio means nothing, since PyTorch's
threads wait actively. Inputs are random tiles of 128 x 128 pixels and seven bands; float32.
"""

import os
import subprocess
import sys
import time

ROUNDS = 3
SIZES = (96, 192, 384, 768)  # filters of the pyramid of SwinV2-S


def keras_steps(batch):
    import numpy as np
    import tensorflow as tf

    from marsls_keras.config import load_config
    from marsls_keras.losses import build_loss
    from marsls_keras.models import build_model
    from marsls_keras.training.optimizer import build_optimizer

    tf.config.threading.set_intra_op_parallelism_threads(os.cpu_count())
    _, config = load_config("dual_swin", ["training.ema_decay=null"])
    network = build_model("dual_swin", bands=7)
    images = np.random.default_rng(0).normal(size=(batch, 128, 128, 7)).astype(np.float32)
    masks = (images[..., :1] > 0).astype(np.float32)
    loss = build_loss(config.loss, positive_weight=2.0)
    network.compile(optimizer=build_optimizer(config.training, 100), loss=loss, jit_compile=False)
    network.optimizer.build(network.trainable_variables)
    network.make_train_function()
    batches = iter(tf.data.Dataset.from_tensors((images, masks)).repeat())
    seen, predict = tf.constant(images), tf.function(lambda x: network(x, training=False))
    return lambda: float(network.train_function(batches)["loss"]), lambda: predict(seen).numpy()


def torch_steps(batch):
    import timm
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.set_num_threads(os.cpu_count())

    def convolution(filters, new, kernel):
        parts = nn.Conv2d(filters, new, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(new), nn.ReLU(inplace=True)
        return nn.Sequential(*parts)

    class Dual(nn.Module):
        """Two encoders, 1 x 1 fusion, and UNet++ with 256 filters; node (i, j) is at level i of column j."""

        def __init__(self):
            super().__init__()
            options = {"features_only": True, "pretrained": False, "img_size": 128, "drop_path_rate": 0.1}
            self.encoders = nn.ModuleList(timm.create_model("swinv2_small_window8_256", in_chans=n, **options) for n in (3, 4))
            self.fusions = nn.ModuleList(nn.Conv2d(2 * n, n, 1) for n in SIZES)
            self.projections = nn.ModuleList(convolution(n, 256, 1) for n in SIZES)
            double = {(i, j): (convolution(256 * (j + 1), 256, 3), convolution(256, 256, 3)) for j in (1, 2, 3) for i in range(4 - j)}
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

    return train, infer


def serve(library, batch):
    steps = dict(zip(("training", "inference"), {"keras": keras_steps, "torch": torch_steps}[library](batch), strict=True))
    for line in sys.stdin:
        began = time.perf_counter()
        steps[line.strip()]()
        print(time.perf_counter() - began, flush=True)


def race(batch, python):
    pythons = {"torch": python, "keras": sys.executable}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    there = {library: subprocess.Popen([found, __file__, "serve", library, str(batch)], **pipes) for library, found in pythons.items()}

    def seconds(library, what):
        print(what, file=there[library].stdin, flush=True)
        return float(there[library].stdout.readline())

    for what in ("training", "inference"):
        for library in there:
            seconds(library, what)  # compiles
        times = {library: [] for library in there}
        for _ in range(ROUNDS):
            for library, found in times.items():
                found.append(seconds(library, what))
        shown = ", ".join(f"{library} {' '.join(f'{t:.2f}' for t in found)} s" for library, found in times.items())
        print(f"{what}, {batch} tiles: {shown}; torch / keras {sorted(times['torch'])[1] / sorted(times['keras'])[1]:.2f}", flush=True)
    for process in there.values():
        process.kill()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        race(int(sys.argv[1]) if len(sys.argv) > 1 else 8, sys.argv[2] if len(sys.argv) > 2 else sys.executable)
