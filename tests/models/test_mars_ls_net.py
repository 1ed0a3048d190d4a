"""MarsLS-Net: the nine parameter counts of the paper, its ablations and recipes.

What holds for every network is tested in test_every_network.py.
"""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.weights import parameters, scramble

from marsls_keras.bands.names import BANDS, expand_bands
from marsls_keras.config import load_config
from marsls_keras.errors import InputError
from marsls_keras.layers import PenAttention, ProgressiveExpansion, SpatialAttention
from marsls_keras.losses import build_loss
from marsls_keras.models import build_model, encoder_levels, require_size
from marsls_keras.models.mars_ls_net import SIZES, mars_ls_net
from marsls_keras.training.optimizer import build_optimizer

TINY = {"filters": 3, "kernel_size": 3, "levels": 2}
TABLE_3 = {
    **{"s3": 47_553, "s4": 77_009, "s5": 114_881, "m3": 176_977, "m4": 293_233, "m5": 442_705},
    **{"l3": 388_321, "l4": 648_721, "l5": 983_521},
}
PUBLISHED = {
    "s3": 0.0476,
    "s4": 0.0770,
    "s5": 0.1149,
    "m3": 0.1770,
    "m4": 0.2932,
    "m5": 0.4427,
    "l3": 0.3883,
    "l4": 0.6487,
    "l5": 0.9835,
}


@pytest.fixture
def policy():
    """Sets a precision for one test."""
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


def images(bands=7, size=(16, 12), number=2, seed=0):
    return np.random.default_rng(seed).normal(0, 1, (number, *size, bands)).astype(np.float32)


@pytest.mark.parametrize("size", TABLE_3)
def test_parameters_are_those_of_table_3(size):
    (filters, k), count = SIZES[size], build_model("mars_ls_net", size=size).count_params()
    assert count == TABLE_3[size] == k**2 * (16 * filters**2 + 7 * filters) + 16 * filters**2 + 346 * filters + 49
    assert round(count / 1e6, 4) == PUBLISHED[size]


def test_there_are_nine_sizes_and_the_largest_is_the_default():
    assert SIZES.keys() == TABLE_3.keys()
    assert mars_ls_net.__kwdefaults__["size"] == "l5" and f"{TABLE_3['l5']:,}" in mars_ls_net.__doc__


@pytest.mark.parametrize("bands,filters,k,levels,terms,conv_pe,mhsa", [
    (7, 16, 3, 4, 2, True, True),
    (3, 4, 5, 1, 3, True, True),
    (1, 2, 4, 3, 1, True, True),
    (7, 4, 3, 2, 2, False, True),
    (7, 4, 3, 2, 2, True, False),
    (7, 4, 3, 2, 1, True, False),
    (7, 4, 3, 2, 2, False, False),
])  # fmt: skip
def test_parameters_of_the_ablations_part_by_part(bands, filters, k, levels, terms, conv_pe, mhsa):
    context = 2 * terms * filters if conv_pe else filters
    branches = 2 * (k * k * filters * filters + filters + 4 * filters) if conv_pe else 0
    attention = 3 * (4 * context + 4) + 4 * context + context if mhsa else 0
    rest = (context + 1) * filters + (2 * k * k * filters + 1) * filters + 4 * filters + 2 * filters
    expected = (k * k * bands + 1) * filters + levels * (branches + attention + rest) + filters + 1
    options = {
        "filters": filters,
        "kernel_size": k,
        "levels": levels,
        "expansion_terms": terms,
        "conv_pe": conv_pe,
        "mhsa": mhsa,
    }
    model = build_model("mars_ls_net", bands, **options)
    assert model.count_params() == expected
    assert parameters(model.trainable_variables) == expected - levels * 2 * filters * (
        1 + 2 * conv_pe
    )  # two moving statistics a map
    assert build_model("mars_ls_net", bands, attention="pooled", **options).count_params() == expected


def test_options_reach_the_blocks():
    model = build_model("mars_ls_net", filters=4, kernel_size=5, levels=3, expansion_terms=3, l2=0.5)
    blocks = [layer for layer in model.layers if isinstance(layer, PenAttention)]
    assert [block.layout for block in blocks] == ["rows", "columns", "rows"]
    assert {(b.filters, b.kernel_size, b.expansion_terms, b.l2) for b in blocks} == {(4, 5, 3, 0.5)}
    pooled = build_model("mars_ls_net", attention="pooled", **TINY)
    assert [layer.layout for layer in pooled.layers if isinstance(layer, PenAttention)] == ["pooled", "pooled"]
    without = [build_model("mars_ls_net", **{option: False}, **TINY) for option in ("conv_pe", "mhsa")]
    parts = [{type(part) for part in model._flatten_layers()} for model in without]
    assert [ProgressiveExpansion in kinds for kinds in parts] == [False, True]
    assert [SpatialAttention in kinds for kinds in parts] == [True, False]


def test_pooled_attention_needs_a_size_divisible_by_four():
    options = {"attention": "pooled", **TINY}
    require_size("mars_ls_net", options, 12, 20)
    assert build_model("mars_ls_net", **options)(images(size=(12, 20))).shape == (2, 12, 20, 1)
    with pytest.raises(
        InputError, match="mars_ls_net needs height and width divisible by 4; the tiles or windows are 12 x 18"
    ):
        require_size("mars_ls_net", options, 12, 18)
    require_size("mars_ls_net", {"mhsa": False, **options}, 12, 18)
    assert encoder_levels("mars_ls_net", {}) == []


@pytest.mark.parametrize(
    "options",
    [
        {"attention": "axial"},
        {"attention": "pooled"},
        {"conv_pe": False},
        {"mhsa": False},
        {"expansion_terms": 1, "mhsa": False},
    ],
)
def test_a_gradient_reaches_every_trainable_variable(options):
    keras.utils.set_random_seed(0)
    model = build_model("mars_ls_net", **{"filters": 4, "kernel_size": 3, "levels": 2, **options})
    truth = np.random.default_rng(2).integers(0, 2, (4, 16, 12, 1))
    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        loss = build_loss({"bce": 1})(truth, model(images(number=4), training=True))
    largest = {}
    for variable, gradient in zip(variables, tape.gradient(loss, [v.value for v in variables]), strict=True):
        assert gradient is not None and np.isfinite(gradient).all(), variable.path
        largest[variable.path] = float(np.abs(gradient).max())
    # A batch normalisation takes away the mean, and with it the bias of the convolution before it; the L2 term reaches
    # no bias.
    dead = ("branches/bias", "merge/bias")
    assert all(value > 1e-7 for path, value in largest.items() if not path.endswith(dead)), largest
    assert all(value < 1e-6 for path, value in largest.items() if path.endswith(dead)), largest


def test_training_on_one_batch_lowers_the_loss_that_the_squares_are_part_of():
    keras.utils.set_random_seed(0)
    model, x = build_model("mars_ls_net", filters=4, kernel_size=3, levels=1, l2=1e-2), images(number=4)
    truth = (x[..., :1] > 0).astype(np.float32)
    model.compile(optimizer=keras.optimizers.Adam(0.02), loss=build_loss({"bce": 1}), run_eagerly=True)
    kernels = [layer.branches.kernel.numpy() for layer in model.layers if isinstance(layer, PenAttention)]
    expected = float(build_loss({"bce": 1})(truth, model(x, training=True))) + 1e-2 * sum(
        float((k**2).sum()) for k in kernels
    )
    losses = [float(model.train_on_batch(x, truth)) for _ in range(4)]
    assert losses[0] == pytest.approx(expected, rel=1e-4) and losses[-1] < losses[0]


def test_a_saved_model_comes_back_with_its_options(tmp_path):
    options = {"filters": 3, "kernel_size": 4, "levels": 2, "expansion_terms": 3, "attention": "pooled", "l2": 0.25}
    model = scramble(build_model("mars_ls_net", bands=5, **options))
    model.save(tmp_path / "a.keras")
    again = keras.models.load_model(tmp_path / "a.keras")
    assert keras.Model.from_config(model.get_config()).get_config() == model.get_config()
    assert [(v.path, v.shape) for v in again.weights] == [(v.path, v.shape) for v in model.weights]
    assert np.array_equal(again(images(5)), model(images(5)))
    assert [float(loss) for loss in again.losses] == [float(loss) for loss in model.losses] and len(model.losses) == 2


@pytest.mark.parametrize("name", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("attention", ["pooled"])  # axial is in test_every_network.py
def test_logits_are_float32_under_mixed_precision(policy, name, attention):
    options = {"filters": 4, "kernel_size": 3, "levels": 2, "attention": attention}
    keras.utils.set_random_seed(0)
    exact = build_model("mars_ls_net", **options)
    policy(name)
    model = build_model("mars_ls_net", **options)
    model.set_weights(exact.get_weights())
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    assert model.get_layer("level0").compute_dtype == name.removeprefix("mixed_")
    logits, expected = model(images(), training=True), exact(images(), training=True).numpy()
    assert logits.dtype == tf.float32 and model.output.dtype == "float32"
    assert not np.array_equal(logits, tf.cast(tf.cast(logits, name.removeprefix("mixed_")), "float32"))
    error = np.abs(logits.numpy() - expected)
    assert 0 < error.max() and np.sqrt(np.mean(error**2)) < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize(
    "options,message",
    [
        ({"size": "xl3"}, "has the sizes s3, s4, s5, .*, l5. Received: size='xl3'"),
        ({"size": "s6"}, "Received: size='s6'"),
        ({"attention": "full"}, "axial or pooled. Received: attention='full'"),
        ({"filters": 0}, "at least 1 .*filters=0"),
        ({"filters": 8.0}, "whole numbers .*filters=8.0"),
        ({"filters": True}, "whole numbers .*filters=True"),
        ({"kernel_size": -3}, "kernel_size=-3"),
        ({"levels": 0}, "levels=0"),
        ({"expansion_terms": 0}, "expansion_terms=0"),
        ({"l2": -1e-4}, "l2 of at least 0.*l2=-0.0001"),
        ({"l2": float("nan")}, "l2=nan"),
        ({"bands": 0}, "bands=0"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        mars_ls_net(**options)
    with pytest.raises(InputError, match="^model.options: "):
        build_model("mars_ls_net", **options)


@pytest.mark.parametrize("recipe,size,epochs", [("mars_ls_net", "l5", 100), ("mars_ls_net_s3", "s3", 60)])
def test_recipes_train_as_the_paper(recipe, size, epochs):
    _, config = load_config(recipe)
    training = config.training
    assert (
        build_model(
            config.model.name, len(expand_bands(config.data.bands, BANDS)), **config.model.options
        ).count_params()
        == TABLE_3[size]
    )
    assert config.loss == {"bce": 1.0} and (training.batch_size, training.epochs, training.optimizer) == (
        16,
        epochs,
        "adam",
    )
    assert (training.ema_decay, training.swa_epochs, training.weight_decay, training.patience) == (None, 0, 0, None)
    chances = config.augmentation.model_dump(exclude={"custom"})
    assert not any(section["probability"] if isinstance(section, dict) else section for section in chances.values())
    optimizer = build_optimizer(training, steps_per_epoch=18)
    rates = [float(optimizer._learning_rate(step)) for step in (0, 17, 18, 18 * 50, 18 * 99)]
    assert rates == pytest.approx(
        [1e-3, 1e-3, 1e-3 * np.exp(-0.01), 1e-3 * np.exp(-0.5), 1e-3 * np.exp(-0.99)], rel=1e-5
    )


JAX = """
import sys
import keras, numpy as np
from marsls_keras.losses import build_loss
from marsls_keras.models import build_model
assert keras.backend.backend() == "jax"
x = np.load(sys.argv[1] + "/x.npy")
models = {}
for attention in ("axial", "pooled"):
    models[attention] = build_model("mars_ls_net", filters=3, kernel_size=3, levels=2, attention=attention)
    models[attention].load_weights(sys.argv[1] + "/a.weights.h5")
    models[attention].compile(optimizer=keras.optimizers.SGD(0.1), loss=build_loss({"bce": 1}))
logits = models["pooled"].predict_on_batch(x)
losses = [float(models["axial"].train_on_batch(x, x[..., :1] > 0)) for _ in range(2)]
np.savez(sys.argv[1] + "/out.npz", logits=logits, losses=losses)
"""


@pytest.mark.slow
def test_jax_computes_and_trains_the_same(tmp_path):
    x = images()
    np.save(tmp_path / "x.npy", x)
    model = scramble(build_model("mars_ls_net", **TINY))
    model.save_weights(tmp_path / "a.weights.h5")
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    result = subprocess.run([sys.executable, "-c", JAX, str(tmp_path)], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    pooled = build_model("mars_ls_net", attention="pooled", **TINY)
    pooled.load_weights(tmp_path / "a.weights.h5")
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=build_loss({"bce": 1}), jit_compile=False)
    losses = [float(model.train_on_batch(x, (x[..., :1] > 0).astype(np.float32))) for _ in range(2)]
    with np.load(tmp_path / "out.npz") as there:
        assert there["logits"] == pytest.approx(pooled(x).numpy(), rel=1e-3, abs=1e-4)
        assert there["losses"] == pytest.approx(losses, rel=1e-4)
