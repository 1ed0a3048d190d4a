"""ResNet: maps of bottlenecks equal to PyTorch's, dilation, names of weights, parts of a checkpoint, and options."""

import keras
import numpy as np
import pytest
from helpers.model_case import images
from helpers.references import REFERENCES, script
from safetensors.numpy import save_file

from marsls_keras.errors import InputError
from marsls_keras.models import build_model, encoder_levels, load_pretrained
from marsls_keras.models.encoders import build_encoder
from marsls_keras.models.weights import FAMILIES

SCRIPT = script("baselines_torch")
THIN = {"width": SCRIPT.WIDTH}


@pytest.fixture(scope="module")
def reference():
    return np.load(REFERENCES / "baselines.npz")


def tensors(reference, name):
    """Return the tensors of the reference's encoder under torchvision's names, with a classifier."""
    found = SCRIPT.tensors(SCRIPT.shapes_of(reference, name))
    encoder = {key.removeprefix("encoder."): value for key, value in found.items() if key.startswith("encoder.")}
    return {**(encoder or found), "fc.weight": np.zeros((5, 4), np.float32)}


@pytest.fixture(scope="module")
def dilated(reference, tmp_path_factory):
    """Return a narrow ResNet-50 of output stride 16 with the weights of the reference."""
    path = tmp_path_factory.mktemp("resnet") / "w.safetensors"
    save_file(tensors(reference, "resnet50"), path)
    model = build_encoder("resnet50", 7, output_stride=16, **THIN)
    load_pretrained(model, str(path))
    return model


def test_maps_of_a_dilated_resnet50_are_those_of_pytorch(reference, dilated):
    maps = dilated(SCRIPT.image((64, 64)))
    assert [tuple(x.shape[1:3]) for x in maps.values()] == [(32, 32), (16, 16), (8, 8), (4, 4), (4, 4)]
    for level in ("P1", "P2", "P5"):
        expected = reference[f"resnet50/{level}"]
        np.testing.assert_allclose(maps[level], expected, atol=1e-4 * np.abs(expected).max())


def test_every_variable_belongs_to_one_level_and_one_family(dilated):
    levels = encoder_levels("segmenter", {"encoder": "resnet50"})
    assert levels == ["resnet_stem", *(f"resnet_stage{i}" for i in range(4))]
    for variable in dilated.weights:
        assert sum(variable.path.startswith(level) for level in levels) == 1
        assert [family.title for family in FAMILIES if family.locate(variable.path)[1]] == ["ResNet"]


# What torchvision and timm publish, with 1000 classes: 11,689,512; 21,797,672; 25,557,032; 44,549,160 trained ones.
@pytest.mark.parametrize(
    "name,published,last",
    [
        ("resnet18", 11_689_512, 512),
        pytest.param("resnet34", 21_797_672, 512, marks=pytest.mark.slow),
        pytest.param("resnet50", 25_557_032, 2048, marks=pytest.mark.slow),
        pytest.param("resnet101", 44_549_160, 2048, marks=pytest.mark.slow),
    ],
)
def test_the_counts_are_those_that_are_published(name, published, last):
    model = build_encoder(name)
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == published - 1000 * (last + 1)


def test_a_group_of_bands_takes_the_colours_by_name(reference, tmp_path):
    values = tensors(reference, "unet_plus_plus")
    values["conv1.weight"] = values["conv1.weight"][:, :3].copy()
    save_file(values, tmp_path / "w.safetensors")
    model = build_encoder("resnet18", 4, "aux_1", **THIN)
    load_pretrained(model, str(tmp_path / "w.safetensors"), {"aux_1": ["dem", "blue", "red", "slope"]})
    published = values["conv1.weight"].transpose(2, 3, 1, 0)
    mean = published.mean(2)
    kernel = next(v for v in model.weights if v.path == "resnet_stem_aux_1_conv1/kernel")
    expected = np.stack([mean, published[:, :, 2], published[:, :, 0], mean], 2) * 0.75
    np.testing.assert_allclose(kernel.numpy(), expected, rtol=1e-5, atol=1e-8)


def test_a_network_that_lacks_the_last_stages_takes_the_others_from_a_whole_checkpoint(reference, tmp_path):
    values = tensors(reference, "unet_plus_plus")
    save_file(values, tmp_path / "w.safetensors")
    options = {"encoder": "resnet18", "encoder_options": THIN, "decoder_channels": 8}
    model = build_model("pspnet", 7, **options)
    load_pretrained(model, str(tmp_path / "w.safetensors"))
    paths = {v.path: v for v in model.weights}
    assert not any(path.startswith(("resnet_stage2", "resnet_stage3")) for path in paths)
    found = paths["resnet_stage1_block1_conv2/kernel"].numpy()
    np.testing.assert_array_equal(found, values["layer2.1.conv2.weight"].transpose(2, 3, 1, 0))
    values["layer2.2.conv1.weight"] = values["layer2.1.conv1.weight"].copy()  # as in ResNet-34
    save_file(values, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"layer2\.2\.conv1\.weight: \(16, 16, 3, 3\) in the file, unknown"):
        load_pretrained(model, str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize(
    "encoder,level,last,left",
    [
        ("resnet34", "P3", "resnet_stage1", 3),
        ("efficientnet_lite0", "P4", "stage4", 6),
        ("swin_v2_tiny", "P2", "stage0", 2),
        ("vit_small", "P2", "vit_norm", 14),
        ("keras_resnet50", "P5", "stage3", 4),
    ],
)
def test_the_levels_of_pspnet_end_at_its_map(encoder, level, last, left):
    levels = encoder_levels("pspnet", {"encoder": encoder, "level": level})
    assert levels[-1] == last and len(levels) == left


@pytest.mark.parametrize("size", [(36, 50), (4, 4), (1, 7)])
def test_images_of_any_size_give_a_pyramid(dilated, size):
    maps = dilated(SCRIPT.image(size))
    for level, stride in zip(("P1", "P2", "P3", "P4", "P5"), (2, 4, 8, 16, 16), strict=True):
        assert maps[level].shape[1:3] == tuple(-(-side // stride) for side in size) and np.isfinite(maps[level]).all()


@pytest.mark.parametrize(
    "name,options,said",
    [
        ("deeplab_v3", {"encoder_options": {"output_stride": 4}}, "8, 16 or 32. Received: width=64, output_stride=4"),
        ("segmenter", {"encoder_options": {"output_stride": 8}}, "decoder unet doubles .* leave out output_stride"),
        ("segmenter", {"encoder_options": {"depth": 3}}, "resnet18 has no depth. It has: width, output_stride"),
        ("unet_plus_plus", {"encoder_options": {"output_stride": 8}}, "unet_plus_plus doubles .* leave out"),
        ("unet_plus_plus", {"decoder_channels": 8}, "decoder_channels of at least 16 .* Received: bands=3"),
        ("pspnet", {"level": "P6"}, "level must be one of P2, P3, P4, P5"),
        ("deeplab_v3", {"rates": [1, 2, 3], "encoder_options": THIN}, r"at least 2. Received: \[1, 2, 3\]"),
        ("deeplab_v3_plus", {"dropout": 1.0}, "Received: bands=3, decoder_channels=256, dropout=1.0"),
    ],
)
def test_what_cannot_be_built_is_refused(name, options, said):
    with pytest.raises(InputError, match=said):
        build_model(name, 3, encoder="resnet18", **options)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["mit_b0", "convnext_v2_atto", "swin_v2_tiny", "efficientnet_lite0"])
def test_baselines_take_encoders_of_other_families(encoder):
    for name in ("unet_plus_plus", "pspnet", "deeplab_v3", "deeplab_v3_plus"):
        model = build_model(name, encoder=encoder, encoder_options={}, decoder_channels=16)
        assert model(images(64, 96)).shape == (2, 64, 96, 1)
        assert keras.Model.from_config(model.get_config()).count_params() == model.count_params()
