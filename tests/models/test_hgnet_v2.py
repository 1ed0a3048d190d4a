"""HGNetV2: maps equal to those of timm, counts, names of checkpoints, sizes and levels."""

import numpy as np
import pytest
from helpers.model_case import check_under_decoder
from helpers.references import REFERENCES, script
from safetensors.numpy import save_file

from marsls_keras.errors import InputError
from marsls_keras.models import encoder_levels, load_pretrained
from marsls_keras.models.encoders import build_encoder
from marsls_keras.models.encoders.hgnet_v2 import HGNET_V2
from marsls_keras.models.pyramid import LEVELS
from marsls_keras.models.weights import FAMILIES

B0 = "hgnetv2_b0"
SCRIPT = script("timm_torch")
# An offset in front of a 1 x 1 convolution, which a normalisation with the batch's statistics takes away.
OFFSETS = tuple(f"{name}_lab/beta" for name in ("stem3", "layer2", "conv2", "aggregation0"))


@pytest.fixture(scope="module")
def reference():
    return np.load(REFERENCES / "hgnet_v2.npz")


def drawn(reference, name):
    """Return the tensors of the reference under timm's names, with classifier."""
    return {**SCRIPT.tensors(SCRIPT.shapes_of(reference, name)), "head.fc.weight": np.zeros((5, 4), np.float32)}


def loaded(reference, name, folder):
    save_file(drawn(reference, name), folder / "w.safetensors")
    model = build_encoder(name)
    load_pretrained(model, str(folder / "w.safetensors"))
    return model


@pytest.fixture(scope="module")
def b0(reference, tmp_path_factory):
    return loaded(reference, B0, tmp_path_factory.mktemp("hgnet"))


def check_maps(reference, name, model):
    for size in SCRIPT.HGNET_SIZES:
        maps = model(SCRIPT.image(size))
        for level in LEVELS:
            expected = reference[f"{name}/{size[0]}/{level}"]
            assert expected.std() > 0.02
            found = np.asarray(maps[level])[..., :: SCRIPT.PART]
            np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_maps_are_those_of_timm(reference, b0):
    check_maps(reference, B0, b0)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in HGNET_V2 if name != B0])
def test_maps_of_the_others_are_those_of_timm(reference, name, tmp_path):
    check_maps(reference, name, loaded(reference, name, tmp_path))


def parameters(sizes, bands=3):
    """Count the parameters of an HGNetV2 with its moving statistics, from its definition, without the classifier."""

    def conv(inputs, outputs, kernel, relu=True):
        return kernel**2 * inputs * outputs + 4 * outputs + 2 * (relu and sizes.affine)

    within, width = sizes.stem
    total = conv(bands, within, 3) + conv(within, within // 2, 2) + conv(within // 2, within, 2)
    total += conv(2 * within, within, 3) + conv(within, width, 1)
    for i, (inner, outer) in enumerate(zip(sizes.inner, sizes.outer, strict=True)):
        total += conv(1, width, 3, False) if i else 0
        for _ in range(sizes.blocks if i == 2 else 1):
            joined = width
            for k in range(sizes.depth):
                into = inner if k else width
                light = conv(into, inner, 1, False) + conv(1, inner, 5)
                total += light if i > 1 else conv(into, inner, 3)
                joined += inner
            total += conv(joined, outer // 2, 1) + conv(outer // 2, outer, 1)
            width = outer
    return total


def test_the_counts_are_those_of_timm(reference, b0):
    assert b0.count_params() == parameters(HGNET_V2[B0]) == 1_862_668
    for name, sizes in HGNET_V2.items():
        stored = sum(int(np.prod(shape)) for shape in SCRIPT.shapes_of(reference, name).values())
        assert parameters(sizes) == stored
    # Of timm's networks with 1,000 classes: a last convolution to 2048 without normalisation, and the classifier.
    head = {name: 2048 * sizes.outer[-1] + 2048 * 1000 + 1000 for name, sizes in HGNET_V2.items()}
    trainable = {name: parameters(sizes) - statistics(reference, name) for name, sizes in HGNET_V2.items()}
    published = dict(zip(HGNET_V2, (5_996_550, 6_343_158, 11_221_356, 16_292_216, 19_796_680), strict=True))
    found = {name: trainable[name] + head[name] + 2 * sizes.affine for name, sizes in HGNET_V2.items()}
    assert found == published


def statistics(reference, name):
    shapes = SCRIPT.shapes_of(reference, name)
    return sum(shape[0] for key, shape in shapes.items() if "running_" in key)


@pytest.mark.parametrize("size", [(36, 50), (4, 4), (1, 7)])
def test_images_of_any_size_give_a_pyramid(b0, size):
    maps = b0(SCRIPT.image(size))
    for n, level in enumerate(("P1", *LEVELS), 1):
        assert maps[level].shape[1:3] == tuple(-(-side // 2**n) for side in size) and np.isfinite(maps[level]).all()


def test_every_variable_belongs_to_a_level_and_one_family():
    levels = encoder_levels("segmenter", {"encoder": "hgnetv2_b3"})
    assert levels == ["hgnet_stem", *(f"hgnet_stage{i}" for i in range(4))]
    for variable in build_encoder(B0, 2, "aux_1").weights:
        assert sum(variable.path.startswith(level) for level in levels) == 1
        claims = [(family.title, family.locate(variable.path)[0]) for family in FAMILIES]
        assert [claim for claim in claims if claim[1]] == [("HGNetV2", "aux_1")]


def test_under_a_decoder_bands_take_colours_by_name_and_every_variable_a_gradient(reference, tmp_path):
    stem = "hgnet_stem_aux_1_stem1_conv/kernel"
    kernel = "stem.stem1.conv.weight"
    check_under_decoder(B0, "fpn", drawn(reference, B0), kernel, stem, tmp_path, OFFSETS, drop_path=None)


def test_what_does_not_fit_is_named(reference, tmp_path):
    values = {**drawn(reference, B0), "stages.2.blocks.2.layers.0.conv1.bn.bias": np.zeros(64, np.float32)}
    del values["stages.3.blocks.0.aggregation.1.lab.scale"]
    save_file(values, tmp_path / "w.safetensors")
    absent = r"stages\.3\.blocks\.0\.aggregation\.1\.lab\.scale: absent"
    with pytest.raises(InputError, match=rf"this network's HGNetV2 [\s\S]*{absent}[\s\S]*stages\.2\.blocks\.2\.layers"):
        load_pretrained(build_encoder(B0), str(tmp_path / "w.safetensors"))
