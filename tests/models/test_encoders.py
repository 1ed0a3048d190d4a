"""Encoders: exact parameter counts, shapes of the feature pyramid, and unique names in a network."""

import keras
import numpy as np
import pytest

from marsls_keras.models.encoders import ENCODERS, LEVELS, build_encoder
from marsls_keras.models.encoders.cnn import CNNS
from marsls_keras.models.pyramid import pyramid_model

TINY = {"embed_dim": 4, "depths": (2, 1, 1, 1), "heads": (1, 1, 2, 2), "window": 4}
CNN = "resnet_v2_18_narrow"


def swin_parameters(bands, width, depths, heads):
    """Count the parameters of a SwinV2, layer by layer from the definition."""
    total = 16 * bands * width + width + 2 * width
    for i, (depth, h) in enumerate(zip(depths, heads, strict=True)):
        c = width * 2**i
        total += (2 * c * c + 2 * c) if i else 0  # 4 (c/2) inputs to c, and a normalisation
        attention = 3 * c * c + 2 * c + h + 2 * 512 + 512 + 512 * h + c * c + c
        total += depth * (attention + 4 * c + 4 * c * c + 4 * c + 4 * c * c + c)
    return total


def images(bands=3, size=(64, 96), number=2):
    return np.random.default_rng(0).normal(0, 1, (number, *size, bands)).astype(np.float32)


def test_swin_v2_small_has_the_counts_of_the_paper_and_the_formula_gives_the_others():
    assert swin_parameters(3, 96, (2, 2, 18, 2), (3, 6, 12, 24)) == 48_957_882
    assert swin_parameters(4, 96, (2, 2, 18, 2), (3, 6, 12, 24)) == 48_959_418
    assert swin_parameters(4, 96, (2, 2, 6, 2), (3, 6, 12, 24)) == 27_578_154
    thin = build_encoder("swin_v2_tiny", 4, embed_dim=24)
    assert thin.count_params() == swin_parameters(4, 24, (2, 2, 6, 2), (3, 6, 12, 24))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name,bands,count",
    [
        ("swin_v2_small", 3, 48_957_882),
        ("swin_v2_small", 4, 48_959_418),
        ("swin_v2_tiny", 4, 27_578_154),
        ("swin_v2_base", 3, 86_891_768),
    ],
)
def test_swin_v2_at_full_size(name, bands, count):
    model = build_encoder(name, bands)
    assert model.count_params() == sum(int(np.prod(v.shape)) for v in model.trainable_variables) == count


@pytest.fixture(scope="module")
def tiny_swin():
    return build_encoder("swin_v2_tiny", 2, **TINY)


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis -1")  # a window of one token
@pytest.mark.parametrize("size", [(64, 64), (32, 96), (36, 50), (4, 4), (1, 7)])
def test_images_of_any_size_give_a_pyramid(tiny_swin, size):
    maps = tiny_swin(images(2, size))
    assert list(maps) == list(LEVELS)
    for n, (level, values) in enumerate(maps.items(), 2):
        assert level == f"P{n}" and np.isfinite(values).all()
        assert values.shape == (2, *(-(-side // 2**n) for side in size), 4 * 2 ** (n - 2))


def test_a_cnn_gives_the_same_pyramid_with_names_by_stage():
    model = build_encoder(CNN, 4, "aux")
    maps = model(images(4))
    assert {level: values.shape[1:] for level, values in maps.items()} == {
        "P2": (16, 24, 64),
        "P3": (8, 12, 64),
        "P4": (4, 6, 128),
        "P5": (2, 3, 256),
    }
    paths = [v.path for v in model.weights]
    assert len(set(paths)) == len(paths) and all(
        path.startswith(tuple(f"stage{i}_aux_" for i in range(4))) for path in paths
    )
    assert not any(isinstance(layer, keras.layers.Rescaling | keras.layers.Lambda) for layer in model._flatten_layers())
    # Stage n is what Pn + 2 needs and Pn + 1 does not.
    for i, level in enumerate(LEVELS):
        part = keras.Model(model.input, model.output[level])
        assert {v.path[:6] for v in part.weights} == {f"stage{j}" for j in range(i + 1)}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CNNS))
def test_every_cnn_builds(name):
    assert list(build_encoder(name, 3)(images())) == list(LEVELS)


def test_encoders_of_two_groups_share_no_name():
    one, two = (build_encoder("swin_v2_tiny", 3, group, **TINY) for group in ("rgb", "aux"))
    assert not {v.path for v in one.weights} & {v.path for v in two.weights}
    again = keras.Model.from_config(one.get_config())
    assert [v.path for v in again.weights] == [v.path for v in one.weights]
    again.set_weights(one.get_weights())
    assert np.array_equal(again(images())["P5"], one(images())["P5"])


def test_the_contract_is_checked():
    x = keras.Input((None, None, 3))
    pool = {level: keras.layers.MaxPooling2D(2**n)(x) for n, level in enumerate(LEVELS, 2)}
    assert pyramid_model(x, pool, "good").output.keys() == pool.keys()
    for wrong in ({**pool, "P4": pool["P3"]}, {level: pool[level] for level in LEVELS[:3]}):
        with pytest.raises(ValueError, match="bad must give maps .*Received: "):
            pyramid_model(x, wrong, "bad")


@pytest.mark.parametrize(
    "name,options,said",
    [
        ("swin_v9", {}, "encoder must be one of swin_v2_tiny, .*Received: 'swin_v9'"),
        ("swin_v2_tiny", {"depth": 3}, "swin_v2_tiny has no depth. It has: embed_dim, depths, heads"),
        (CNN, {"embed_dim": 3}, f"{CNN} has no embed_dim. It has: none"),
        ("swin_v2_tiny", {"depths": (1, 1)}, r"Received: depths=\[1, 1\]"),
        ("swin_v2_tiny", {**TINY, "heads": (3, 1, 1, 1)}, "divisible by 3 heads. Received: 4"),
        ("swin_v2_tiny", {"bands": 0}, "at least one band. Received: 0"),
    ],
)
def test_what_cannot_be_built_is_refused(name, options, said):
    with pytest.raises(ValueError, match=said):
        build_encoder(name, **options)


def test_the_names_are_those_of_the_issue():
    assert {"swin_v2_tiny", "swin_v2_small", "swin_v2_base"} < set(ENCODERS) and set(CNNS) < set(ENCODERS)
