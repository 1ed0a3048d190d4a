"""The process of the peer "torch": the networks of the registry in plain PyTorch, channels last, trained as a PyTorch user would.

Started by `competition.bench.peers.Peer` with a JSON argument; says what it is in a line of JSON, then answers each line
"training SECONDS" or
"inference SECONDS" with a list of the seconds that the steps took. A training step is forward, binary cross-entropy plus Dice, backward,
AdamW, and the moving average if the recipe has one; it counts no metric, which favours it a little.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from competition.bench.peers import timed


class UNet(nn.Module):
    """The network of `marsls_keras.models.unet`: the same layers in the same order, from (B, C, H, W) to logits (B, 1, H, W)."""

    def __init__(self, bands: int, base_filters: int = 16, depth: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        widths = [base_filters * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(_double_conv(a, b) for a, b in zip([bands, *widths[:-2]], widths[:-1], strict=True))
        self.bottom = _double_conv(widths[-2], widths[-1])
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in reversed(widths[:-1]))
        self.decode = nn.ModuleList(_double_conv(2 * width, width) for width in reversed(widths[:-1]))
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.Conv2d(base_filters, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        skips = []
        for block in self.down:
            skips.append(block(x))
            x = functional.max_pool2d(skips[-1], 2)
        x = self.bottom(x)
        for up, block in zip(self.up, self.decode, strict=True):
            x = block(torch.cat([skips.pop(), up(x)], 1))
        return self.logits(self.dropout(x))


def _double_conv(bands: int, filters: int) -> nn.Sequential:
    def conv(a: int) -> list[nn.Module]:
        return [nn.Conv2d(a, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters, eps=1e-3, momentum=0.1), nn.ReLU(inplace=True)]

    return nn.Sequential(*conv(bands), *conv(filters))


NETWORKS: dict[str, Callable[..., Any]] = {"unet": UNet}


def steps(config: dict[str, Any], shapes: dict[str, list[int]]) -> tuple[nn.Module, str, dict[str, Callable[[], None]]]:
    """Build a recipe's network; return it, the device, and the steps by name."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    training = config["training"]
    network = NETWORKS[config["model"]["name"]](shapes["training"][-1], **config["model"]["options"])
    network = network.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), training["learning_rate"], weight_decay=training["weight_decay"])
    decay = training["ema_decay"]
    average = decay and torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay))
    scaler = torch.amp.GradScaler(device, enabled=training["precision"] == "mixed_float16")

    def autocast() -> AbstractContextManager:
        kind = getattr(torch, training["precision"].removeprefix("mixed_"))
        return torch.autocast(device, kind, enabled=kind != torch.float32)

    def images(shape: list[int]) -> torch.Tensor:
        return torch.randn(shape, device=device).permute(0, 3, 1, 2)  # strides of channels last

    x, tiles = images(shapes["training"]), images(shapes["inference"])
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
            network(tiles).float().cpu()

    return network, device, {"training": train, "inference": infer}


def main() -> None:
    """Answer the lines of stdin."""
    wanted = json.loads(sys.argv[1])
    network, device, known = steps(wanted["config"], wanted["shapes"])
    parameters = sum(parameter.numel() for parameter in network.parameters())
    facts = {"parameters": parameters, "version": torch.__version__, "device": device, "threads": torch.get_num_threads()}
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        what, seconds = line.split()
        print(json.dumps(timed(known[what], float(seconds))), flush=True)


if __name__ == "__main__":
    main()
