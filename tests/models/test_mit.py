"""MiT: maps equal to those of transformers, counts, names of checkpoints, sizes and precision."""

import keras
import numpy as np
import pytest
from helpers.model_case import check_under_decoder
from helpers.references import REFERENCES, script
from safetensors.numpy import save_file

from marsls_keras.errors import InputError
from marsls_keras.layers import MixTransformerBlock, ReducedAttention
from marsls_keras.models import encoder_levels, load_pretrained
from marsls_keras.models.encoders import build_encoder
from marsls_keras.models.weights import FAMILIES

LEVELS = ("P2", "P3", "P4", "P5")
SCRIPT = script("transformers_torch")


@pytest.fixture(scope="module")
def reference():
    return np.load(REFERENCES / "mit.npz")


@pytest.fixture(scope="module")
def tensors(reference):
    """Return the tensors of the reference under the names of a SegFormer with its classifier."""
    drawn = SCRIPT.tensors(SCRIPT.shapes_of(reference, "mit_b0"))
    return {
        **{f"segformer.{name}": value for name, value in drawn.items()},
        "classifier.weight": np.zeros((2, 256), np.float32),
    }


@pytest.fixture(scope="module")
def b0(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("mit") / "w.safetensors"
    save_file(tensors, path)
    model = build_encoder("mit_b0")
    load_pretrained(model, str(path))
    return model


@pytest.mark.parametrize("size", SCRIPT.SIZES)
def test_maps_are_those_of_transformers(reference, b0, size):
    maps = b0(SCRIPT.image(size))
    for level in LEVELS:
        expected = reference[f"mit_b0/{size[0]}/{level}"]
        assert np.abs(expected).mean() > 0.5
        np.testing.assert_allclose(np.asarray(maps[level]), expected, atol=1e-4 * np.abs(expected).max())


def test_the_encoder_saved_alone_and_under_a_decoder_give_the_same(tensors, b0, tmp_path):
    alone = {name.removeprefix("segformer."): value for name, value in tensors.items() if name.startswith("segformer.")}
    decoded = {name: value for name, value in tensors.items() if name.startswith("segformer.")}
    decoded["decode_head.classifier.weight"] = np.zeros((2, 256, 1, 1), np.float32)
    for values in (alone, decoded):
        b0.set_weights([np.zeros(v.shape, np.float32) for v in b0.weights])
        save_file(values, tmp_path / "w.safetensors")
        load_pretrained(b0, str(tmp_path / "w.safetensors"))
        kernel = alone["encoder.block.3.1.mlp.dwconv.dwconv.weight"][:, 0].transpose(1, 2, 0)
        np.testing.assert_array_equal(b0.get_layer("stage3_block1").depthwise.kernel.numpy()[..., 0], kernel)


def parameters(depths, widths, bands=3):
    """Count the parameters of a MiT, layer by layer from the paper's figure 2 and table 6."""
    total, last = 0, bands
    for depth, c, kernel, reduction in zip(depths, widths, (7, 3, 3, 3), (8, 4, 2, 1), strict=True):
        attention = 4 * (c * c + c) + (reduction**2 * c * c + c + 2 * c) * (reduction > 1)
        ffn = c * 4 * c + 4 * c + 9 * 4 * c + 4 * c + 4 * c * c + c
        total += kernel**2 * last * c + c + 2 * c + depth * (attention + ffn + 4 * c) + 2 * c
        last = c
    return total


WIDE = (64, 128, 320, 512)


def test_b0_has_the_count_of_the_paper_and_the_formula_gives_the_others(b0):
    assert b0.count_params() == parameters((2, 2, 2, 2), (32, 64, 160, 256)) == 3_319_392
    # Table 1 of the paper: 13.1, 24.2, 44.0, 60.8 and 81.4 M.
    published = {(2, 2, 2, 2): 13.1, (3, 4, 6, 3): 24.2, (3, 4, 18, 3): 44.0, (3, 8, 27, 3): 60.8, (3, 6, 40, 3): 81.4}
    assert all(abs(parameters(depths, WIDE) / 1e6 - millions) < 0.1 for depths, millions in published.items())


@pytest.mark.slow
@pytest.mark.parametrize("name,depths", [("mit_b1", (2, 2, 2, 2)), ("mit_b2", (3, 4, 6, 3)), ("mit_b3", (3, 4, 18, 3))])
@pytest.mark.parametrize("bands", [3, 7])
def test_the_others_at_full_size(name, depths, bands):
    assert build_encoder(name, bands).count_params() == parameters(depths, WIDE, bands)


@pytest.mark.slow
@pytest.mark.parametrize("name,depths", [("mit_b4", (3, 8, 27, 3)), ("mit_b5", (3, 6, 40, 3))])
def test_the_largest_at_full_size(name, depths):
    assert build_encoder(name).count_params() == parameters(depths, WIDE)


@pytest.mark.parametrize("size", [(32, 32), (36, 50), (4, 4), (1, 7)])
def test_images_of_any_size_give_a_pyramid(b0, size):
    maps = b0(SCRIPT.image(size))
    for n, level in enumerate(LEVELS, 2):
        assert maps[level].shape[1:3] == tuple(-(-side // 2**n) for side in size) and np.isfinite(maps[level]).all()


def test_every_variable_of_the_encoder_belongs_to_a_level_and_one_family(b0):
    levels = encoder_levels("segmenter", {"encoder": "mit_b0"})
    for variable in b0.weights:
        assert sum(variable.path.startswith(level) for level in levels) == 1
        assert [family.title for family in FAMILIES if family.locate(variable.path)[1]] == ["MiT"]


def test_under_a_decoder_bands_take_colours_by_name_and_every_variable_a_gradient(tensors, tmp_path):
    kernel = "segformer.encoder.patch_embeddings.0.proj.weight"
    # A bias of keys adds the same to all scores of a query, which the softmax takes away; at P5 no rounding is left of
    # it.
    check_under_decoder(
        "mit_b0", "segformer_mlp", tensors, kernel, "stage0_aux_1_embed_proj/kernel", tmp_path, ("/key/bias",)
    )


def test_what_does_not_fit_is_named(tensors, tmp_path):
    values = dict(tensors)
    del values["segformer.encoder.block.1.0.attention.self.sr.weight"]
    values["segformer.encoder.block.0.2.layer_norm_1.bias"] = np.zeros(32, np.float32)
    save_file(values, tmp_path / "w.safetensors")
    with pytest.raises(
        InputError,
        match=r"this network's MiT[\s\S]*block\.1\.0\.attention\.self\.sr\.weight: absent[\s\S]*block\.0\.2\.lay",
    ):
        load_pretrained(build_encoder("mit_b0"), str(tmp_path / "w.safetensors"))


def test_attention_is_that_of_the_definition():
    """Compare with NumPy, head by head, with the reduction as a matrix product over patches."""
    keras.utils.set_random_seed(0)
    layer = ReducedAttention(2, reduction=2)
    x = np.random.default_rng(0).normal(0, 1, (1, 4, 6, 8)).astype(np.float32)
    layer.build(x.shape)
    for v in layer.weights:
        v.assign(np.random.default_rng(v.shape[0]).normal(0.1, 0.5, v.shape))
    patches = x.reshape(2, 2, 3, 2, 8).transpose(0, 2, 1, 3, 4).reshape(6, 32)
    reduced = patches @ layer.reduce.kernel.numpy().reshape(32, 8) + layer.reduce.bias.numpy()
    reduced = (reduced - reduced.mean(1, keepdims=True)) / np.sqrt(reduced.var(1, keepdims=True) + 1e-5)
    reduced = reduced * layer.norm.gamma.numpy() + layer.norm.beta.numpy()
    q, k, v = (
        y @ d.kernel.numpy() + d.bias.numpy()
        for y, d in ((x.reshape(24, 8), layer.query), (reduced, layer.key), (reduced, layer.value))
    )
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        scores = np.exp(q[:, part] @ k[:, part].T / 2)
        heads.append(scores / scores.sum(1, keepdims=True) @ v[:, part])
    expected = np.concatenate(heads, 1) @ layer.out.kernel.numpy() + layer.out.bias.numpy()
    np.testing.assert_allclose(np.asarray(layer(x)).reshape(24, 8), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    "make,said",
    [
        (lambda: ReducedAttention(0), "at least 1. Received: heads=0, reduction=1"),
        (lambda: MixTransformerBlock(1, 0), "at least 1. Received: heads=1, reduction=0"),
        (lambda: MixTransformerBlock(1, mlp_ratio=0), "mlp_ratio of at least 1. Received: 0"),
        (lambda: ReducedAttention(3).build((None, 4, 4, 8)), "divisible by 3 heads. Received: 8"),
        (lambda: build_encoder("mit_b0", drop_path=1.0), "rate in .* Received: 1"),
        (lambda: build_encoder("mit_b0", depths=(1,)), "mit_b0 has no depths. It has: drop_path"),
    ],
)
def test_what_cannot_be_built_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
