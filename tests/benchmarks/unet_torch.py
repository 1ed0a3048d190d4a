"""Compare the speed of the recipe `unet` with the same network in plain PyTorch, channels last.

A training step and inference are timed in turns.

    python tests/benchmarks/unet_torch.py [--python PYTHON] [--set section.key=value] [--seconds 2]

PYTHON is an interpreter that has torch, this one by default. A training step is forward, binary cross-entropy plus
Dice, backward, AdamW, and the moving average of the weights if the recipe has one. See in_turns.py for when a
ratio is meaningful."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from in_turns import keras_steps, race, serve, show


def build_unet(bands: int, base_filters: int = 16, depth: int = 4, dropout: float = 0.0) -> Any:
    """Return the network of `marsls_keras.models.unet` in PyTorch, from (B, C, H, W) to logits (B, 1, H, W).

    Its layers are the same, in the same order.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    def double_conv(bands: int, filters: int) -> nn.Sequential:
        def conv(a: int) -> list[nn.Module]:
            return [
                nn.Conv2d(a, filters, 3, padding=1, bias=False),
                nn.BatchNorm2d(filters, eps=1e-3, momentum=0.1),
                nn.ReLU(inplace=True),
            ]

        return nn.Sequential(*conv(bands), *conv(filters))

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = [base_filters * 2**level for level in range(depth + 1)]
            self.down = nn.ModuleList(
                double_conv(a, b) for a, b in zip([bands, *widths[:-2]], widths[:-1], strict=True)
            )
            self.bottom = double_conv(widths[-2], widths[-1])
            self.up = nn.ModuleList(
                nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in reversed(widths[:-1])
            )
            self.decode = nn.ModuleList(double_conv(2 * width, width) for width in reversed(widths[:-1]))
            self.dropout = nn.Dropout(dropout)
            self.logits = nn.Conv2d(base_filters, 1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            skips = []
            for block in self.down:
                skips.append(block(x))
                x = functional.max_pool2d(skips[-1], 2)
            x = self.bottom(x)
            for up, block in zip(self.up, self.decode, strict=True):
                x = block(torch.cat([skips.pop(), up(x)], 1))
            return self.logits(self.dropout(x))

    return UNet()


def torch_steps(config: dict[str, Any], batch: int, side: int = 128) -> tuple[Any, dict[str, Callable[[], None]]]:
    """Return the network of a recipe, and its steps on random tiles of seven bands.

    Args:
        config: The recipe, as `Config.model_dump` gives it.
        batch: Tiles B.
        side: Height and width of the tiles.
    """
    import torch
    from torch.nn import functional

    device = "cuda" if torch.cuda.is_available() else "cpu"
    training = config["training"]
    network = build_unet(7, **config["model"]["options"]).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        network.parameters(), training["learning_rate"], weight_decay=training["weight_decay"]
    )
    decay = training["ema_decay"]
    average = decay and torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay)
    )
    scaler = torch.amp.GradScaler(device, enabled=training["precision"] == "mixed_float16")

    def autocast() -> AbstractContextManager:
        kind = getattr(torch, training["precision"].removeprefix("mixed_"))
        return torch.autocast(device, kind, enabled=kind != torch.float32)

    x = torch.randn((batch, side, side, 7), device=device).permute(0, 3, 1, 2)  # strides of channels last
    y = (x[:, :1] > 0).float()

    def train() -> None:
        network.train()
        optimizer.zero_grad(set_to_none=True)
        with autocast():
            logits = network(x)
        logits = logits.float()
        probability = logits.sigmoid()
        dice = 1 - (2 * (probability * y).sum() + 1) / (probability.sum() + y.sum() + 1)
        loss = 0.5 * functional.binary_cross_entropy_with_logits(logits, y) + 0.5 * dice
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if average:
            average.update_parameters(network)
        loss.item()  # waits for the device, as the measure of Keras does

    def infer() -> None:
        network.eval()
        with torch.inference_mode(), autocast():
            network(x).float().cpu()

    return network, {"training": train, "inference": infer}


def main() -> None:
    """Compare the two libraries, or serve the steps of one in a child process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="Interpreter that has torch.")
    parser.add_argument("--set", action="append", default=[], help="Change of the recipe; repeatable.")
    parser.add_argument("--seconds", type=float, default=2, help="How long a turn is.")
    parser.add_argument("--serve-keras", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--serve-torch", metavar="RECIPE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve_torch:
        recipe = json.loads(arguments.serve_torch)
        serve(torch_steps(recipe, recipe["training"]["batch_size"])[1])
        return
    from marsls_keras.config import load_config

    _, config = load_config("unet", arguments.set)
    batch = config.training.batch_size
    if arguments.serve_keras:
        serve(keras_steps(config, batch))
        return
    changes = [word for change in arguments.set for word in ("--set", change)]
    commands = {
        "keras": [sys.executable, __file__, "--serve-keras", *changes],
        "torch": [arguments.python, __file__, "--serve-torch", config.model_dump_json()],
    }
    show(race(commands, turns=5, seconds=arguments.seconds), batch)


if __name__ == "__main__":
    main()
