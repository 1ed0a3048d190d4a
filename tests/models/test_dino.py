"""DINOv2 and DINOv3: maps equal to those of transformers and timm, names of checkpoints, counts and levels."""

import keras
import numpy as np
import pytest
from helpers.model_case import check_under_decoder
from helpers.references import REFERENCES, script
from helpers.weights import scramble
from safetensors.numpy import save_file

from marsls_keras.errors import InputError
from marsls_keras.layers import PositionedTokens, PrefixedTokens, RotaryAttention
from marsls_keras.layers.vision_transformer import cubic_matrix
from marsls_keras.models import encoder_levels, load_pretrained
from marsls_keras.models.encoders import build_encoder
from marsls_keras.models.encoders.dino import DINO, Dino, dino
from marsls_keras.models.pyramid import pyramid_model
from marsls_keras.models.weights import FAMILIES
from marsls_keras.models.weights.dino import resample_kernel

SCRIPT = script("dino_torch")
SIZES = (SCRIPT.DEPTH, SCRIPT.WIDTH, SCRIPT.HEADS)
THIN = {
    "dinov2": Dino(*SIZES, grid=SCRIPT.GRID, registers=0),
    "dinov2_reg": Dino(*SIZES, grid=SCRIPT.GRID, registers=SCRIPT.REGISTERS),
    "dinov3": Dino(*SIZES, grid=None, registers=SCRIPT.REGISTERS),
}
SOURCES = [("transformers", name, name) for name in THIN]
SOURCES += [("timm", "dinov2_reg", "dinov2_reg"), ("timm", "dinov3", "dinov3"), ("timm", "dinov3_qkvb", "dinov3")]


@pytest.fixture(scope="module")
def reference():
    return np.load(REFERENCES / "dino.npz")


def drawn(reference, key):
    return SCRIPT.tensors(SCRIPT.shapes_of(reference, key))


def thin(name, bands=3, group=""):
    """Build a DINO that is smaller than the published ones."""
    x = keras.Input((None, None, bands))
    DINO["thin"] = THIN[name]
    try:
        return pyramid_model(x, dino("thin", x, group), "thin")
    finally:
        del DINO["thin"]


@pytest.fixture(scope="module")
def models():
    return {name: thin(name) for name in THIN}


@pytest.mark.parametrize("source,key,name", SOURCES)
def test_the_last_map_is_that_of_the_source(reference, models, tmp_path, source, key, name):
    model = models[name]
    save_file(drawn(reference, f"{source}/{key}"), tmp_path / "w.safetensors")
    load_pretrained(model, str(tmp_path / "w.safetensors"))
    last = keras.Model(model.input, model.get_layer("vit_map").output)
    for height, width in SCRIPT.VIT_SIZES:
        expected = reference[f"{source}/{key}/{height}x{width}"]
        assert np.abs(expected).mean() > 0.5
        found = np.asarray(last(SCRIPT.image((height, width))))
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow  # test_every_layer does so with each layer
@pytest.mark.parametrize("name", list(THIN))
def test_sizes_that_a_graph_does_not_know_give_the_same(models, name):
    import tensorflow as tf

    compiled = tf.function(lambda x: models[name](x), input_signature=[tf.TensorSpec((None, None, None, 3))])
    for size in SCRIPT.VIT_SIZES:
        expected, found = models[name](SCRIPT.image(size)), compiled(SCRIPT.image(size))
        assert {level: x.shape[1:] for level, x in found.items()} == {
            f"P{n}": (size[0] >> n, size[1] >> n, 256) for n in range(2, 6)
        }
        for level, value in expected.items():
            np.testing.assert_allclose(found[level], value, rtol=1e-3, atol=1e-3)


def test_a_kernel_is_resampled_as_in_timm_and_an_enlarged_patch_gives_the_same_token(reference, models, tmp_path):
    found = resample_kernel(reference["kernel"], 16)
    np.testing.assert_allclose(found, reference["resampled"], atol=1e-4)
    patch = np.random.default_rng(1).normal(0, 1, (3, 14, 14))
    enlarge = np.asarray(cubic_matrix(14, 16, antialias=True), np.float64)
    large = enlarge @ patch @ enlarge.T
    before, after = (np.einsum("ocij,cij->o", k, x) for k, x in ((reference["kernel"], patch), (found, large)))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)
    stem = "embeddings.patch_embeddings.projection.weight"
    values = {**drawn(reference, "transformers/dinov2"), stem: np.ones((SCRIPT.WIDTH, 3, 14, 14), np.float32)}
    save_file(values, tmp_path / "w.safetensors")
    load_pretrained(models["dinov2"], str(tmp_path / "w.safetensors"))
    kernel = models["dinov2"].get_layer("vit_embed_proj").kernel.numpy()
    np.testing.assert_allclose(kernel[..., 0, 0], resample_kernel(values[stem], 16)[0, 0], atol=1e-6)


def test_antialiasing_averages_and_four_taps_do_not():
    area = np.asarray(cubic_matrix(37, 8, antialias=True))
    assert (area != 0).sum(axis=1).min() >= 12 and ((np.asarray(cubic_matrix(37, 8)) != 0).sum(axis=1) <= 4).all()
    np.testing.assert_allclose(area.sum(axis=1), 1, atol=1e-6)
    for antialias in (False, True):  # a straight line stays one, but at the edges
        line = np.asarray(cubic_matrix(37, 16, antialias)) @ np.arange(37.0)
        np.testing.assert_allclose(np.diff(line)[3:-3], 37 / 16, rtol=0.05)


def test_names_of_the_authors_give_the_same(reference, models, tmp_path):
    """Their code joins query, key and value also in DINOv3, and names registers in its own way."""
    for name, registers in (("dinov2_reg", "register_tokens"), ("dinov3", "storage_tokens")):
        theirs = drawn(reference, f"timm/{name}")
        save_file(theirs, tmp_path / "timm.safetensors")
        load_pretrained(models[name], str(tmp_path / "timm.safetensors"))
        expected = models[name].get_weights()
        values = {(registers if key == "reg_token" else key): value for key, value in theirs.items()}
        values = {key.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma"): v for key, v in values.items()}
        values["mask_token"] = np.zeros((1, SCRIPT.WIDTH), np.float32)
        if name == "dinov2_reg":  # with a position of the class token
            values["pos_embed"] = np.pad(values["pos_embed"], ((0, 0), (1, 0), (0, 0)))
        else:
            zeros = {f"blocks.{i}.attn.qkv.bias": np.zeros(3 * SCRIPT.WIDTH, np.float32) for i in range(SCRIPT.DEPTH)}
            values |= {**zeros, "rope_embed.periods": np.zeros(2, np.float32)}
        save_file(values, tmp_path / "authors.safetensors")
        scramble(models[name])
        load_pretrained(models[name], str(tmp_path / "authors.safetensors"))
        pairs = zip(models[name].weights, expected, strict=True)
        assert all(np.array_equal(v, value) for v, value in pairs if not v.path.startswith("vit_pyramid"))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SCRIPT.PUBLISHED))
def test_published_names_and_shapes_of_timm_load(reference, name, tmp_path):
    shapes = SCRIPT.shapes_of(reference, name)
    rng = np.random.default_rng(0)
    values = {key: rng.normal(0, 0.02, shape).astype(np.float32) for key, shape in shapes.items()}
    save_file(values, tmp_path / "w.safetensors")
    model = build_encoder(name)
    load_pretrained(model, str(tmp_path / "w.safetensors"))
    alone = [v for v in model.weights if not v.path.startswith("vit_pyramid")]
    assert sum(int(np.prod(v.shape)) for v in alone) == parameters(DINO[name])
    last = values[f"blocks.{DINO[name].depth - 1}.mlp.fc2.weight"]
    assert np.array_equal(model.get_layer(f"vit_block{DINO[name].depth - 1}").fc2.kernel, last.T)
    assert np.isfinite(model(SCRIPT.image((64, 32)))["P2"]).all()


def parameters(sizes, bands=3, side=16):
    """Count the parameters of a DINO without the pyramid, from its definition."""
    c = sizes.width
    block = 12 * c * c + 9 * c + 4 * c + 2 * c - (c if sizes.grid is None else 0)  # DINOv3 has no bias of keys
    positions = 0 if sizes.grid is None else 1 + sizes.grid**2
    return side**2 * bands * c + c + (1 + sizes.registers + positions) * c + sizes.depth * block + 2 * c


def test_the_counts_are_those_that_are_published(reference, models):
    for name, model in models.items():
        alone = [v for v in model.weights if not v.path.startswith("vit_pyramid")]
        assert sum(int(np.prod(v.shape)) for v in alone) == parameters(THIN[name])
    for name in SCRIPT.PUBLISHED:
        sizes, count = DINO[name], sum(int(np.prod(s)) for s in SCRIPT.shapes_of(reference, name).values())
        # timm has no position of the class token with registers, and no biases of queries and values in DINOv3.
        without = {"dinov2": 0, "dinov2_reg": sizes.width, "dinov3": 2 * sizes.depth * sizes.width}
        side = 16 if sizes.grid is None else 14
        assert parameters(sizes, side=side) - without[name.rpartition("_")[0]] == count
    assert (parameters(DINO["dinov2_small"]), parameters(DINO["dinov3_small"])) == (22_125_312, 21_596_160)


def test_every_variable_belongs_to_a_level_and_one_family():
    levels = encoder_levels("segmenter", {"encoder": "dinov3_base"})
    assert levels[:3] == ["vit_embed", "vit_block0", "vit_block1"] and levels[-2:] == ["vit_block11", "vit_norm"]
    assert len(encoder_levels("segmenter", {"encoder": "dinov2_reg_large"})) == 26
    for variable in thin("dinov3", 2, "aux_1").weights:
        claims = [(family.title, family.locate(variable.path)[0]) for family in FAMILIES]
        alone = not variable.path.startswith("vit_pyramid_aux_1_")
        assert [claim for claim in claims if claim[1]] == [("ViT", "aux_1")] * alone
        assert any(variable.path.startswith(level) for level in levels) == alone


@pytest.mark.parametrize("name", [pytest.param("dinov2_reg", marks=pytest.mark.slow), "dinov3"])
def test_under_a_decoder_bands_take_colours_by_name_and_every_variable_a_gradient(
    reference, tmp_path, monkeypatch, name
):
    monkeypatch.setitem(DINO, f"{name}_small", THIN[name])
    tensors, kernel = drawn(reference, f"timm/{name}"), "patch_embed.proj.weight"
    check_under_decoder(
        f"{name}_small", "fpn", tensors, kernel, "vit_embed_aux_1_proj/kernel", tmp_path, ("/key/bias",)
    )


def test_a_dino_of_another_kind_is_named(reference, models, tmp_path):
    save_file(drawn(reference, "transformers/dinov3"), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"this network's ViT[\s\S]*embeddings\.position_embeddings: absent"):
        load_pretrained(models["dinov2"], str(tmp_path / "w.safetensors"))
    values = drawn(reference, "transformers/dinov2")
    del values["encoder.layer.1.layer_scale2.lambda1"]
    save_file(values, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"encoder\.layer\.1\.scale2: absent"):
        load_pretrained(models["dinov2"], str(tmp_path / "w.safetensors"))


def test_rotated_attention_sees_differences_of_positions_only():
    """Queries and keys that are the same everywhere give scores that depend on the difference of positions."""
    layer, like = RotaryAttention(heads=1), np.zeros((1, 1, 8, 1), np.float32)
    x = np.ones((1, 9, 8), np.float32)
    layer.build([x.shape, like.shape])
    scramble(layer)
    kernel = np.eye(8, dtype=np.float32)
    layer.value.kernel.assign(kernel)
    layer.out.kernel.assign(kernel)
    weights = []
    for i in range(9):  # the value of one token marks its weight; query and key see no difference
        marked = np.ones((1, 9, 8), np.float32)
        marked[0, i, 0] = 2
        layer.query.kernel.assign(np.zeros((8, 8)))
        layer.key.kernel.assign(np.concatenate([np.zeros((1, 8)), np.ones((7, 8))]))
        weights.append(np.asarray(layer([marked, like]))[0, :, 0])
    scores = np.log(np.stack(weights, 1) - np.asarray(layer([x, like]))[0, :, :1])  # (query, key), but for a constant
    scores = scores[1:, 1:] - scores[1:, :1]  # without the class token, and against the first key
    first = scores[0] - scores[0, 0]
    # The sum of rotated products is even in the difference of positions only if query and key are parallel.
    assert not np.allclose(scores[1], first, atol=1e-3)
    for shift in (1, 2):
        assert scores[shift, shift:] - scores[shift, shift] == pytest.approx(first[: 8 - shift], abs=2e-3)


def test_tokens_and_scales_do_not_decay(models):
    from marsls_keras.training.optimizer import _may_decay

    decaying = {v.path.split("/", 1)[1] for v in models["dinov3"].trainable_variables if _may_decay(v)}
    assert decaying == {
        "kernel",
        *(f"attention/{name}/kernel" for name in ("query", "key", "value", "out")),
        "intermediate/kernel",
        "output/kernel",
    }


@pytest.mark.parametrize(
    "make,said",
    [
        (lambda: PrefixedTokens(-1), "must not be negative. Received: -1"),
        (lambda: PositionedTokens(2, registers=-1), "must not be negative. Received: -1"),
        (lambda: RotaryAttention(0), "at least 1. Received: 0"),
        (lambda: RotaryAttention(2).build([(None, 5, 12), (None, 2, 2, 1)]), "divisible by 4 times 2 heads. .*: 12"),
        (lambda: build_encoder("dinov3_small", grid=3), "dinov3_small has no grid. It has: drop_path"),
    ],
)
def test_what_cannot_be_built_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
