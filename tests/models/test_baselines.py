"""Convolutional baselines: logits and counts equal to those of independent PyTorch code, and what is refused."""

import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers.references import REFERENCES, script

from marsls_keras.models import build_model
from marsls_keras.models.networks import stored_table
from marsls_keras.models.weights.resnet import ResNet

SCRIPT = script("baselines_torch")
ENCODER = {"encoder": "resnet18", "encoder_options": {"width": SCRIPT.WIDTH}}
DILATED = {"rates": list(SCRIPT.RATES)}
UNET = {"base_filters": SCRIPT.FILTERS}
NARROW = {
    "unet_plus_plus": ENCODER,
    "pspnet": ENCODER,
    "deeplab_v3": {**ENCODER, **DILATED, "encoder_options": {"width": SCRIPT.WIDTH, "output_stride": 8}},
    "deeplab_v3_plus": {**ENCODER, **DILATED, "encoder_options": {"width": SCRIPT.WIDTH, "output_stride": 16}},
    "attention_unet": UNET,
    "r2_unet": UNET,
    "res_unet": UNET,
}
"""Options of the narrow networks whose logits are stored."""

# Parameters with moving statistics, and trained ones, as tests/references/baselines_torch.py prints them.
COUNTS = {
    "unet_plus_plus": (26_111_953, 26_091_153),
    # segmentation_models.pytorch says 21,468,769 and 21,450,529; it keeps the two stages of the encoder that it never
    # applies, of 6,822,400 and 13,114,368 trained parameters and 6,656 and 7,168 moving statistics.
    "pspnet": (21_468_769 - 19_936_768 - 13_824, 21_450_529 - 19_936_768),
    "deeplab_v3": (26_040_257, 26_019_649),
    "deeplab_v3_plus": (22_471_217, 22_450_001),
    "attention_unet": (34_896_501, 34_880_877),
    "r2_unet": (39_105_345, 39_091_649),
    "res_unet": (8_229_953, 8_223_553),
}

CONV_BN = {"conv": "0", "bn": "1"}
SEPARABLE = {"depthwise_kernel": "0", "pointwise_kernel": "1"}
PARTS = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "bias": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def smp_name(network, layer, part):
    """Return the name in segmentation_models.pytorch of a layer of a decoder."""
    if layer in ("logits", "decoder_logits"):
        return "segmentation_head.0"
    name, kind = re.fullmatch(r"decoder_(\w+)_(conv|bn)", layer).groups()
    place = CONV_BN[kind]
    if network == "unet_plus_plus":
        if found := re.fullmatch(r"x(\d)(\d)_(\d)", name):
            n, j, k = map(int, found.groups())
            return f"decoder.blocks.x_{5 - n - j}_{4 - n}.conv{k}.{place}"
        return f"decoder.blocks.x_0_4.conv{name[-1]}.{place}"
    if network == "pspnet":
        if name == "bottleneck":
            return f"decoder.conv.{place}"
        return f"decoder.psp.blocks.{(1, 2, 3, 6).index(int(name.removeprefix('context')))}.pool.1.{place}"
    pooling = "decoder.aspp" if network == "deeplab_v3" else "decoder.aspp.0"
    if name == "mean":
        return f"{pooling}.convs.4.{int(place) + 1}"
    if name == "context":
        return f"{pooling}.project.{place}"
    if part in SEPARABLE:
        place = f"0.{SEPARABLE[part]}"
    if found := re.fullmatch(r"aspp(\d+)", name):
        return f"{pooling}.convs.{(1, *SCRIPT.RATES).index(int(found[1]))}.{place}"
    if name == "refine1":
        return "decoder.aspp.2" if kind == "bn" else f"decoder.aspp.1.{place[-1]}"
    return {"refine": f"decoder.{kind}", "details": f"decoder.block1.{place}", "refine2": f"decoder.block2.{place}"}[
        name
    ]


def unet_name(network, layer, part):
    """Return the name in the reference of a layer of a U-Net."""
    if layer == "logits":
        return "output" if network == "res_unet" else "Conv_1x1"
    level = int(re.search(r"\d", layer)[0]) if not layer.startswith("bottom") else 3 if network == "res_unet" else 4
    path, _, rest = layer.partition("_")
    up = not path.startswith(("down", "bottom"))
    if network == "res_unet":
        if layer.startswith("down0"):
            return {"1_conv": "c11", "2_bn": "br1.bn", "2_conv": "c12", "shortcut": "c13"}[rest]
        block = f"d{3 - level}.r" if up else f"r{level + 1}"
        inner = {"1_bn": "b1.bn", "2_bn": "b2.bn", "1_conv": "c1", "2_conv": "c2", "shortcut": "s"}
        return f"{block}.{inner[rest]}"
    if path.startswith("up"):
        return f"Up{level + 2}.up.{int(CONV_BN[rest]) + 1}"
    if path.startswith("gate"):
        gate, kind = rest.split("_")
        return f"Att{level + 2}.{ {'signal': 'W_g', 'skip': 'W_x', 'weight': 'psi'}[gate] }.{CONV_BN[kind]}"
    if network == "attention_unet":
        k, kind = rest.split("_")
        return f"{f'Up_conv{level + 2}' if up else f'Conv{level + 1}'}.conv.{3 * (int(k) - 1) + int(CONV_BN[kind])}"
    block = f"Up_RRCNN{level + 2}" if up else f"RRCNN{level + 1}"
    if rest == "conv":
        return f"{block}.Conv_1x1"
    k, kind = rest.split("_")
    return f"{block}.RCNN.{int(k) - 1}.conv.{CONV_BN[kind]}"


def value_of(network, variable, epsilon, tensors):
    """Return the value of a variable from the tensors of the reference, and their name."""
    if (inside := ResNet().locate(variable.path)[1]) != "":
        name, epsilon = f"encoder.{inside}", 1e-5
    else:
        layer, part = variable.path.split("/")
        name = (unet_name if network.endswith("_unet") else smp_name)(network, layer, part)
        name = f"{name}.{PARTS.get(part, 'weight')}"
    tensor = tensors[name]
    if tensor.ndim == 4:
        tensor = (
            tensor.transpose(2, 3, 0, 1) if variable.path.endswith("depthwise_kernel") else tensor.transpose(2, 3, 1, 0)
        )
    # PyTorch adds 1e-5 to a variance, the decoders here add 1e-3.
    return name, tensor + (1e-5 - epsilon if name.endswith("running_var") else 0)


@pytest.fixture(scope="module")
def reference():
    return np.load(REFERENCES / "baselines.npz")


@pytest.mark.parametrize("name", list(NARROW))
def test_logits_are_those_of_independent_code_for_equal_weights(reference, name):
    channels = {"decoder_channels": SCRIPT.CHANNELS[name]} if name in SCRIPT.CHANNELS else {}
    model = build_model(name, **NARROW[name], **channels)
    tensors = SCRIPT.tensors(SCRIPT.shapes_of(reference, name))
    used = set()
    for variable in model.weights:
        found, value = value_of(name, variable, 1e-3, tensors)
        assert value.shape == tuple(variable.shape), (variable.path, found)
        variable.assign(value)
        used.add(found)
    unused = {"encoder.layer3", "encoder.layer4"} if name == "pspnet" else set()
    assert {".".join(left.split(".")[:2]) for left in set(tensors) - used} == unused
    for size in SCRIPT.SIZES:
        expected = reference[f"{name}/{size[0]}"]
        assert np.ptp(expected) > 1
        # JAX is slow without a graph.
        call = model.predict_on_batch if keras.backend.backend() == "jax" else model
        found = np.asarray(call(SCRIPT.image(size)))
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", list(COUNTS))
def test_the_counts_are_those_of_independent_code(name):
    row = stored_table()[name]  # test_table.py compares it with the network
    assert (row["parameters"], row["trainable"]) == COUNTS[name]


@pytest.mark.slow
def test_logits_are_the_same_on_jax():
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider", __file__, "-k", "independent"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and f"{len(NARROW) + len(COUNTS)} passed" in done.stdout, done.stdout[-2000:]
