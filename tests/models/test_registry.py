"""Registry of networks: names, options, sizes, and error messages for wrong ones."""

import inspect

import keras
import pytest
from helpers.model_case import thin_mit

from marsls_keras.errors import InputError
from marsls_keras.models import build_model, encoder_levels, model_names, registry, require_options, require_size
from marsls_keras.models.networks import Network
from marsls_keras.models.registry import builder, entry, known_options
from marsls_keras.models.unet import unet

# Small variants of networks that take long to build with defaults; the tests do not depend on the size.
SWIN = {"embed_dim": 4, "depths": [1, 1, 1, 1], "heads": [1, 1, 1, 1]}
RESNET = {"encoder": "resnet18", "encoder_options": {"width": 4}, "decoder_channels": 16}
SMALL = {
    **dict.fromkeys(("attention_unet", "r2_unet", "res_unet"), {"base_filters": 4}),
    **dict.fromkeys(("deeplab_v3", "deeplab_v3_plus", "pspnet", "rmau_backbone", "unet_plus_plus"), RESNET),
    "dual_swin": {"encoder_options": SWIN, "decoder_channels": 4},
    "mmsformer": {"encoders": {"rgb": "mit_thin", "aux": "mit_thin"}, "decoder_channels": 4},
    "swin_fpn": {"encoder_options": SWIN, "decoder_channels": 4},
    "swin_unet": SWIN,
    "trans_unet": {"width": 4, "units": [1, 1, 1], "embed_dim": 4, "depth": 1, "heads": 1},
}


@pytest.fixture(scope="module", autouse=True)
def mit_thin():
    with thin_mit():
        yield


def test_names_are_sorted_and_hold_the_unet():
    assert model_names() == sorted(set(model_names())) and "unet" in model_names()


def test_options_are_the_keywords_of_the_builder():
    assert builder("unet") is unet
    assert known_options("unet") == {"base_filters": 16, "depth": 4, "dropout": 0.0} == unet.__kwdefaults__
    assert list(inspect.signature(unet).parameters)[0] == "bands" and "bands" not in known_options("unet")


def test_every_model_maps_bands_to_one_channel_of_float32_logits():
    for name in model_names():
        bands = 7 if entry(name).named else 3
        model = build_model(name, bands=bands, **SMALL.get(name, {}))
        assert isinstance(model, keras.Model)
        assert model.input_shape[-1] == bands and model.output_shape[-1] == 1 and model.output.dtype == "float32"


def test_options_reach_the_builder():
    assert (
        build_model("unet", bands=4, base_filters=2, depth=1).count_params()
        == unet(4, base_filters=2, depth=1).count_params()
    )


@pytest.mark.parametrize(
    "call",
    [
        *(build_model, entry, lambda name: require_options(name, {}), lambda name: require_size(name, {}, 8, 8)),
        lambda name: encoder_levels(name, {}),
    ],
)
def test_an_unknown_model_is_an_error_that_lists_the_known(call):
    with pytest.raises(InputError) as caught:
        call("vnet")
    assert "'vnet'" in str(caught.value) and all(f"- {name}" in str(caught.value) for name in model_names())


@pytest.mark.parametrize(
    "call", [lambda options: build_model("unet", **options), lambda options: require_options("unet", options)]
)
def test_unknown_options_are_an_error_that_lists_the_known(call):
    with pytest.raises(
        InputError, match=r"no option filters, rate. Did you mean base_filters\? It has: base_filters, depth, dropout"
    ):
        call({"filters": 3, "depth": 2, "rate": 0.1})


@pytest.mark.parametrize(
    "options",
    [{"base_filters": 0}, {"base_filters": -4}, {"depth": 0}, {"dropout": 1.0}, {"dropout": -0.1}],
)
def test_an_option_out_of_range_is_an_error_of_the_configuration(options):
    require_options("unet", options)  # the builder knows its ranges, the registry does not
    with pytest.raises(InputError, match="^model.options: .*" + "=".join(map(str, *options.items()))):
        build_model("unet", **options)


@pytest.mark.parametrize(
    "option,value,kind",
    [
        ("base_filters", 8.5, "int"),
        ("base_filters", "16", "int"),
        ("base_filters", None, "int"),
        ("depth", [1], "int"),
        ("depth", True, "int"),
        ("dropout", "much", "float"),
        ("dropout", False, "float"),
    ],
)
def test_an_option_of_another_type_is_an_error_that_names_it(option, value, kind):
    calls = [
        lambda: build_model("unet", **{option: value}),
        lambda: require_options("unet", {option: value}),
        lambda: require_size("unet", {option: value}, 128, 128),
    ]
    for call in calls:
        with pytest.raises(InputError) as caught:
            call()
        assert f"model.options.{option}: expected {kind}" in str(caught.value) and f"Received: {value!r}" in str(
            caught.value
        )


def test_a_whole_number_will_do_for_a_float():
    require_options("unet", {"dropout": 0})


@pytest.mark.parametrize("bands", [0, -1])
def test_a_model_without_bands_is_refused(bands):
    with pytest.raises(InputError, match=f"bands={bands}"):
        build_model("unet", bands=bands)


@pytest.mark.parametrize(
    "options,stride", [({}, 16), ({"depth": 1}, 2), ({"depth": 3, "base_filters": 8, "dropout": 0.1}, 8)]
)
def test_sizes_must_be_divisible_by_the_stride(options, stride):
    require_size("unet", options, 3 * stride, 5 * stride)
    for height, width in ((3 * stride + 1, 5 * stride), (3 * stride, 5 * stride - stride // 2)):
        with pytest.raises(
            InputError,
            match=f"unet needs height and width divisible by {stride}; the tiles or windows are {height} x {width}",
        ):
            require_size("unet", options, height, width)


def test_the_levels_of_the_unet_go_from_the_input_to_the_bottom():
    assert encoder_levels("unet", {}) == ["down0", "down1", "down2", "down3", "bottom"]
    assert encoder_levels("unet", {"depth": 1, "base_filters": 2}) == ["down0", "bottom"]
    with pytest.raises(InputError, match="model.options.depth: expected int"):
        encoder_levels("unet", {"depth": "deep"})


def test_every_level_of_an_encoder_has_variables_and_something_is_left_for_the_decoder():
    for name in model_names():
        options = SMALL.get(name, {})
        levels = encoder_levels(name, options)
        paths = [v.path for v in build_model(name, **options).trainable_variables]
        assert len(set(levels)) == len(levels)
        for path in paths:
            fitting = [level for level in levels if path.startswith(level)]
            assert len(fitting) <= 1 or len({len(level) for level in fitting}) == len(fitting), path
        unused = [level for level in levels if not any(path.startswith(level) for path in paths)]
        rest = [path for path in paths if not path.startswith(tuple(levels))]
        assert not unused and rest, name


def test_a_network_registered_without_levels_has_none(monkeypatch):
    monkeypatch.setattr(registry, "_ENTRIES", {})

    @registry.register("plain", Network(stride=lambda **_: 1))
    def plain(bands: int = 7) -> keras.Model:
        return keras.Sequential([keras.Input((None, None, bands)), keras.layers.Conv2D(1, 1)])

    assert encoder_levels("plain", {}) == []
