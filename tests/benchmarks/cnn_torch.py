"""Compare the speed of the convolutional baselines with the same networks in PyTorch, channels last.

    python tests/benchmarks/cnn_torch.py [NAME …] [--python PYTHON] [--batch 8] [--steps 5] [--seconds 2]

A training step and inference of each network are timed in turns. PYTHON is an interpreter that has torch and
segmentation-models-pytorch, this one by default. UNet++, PSPNet, DeepLabV3 and V3+ are those of
segmentation_models.pytorch with its defaults; the U-Nets are written here, layer by layer as in the repositories that
tests/references/baselines_torch.py names. Inputs are random tiles of 128 x 128 pixels and seven bands. A training step
is forward, binary cross-entropy plus Dice, backward, AdamW; float32. See in_turns.py for when a ratio is meaningful."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from in_turns import keras_steps, race, serve, show

SMP = {
    "unet_plus_plus": "UnetPlusPlus",
    "pspnet": "PSPNet",
    "deeplab_v3": "DeepLabV3",
    "deeplab_v3_plus": "DeepLabV3Plus",
}
UNETS = ("attention_unet", "r2_unet", "res_unet")


def build_unet(name: str, bands: int, base: int = 64) -> Any:
    """Return `attention_unet`, `r2_unet` or `res_unet` in PyTorch, from (B, C, H, W) to logits (B, 1, H, W)."""
    import torch
    from torch import nn

    def convolution(inputs: int, filters: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
        return nn.Conv2d(inputs, filters, kernel, stride, kernel // 2)

    def block(inputs: int, filters: int) -> nn.Sequential:
        return nn.Sequential(convolution(inputs, filters), nn.BatchNorm2d(filters), nn.ReLU(inplace=True))

    class Recurrent(nn.Module):
        def __init__(self, inputs: int, filters: int) -> None:
            super().__init__()
            self.first = convolution(inputs, filters, 1)
            self.parts = nn.ModuleList(block(filters, filters) for _ in range(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first = x = self.first(x)
            for part in self.parts:
                y = part(x)
                for _ in range(2):
                    y = part(x + y)
                x = y
            return first + x

    class Residual(nn.Module):
        def __init__(self, inputs: int, filters: int, stride: int = 1, activated: bool = True) -> None:
            super().__init__()
            before = [nn.BatchNorm2d(inputs), nn.ReLU()] if activated else []
            between = [nn.BatchNorm2d(filters), nn.ReLU(), convolution(filters, filters)]
            self.path = nn.Sequential(*before, convolution(inputs, filters, 3, stride), *between)
            self.shortcut = convolution(inputs, filters, 1, stride)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.path(x) + self.shortcut(x)

    class Gate(nn.Module):
        def __init__(self, filters: int) -> None:
            super().__init__()

            def project(inputs: int, outputs: int) -> nn.Sequential:
                return nn.Sequential(convolution(inputs, outputs, 1), nn.BatchNorm2d(outputs))

            self.signal, self.skip = project(filters, filters // 2), project(filters, filters // 2)
            self.weight = project(filters // 2, 1)

        def forward(self, skip: torch.Tensor, signal: torch.Tensor) -> torch.Tensor:
            return skip * self.weight((self.signal(signal) + self.skip(skip)).relu()).sigmoid()

    def stage(inputs: int, filters: int) -> nn.Module:
        if name == "attention_unet":
            return nn.Sequential(block(inputs, filters), block(filters, filters))
        return Recurrent(inputs, filters) if name == "r2_unet" else Residual(inputs, filters)

    residual = name == "res_unet"
    widths = [base * 2**level for level in range(4 if residual else 5)]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            pairs = list(zip(widths[:-1], widths[1:], strict=True))
            if residual:
                self.first: nn.Module = Residual(bands, base, activated=False)
                self.down = nn.ModuleList(Residual(a, b, 2) for a, b in pairs)
                self.up = nn.ModuleList(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True) for _ in pairs)
                self.decode = nn.ModuleList(stage(a + b, a) for a, b in reversed(pairs))
            else:
                self.first = stage(bands, base)
                self.down = nn.ModuleList(nn.Sequential(nn.MaxPool2d(2), stage(a, b)) for a, b in pairs)
                self.up = nn.ModuleList(
                    nn.Sequential(nn.Upsample(scale_factor=2), block(b, a)) for a, b in reversed(pairs)
                )
                self.decode = nn.ModuleList(stage(2 * a, a) for a, _ in reversed(pairs))
            gated = name == "attention_unet"
            self.gates = nn.ModuleList(Gate(a) for a, _ in reversed(pairs)) if gated else None
            self.logits = nn.Conv2d(base, 1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            skips = []
            for down in self.down:
                skips.append(x)
                x = down(x)
            for i, (up, decode) in enumerate(zip(self.up, self.decode, strict=True)):
                x, skip = up(x), skips.pop()
                x = decode(torch.cat([self.gates[i](skip, x) if self.gates else skip, x], 1))
            return self.logits(x)

    return Net()


def build(name: str, bands: int = 7) -> Any:
    """Return a network in PyTorch with random weights."""
    if name in UNETS:
        return build_unet(name, bands)
    import segmentation_models_pytorch

    return getattr(segmentation_models_pytorch, SMP[name])(encoder_weights=None, in_channels=bands)


def torch_steps(network: Any, batch: int, side: int = 128) -> dict[str, Callable[[], None]]:
    """Return a training step and inference of a network in PyTorch, on random tiles of seven bands."""
    import torch
    from torch.nn import functional

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = network.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=1e-4)
    x = torch.randn((batch, side, side, 7), device=device).permute(0, 3, 1, 2)  # strides of channels last
    y = (x[:, :1] > 0).float()

    def train() -> None:
        network.train()
        optimizer.zero_grad(set_to_none=True)
        logits = network(x)
        probability = logits.sigmoid()
        dice = 1 - (2 * (probability * y).sum() + 1) / (probability.sum() + y.sum() + 1)
        loss = 0.5 * functional.binary_cross_entropy_with_logits(logits, y) + 0.5 * dice
        loss.backward()
        optimizer.step()
        loss.item()  # waits for the device, as the measure of Keras does

    @torch.inference_mode()
    def infer() -> None:
        network.eval()
        network(x).cpu()

    return {"training": train, "inference": infer}


def main() -> None:
    """Compare the two libraries network by network, or serve the steps of one in a child process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"Networks: {', '.join((*SMP, *UNETS))}; default all.")
    parser.add_argument("--python", default=sys.executable, help="Interpreter that has torch.")
    parser.add_argument("--batch", type=int, default=8, help="Tiles of a step.")
    parser.add_argument("--steps", type=int, default=5, help="Turns of each library.")
    parser.add_argument("--seconds", type=float, default=2, help="How long a turn is; one step if 0.")
    parser.add_argument("--serve", choices=("keras", "torch"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - {*SMP, *UNETS}:
        parser.error(f"no network {', '.join(sorted(unknown))}; choose from {', '.join((*SMP, *UNETS))}")
    if arguments.serve == "torch":
        serve(torch_steps(build(arguments.names[0]), arguments.batch))
        return
    if arguments.serve == "keras":
        from marsls_keras.config import load_config

        changes = ["training.ema_decay=null", "training.precision=float32", "training.weight_decay=1e-4"]
        changes += [f"model.name={arguments.names[0]}", "model.options={}", "loss={bce: 0.5, dice: 0.5}"]
        serve(keras_steps(load_config("unet", changes)[1], arguments.batch))
        return
    for name in arguments.names or (*SMP, *UNETS):
        words = [__file__, name, "--batch", str(arguments.batch), "--serve"]
        commands = {"keras": [sys.executable, *words, "keras"], "torch": [arguments.python, *words, "torch"]}
        print(name, flush=True)
        show(race(commands, turns=arguments.steps, seconds=arguments.seconds), arguments.batch)


if __name__ == "__main__":
    main()
