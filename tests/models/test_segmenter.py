"""Segmenter: encoders with decoders, parameter counts, groups, gradients, sizes, and learning rates of the encoder."""

import keras
import numpy as np
import pytest
from helpers.model_case import gradients, images
from helpers.weights import silent

from marsls_keras.config import parse_config
from marsls_keras.errors import InputError
from marsls_keras.models import build_model, encoder_levels, require_size
from marsls_keras.models.decoders import DECODERS
from marsls_keras.training.optimizer import build_optimizer

BANDS = ("red", "green", "blue", "dem", "slope", "thermal", "gray")


def unet_parameters(channels, bands, widths):
    """Count all and trainable parameters of the decoder unet on maps of 320, 112, 40, 24 and 16 channels."""

    def conv(inputs, outputs, kernel):
        return inputs * outputs * kernel**2 + 2 * outputs

    total, last = conv(320, channels, 1), channels
    for skip, width in zip((112, 40, 24, 16, 12), widths, strict=True):
        total, last = total + conv(last + skip, width, 9**0.5 // 1) + conv(width, width, 3), width
    return int(total + conv(bands, 12, 3) + conv(12, 12, 3) + last + 1)


def test_the_default_has_3_4_million_parameters():
    model = build_model("segmenter", BANDS)
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    encoder = 2_958_848 + 4 * 9 * 32  # of EfficientNet-Lite0, and four more bands at its stem
    assert trainable == encoder + unet_parameters(128, 7, (96, 48, 32, 24, 16)) == 3_426_981
    assert model.count_params() == 3_467_605


@pytest.mark.parametrize("decoder", [d if d == "fpn" else pytest.param(d, marks=pytest.mark.slow) for d in DECODERS])
def test_every_decoder_gives_logits_of_the_images_size_and_every_variable_a_gradient(decoder):
    keras.utils.set_random_seed(1)  # with some draws the few units of a squeeze are dead
    model = build_model("segmenter", BANDS[:4], decoder=decoder, decoder_channels=16)
    x = images(64, 96, bands=4)
    y = model(x)
    assert y.shape == (2, 64, 96, 1) and y.dtype == "float32"
    assert silent(model.trainable_variables, gradients(model, x)) == []


def test_unet_over_an_encoder_without_p1_has_no_skip_at_stride_2():
    tiny = {"embed_dim": 4, "depths": [1, 1, 1, 1], "heads": [1, 1, 2, 2]}
    model = build_model("segmenter", BANDS[:3], encoder="swin_v2_tiny", encoder_options=tiny, decoder_channels=16)
    names = {layer.name for layer in model.layers}
    assert "decoder_p2_skip" in names and "decoder_p1_skip" not in names
    assert model(np.zeros((1, 64, 64, 3), np.float32)).shape == (1, 64, 64, 1)


def test_groups_have_encoders_of_their_own_and_are_fused_at_every_level_with_p1():
    groups = {"rgb": ["red", "green", "blue"], "aux": ["gray", "dem"]}
    model = build_model("segmenter", BANDS[:4] + ("gray",), groups=groups, decoder_channels=16)
    assert {f"fusion_P{n}_conv" for n in range(1, 6)} <= {layer.name for layer in model.layers}
    with pytest.raises(InputError, match="leaves out input bands: slope"):
        build_model("segmenter", BANDS[:5], groups={"a": list(BANDS[:4])})


def test_sizes_are_multiples_of_32():
    with pytest.raises(InputError, match="segmenter needs height and width divisible by 32"):
        require_size("segmenter", {}, 48, 64)


def test_the_encoder_learns_at_its_own_rate():
    """The first step of Adam moves each variable by its learning rate, in the direction of the gradient's sign."""
    config = parse_config(
        {
            "training": {
                "learning_rate": 1e-2,
                "encoder_learning_rate": 2e-3,
                "schedule": {"name": "constant"},
                "warmup_epochs": 0,
            }
        },
        "test",
    ).training.model_copy(update={"weight_decay": 0.0, "ema_decay": None})
    levels = encoder_levels("segmenter", {})
    assert levels == ["stem", *(f"stage{i}" for i in range(7))]
    encoder, decoder = (
        keras.Variable(np.ones(3, np.float32), name=name) for name in ("stage3_kernel", "decoder_kernel")
    )
    others = [keras.Variable(np.ones(1, np.float32), name=f"{level}_x") for level in levels]
    optimizer = build_optimizer(config, 10, levels)
    variables = [encoder, decoder, *others]
    optimizer.build(variables)
    optimizer.apply_gradients([(np.ones(v.shape, np.float32), v) for v in variables])
    np.testing.assert_allclose(1 - decoder.numpy(), 1e-2, rtol=1e-3)
    np.testing.assert_allclose(1 - encoder.numpy(), 2e-3, rtol=1e-3)
    copy = type(optimizer).from_config(optimizer.get_config())
    assert copy.encoder_factor == pytest.approx(0.2)


def test_an_encoders_rate_without_an_encoder_is_refused():
    config = parse_config({"training": {"encoder_learning_rate": 1e-4}}, "test").training
    with pytest.raises(InputError, match="training.encoder_learning_rate is 0.0001, but the network has no encoder"):
        build_optimizer(config, 10, [])


def test_images_of_several_sizes_are_predicted_one_after_the_other():
    """From the second size on, Keras traces a graph whose sizes are unknown."""
    model = build_model("segmenter", 3, decoder="unet", decoder_channels=8)
    for side in (64, 96, 128):
        assert model.predict_on_batch(np.zeros((1, side, 64, 3), np.float32)).shape == (1, side, 64, 1)
