"""DualSwinFusionSeg: parameter counts of its parts, groups of bands, fusions and decoders.

What holds for every network is tested in test_every_network.py.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.model_case import gradients
from helpers.weights import parameters, silent

from marsls_keras.bands.names import BANDS
from marsls_keras.errors import InputError
from marsls_keras.models import build_model, encoder_levels, require_size
from marsls_keras.models.decoders import DECODERS
from marsls_keras.models.dual_swin import PAPER_GROUPS
from marsls_keras.models.fusion import FUSIONS, LATE

SWIN = {"embed_dim": 4, "depths": [2, 1, 1, 1], "heads": [1, 1, 2, 2], "window": 4, "drop_path": 0.0}
TINY = {
    "encoder_options": SWIN,
    "decoder": "segformer_mlp",
    "decoder_channels": 4,
}  # the decoder with the fewest layers
LIGHT = {"encoder": "resnet_v2_18_narrow", "decoder_channels": 4}


@pytest.fixture
def policy():
    """Sets a precision for one test."""
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


def images(bands=7, size=(32, 64), number=2, seed=0):
    return np.random.default_rng(seed).normal(0, 1, (number, *size, bands)).astype(np.float32)


def scrambled(model, seed=1):
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        value = rng.normal(0, 0.3, variable.shape)
        # A hidden layer of one unit must not be switched off by its ReLU.
        value += "gamma" in variable.name or variable.path.endswith("squeeze/bias")
        variable.assign(np.abs(value) + 0.5 if "variance" in variable.name else value)
    return model


def fusion_parameters(kind, widths, groups=2):
    """Count the parameters of a fusion by its definition, for maps of these channels."""
    total = 0
    for c in widths:
        together = groups * c
        concat = together * c + c
        hidden = max(1, together // 16)
        squeeze = together * hidden + hidden + hidden * together + together
        total += {
            "concat": concat,
            "weighted_sum": groups - 1,
            "gated": together * together + together,
            "concat_se": concat + squeeze,
            "concat_eca": concat + int(np.log2(together) / 2 + 0.5) // 2 * 2 + 1,
            "concat_cbam": concat + squeeze + 2 * 49,
        }[kind]
    return total


def unetplusplus_parameters(widths, c):
    total = sum(w * c + 2 * c for w in widths)
    for j in (1, 2, 3):
        total += (4 - j) * (9 * (j + 1) * c * c + 2 * c + 9 * c * c + 2 * c)
    return total + 9 * c * c + 2 * c


def test_the_parts_have_the_parameters_of_the_paper():
    widths = (96, 192, 384, 768)
    assert fusion_parameters("concat", widths) == 1_568_160
    assert unetplusplus_parameters(widths, 256) + 257 == 13_943_553
    assert 48_957_882 + 48_959_418 + 1_568_160 + 13_943_553 == 113_429_013
    # The same formulas hold for a network that is quick to build.
    model = build_model("dual_swin", **{**TINY, "decoder": "unetplusplus"})
    assert parameters(model.trainable_variables, "fusion") == fusion_parameters("concat", (4, 8, 16, 32))
    assert parameters(model.trainable_variables, "decoder") == unetplusplus_parameters((4, 8, 16, 32), 4) + 5


@pytest.mark.slow
def test_the_default_network_has_the_parameters_of_the_paper():
    model = build_model("dual_swin")
    assert model.count_params() == 113_437_717
    assert parameters(model.trainable_variables) == 113_429_013
    assert (
        parameters(model.trainable_variables, "fusion") == 1_568_160
        and parameters(model.trainable_variables, "decoder") == 13_943_553
    )
    assert parameters([v for v in model.trainable_variables if "_rgb_" in v.path]) == 48_957_882
    assert parameters([v for v in model.trainable_variables if "_aux_" in v.path]) == 48_959_418


def check(model):
    """Check that a gradient reaches every variable, and that logits have the size of the images."""
    x = images(size=(64, 64))
    assert silent(model.trainable_variables, gradients(model, x)) == []
    assert model(x).shape == (2, 64, 64, 1) and len({v.path for v in model.weights}) == len(model.weights)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [*({"fusion": kind} for kind in (*FUSIONS, LATE)), *({"decoder": kind} for kind in DECODERS)], ids=str
)
def test_every_part_comes_back_from_its_configuration(options):
    model = scrambled(build_model("dual_swin", **{**TINY, **options}))
    again = keras.Model.from_config(model.get_config())
    assert [(v.path, v.shape) for v in again.weights] == [(v.path, v.shape) for v in model.weights]
    again.set_weights(model.get_weights())
    assert np.array_equal(again(images()), model(images()))


@pytest.mark.parametrize("fusion", [*FUSIONS, LATE])
def test_every_fusion(fusion):
    model = scrambled(build_model("dual_swin", fusion=fusion, **TINY))
    if fusion == LATE:
        assert (
            parameters(model.weights, "blend") == 1
            and parameters(model.weights, "decoder_rgb") == parameters(model.weights, "decoder_aux") > 0
        )
    else:
        assert parameters(model.trainable_variables, "fusion") == fusion_parameters(fusion, (4, 8, 16, 32))
    check(model)


@pytest.mark.parametrize("decoder", list(DECODERS))
def test_every_decoder(decoder):
    check(scrambled(build_model("dual_swin", **{**TINY, "decoder": decoder})))


def attention_parameters(kind, channels):
    hidden = max(1, channels // 16)
    squeeze = 2 * channels * hidden + hidden + channels
    return {
        "eca": int(np.log2(channels) / 2 + 0.5) // 2 * 2 + 1,
        "se": squeeze,
        "cbam": squeeze + 2 * 49,
    }[kind]


@pytest.mark.parametrize(
    "attention", [("eca", "se", "cbam"), pytest.param(("cbam", "eca", "se"), marks=pytest.mark.slow)], ids=str
)
def test_attention_at_the_three_places_of_table_10(attention):
    """E9 of the table is eca, se and cbam; each place has the parameters of its definition."""
    places = dict(zip(("input_attention", "encoder_attention", "decoder_attention"), attention, strict=True))
    model = scrambled(build_model("dual_swin", **TINY, fusion="concat_eca", **places))
    bands, widths = (3, 4), (4, 8, 16, 32)
    found = [parameters(model.trainable_variables, name) for name in ("input_attention", "attention", "decoder_att")]
    assert found == [
        sum(attention_parameters(attention[0], c) for c in bands),
        2 * sum(attention_parameters(attention[1], c) for c in widths),
        attention_parameters(attention[2], 4),
    ]
    for variable in model.weights:  # so that no ReLU of one unit is off
        if variable.path.endswith("squeeze/bias"):
            variable.assign(variable + 10)
    check(model)


def test_attention_weights_the_bands_the_maps_and_the_output():
    """Without their sigmoid's weight, the layers see what the plain network has at these places."""
    x = images(size=(32, 32))
    model = scrambled(build_model("dual_swin", **TINY, input_attention="se", encoder_attention="se"))
    sees = keras.Model(model.input, model.get_layer("input_attention_aux").output)(x)
    weighted = model.get_layer("input_attention_aux")(x[..., [BANDS.index(band) for band in PAPER_GROUPS["aux"]]])
    np.testing.assert_allclose(sees, weighted, atol=1e-6)
    maps = model.get_layer("encoder_aux")(sees)
    fused = keras.Model(model.input, model.get_layer("fusion_P3_concat").input)(x)
    np.testing.assert_allclose(fused[1], model.get_layer("attention_aux_P3")(maps["P3"]), atol=1e-5)


def test_deep_supervision_trains_every_node_and_predicts_their_mean():
    options = {**TINY, "decoder": "unetplusplus", "deep_supervision": True}
    model = scrambled(build_model("dual_swin", **options))
    x = images(size=(64, 64))
    heads = model(x, training=True)
    assert {name: value.shape for name, value in heads.items()} == {f"mask_x0{j}": (2, 16, 16, 1) for j in (1, 2, 3)}
    assert silent(model.trainable_variables, gradients(model, x)) == []
    nodes = ["decoder_x01_2_relu", "decoder_x02_2_relu", "decoder_refine_relu"]
    maps = keras.Model(model.input, [model.get_layer(name).output for name in nodes])(x)
    means = []
    for j, node in enumerate(maps, 1):
        head = model.get_layer(f"mask_x0{j}")
        logits = np.asarray(node) @ head.kernel.numpy()[0, 0] + head.bias.numpy()
        means.append(tf.image.resize(1 / (1 + np.exp(-logits)), (64, 64)).numpy())
    probability = np.mean(means, axis=0)
    assert model(x).numpy() == pytest.approx(np.log(probability / (1 - probability)), abs=1e-3)
    # Two more heads than the plain network, and nothing else.
    assert (
        model.count_params() - build_model("dual_swin", **{**options, "deep_supervision": False}).count_params() == 10
    )
    again = type(model).from_config(model.get_config())
    assert [v.path for v in again.weights] == [v.path for v in model.weights]


@pytest.mark.slow
def test_a_cnn_encodes_as_well():
    check(scrambled(build_model("dual_swin", decoder="fpn", **LIGHT)))


def test_late_fusion_blends_the_logits_of_the_groups():
    model = scrambled(build_model("dual_swin", fusion=LATE, **TINY))
    x, weight = images(), 1 / (1 + np.exp(-model.get_layer("blend").alpha.numpy()[0]))
    parts = {}
    for group in PAPER_GROUPS:
        logits = keras.Model(model.input, model.get_layer(f"decoder_{group}_logits").output)(x)
        parts[group] = tf.image.resize(logits, (32, 64)).numpy()
    assert model(x).numpy() == pytest.approx(weight * parts["rgb"] + (1 - weight) * parts["aux"], abs=1e-4)


def test_each_group_sees_its_bands_alone_in_its_order():
    groups = {"rgb": ["blue", "red"], "aux": ["dem"], "rest": ["gray"]}
    bands = ("red", "gray", "blue", "dem")
    model = scrambled(build_model("dual_swin", bands, groups=groups, **TINY))
    x = images(4)
    fused = keras.Model(model.input, model.get_layer("fusion_P2_concat").input)(x)
    for (group, members), maps in zip(groups.items(), fused, strict=True):
        alone = model.get_layer(f"encoder_{group}")(x[..., [bands.index(band) for band in members]])
        assert maps.numpy() == pytest.approx(alone["P2"].numpy(), abs=1e-5)
    assert parameters(model.trainable_variables, "fusion") == fusion_parameters("concat", (4, 8, 16, 32), 3)


def test_one_group_is_a_single_encoder_without_fusion():
    model = build_model("dual_swin", groups={"all": list(BANDS)}, **TINY)
    assert parameters(model.weights, "fusion") == 0 and [
        name for name in (layer.name for layer in model.layers) if "encoder" in name
    ] == ["encoder_all"]
    assert model(images()).shape == (2, 32, 64, 1)


@pytest.mark.parametrize(
    "groups,said",
    [
        (
            {"rgb": ["red", "green", "blue", "nir"], "aux": ["dem", "slope", "thermal", "gray"]},
            "names bands that are not among the input: nir",
        ),
        (
            {"rgb": ["red", "green", "blue"], "aux": ["dem", "slope", "thermal", "gray", "red"]},
            "names bands more than once: red",
        ),
        ({"rgb": ["red", "green", "blue"], "aux": ["dem"]}, "leaves out input bands: slope, thermal, gray"),
        ({}, "one or more names"),
        ({"rgb": []}, "one or more names"),
        ({"rgb": "red"}, "one or more names"),
        ({"r/g": ["red"]}, "one or more names"),
    ],
)
def test_groups_that_do_not_fit_the_bands_are_refused(groups, said):
    with pytest.raises(InputError, match=f"^model.options: groups .*{said}.*Received: "):
        build_model("dual_swin", groups=groups, **TINY)


@pytest.mark.parametrize(
    "options,said",
    [
        ({"fusion": "add"}, "fusion must be one of concat, .*late. Received: 'add'"),
        ({"decoder": "net"}, "decoder must be one of unet, .*Received: 'net'"),
        ({"encoder": "vit"}, "encoder must be one of .*Received: 'vit'"),
        ({"decoder_channels": 0}, "decoder_channels=0"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"encoder_options": {"widths": 3}}, "encoder_options: swin_v2_small has no widths"),
        ({"input_attention": "gate"}, "input_attention must be one of none, eca, se, cbam. Received: 'gate'"),
        ({"deep_supervision": True}, "deep_supervision needs decoder unetplusplus .*Received: decoder='segformer_mlp'"),
        (
            {"deep_supervision": True, "decoder": "unetplusplus", "fusion": "late"},
            "deep_supervision needs .*fusion='late'",
        ),
        ({"groups": ["red"]}, "model.options.groups: expected dict"),
        ({"encoder_options": 3}, "model.options.encoder_options: expected dict"),
    ],
)
def test_options_out_of_range_are_refused(options, said):
    with pytest.raises(InputError, match=said):
        build_model("dual_swin", **{**TINY, **options})


def test_bands_are_names_or_their_number():
    assert build_model("dual_swin", 7, **TINY).input_shape[-1] == 7
    assert build_model("dual_swin", 3, groups={"rgb": ["red", "green", "blue"]}, **TINY).input_shape[-1] == 3
    assert build_model("unet", ("red", "dem"), base_filters=2, depth=1).input_shape[-1] == 2
    with pytest.raises(InputError, match="needs the names of the bands, .*Received: bands=8"):
        build_model("dual_swin", 8, **TINY)


def test_sizes_must_be_multiples_of_32():
    require_size("dual_swin", TINY, 32, 96)
    for size in (16, 48, 100):
        with pytest.raises(InputError, match="divisible by 32"):
            require_size("dual_swin", TINY, size, 64)
    model = build_model("dual_swin", **TINY)
    assert model.output_shape == (None, None, None, 1) and model(images(size=(96, 160))).shape == (2, 96, 160, 1)


@pytest.mark.parametrize("options", [TINY, LIGHT])
def test_the_levels_of_the_encoders_hold_both_groups(options):
    levels = encoder_levels("dual_swin", options)
    paths = [v.path for v in build_model("dual_swin", **options).trainable_variables]
    assert levels[-4:] == ["stage0", "stage1", "stage2", "stage3"]
    for level in levels:
        assert {path.split("_")[1] for path in paths if path.startswith(level)} == {"rgb", "aux"}
    assert all(path.startswith(("fusion", "decoder")) for path in paths if not path.startswith(tuple(levels)))
    with pytest.raises(InputError, match="encoder must be one of"):
        encoder_levels("dual_swin", {"encoder": "vit"})


@pytest.mark.parametrize("name", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)])
def test_logits_are_float32_under_mixed_precision(policy, name):
    exact = build_model("dual_swin", fusion=LATE, **TINY)
    policy(name)
    model = build_model("dual_swin", fusion=LATE, **TINY)
    model.set_weights(exact.get_weights())
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    logits, expected = model(images()), exact(images()).numpy()
    assert logits.dtype == tf.float32 and not np.array_equal(
        logits, tf.cast(tf.cast(logits, name.removeprefix("mixed_")), "float32")
    )
    assert np.abs(logits.numpy() - expected).max() < 0.1 * np.abs(expected).max() + 0.02
