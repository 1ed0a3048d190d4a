"""Compare the speed of the transformer baselines with PyTorch's: transformers, timm and segmentation_models.pytorch.

A training step and inference are timed in turns, each library in its own process.

    python tests/benchmarks/transformers_speed.py NAME [--python PYTHON] [--batch 4] [--seconds 2] [--steps N]

NAME is segformer, mmsformer, trans_unet, swin_unet or swin_fpn, with its default options. PYTHON is an interpreter that
has torch, timm, transformers and segmentation_models_pytorch, this one by default. `--steps N` times N single steps
instead of turns of some seconds, to see that all runs. Inputs are random tiles of 128 x 128 pixels and seven bands;
float32; AdamW, binary cross-entropy plus Dice. See in_turns.py for when a ratio is meaningful.

SegFormer is that of transformers; MMSFormer, TransUNet and Swin-Unet are those of
tests/references/transformer_baselines_torch.py; Swin-FPN is the FPN of segmentation_models.pytorch on timm's Swin-T,
whose decoder is a little lighter than ours."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from in_turns import keras_steps, race, serve, show

SIDE = 128
NAMES = ("segformer", "mmsformer", "trans_unet", "swin_unet", "swin_fpn")


def torch_network(name: str) -> Any:
    """Return the network in PyTorch, with the default options of the one here."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "references"))
    import transformer_baselines_torch as baselines

    if name == "segformer":
        return baselines.segformer("mit_b0", 256)
    if name == "mmsformer":
        return baselines.mmsformer({"rgb": "mit_b2", "aux": "mit_b1"}, 512)
    if name == "trans_unet":
        return baselines.trans_unet((256, 128, 64, 16), 64, (3, 4, 9), 768, 12, 12, 8)
    if name == "swin_unet":
        return baselines.swin_unet((SIDE, SIDE), 96, (2, 2, 2, 2), (3, 6, 12, 24), 8, drop_path=0.2)
    import segmentation_models_pytorch as smp

    return smp.FPN("tu-swin_tiny_patch4_window7_224", encoder_weights=None, in_channels=7, classes=1, img_size=SIDE)


def torch_steps(name: str, batch: int) -> dict[str, Callable[[], None]]:
    """Return a training step and inference of a network in PyTorch."""
    import torch
    from torch.nn import functional

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(os.cpu_count() or 1)
    network = torch_network(name).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=1e-4)
    x = torch.randn((batch, SIDE, SIDE, 7), device=device).permute(0, 3, 1, 2)  # strides of channels last
    y = (x[:, :1] > 0).float()

    def logits() -> Any:
        found = network(x)
        found = getattr(found, "logits", found)
        return found if found.shape[-1] == SIDE else functional.interpolate(found, (SIDE, SIDE), mode="bilinear")

    def train() -> None:
        network.train()
        optimizer.zero_grad(set_to_none=True)
        z = logits()
        p = z.sigmoid()
        dice = 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
        loss = 0.5 * functional.binary_cross_entropy_with_logits(z, y) + 0.5 * dice
        loss.backward()
        optimizer.step()
        loss.item()  # waits for the device, as the measure of Keras does

    def infer() -> None:
        network.eval()
        with torch.inference_mode():
            logits().cpu()

    return {"training": train, "inference": infer}


def main() -> None:
    """Compare the two libraries, or serve the steps of one in a child process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=NAMES, help="Network.")
    parser.add_argument("--python", default=sys.executable, help="Interpreter that has torch.")
    parser.add_argument("--batch", type=int, default=4, help="Tiles a step.")
    parser.add_argument("--seconds", type=float, default=2, help="How long a turn is.")
    parser.add_argument("--steps", type=int, help="Time this number of single steps instead of five turns.")
    parser.add_argument("--serve", choices=("keras", "torch"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve == "torch":
        serve(torch_steps(arguments.name, arguments.batch))
    elif arguments.serve == "keras":
        from marsls_keras.config import Config

        training = {"batch_size": arguments.batch, "ema_decay": None}
        config = Config.model_validate({"model": {"name": arguments.name}, "training": training})
        serve(keras_steps(config, arguments.batch))
    else:
        child = [__file__, arguments.name, "--batch", str(arguments.batch), "--serve"]
        commands = {"keras": [sys.executable, *child, "keras"], "torch": [arguments.python, *child, "torch"]}
        turns, seconds = (arguments.steps, 0.0) if arguments.steps else (5, arguments.seconds)
        show(race(commands, turns, seconds), arguments.batch)


if __name__ == "__main__":
    main()
