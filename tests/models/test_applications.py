"""Encoders of keras.applications: published parameter counts, maps equal to Keras', and weights for any bands."""

import keras
import numpy as np
import pytest

from marsls_keras.errors import InputError
from marsls_keras.models import build_model, encoder_groups, encoder_levels, load_pretrained
from marsls_keras.models.encoders import ENCODERS, build_encoder
from marsls_keras.models.encoders.applications import APPLICATIONS, build_application
from marsls_keras.models.weights.applications import Applications

SMALL = "keras_mobilenet_v3_small"
SPREAD = np.array([0.229, 0.224, 0.225], np.float32)


def images(bands=3, size=(64, 96)):
    return np.random.default_rng(0).normal(0, 1, (2, *size, bands)).astype(np.float32)


def drawn(network):
    """Assign random weights, none of which is an initial 0 or 1, so that a wrong assignment is detected."""
    rng = np.random.default_rng(1)
    for variable in network.weights:
        kind = variable.path.rsplit("/", 1)[-1]
        value = rng.normal(0, 0.1, variable.shape)
        if kind in ("gamma", "moving_variance", "variance"):
            value = np.abs(1 + value)
        elif kind in ("kernel", "depthwise_kernel"):
            value *= 10 / np.sqrt(max(np.prod(variable.shape[:3]), 1))
        variable.assign(value)
    return network


# What Keras documents for include_top=False and three bands, less the last convolution, its normalisation, and that of
# pixels.
COUNTS = {
    "keras_resnet50": 23_587_712,
    "keras_densenet121": 7_037_504,
    "keras_efficientnet_b0": 4_049_571 - 320 * 1280 - 4 * 1280 - 7,
    "keras_efficientnet_v2_b0": 5_919_312 - 192 * 1280 - 4 * 1280,
    SMALL: 939_120 - 96 * 576 - 4 * 576,
    "keras_mobilenet_v3_large": 2_996_352 - 160 * 960 - 4 * 960,
}


@pytest.mark.parametrize(
    "name", [SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in COUNTS if name != SMALL)]
)
def test_the_counts_are_those_that_keras_publishes(name):
    assert build_encoder(name, 3).count_params() == COUNTS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(APPLICATIONS) - set(COUNTS)))
def test_every_other_one_builds_with_five_levels_and_seven_bands(name):
    model = build_encoder(name, 7)
    assert list(model.output) == ["P1", "P2", "P3", "P4", "P5"]
    assert all(variable.path.startswith(ENCODERS[name].levels) for variable in model.weights)


def as_pretrained(name, x):
    """Convert z-scores to the pixels of a network's pretraining, without their mean."""
    if APPLICATIONS[name].pixels == "caffe":
        return (x * 255 * SPREAD)[..., ::-1]
    return x * 2 * SPREAD if APPLICATIONS[name].pixels == "tf" else x


TAPS = {
    SMALL: [(2, "expanded_conv_project_bn"), (4, "expanded_conv_7_add"), (5, "expanded_conv_10_add")],
    "keras_resnet50": [(1, "conv1_relu"), (2, "conv2_block3_out"), (5, "conv5_block3_out")],
    "keras_densenet121": [(2, "pool2_relu"), (4, "pool4_relu"), (5, "relu")],
    "keras_efficientnet_b0": [(1, "block1a_project_bn"), (3, "block3b_add"), (5, "block7a_project_bn")],
    "keras_efficientnet_v2_b0": [(1, "block1a_project_activation"), (4, "block5e_add"), (5, "block6h_add")],
}


@pytest.mark.parametrize(
    "name", [SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in TAPS if name != SMALL)]
)
def test_the_maps_are_those_of_keras_with_a_file_of_its_weights(name, tmp_path):
    network = drawn(build_application(name, 3))
    for layer in network.layers:
        if isinstance(
            layer, keras.layers.Normalization | keras.layers.Rescaling
        ):  # which pixels need, and bands do not
            layer.call = lambda inputs: inputs
    network.save_weights(tmp_path / "w.weights.h5")
    model = build_encoder(name, 3)
    record = load_pretrained(model, str(tmp_path / "w.weights.h5"))
    assert len(record["sha256"]) == 64
    found = model(images(), training=False)
    inner = keras.Model(network.inputs[0], [network.get_layer(layer).output for _, layer in TAPS[name]])
    for (n, layer), expected in zip(TAPS[name], inner(as_pretrained(name, images()), training=False), strict=True):
        assert expected.shape == found[f"P{n}"].shape and np.ptp(expected) > 0, layer
        np.testing.assert_allclose(found[f"P{n}"], expected, atol=2e-4 * np.abs(expected).max())


def test_groups_of_bands_take_the_colours_by_name(tmp_path):
    network = drawn(build_application(SMALL, 3))
    network.save_weights(tmp_path / "w.weights.h5")
    bands = ("dem", "blue", "slope", "red", "green")
    options = {
        "encoder": SMALL,
        "decoder": "fpn",
        "decoder_channels": 8,
        "groups": {"aux_1": ["dem", "blue"], "b": ["slope", "red", "green"]},
    }
    model = build_model("segmenter", bands, **options)
    before = {v.path: np.array(v) for v in model.weights}
    load_pretrained(model, str(tmp_path / "w.weights.h5"), encoder_groups("segmenter", bands, options))
    after = {v.path: np.array(v) for v in model.weights}
    assert len(after) == len(model.weights)
    levels = tuple(encoder_levels("segmenter", options))
    unchanged = [path for path in after if np.array_equal(before[path], after[path])]
    assert levels == ("stage0", "stage1", "stage2", "stage3")
    assert not [path for path in unchanged if path.startswith(levels)] and all(
        path.startswith(levels) for path in set(after) - set(unchanged)
    )
    kernel = np.asarray(network.get_layer("conv").kernel) * (2 * SPREAD)[:, None]
    mean = kernel.mean(2)
    np.testing.assert_allclose(
        after[f"stage0_aux_1__{SMALL}__conv/kernel"], np.stack([mean, kernel[:, :, 2]], 2) * 1.5, rtol=1e-5
    )
    np.testing.assert_allclose(
        after[f"stage0_b__{SMALL}__conv/kernel"], np.stack([mean, kernel[:, :, 0], kernel[:, :, 1]], 2), rtol=1e-5
    )
    copy = keras.Model.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    np.testing.assert_array_equal(copy(images(5)), model(images(5)))


def test_files_of_other_networks_are_refused_and_nothing_has_changed(tmp_path):
    x = keras.Input((4,))
    keras.Model(x, keras.layers.Dense(2)(x)).save_weights(tmp_path / "other.weights.h5")
    (tmp_path / "damaged.h5").write_bytes(b"no hdf5")
    model = build_encoder(SMALL, 4)
    before = model.get_weights()
    for file in ("other.weights.h5", "damaged.h5"):
        with pytest.raises(
            InputError, match=f"{file} is not a checkpoint of this network's encoder {SMALL}: .*_notop.h5"
        ):
            load_pretrained(model, str(tmp_path / file))
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_paths_of_variables_tell_group_and_network():
    family = Applications(SMALL)
    assert family.locate(f"stage3_a_b__{SMALL}__expanded_conv_10_add/x") == ("a_b", "expanded_conv_10_add/x")
    assert family.locate(f"stage0__{SMALL}__conv_bn/gamma") == ("", "conv_bn/gamma")
    assert family.locate("stage0__keras_resnet50__conv1_bn/gamma") == ("", "")
