"""Weight averaging: values of the averages, batch-normalisation statistics, and restored variables afterwards."""

import keras
import numpy as np
import pytest
from keras import layers

from marsls_keras.config import Training
from marsls_keras.models import build_model
from marsls_keras.training.optimizer import build_optimizer
from marsls_keras.training.weight_averaging import WeightMean, averaged_weights, preserved, recalibrate


@pytest.fixture
def policy():
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


def values(variables) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(v).copy() for v in variables]


def same(variables, expected) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(values(variables), expected, strict=True))


def network() -> keras.Model:
    """Build a small network with batch normalisation and dropout, every variable drawn at random."""
    steps = [layers.BatchNormalization(momentum=0.9, name="first"), layers.Conv2D(3, 1, name="point")]
    steps += [
        layers.BatchNormalization(name="second"),
        layers.Dropout(0.5),
        layers.Conv2D(1, 1, name="logits", dtype="float32"),
    ]
    model = keras.Sequential([keras.Input((None, None, 2)), *steps])
    rng = np.random.default_rng(3)
    for variable in model.weights:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


def batches(number: int = 3, sizes: tuple[int, ...] = (2, 2, 2)) -> list[tuple]:
    rng = np.random.default_rng(4)
    return [(rng.normal(i, 1 + i, (sizes[i], 4, 4, 2)).astype(np.float32), None, None) for i in range(number)]


@pytest.mark.parametrize("precision", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_averaged_weights_are_lent_and_returned(policy, precision):
    policy(precision)  # mixed_float16 wraps the optimiser for the scaling of the loss
    model = build_model("unet", bands=2, base_filters=2, depth=1)
    model.compile(build_optimizer(Training(ema_decay=0.9), 2), "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(1)
    averages = [v for v in model.optimizer.variables if v.path.endswith("average")]
    for variable in [*model.variables, *averages]:
        variable.assign(rng.uniform(0.5, 1, variable.shape))
    before, statistics, mean = (
        values(model.trainable_variables),
        values(model.non_trainable_variables),
        values(averages),
    )
    assert len(mean) == len(before) and not any(np.array_equal(a, b) for a, b in zip(mean, before, strict=True))
    with averaged_weights(model):
        assert same(model.trainable_variables, mean) and same(model.non_trainable_variables, statistics)
    assert same(model.trainable_variables, before) and same(averages, mean)
    with pytest.raises(KeyError), averaged_weights(model):
        raise KeyError("stopped within")
    assert same(model.trainable_variables, before)


def test_the_mean_is_that_of_the_weights_that_were_added():
    model, mean, rng = network(), WeightMean(), np.random.default_rng(0)
    added = []
    for _ in range(3):
        for variable in model.trainable_variables:
            variable.assign(rng.normal(0, 1, variable.shape))
        added.append(values(model.trainable_variables))
        mean.add(model)
    own = values(model.variables)
    with mean.lent(model, batches()):
        for variable, parts in zip(model.trainable_variables, zip(*added, strict=True), strict=True):
            assert keras.ops.convert_to_numpy(variable) == pytest.approx(
                np.mean(np.float64(parts), 0), rel=1e-5, abs=1e-6
            )
        assert not same(
            [model.get_layer("first").moving_mean, model.get_layer("second").moving_variance], own[2:3] + own[-1:]
        )
    assert mean.count == 3 and same(model.variables, own)


@pytest.mark.parametrize(
    "sizes", [(2, 2, 2), (4, 4, 1)]
)  # each image has the same share, whatever the size of its batch
@pytest.mark.parametrize("precision,tolerance", [("float32", 1e-5), ("mixed_bfloat16", 0.02)])
def test_statistics_are_the_mean_of_those_of_the_batches(policy, precision, tolerance, sizes):
    policy(precision)
    model = network()
    weights = values(model.trainable_variables)
    gamma, beta, kernel, bias = (np.float64(w) for w in weights[:4])
    first, second = [], []
    uneven = batches(sizes=sizes)
    for image, *_ in uneven:
        x = image.astype(np.float64)
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        first.append((mean, variance))
        y = ((x - mean) / np.sqrt(variance + 1e-3) * gamma + beta) @ kernel[0, 0] + bias
        second.append((y.mean((0, 1, 2)), y.var((0, 1, 2))))
    recalibrate(model, uneven)
    for name, expected in (("first", first), ("second", second)):
        layer = model.get_layer(name)
        found = values([layer.moving_mean, layer.moving_variance])
        assert np.array(found) == pytest.approx(np.average(expected, 0, sizes), rel=tolerance, abs=tolerance)
    assert same(model.trainable_variables, weights)
    assert (model.get_layer("first").momentum, model.get_layer("second").momentum) == (0.9, 0.99)


def test_the_momentum_comes_back_when_batches_fail():
    model = network()

    def broken():
        yield from batches(2)
        raise KeyError("no more")

    with pytest.raises(KeyError):
        recalibrate(model, broken())
    assert model.get_layer("first").momentum == 0.9


def test_without_batch_normalisation_no_batch_is_read():
    model = keras.Sequential([keras.Input((4, 4, 2)), layers.Conv2D(1, 1), layers.LayerNormalization()])
    recalibrate(model, (1 / 0 for _ in range(1)))


def test_random_layers_go_on_where_they_were():
    model = network()
    (seed,) = [v for v in model.variables if "seed" in v.path]
    before = values([seed])
    with preserved(model):
        recalibrate(model, batches())
        assert not same([seed], before)
    assert same([seed], before)
