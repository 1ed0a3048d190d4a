"""Swin Transformer (V1): maps equal to those of timm, counts, names of checkpoints, sizes and what does not decay."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.model_case import check_under_decoder
from helpers.references import REFERENCES, script
from safetensors.numpy import save_file

from marsls_keras.errors import InputError
from marsls_keras.layers import BiasedWindowAttention, PatchMerging, SwinBlock
from marsls_keras.models import encoder_levels, load_pretrained
from marsls_keras.models.encoders import build_encoder
from marsls_keras.models.encoders.swin import swin
from marsls_keras.models.pyramid import LEVELS, pyramid_model
from marsls_keras.models.weights import FAMILIES

SCRIPT = script("timm_torch")
THIN = {"embed_dim": SCRIPT.THIN_SWIN["embed_dim"], "depths": (2, 2, 2, 2), "heads": SCRIPT.THIN_SWIN["num_heads"]}
PUBLISHED = {"swin_tiny": (96, (2, 2, 6, 2)), "swin_small": (96, (2, 2, 18, 2)), "swin_base": (128, (2, 2, 18, 2))}


@pytest.fixture(scope="module")
def reference():
    return np.load(REFERENCES / "swin.npz")


def drawn(reference, name):
    """Return the tensors of the reference under timm's names, with classifier and computed tables."""
    extra = {
        "head.fc.weight": np.zeros((5, 4), np.float32),
        "layers.0.blocks.1.attn_mask": np.zeros((64, 49, 49), np.float32),
    }
    return {**SCRIPT.tensors(SCRIPT.shapes_of(reference, name)), **extra}


@pytest.fixture(scope="module")
def tensors(reference):
    return drawn(reference, "thin")


@pytest.fixture(scope="module")
def thin(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("swin") / "w.safetensors"
    save_file(tensors, path)
    model = build_encoder("swin_tiny", **THIN)
    load_pretrained(model, str(path))
    return model


@pytest.mark.parametrize("size", SCRIPT.SIZES)
def test_maps_are_those_of_timm(reference, thin, size):
    maps = thin(SCRIPT.image(size))
    for level in LEVELS:
        expected = reference[f"thin/{size[0]}/{level}"]
        assert np.abs(expected).mean() > 0.5
        np.testing.assert_allclose(np.asarray(maps[level]), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow  # test_every_layer does so with each layer
def test_sizes_that_a_graph_does_not_know_give_the_same(reference, thin):
    compiled = tf.function(lambda x: thin(x), input_signature=[tf.TensorSpec((None, None, None, 3))])
    for size in SCRIPT.SIZES:
        for level, found in compiled(SCRIPT.image(size)).items():
            expected = reference[f"thin/{size[0]}/{level}"]
            np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", list(PUBLISHED))
def test_maps_of_the_published_ones_are_those_of_timm(reference, name, tmp_path):
    save_file(drawn(reference, name), tmp_path / "w.safetensors")
    model = build_encoder(name)
    assert model.count_params() == parameters(*PUBLISHED[name])
    load_pretrained(model, str(tmp_path / "w.safetensors"))
    for size in SCRIPT.SIZES:
        for level, found in model(SCRIPT.image(size)).items():
            expected = reference[f"{name}/{size[0]}/{level}"]
            np.testing.assert_allclose(found[..., :: SCRIPT.PART], expected, atol=1e-4 * np.abs(expected).max())


def parameters(width, depths, bands=3, heads=None, window=7):
    """Count the parameters of a Swin, layer by layer from the paper, without the classifier and the norm before it."""
    total = 16 * bands * width + width + 2 * width
    for i, depth in enumerate(depths):
        c = width * 2**i
        h = c // 32 if heads is None else heads[i]
        total += (2 * c * c + 4 * c) if i else 0  # 4 (c/2) inputs to c, and a normalisation of the inputs
        total += depth * (12 * c * c + 9 * c + 4 * c + h * (2 * window - 1) ** 2)
    return total


def test_the_counts_are_those_that_are_published(thin):
    assert thin.count_params() == parameters(THIN["embed_dim"], THIN["depths"], heads=THIN["heads"])
    # Of timm's networks with 1,000 classes.
    published = {"swin_tiny": 28_288_354, "swin_small": 49_606_258, "swin_base": 87_768_224}
    head = {name: 2 * 8 * width + 8 * width * 1000 + 1000 for name, (width, _) in PUBLISHED.items()}
    assert {name: parameters(*PUBLISHED[name]) + head[name] for name in PUBLISHED} == published


@pytest.mark.parametrize("size", [(32, 32), (36, 52), (4, 4), (4, 28)])
def test_images_of_any_size_give_a_pyramid(thin, size):
    maps = thin(SCRIPT.image(size))
    for n, level in enumerate(LEVELS, 2):
        assert maps[level].shape[1:3] == tuple(-(-side // 2**n) for side in size) and np.isfinite(maps[level]).all()


def test_checkpoints_before_timm_0_9_and_of_the_authors_give_the_same(tensors, thin, tmp_path):
    def old(name):  # the merging belonged to the stage before
        return name if ".downsample." not in name else f"layers.{int(name[7]) - 1}{name[8:]}"

    save_file({old(name): value for name, value in tensors.items()}, tmp_path / "w.safetensors")
    again = build_encoder("swin_tiny", **THIN)
    load_pretrained(again, str(tmp_path / "w.safetensors"))
    assert all(np.array_equal(a, b) for a, b in zip(again.get_weights(), thin.get_weights(), strict=True))


def test_a_checkpoint_of_transformers_gives_its_map(tmp_path):
    """Also at the size of pretraining, where windows fill the grids."""
    stored = np.load(REFERENCES / "swin_transformers.npz")
    values = {f"swin.{name}": value for name, value in SCRIPT.tensors(SCRIPT.shapes_of(stored, "thin")).items()}
    save_file({**values, "classifier.bias": np.zeros(5, np.float32)}, tmp_path / "w.safetensors")
    model = build_encoder("swin_tiny", **THIN)
    load_pretrained(model, str(tmp_path / "w.safetensors"))
    expected, found = stored["thin/P5"], np.asarray(model(SCRIPT.image((224, 224)))["P5"])
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_every_variable_belongs_to_a_level_and_one_family():
    levels = encoder_levels("segmenter", {"encoder": "swin_tiny"})
    assert levels == ["swin_embed", *(f"swin_stage{i}" for i in range(4))]
    x = keras.Input((None, None, 2))
    for variable in pyramid_model(x, swin(x, "aux_1", **THIN), "thin").weights:
        assert sum(variable.path.startswith(level) for level in levels) == 1
        claims = [(family.title, family.locate(variable.path)[0]) for family in FAMILIES]
        assert [claim for claim in claims if claim[1]] == [("Swin", "aux_1")]


def test_under_a_decoder_bands_take_colours_by_name_and_every_variable_a_gradient(tensors, tmp_path):
    kernel, stem = "patch_embed.proj.weight", "swin_embed_aux_1_proj/kernel"
    check_under_decoder("swin_tiny", "fpn", tensors, kernel, stem, tmp_path, **THIN)


def test_what_does_not_fit_is_named(tensors, tmp_path):
    values = {**tensors, "layers.4.blocks.0.norm1.bias": np.zeros(16, np.float32)}
    del values["layers.1.blocks.0.attn.relative_position_bias_table"]
    save_file(values, tmp_path / "w.safetensors")
    absent = r"layers\.1\.blocks\.0\.attn\.relative_position_bias_table: absent"
    with pytest.raises(InputError, match=rf"this network's Swin [\s\S]*{absent}[\s\S]*layers\.4\.blocks\.0\.norm1"):
        load_pretrained(build_encoder("swin_tiny", **THIN), str(tmp_path / "w.safetensors"))


def test_kernels_decay_and_the_table_of_biases_does_not():
    from marsls_keras.training.optimizer import _may_decay

    layer = SwinBlock(2, 4)
    layer.build((None, 4, 4, 8))
    decaying = {v.path.removeprefix("swin_block").split("/", 1)[1] for v in layer.trainable_variables if _may_decay(v)}
    assert decaying == {"attention/qkv/kernel", "attention/proj/kernel", "fc1/kernel", "fc2/kernel"}


@pytest.mark.parametrize(
    "make,said",
    [
        (lambda: BiasedWindowAttention(0), "heads=0"),
        (lambda: BiasedWindowAttention(2, 4, 4), "shift=4"),
        (lambda: BiasedWindowAttention(3).build((None, 4, 4, 8)), "divisible by 3 heads. Received: 8"),
        (lambda: SwinBlock(2, mlp_ratio=0), "Received: 0"),
        (lambda: PatchMerging(0), "at least one channel. Received: 0"),
        (lambda: build_encoder("swin_tiny", depths=(1, 1)), r"Received: depths=\[1, 1\]"),
        (lambda: build_encoder("swin_tiny", depth=3), "swin_tiny has no depth. It has: embed_dim, depths, heads"),
    ],
)
def test_what_cannot_be_built_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
