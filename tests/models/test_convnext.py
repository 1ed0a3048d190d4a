"""ConvNeXt and ConvNeXtV2: maps equal to those of transformers, counts, timm's names, sizes and precision."""

import keras
import numpy as np
import pytest
from helpers.model_case import check_under_decoder
from helpers.references import REFERENCES, script
from safetensors.numpy import save_file

from marsls_keras.errors import InputError
from marsls_keras.layers import ConvNeXtBlock, GlobalResponseNormalization
from marsls_keras.models import encoder_levels, load_pretrained
from marsls_keras.models.encoders import build_encoder
from marsls_keras.models.encoders.convnext import CONVNEXT, convnext
from marsls_keras.models.pyramid import LEVELS, pyramid_model
from marsls_keras.models.weights import FAMILIES

ATTO = "convnext_v2_atto"
SCRIPT = script("transformers_torch")


@pytest.fixture(scope="module")
def reference():
    return np.load(REFERENCES / "convnext.npz")


def tensors(reference, name):
    """Return the tensors of the reference under timm's names, with a classifier."""
    return {**SCRIPT.tensors(SCRIPT.shapes_of(reference, name)), "head.fc.weight": np.zeros((5, 4), np.float32)}


def thin():
    """Build a ConvNeXt of the first version that is smaller than the published ones."""
    x = keras.Input((None, None, 3))
    CONVNEXT["thin"] = (False, SCRIPT.THIN["depths"], SCRIPT.THIN["hidden_sizes"][0])
    try:
        return pyramid_model(x, convnext("thin", x), "thin")
    finally:
        del CONVNEXT["thin"]


@pytest.fixture(scope="module")
def models(reference, tmp_path_factory):
    found = {}
    for name, model in (("thin", thin()), (ATTO, build_encoder(ATTO))):
        path = tmp_path_factory.mktemp("convnext") / f"{name}.safetensors"
        save_file(tensors(reference, name), path)
        load_pretrained(model, str(path))
        found[name] = model
    return found


@pytest.mark.parametrize("name", ["thin", ATTO])
@pytest.mark.parametrize("size", SCRIPT.SIZES)
def test_maps_are_those_of_transformers(reference, models, name, size):
    maps = models[name](SCRIPT.image(size))
    for level in LEVELS:
        expected = reference[f"{name}/{size[0]}/{level}"]
        assert np.abs(expected).mean() > 0.5
        np.testing.assert_allclose(np.asarray(maps[level]), expected, atol=1e-4 * np.abs(expected).max())


def parameters(response, depths, width, bands=3):
    """Count the parameters of a ConvNeXt, layer by layer from the paper's table 9, without the classifier."""
    total = 16 * bands * width + width + 2 * width
    for i, depth in enumerate(depths):
        c = width * 2**i
        total += (2 * (c // 2) + 4 * (c // 2) * c + c) if i else 0
        total += depth * (49 * c + c + 2 * c + 4 * c * c + 4 * c + 4 * c * c + c + (8 * c if response else c))
    return total


def test_the_counts_are_those_that_are_published(models):
    assert models[ATTO].count_params() == parameters(*CONVNEXT[ATTO])
    head = {name: 2 * 8 * width + 8 * width * 1000 + 1000 for name, (_, _, width) in CONVNEXT.items()}
    published = {
        **{"convnext_tiny": 28_589_128, "convnext_small": 50_223_688, "convnext_base": 88_591_464},
        **{"convnext_v2_atto": 3_708_400, "convnext_v2_femto": 5_233_240, "convnext_v2_pico": 9_066_280},
        **{"convnext_v2_nano": 15_623_800, "convnext_v2_tiny": 28_635_496, "convnext_v2_base": 88_717_800},
    }
    assert {name: parameters(*CONVNEXT[name]) + head[name] for name in CONVNEXT} == published


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CONVNEXT))
def test_every_one_at_full_size(name):
    assert build_encoder(name, 7).count_params() == parameters(*CONVNEXT[name], bands=7)


@pytest.mark.parametrize("size", [(36, 50), (4, 4), (1, 7)])
def test_images_of_any_size_give_a_pyramid(models, size):
    for model in models.values():
        maps = model(SCRIPT.image(size))
        for n, level in enumerate(LEVELS, 2):
            assert maps[level].shape[1:3] == tuple(-(-side // 2**n) for side in size) and np.isfinite(maps[level]).all()


def test_every_variable_of_the_encoder_belongs_to_a_level_and_one_family(models):
    for model in models.values():
        levels = encoder_levels("segmenter", {"encoder": ATTO})
        assert levels == ["stem", "stage0", "stage1", "stage2", "stage3"]
        for variable in model.weights:
            assert sum(variable.path.startswith(level) for level in levels) == 1
            assert [family.title for family in FAMILIES if family.locate(variable.path)[1]] == ["ConvNeXt"]


@pytest.mark.parametrize(
    "title,name,options",
    [("SwinV2", "swin_v2_tiny", {"embed_dim": 24}), ("EfficientNet-Lite", "efficientnet_lite0", {})],
)
@pytest.mark.parametrize("group", ["", "aux_1"])
def test_no_two_families_claim_a_variable_of_the_others(title, name, options, group):
    for variable in build_encoder(name, 2, group, **options).weights:
        assert [(f.title, f.locate(variable.path)[0]) for f in FAMILIES if f.locate(variable.path)[1]] == [
            (title, group)
        ]


def test_convolutions_in_place_of_linear_layers_give_the_same(reference, models, tmp_path):
    """Some of timm's small networks of the first version have them."""
    values = tensors(reference, "thin")
    values = {
        name: value[:, :, None, None] if ".mlp.fc" in name and value.ndim == 2 else value
        for name, value in values.items()
    }
    save_file({name: np.ascontiguousarray(value) for name, value in values.items()}, tmp_path / "w.safetensors")
    other = thin()
    load_pretrained(other, str(tmp_path / "w.safetensors"))
    for a, b in zip(models["thin"].get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_under_a_decoder_bands_take_colours_by_name_and_every_variable_a_gradient(reference, tmp_path):
    check_under_decoder(ATTO, "unet", tensors(reference, ATTO), "stem.0.weight", "stem_aux_1_proj/kernel", tmp_path)


def test_what_does_not_fit_is_named(reference, tmp_path):
    values = tensors(reference, "thin")
    del values["stages.2.blocks.1.gamma"]
    values["stages.2.blocks.1.mlp.grn.weight"] = np.zeros(384, np.float32)  # as in ConvNeXtV2
    save_file(values, tmp_path / "w.safetensors")
    missing = r"stages\.2\.blocks\.1\.gamma: absent"
    said = rf"this network's ConvNeXt[\s\S]*{missing}[\s\S]*mlp\.grn\.weight: \(384,\) in the file, unknown"
    with pytest.raises(InputError, match=said):
        load_pretrained(thin(), str(tmp_path / "w.safetensors"))


def test_global_response_normalisation_is_that_of_the_paper_and_lets_gradients_of_silent_channels_be_finite():
    import tensorflow as tf

    rng = np.random.default_rng(0)
    x = rng.normal(0, 2, (2, 3, 5, 4)).astype(np.float32)
    x[..., 1] = 0
    layer = GlobalResponseNormalization()
    np.testing.assert_array_equal(layer(x), x)  # both parameters begin at 0
    gamma, beta = (rng.normal(0, 1, 4).astype(np.float32) for _ in range(2))
    layer.set_weights([gamma, beta])
    for b in range(2):
        norms = np.array([np.linalg.norm(x[b, :, :, c]) for c in range(4)])
        expected = gamma * (x[b] * (norms / (norms.mean() + 1e-6))) + beta + x[b]
        np.testing.assert_allclose(layer(x)[b], expected, rtol=1e-5, atol=1e-6)
    with tf.GradientTape() as tape:
        inputs = tf.convert_to_tensor(x)
        tape.watch(inputs)
        y = tf.reduce_sum(layer(inputs) ** 2)
    assert np.isfinite(tape.gradient(y, inputs)).all()


@pytest.mark.parametrize(
    "make",
    [lambda **k: ConvNeXtBlock(False, **k)],  # the others are in test_every_layer.py
)
def test_layers_come_back_from_their_configuration_and_keep_half_precision(make):
    x = np.random.default_rng(0).normal(0, 1, (2, 4, 6, 8)).astype(np.float32)
    layer = make(dtype="mixed_bfloat16", name="a")
    layer(x)
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(0, 0.3, v.shape) for v in layer.weights])
    y = np.asarray(keras.ops.cast(layer(x), "float32"))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is type(layer) and again.get_config() == layer.get_config()
    again.set_weights(layer.get_weights())
    assert layer(x).dtype == "bfloat16" and np.array_equal(np.asarray(keras.ops.cast(again(x), "float32")), y)
    exact = make()
    exact.build(x.shape)
    exact.set_weights(layer.get_weights())
    assert y == pytest.approx(np.asarray(exact(x)), abs=0.1)


@pytest.mark.parametrize(
    "options,said",
    [({"drop_path": 1.0}, "rate in .* Received: 1"), ({"depths": (1,)}, "has no depths. It has: drop_path")],
)
def test_what_cannot_be_built_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        build_encoder(ATTO, **options)
