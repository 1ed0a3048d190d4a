"""Plain vision transformers: maps equal to those of transformers, counts, checkpoints, the pyramid and precision."""

import keras
import numpy as np
import pytest
from helpers.model_case import check_under_decoder
from helpers.references import REFERENCES, script
from safetensors.numpy import save_file

from marsls_keras.errors import InputError
from marsls_keras.layers import PositionedTokens
from marsls_keras.models import load_pretrained, registry
from marsls_keras.models.encoders import ENCODERS, build_encoder
from marsls_keras.models.encoders.vit import VIT, vit
from marsls_keras.models.networks import VIT_LEVELS
from marsls_keras.models.pyramid import pyramid_model
from marsls_keras.models.weights import FAMILIES

SCRIPT = script("transformers_torch")


@pytest.fixture(scope="module")
def reference():
    return np.load(REFERENCES / "vit.npz")


@pytest.fixture(scope="module")
def tensors(reference):
    """Return the tensors of the reference under the names of a masked autoencoder."""
    drawn = {f"vit.{name}": value for name, value in SCRIPT.tensors(SCRIPT.shapes_of(reference, "thin")).items()}
    extra = {
        "decoder.decoder_embed.weight": (8, 32),
        "decoder.mask_token": (1, 1, 8),
        "decoder.decoder_pos_embed": (1, 17, 8),
    }
    return {**drawn, **{name: np.zeros(shape, np.float32) for name, shape in extra.items()}}


def thin(bands=3, group="", **options):
    """Build a transformer that is smaller than the published ones."""
    x = keras.Input((None, None, bands))
    VIT["thin"] = (2, 32, 4)
    try:
        return pyramid_model(x, vit("thin", x, group, grid=4, **options), "thin")
    finally:
        del VIT["thin"]


@pytest.fixture(scope="module")
def model(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("vit") / "w.safetensors"
    save_file(tensors, path)
    made = thin()
    load_pretrained(made, str(path))
    return made


@pytest.mark.parametrize("size", SCRIPT.VIT_SIZES)
def test_the_last_map_is_that_of_transformers_with_positions_interpolated(reference, model, size):
    expected = reference[f"thin/{size[0]}x{size[1]}"]
    found = keras.Model(model.input, model.get_layer("vit_map").output)(SCRIPT.image(size))
    assert np.abs(expected).mean() > 0.5
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-4 * np.abs(expected).max())


def test_sizes_that_a_graph_does_not_know_give_the_same(reference, model):
    import tensorflow as tf

    last = keras.Model(model.input, model.get_layer("vit_map").output)
    compiled = tf.function(lambda x: last(x), input_signature=[tf.TensorSpec((None, None, None, 3))])
    for size in SCRIPT.VIT_SIZES:
        np.testing.assert_allclose(compiled(SCRIPT.image(size)), reference[f"thin/{size[0]}x{size[1]}"], atol=5e-4)


def test_the_pyramid_has_256_channels_at_every_stride(model):
    for size in ((32, 64), (64, 96)):
        maps = model(SCRIPT.image(size))
        assert {level: values.shape[1:] for level, values in maps.items()} == {
            f"P{n}": (size[0] >> n, size[1] >> n, 256) for n in range(2, 6)
        }


def test_the_names_of_a_classifier_are_read_as_well(tensors, model, tmp_path):
    values = {name: value for name, value in tensors.items() if not name.startswith("decoder.")}
    zeros = {"vit.pooler.dense.bias": 32, "classifier.bias": 5, "vit.embeddings.mask_token": 32}
    save_file({**values, **{name: np.zeros(n, np.float32) for name, n in zeros.items()}}, tmp_path / "a.safetensors")
    save_file({name.removeprefix("vit."): value for name, value in values.items()}, tmp_path / "b.safetensors")
    wanted = {v.path: v.numpy() for v in model.weights if not v.path.startswith("vit_pyramid")}
    for file in ("a.safetensors", "b.safetensors"):
        other = thin()
        load_pretrained(other, str(tmp_path / file))
        assert all(np.array_equal(v.numpy(), wanted[v.path]) for v in other.weights if v.path in wanted)


def as_timm(tensors, depth):
    """Rename the tensors to the names of timm and of MAE's code, in which query, key and value are joined."""
    bare = {name.removeprefix("vit."): value for name, value in tensors.items()}
    pairs = {
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "norm": "layernorm",
        **{
            f"blocks.{i}.{there}": f"encoder.layer.{i}.{here}"
            for i in range(depth)
            for there, here in {
                "norm1": "layernorm_before",
                "attn.proj": "attention.output.dense",
                "norm2": "layernorm_after",
                "mlp.fc1": "intermediate.dense",
                "mlp.fc2": "output.dense",
            }.items()
        },
    }
    values = {f"{there}.{part}": bare[f"{here}.{part}"] for there, here in pairs.items() for part in ("weight", "bias")}
    values |= {"cls_token": bare["embeddings.cls_token"], "pos_embed": bare["embeddings.position_embeddings"]}
    for i in range(depth):
        for part in ("weight", "bias"):
            qkv = [bare[f"encoder.layer.{i}.attention.attention.{name}.{part}"] for name in ("query", "key", "value")]
            values[f"blocks.{i}.attn.qkv.{part}"] = np.concatenate(qkv)
    return values


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "encoder."])
def test_the_names_of_timm_and_of_mae_are_read_as_well(tensors, model, tmp_path, prefix):
    """Read checkpoints as of MOMO (`Mirali33/MOMO`), by MAE's code with a decoder, and of timm, with a classifier."""
    values = as_timm(tensors, 2)
    save_file({f"{prefix}{name}": value for name, value in values.items()}, tmp_path / "encoder.safetensors")
    extra = {
        "decoder_embed.weight": (8, 32),
        "mask_token": (1, 1, 8),
        "decoder_pos_embed": (1, 17, 8),
        "decoder_pred.bias": (768,),
    }
    extra |= {
        "decoder_blocks.0.attn.qkv.bias": (24,),
        "decoder_norm.bias": (8,),
        "head.weight": (5, 32),
        "fc_norm.weight": (32,),
    }
    whole = values | {name: np.zeros(shape, np.float32) for name, shape in extra.items()}
    save_file(
        {f"{prefix.replace('encoder.', '')}{name}": value for name, value in whole.items()},
        tmp_path / "whole.safetensors",
    )
    wanted = {v.path: v.numpy() for v in model.weights if not v.path.startswith("vit_pyramid")}
    for file in ("encoder.safetensors", "whole.safetensors"):
        other = thin()
        load_pretrained(other, str(tmp_path / file))
        assert all(np.array_equal(v.numpy(), wanted[v.path]) for v in other.weights if v.path in wanted)


def test_names_are_those_that_timm_and_transformers_write(tensors, model, tmp_path):
    """Compare with names and shapes of networks of the same size that these packages built."""
    stored, dino = np.load(REFERENCES / "dino.npz"), script("dino_torch")
    assert (dino.DEPTH, dino.WIDTH, dino.HEADS, dino.GRID) == (2, 32, 4, 4)
    shapes = dino.shapes_of(stored, "timm/vit")
    ours = {name: value.shape for name, value in as_timm(tensors, 2).items()}
    assert ours == {name: shape for name, shape in shapes.items() if not name.startswith("head.")}
    for source in ("timm/vit", "transformers/vit_mae"):
        values = dino.tensors(dino.shapes_of(stored, source))
        save_file(values, tmp_path / "w.safetensors")
        other = thin()
        load_pretrained(other, str(tmp_path / "w.safetensors"))
        last = {
            "timm/vit": "blocks.1.mlp.fc2.weight",
            "transformers/vit_mae": "vit.encoder.layer.1.output.dense.weight",
        }
        assert np.array_equal(other.get_layer("vit_block1").fc2.kernel, values[last[source]].T)


def test_names_of_timm_that_do_not_fit_are_named(tensors, tmp_path):
    values = as_timm(tensors, 2)
    del values["blocks.1.attn.qkv.bias"]
    save_file({**values, "blocks.2.norm1.bias": np.zeros(32, np.float32)}, tmp_path / "w.safetensors")
    with pytest.raises(
        InputError,
        match=r"layer\.1\.attention\.attention\.query\.bias: absent[\s\S]*layer\.2\.layernorm_before\.bias: \(32,\)",
    ):
        load_pretrained(thin(), str(tmp_path / "w.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_small", "vit_base"])
def test_published_sizes_load_under_both_names(name, tmp_path):
    """Load random weights with names and shapes of `jfang/mars-vit-base-ctx2m` (transformers) and of MOMO (timm)."""
    depth, width, _ = VIT[name]
    rng = np.random.default_rng(0)
    shapes = {
        "embeddings.cls_token": (1, 1, width),
        "embeddings.position_embeddings": (1, 197, width),
        "embeddings.patch_embeddings.projection.weight": (width, 3, 16, 16),
        "embeddings.patch_embeddings.projection.bias": (width,),
        "layernorm.weight": (width,),
        "layernorm.bias": (width,),
    }
    for i in range(depth):
        layer = f"encoder.layer.{i}"
        for part in ("query", "key", "value"):
            shapes[f"{layer}.attention.attention.{part}.weight"] = (width, width)
            shapes[f"{layer}.attention.attention.{part}.bias"] = (width,)
        for part, (out, into) in {
            "attention.output.dense": (width, width),
            "intermediate.dense": (4 * width, width),
            "output.dense": (width, 4 * width),
        }.items():
            shapes |= {f"{layer}.{part}.weight": (out, into), f"{layer}.{part}.bias": (out,)}
        shapes |= {
            f"{layer}.layernorm_{where}.{part}": (width,)
            for where in ("before", "after")
            for part in ("weight", "bias")
        }
    values = {key: rng.normal(0, 0.02, shape).astype(np.float32) for key, shape in shapes.items()}
    assert sum(value.size for value in values.values()) == parameters(depth, width)
    model = build_encoder(name, 3)
    pooler = {
        "pooler.dense.weight": np.zeros((width, width), np.float32),
        "pooler.dense.bias": np.zeros(width, np.float32),
    }
    found = []
    for file, content in (("transformers", values | pooler), ("timm", as_timm(values, depth))):
        save_file(content, tmp_path / f"{file}.safetensors")
        load_pretrained(model, str(tmp_path / f"{file}.safetensors"))
        found.append({v.path: v.numpy() for v in model.weights})
    assert all(np.array_equal(found[0][path], found[1][path]) for path in found[0])
    last = values[f"encoder.layer.{depth - 1}.output.dense.weight"]
    assert np.array_equal(found[1][f"vit_block{depth - 1}/output/kernel"], last.T)


def parameters(depth, width, bands=3, grid=14):
    """Count the parameters of the transformer without the pyramid, from its definition."""
    block = 4 * (width * width + width) + 8 * width * width + 5 * width + 4 * width
    return 256 * bands * width + width + (grid**2 + 2) * width + depth * block + 2 * width


def of_transformer(model):
    return sum(int(np.prod(v.shape)) for v in model.weights if not v.path.startswith("vit_pyramid"))


def test_the_counts_are_those_that_are_published(model):
    assert of_transformer(model) == parameters(2, 32, grid=4)
    # Of timm's networks with 1,000 classes, and without their classifier.
    published = {"vit_small": 22_050_664, "vit_base": 86_567_656, "vit_large": 304_326_632}
    assert {
        name: parameters(depth, width) + width * 1000 + 1000 for name, (depth, width, _) in VIT.items()
    } == published
    assert {name: len(levels) - 2 for name, levels in VIT_LEVELS.items() if name in VIT} == {
        name: depth for name, (depth, _, _) in VIT.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_small", "vit_base"])
def test_every_one_at_full_size(name):
    model = build_encoder(name, 7, grid=16)
    assert of_transformer(model) == parameters(*VIT[name][:2], bands=7, grid=16)


def test_levels_hold_the_transformer_and_not_the_pyramid(model):
    levels = ENCODERS["vit_small"].levels
    assert levels[:3] == ("vit_embed", "vit_block0", "vit_block1") and levels[-2:] == ("vit_block11", "vit_norm")
    for variable in thin(2, "aux_1").weights:
        claims = [
            (family.title, family.locate(variable.path)[0]) for family in FAMILIES if family.locate(variable.path)[1]
        ]
        alone = not variable.path.startswith("vit_pyramid_aux_1_")
        assert claims == [("ViT", "aux_1")] * alone
        assert any(variable.path.startswith(level) for level in levels) == alone


def test_under_a_decoder_bands_take_colours_by_name_and_every_variable_a_gradient(tensors, tmp_path, monkeypatch):
    monkeypatch.setitem(VIT, "vit_small", (2, 32, 4))
    kernel = "vit.embeddings.patch_embeddings.projection.weight"
    check_under_decoder(
        "vit_small", "fpn", tensors, kernel, "vit_embed_aux_1_proj/kernel", tmp_path, ("/key/bias",), grid=4
    )


def test_a_checkpoint_of_gray_pictures_answers_to_gray_as_it_did(tensors, tmp_path):
    stem = "vit.embeddings.patch_embeddings.projection.weight"
    gray = {**tensors, stem: np.ascontiguousarray(tensors[stem][:, :1])}
    save_file(gray, tmp_path / "w.safetensors")
    model = thin(5)
    load_pretrained(model, str(tmp_path / "w.safetensors"))
    x = np.random.default_rng(0).normal(0, 1, (1, 16, 16, 1)).astype(np.float32)
    expected = np.einsum("ochw,bhwc->bo", gray[stem], x) + tensors["vit.embeddings.patch_embeddings.projection.bias"]
    found = model.get_layer("vit_embed_proj")(np.repeat(x, 5, -1))
    np.testing.assert_allclose(np.asarray(found)[:, 0, 0], expected, atol=1e-4)


def test_another_grid_is_named(tensors, tmp_path):
    name = "vit.embeddings.position_embeddings"
    save_file({**tensors, name: np.zeros((1, 26, 32), np.float32)}, tmp_path / "w.safetensors")
    with pytest.raises(
        InputError,
        match=r"this network's ViT[\s\S]*embeddings\.position_embeddings: \(1, 26, 32\) in the file does not fit",
    ):
        load_pretrained(thin(), str(tmp_path / "w.safetensors"))


def test_tokens_and_positions_do_not_decay():
    from marsls_keras.training.optimizer import _may_decay

    layer = PositionedTokens(2)
    layer.build((None, 2, 2, 4))
    assert [_may_decay(v) for v in layer.weights] == [False, False]


@pytest.mark.parametrize(
    "options,said",
    [({"grid": 0}, "grid of at least 1. Received: 0"), ({"depth": 3}, "has no depth. It has: grid, drop_path")],
)
def test_what_cannot_be_built_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        build_encoder("vit_small", **options)


def test_the_registry_knows_the_levels():
    assert registry.encoder_levels("segmenter", {"encoder": "vit_large"}) == list(ENCODERS["vit_large"].levels)
