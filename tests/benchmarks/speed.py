"""Speed of the road on this machine, as tiles per second; run the parts to compare one after the other, since machines are noisy.

python tests/benchmarks/speed.py data DATA_FOLDER     # cold decoding, and tf.data with and without augmentation
python tests/benchmarks/speed.py keras                # training step and inference of the default recipe's U-Net
python tests/benchmarks/speed.py torch                # the same network in plain PyTorch, channels last (needs torch)
"""

import argparse
import os
import statistics
import time
from pathlib import Path

import numpy as np

BATCH, SIZE, BANDS, FILTERS, DEPTH = 16, 128, 7, 16, 4


def rate(step, tiles, seconds=8.0):
    """Return the median tiles per second of repeated calls of `step`, which handles `tiles` tiles, after two calls that warm up."""
    step(), step()
    rates, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        step()
        rates.append(tiles / (time.perf_counter() - start))
    return statistics.median(rates)


def report(name, value):
    print(f"{name:48s} {value:9.1f} tiles/s", flush=True)


def data(root):
    from marsls_keras.data import Dataset
    from marsls_keras.data.dataset import tiff_files
    from marsls_keras.data.integrity import load

    dataset = Dataset.open(root)
    for folder in {path.parent for tile in dataset.tiles for path in (tile.image, tile.mask) if path}:
        for file in tiff_files(folder):  # out of the page cache, so that decoding starts at the disk
            with open(file, "rb") as handle:
                os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    start = time.perf_counter()
    tiles = load(dataset)
    report(f"decode {len(tiles)} tiles, cold, with integrity check", len(tiles) / (time.perf_counter() - start))

    from marsls_keras.config import Augmentation
    from marsls_keras.data.pipeline import training_batches

    off = Augmentation(horizontal_flip=0, vertical_flip=0, rot90=0)
    for name, augmentation in (("flips and quarter turns", Augmentation()), ("no augmentation drawn", off)):
        batches = training_batches(
            tiles.images, tiles.masks, batch_size=BATCH, augmentation=augmentation, seed=0, epochs=10_000
        ).as_numpy_iterator()
        report(f"tf.data, {name}", rate(lambda it=batches: [next(it) for _ in range(10)], 10 * BATCH))


def batch():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(BATCH, SIZE, SIZE, BANDS)).astype(np.float32)
    return x, (x[..., :1] > 0).astype(np.float32)


def with_keras():
    import tensorflow as tf

    from marsls_keras.config import Config, Training
    from marsls_keras.losses import build_loss
    from marsls_keras.metrics import SegmentationCounts
    from marsls_keras.models import build_model
    from marsls_keras.training.device import use_xla
    from marsls_keras.training.optim import build_optimizer

    model = build_model("unet", bands=BANDS, base_filters=FILTERS, depth=DEPTH)
    model.compile(
        build_optimizer(Training(), 16), build_loss(Config().loss), weighted_metrics=[SegmentationCounts()], jit_compile=use_xla(Training())
    )
    x, y = map(tf.constant, batch())
    report("Keras, training step", rate(lambda: model.train_on_batch(x, y), BATCH))
    report("Keras, inference", rate(lambda: model.predict_on_batch(x), BATCH))


def with_torch():
    import torch
    from torch import nn
    from torch.nn import functional

    def double(a, b):
        layers = [nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers, nn.Conv2d(b, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True))

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            widths = [FILTERS * 2**i for i in range(DEPTH + 1)]
            self.down = nn.ModuleList(double(a, b) for a, b in zip([BANDS, *widths[:-2]], widths[:-1], strict=True))
            self.bottom = double(widths[-2], widths[-1])
            self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in reversed(widths[:-1]))
            self.decode = nn.ModuleList(double(2 * w, w) for w in reversed(widths[:-1]))
            self.head = nn.Conv2d(FILTERS, 1, 1)

        def forward(self, x):
            skips = []
            for block in self.down:
                skips.append(block(x))
                x = functional.max_pool2d(skips[-1], 2)
            x = self.bottom(x)
            for up, block in zip(self.up, self.decode, strict=True):
                x = block(torch.cat([skips.pop(), up(x)], 1))
            return self.head(x)

    model = UNet().to(memory_format=torch.channels_last)
    print(f"{sum(p.numel() for p in model.parameters()):,} trainable parameters, torch {torch.__version__}")
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=1e-4)
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99))
    x, y = (torch.from_numpy(a).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last) for a in batch())

    def step():
        optimizer.zero_grad(set_to_none=True)
        logits = model(x)
        p = logits.sigmoid()
        dice = 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
        (0.5 * functional.binary_cross_entropy_with_logits(logits, y) + 0.5 * dice).backward()
        optimizer.step()
        average.update_parameters(model)

    report("PyTorch, training step", rate(step, BATCH))
    model.eval()
    with torch.inference_mode():
        report("PyTorch, inference", rate(lambda: model(x), BATCH))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["data", "keras", "torch"])
    parser.add_argument("root", nargs="?", type=Path, default=Path("data"))
    arguments = parser.parse_args()
    parts = {"data": lambda: data(arguments.root), "keras": with_keras, "torch": with_torch}
    parts[arguments.part]()
