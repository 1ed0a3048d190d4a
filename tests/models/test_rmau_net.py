"""RMAU-Net: parameter counts, options and heads.

What holds for every network is tested in test_every_network.py, values in the tests of the layers.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from marsls_keras.errors import InputError
from marsls_keras.losses import build_loss
from marsls_keras.models import build_model, encoder_levels, has_detection, require_size
from marsls_keras.models.rmau_net import rmau_net

TINY = {"filters": 2, "poolings": 2, "tile_size": 16}
HEADS = ["mask_64", "mask_128", "mask_256"]


def images(number=2, height=16, width=16, seed=0):
    return np.random.default_rng(seed).normal(size=(number, height, width, 7)).astype(np.float32)


def scrambled(model, seed=0):
    """Assign a different value to every variable, moving statistics included."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        low, high = (0.5, 1.5) if "variance" in variable.name or "gamma" in variable.name else (-0.3, 0.3)
        alive = 3.0 if "squeeze/bias" in variable.path else 0.0  # a unit behind a ReLU
        variable.assign(alive + rng.uniform(low, high, variable.shape))
    return model


@pytest.fixture(scope="module")
def tiny():
    """Return a network with all heads and different values in all variables; tests do not change it."""
    return scrambled(rmau_net(detection=True, **TINY))


@pytest.mark.parametrize(
    "block,attention,expected",
    [("double_conv", "none", 7_805_632), ("res_conv", "none", 16_873_600), ("res_conv", "multihead", 17_720_592)],
)
def test_the_backbone_has_the_published_structure(block, attention, expected):
    model = rmau_net(23, block=block, attention=attention)
    assert sum(layer.count_params() for layer in model.layers if not layer.name.startswith("decode_256")) == expected
    # What the heads add: a block of 64 maps from 64, and nothing for the means over channels.
    added = {"double_conv": 2 * (9 * 64 * 64 + 5 * 64), "res_conv": 36 * 64 * 64 + 3 * 64 * 64 + 25 * 64}[block]
    assert model.count_params() == expected + added
    assert rmau_net(23, block=block, attention=attention, heads=(128,)).count_params() == expected


def test_counts_follow_from_the_formulas_at_other_sizes():
    filters, bands = 4, 3
    widths = {level: filters * 2**level for level in range(5)}
    inputs = [bands, *(widths[level] for level in range(4)), *(3 * widths[level] for level in reversed(range(4)))]
    outputs = [*(widths[level] for level in range(5)), *(widths[level] for level in reversed(range(4)))]
    sides = [64 // (out // filters) for out in outputs]
    blocks = sum(36 * c * f + 3 * f * f + 25 * f for c, f in zip(inputs, outputs, strict=True))
    attention = sum(514 * f + 257 * w + 576 for f, w in zip(outputs, sides, strict=True))
    model = rmau_net(bands, filters=filters, poolings=4, heads=(128,), head="conv", tile_size=64)
    assert model.count_params() == blocks + attention + filters + 1


def test_training_gives_the_heads_and_inference_their_average(tiny):
    x = images(height=8, width=24)
    heads = tiny(x, training=True)
    assert {name: tuple(logits.shape) for name, logits in heads.items()} == {
        **{"mask_64": (2, 4, 12, 1), "mask_128": (2, 8, 24, 1), "mask_256": (2, 16, 48, 1), "landslide": (2, 1)}
    }
    inner = keras.Model(tiny.input, [tiny.get_layer(name).output for name in HEADS])
    probabilities = [tf.image.resize(tf.sigmoid(logits), (8, 24)).numpy() for logits in inner(x)]
    outputs = tiny(x)
    assert list(outputs) == ["mask", "landslide"] and all(values.dtype == "float32" for values in outputs.values())
    assert tf.sigmoid(outputs["mask"]).numpy() == pytest.approx(np.mean(probabilities, 0), abs=1e-5)
    assert np.abs(probabilities[0] - probabilities[2]).max() > 0.01


def test_without_detection_the_output_is_one_map():
    model = scrambled(rmau_net(**TINY))
    assert model.output_shape == (None, None, None, 1) and model.output.dtype == "float32"
    assert list(model(images(), training=True)) == HEADS
    assert model.predict(images(3), verbose=0).shape == (3, 16, 16, 1)


def test_heads_are_the_mean_over_channels_or_a_convolution(tiny):
    maps = keras.Model(tiny.input, [tiny.get_layer("decode1_attention").output, tiny.get_layer("mask_64").output])(
        images()
    )
    assert maps[1].numpy() == pytest.approx(maps[0].numpy().mean(-1, keepdims=True), abs=1e-6)
    model = scrambled(rmau_net(head="conv", heads=(128,), **TINY))
    maps, logits = keras.Model(model.input, [model.get_layer("decode0_attention").output, model.output])(images())
    kernel, bias = model.get_layer("mask_128").get_weights()
    assert logits.numpy() == pytest.approx(maps.numpy() @ kernel[0, 0] + bias, abs=1e-5)


def test_one_head_alone_is_what_is_predicted():
    model = scrambled(rmau_net(heads=(128,), **TINY))
    inner = keras.Model(model.input, model.get_layer("mask_128").output)
    assert list(model(images(), training=True)) == ["mask_128"]
    assert np.array_equal(model(images()), inner(images()))


def test_ablations_build_networks_that_differ():
    options = [
        *(
            {"block": "double_conv"},
            {"attention": "cbam"},
            {"attention": "se"},
            {"attention": "none"},
            {"heads": [64, 128]},
        ),
        *({"head": "conv"}, {"detection": True}, {"poolings": 2}, {"tile_size": 32}),
    ]
    plain = {**TINY, "poolings": 1}
    counts = [
        rmau_net(**plain).count_params(),
        *(build_model("rmau_net", **{**plain, **changed}).count_params() for changed in options),
    ]
    assert len(set(counts)) == len(counts)
    names = [layer.name for layer in rmau_net(attention="cbam", **TINY).layers if layer.name.endswith("_attention")]
    assert sorted(names) == [
        "bottom_attention",
        *(f"{part}{level}_attention" for part in ("decode", "down") for level in (0, 1)),
    ]


# The default, res_conv with multihead, is in test_every_network.py.
OTHERS = [
    ("double_conv", "cbam"),
    *(pytest.param(*pair, marks=pytest.mark.slow) for pair in [("res_conv", "cbam"), ("double_conv", "multihead")]),
]


@pytest.mark.parametrize("block,attention", OTHERS)
def test_every_variable_gets_a_gradient(block, attention):
    model = scrambled(rmau_net(block=block, attention=attention, head="conv", detection=True, **TINY))
    model.compile(loss=build_loss({"focal": 0.5, "iou": 0.5}))
    truth = np.random.default_rng(2).integers(0, 2, (4, 16, 16, 1)).astype(np.float32)
    truth[2:] = 0
    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        loss = model.compute_loss(y=tf.constant(truth), y_pred=model(images(4), training=True))
    for variable, gradient in zip(variables, tape.gradient(loss, [v.value for v in variables]), strict=True):
        assert gradient is not None and np.isfinite(gradient).all(), variable.path
        # A bias before a normalisation with the batch's statistics, or of an attention's keys, changes nothing.
        if "conv" not in variable.path.split("/")[-2] and not variable.path.endswith(
            ("merge/bias", "shortcut/bias", "key/bias")
        ):
            assert np.abs(gradient).max() > 1e-9, variable.path
        elif variable.name == "kernel":
            assert np.abs(gradient).max() > 1e-8, variable.path


def test_saved_weights_come_back_and_are_written_once(tiny, tmp_path):
    other = scrambled(rmau_net(detection=True, **TINY), 2)
    assert not np.allclose(tiny(images())["mask"], other(images())["mask"])
    tiny.save_weights(tmp_path / "a.weights.h5")
    other.load_weights(tmp_path / "a.weights.h5")
    assert all(np.array_equal(a, b) for a, b in zip(tiny.get_weights(), other.get_weights(), strict=True))
    assert (tmp_path / "a.weights.h5").stat().st_size < 8 * tiny.count_params() + 400_000


def test_other_widths_than_the_built_one_work_and_other_heights_need_nothing():
    wide, narrow = (scrambled(rmau_net(**{**TINY, "tile_size": size})) for size in (16, 32))
    for height, width in ((16, 16), (32, 16), (4, 8), (16, 48)):
        for model in (wide, narrow):
            assert np.isfinite(model(images(1, height, width))).all()
    # Without attention over pixels nothing depends on the width.
    free = [rmau_net(attention="se", **{**TINY, "tile_size": size}).count_params() for size in (16, 32)]
    assert free[0] == free[1]


def test_levels_sizes_and_detection_in_the_registry():
    assert encoder_levels("rmau_net", {"poolings": 2}) == ["down0", "down1", "bottom"]
    model = rmau_net(**TINY)
    assert all(
        any(v.path.startswith(level) for v in model.trainable_variables)
        for level in encoder_levels("rmau_net", {"poolings": 2})
    )
    require_size("rmau_net", {}, 8, 40)
    with pytest.raises(
        InputError, match="rmau_net needs height and width divisible by 16; the tiles or windows are 32 x 24"
    ):
        require_size("rmau_net", {"poolings": 4}, 32, 24)
    assert (
        has_detection("rmau_net", {"detection": True})
        and not has_detection("rmau_net", {})
        and not has_detection("unet", {})
    )


@pytest.mark.parametrize(
    "options,message",
    [
        ({"heads": 128}, r"model.options.heads: expected list, such as \[64, 128, 256\]. Received: 128"),
        ({"heads": []}, r"heads must be some of 64, 128, 256, each once. Received: \[\]"),
        ({"heads": [128, 128]}, r"each once. Received: \[128, 128\]"),
        ({"heads": ["128"]}, r"each once. Received: \['128'\]"),
        ({"heads": [[64]]}, r"each once. Received: \[\[64\]\]"),
        ({"heads": [32]}, r"each once. Received: \[32\]"),
        ({"block": "conv"}, r"block must be one of res_conv, double_conv. Did you mean res_conv\? Received: 'conv'"),
        ({"attention": "eca"}, "attention must be one of multihead, cbam, se, none. Received: 'eca'"),
        ({"head": "max"}, "head must be one of mean, conv. Received: 'max'"),
        ({"filters": 0}, "filters and poolings of at least 1. Received: bands=7, filters=0, poolings=3"),
        ({"poolings": 0}, "poolings=0"),
        ({"tile_size": 100}, "tile_size must be divisible by 8, for 3 poolings. Received: 100"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        build_model("rmau_net", **options)
