"""SegFormer, MMSFormer, TransUNet and Swin-Unet: logits equal to PyTorch's, and parameter counts."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers.model_case import thin_mit
from helpers.references import REFERENCES, script
from helpers.torch_weights import assign
from helpers.weights import parameters

from marsls_keras.errors import InputError
from marsls_keras.models import build_model, require_size

SCRIPT = script("transformer_baselines_torch")


@pytest.fixture(scope="module", autouse=True)
def mit_thin():
    with thin_mit():
        yield


def mit_rules(prefix, group=""):
    """Return the rules of a MiT of transformers; a prefix of names, and the group of bands with its underscore."""
    stage, block = rf"stage(\d){group}", rf"stage(\d){group}_block(\d+)"
    blocks = {
        "attention_norm": "layernorm_before",
        "ffn_norm": "layernorm_after",
        "attention/query": "attention.q_proj",
        "attention/key": "attention.k_proj",
        "attention/value": "attention.v_proj",
        "attention/out": "attention.o_proj",
        "attention/reduce": "attention.sequence_reduction.sequence_reduction",
        "attention/norm": "attention.sequence_reduction.layer_norm",
        "ffn1": "mlp.fc1",
        "ffn2": "mlp.fc2",
        "ffn_depthwise": "mlp.dwconv.dwconv",
    }
    return [
        (rf"{stage}_embed_proj/(\w+)", rf"{prefix}stages.\1.patch_embeddings.proj.\2"),
        (rf"{stage}_embed_norm/(\w+)", rf"{prefix}stages.\1.patch_embeddings.layer_norm.\2"),
        (rf"{stage}_final_norm/(\w+)", rf"{prefix}stages.\1.layer_norm.\2"),
        *((rf"{block}/{ours}/(\w+)", rf"{prefix}stages.\1.blocks.\2.{theirs}.\3") for ours, theirs in blocks.items()),
    ]


def swin_rules(ours, theirs):
    block = rf"{ours}(\d)_block(\d)"
    return [
        (rf"{block}/attention/(qkv|proj)/(\w+)", rf"{theirs}.\1.\2.attn.\3.\4"),
        (rf"{block}/attention/(relative_position_bias_table)", rf"{theirs}.\1.\2.attn.\3"),
        (rf"{block}/(fc[12])/(\w+)", rf"{theirs}.\1.\2.mlp.\3.\4"),
        (rf"{block}/(norm[12])/(\w+)", rf"{theirs}.\1.\2.\3.\4"),
    ]


RULES = {
    "segformer": [
        *mit_rules("segformer."),
        (r"decoder_project(\d)/(\w+)", r"decode_head.linear_projections.\1.proj.\2"),
        (r"decoder_fuse_conv/(\w+)", r"decode_head.linear_fuse.\1"),
        (r"decoder_fuse_bn/(\w+)", r"decode_head.batch_norm.\1"),
        (r"decoder_logits/(\w+)", r"decode_head.classifier.\1"),
    ],
    "mmsformer": [
        *mit_rules("encoders.rgb.", "_rgb"),
        *mit_rules("encoders.aux.", "_aux"),
        (r"fusion_(P\d)_(\w+)/(\w+)", r"fusions.\1.\2.\3"),
        (r"decoder_project(\d)/(\w+)", r"projections.\1.\2"),
        (r"decoder_(fuse_\w+)/(\w+)", r"\1.\2"),
        (r"decoder_logits/(\w+)", r"logits.\1"),
    ],
    "trans_unet": [
        (r"(stem_\w+|embed_proj|token_norm|logits)/(\w+)", r"\1.\2"),
        (r"stage(\d)_unit(\d)_(\w+)/(\w+)", r"stages.\1.\2.\3.\4"),
        (r"embed_positions/positions_bias", "positions"),
        (r"token_block(\d)/attention/(\w+)/(\w+)", r"token_blocks.\1.attention.\2.\3"),
        (r"token_block(\d)/(\w+)/(\w+)", r"token_blocks.\1.\2.\3"),
        (r"decoder_p4_conv/(\w+)", r"p4.0.\1"),
        (r"decoder_p4_bn/(\w+)", r"p4.1.\1"),
        *(
            (rf"decoder_p{level}_{k}_{part}/(\w+)", rf"up.{3 - level}.{k - 1}.{i}.\1")
            for level in range(4)
            for k in (1, 2)
            for i, part in enumerate(("conv", "bn"))
        ),
    ],
    "swin_unet": [
        (r"swin_(embed_\w+)/(\w+)", r"\1.\2"),
        (r"(bottom_norm|decode_norm|logits)/(\w+)", r"\1.\2"),
        *swin_rules("swin_stage", "stages"),
        *swin_rules("decode", "decodes"),
        *((rf"swin_stage{i}_merge/(\w+)/(\w+)", rf"merges.{i - 1}.\1.\2") for i in (1, 2, 3)),
        (r"decode(\d)_expand/(\w+)/(\w+)", r"expands.\1.\2.\3"),
        (r"decode(\d)_join/(\w+)", r"joins.\1.\2"),
        (r"final_expand/(\w+)/(\w+)", r"final_expand.\1.\2"),
    ],
}
OPTIONS = {
    "segformer": {"encoder": "mit_thin", "decoder_channels": 16},
    "mmsformer": {"encoders": {"rgb": "mit_thin", "aux": "mit_thin"}, "decoder_channels": 16},
    "trans_unet": {**SCRIPT.TRANS_UNET, "decoder_channels": SCRIPT.DECODER},
    "swin_unet": {**SCRIPT.SWIN_UNET, "tile_size": SCRIPT.SIZES["swin_unet"][0]},
}


@pytest.mark.parametrize("name", list(RULES))
def test_the_logits_are_those_of_pytorch(name):
    with np.load(REFERENCES / "transformer_baselines.npz") as reference:
        names, shapes = reference[f"{name}/names"].tolist(), reference[f"{name}/shapes"]
        expected = reference[f"{name}/logits"]
    drawn = SCRIPT.tensors({key: tuple(shape[shape > 0].tolist()) for key, shape in zip(names, shapes, strict=True)})
    if name == "segformer":  # its decoder has the coarsest map first
        kernel = drawn["decode_head.linear_fuse.weight"]
        drawn["decode_head.linear_fuse.weight"] = np.concatenate(np.split(kernel, 4, axis=1)[::-1], axis=1)
    assert keras.backend.backend() == os.environ.get("KERAS_BACKEND", "tensorflow")
    model = build_model(name, bands=7, **OPTIONS[name])
    assign(model, drawn, RULES[name])
    x = SCRIPT.image(SCRIPT.SIZES[name])
    if name == "segformer":  # transformers leaves the logits at stride 4
        model = keras.Model(model.input, model.get_layer("decoder_logits").output)
    found = np.asarray(model(x))
    assert expected.std() > 0.05
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_jax_computes_the_same():
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", __file__, "-k", "logits_are_those_of_pytorch"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout[-3000:]


def mit_parameters(depths, widths, bands):
    """Count the parameters of a MiT, layer by layer."""
    total, last = 0, bands
    for depth, c, kernel, reduction in zip(depths, widths, (7, 3, 3, 3), (8, 4, 2, 1), strict=True):
        attention = 4 * (c * c + c) + (reduction**2 * c * c + c + 2 * c) * (reduction > 1)
        total += kernel**2 * last * c + c + 2 * c + depth * (attention + 8 * c * c + 49 * c) + 2 * c
        last = c
    return total


def mlp_parameters(widths, c):
    return sum(w * c + c for w in widths) + 4 * c * c + 2 * c + c + 1


WIDE = (64, 128, 320, 512)
B2, B1 = (3, 4, 6, 3), (2, 2, 2, 2)


def test_segformer_has_the_parameters_of_transformers():
    """The figures are those of SegformerForSemanticSegmentation with seven channels and one label."""
    published = {
        (B1, (32, 64, 160, 256), 256): 3_720_673,
        (B1, WIDE, 256): 13_690_049,
        (B2, WIDE, 768): 27_359_937,
        ((3, 4, 18, 3), WIDE, 768): 47_235_777,
        ((3, 8, 27, 3), WIDE, 768): 64_006_337,
        ((3, 6, 40, 3), WIDE, 768): 84_606_657,
    }
    for (depths, widths, channels), number in published.items():
        assert mit_parameters(depths, widths, 7) + mlp_parameters(widths, channels) == number
    assert parameters(build_model("segformer", 7).trainable_variables) == 3_720_673


@pytest.mark.slow
@pytest.mark.parametrize(
    "encoder,number",
    [
        ("mit_b1", 13_690_049),
        ("mit_b2", 27_359_937),
        ("mit_b3", 47_235_777),
        ("mit_b4", 64_006_337),
        ("mit_b5", 84_606_657),
    ],
)
def test_the_larger_segformers_have_the_parameters_of_transformers(encoder, number):
    assert parameters(build_model("segformer", 7, encoder=encoder).trainable_variables) == number


def fusion_parameters(c):
    """Count the parameters of MMSFormer's fusion of two maps."""
    mix = 3 * (c * c + c) + (9 + 25 + 49) * c + 3 * c + 2 * c
    return 2 * c * c + c + mix + 2 * c * max(1, c // 16)


def test_mmsformer_has_the_parameters_of_its_parts():
    total = mit_parameters(B2, WIDE, 3) + mit_parameters(B1, WIDE, 4)
    total += sum(map(fusion_parameters, WIDE)) + mlp_parameters(WIDE, 512)
    assert total == 40_994_753
    with np.load(REFERENCES / "transformer_baselines.npz") as reference:  # the same of the thin network in PyTorch
        shapes = reference["mmsformer/shapes"]
    thin = (8, 16, 20, 32)
    counted = sum(mit_parameters((1, 1, 1, 1), thin, n) for n in (3, 4)) + sum(map(fusion_parameters, thin))
    statistics = 2 * (sum(thin) + 16)
    assert sum(int(np.prod(s[s > 0])) for s in shapes) == counted + mlp_parameters(thin, 16) + statistics


@pytest.mark.slow
@pytest.mark.parametrize(
    "name,options,number",
    [
        ("mmsformer", {}, 40_994_753),
        ("trans_unet", {}, 105_187_089),
        ("trans_unet", {"bands": 3, "grid": 14}, 105_275_921),  # 105.28 million are published
        ("swin_unet", {}, 27_173_220),
        ("swin_unet", {"bands": 3, "window": 7, "tile_size": 224}, 27_168_132),  # 27.17 million are published
        ("swin_fpn", {}, 30_255_227),
    ],
)
def test_the_networks_have_the_parameters_that_their_docstrings_state(name, options, number):
    assert parameters(build_model(name, **options).trainable_variables) == number


@pytest.mark.parametrize(
    "name,options,said",
    [
        ("segformer", {"encoder": "swin_tiny"}, "encoder must be one of mit_b0"),
        (
            "mmsformer",
            {"encoders": {"rgb": "mit_b0"}},
            "encoders needs one of mit_b0, .* for each of the groups rgb, aux",
        ),
        ("mmsformer", {"encoders": {"rgb": "mit_b0", "aux": "mit_b1"}}, "encoders must have maps of the same channels"),
        ("mmsformer", {"dropout": 1.0}, "dropout=1.0"),
        ("mmsformer", {"groups": {"rgb": ["red"]}}, "groups leaves out input bands"),
        ("trans_unet", {"heads": 5}, "heads that divide embed_dim"),
        ("trans_unet", {"units": [1, 1]}, "three numbers of units"),
        ("trans_unet", {"dropout": 1.0}, "dropout=1.0"),
        ("swin_unet", {"depths": [2, 2]}, "depths and heads of 4 stages"),
        ("swin_unet", {"tile_size": 48}, "tile_size must be divisible by 32"),
    ],
)
def test_options_out_of_range_are_refused(name, options, said):
    with pytest.raises(InputError, match=said):
        build_model(name, 7, **options)


def test_trans_unet_takes_multiples_of_16():
    require_size("trans_unet", {}, 16, 48)
    with pytest.raises(InputError, match="trans_unet needs height and width divisible by 16"):
        require_size("trans_unet", {}, 24, 48)
