"""L2 penalty of the weights: its value and gradient, several heads, and the configuration."""

import keras
import numpy as np
import pytest
from helpers.model_case import images

from marsls_keras.config import parse_config
from marsls_keras.data.fingerprint import fingerprint
from marsls_keras.data.load_folder import load_folder
from marsls_keras.data.normalization import Normalizer
from marsls_keras.data.splits import make_splits
from marsls_keras.losses import build_loss
from marsls_keras.models import build_model
from marsls_keras.runs.run import Run
from marsls_keras.training.attempt import Attempt
from marsls_keras.training.fold_data import FoldData
from marsls_keras.training.recovery import Recovery
from marsls_keras.training.weight_penalty import penalise_weights

FACTOR = 0.25


def squares(model):
    return sum(float(np.sum(np.square(v.numpy(), dtype=np.float64))) for v in model.trainable_variables)


@pytest.mark.parametrize(
    "name,options",
    [("unet", {"base_filters": 2, "depth": 1}), ("rmau_net", {"filters": 2, "poolings": 1, "tile_size": 16})],
)
def test_the_loss_grows_by_half_of_the_factor_times_the_sum_of_squares(name, options):
    model = build_model(name, **options)
    x, truth = images(16, 16), (images(16, 16, bands=1) > 0).astype(np.float32)
    model.compile(loss=build_loss({"bce": 1.0}), jit_compile=False)
    logits = model(x)
    plain = float(model.compute_loss(x, truth, logits))
    penalise_weights(model, FACTOR)
    assert float(model.compute_loss(x, truth, logits)) - plain == pytest.approx(FACTOR / 2 * squares(model), rel=1e-4)


def test_a_step_of_plain_descent_shrinks_a_weight_without_another_gradient_by_the_rate_times_the_factor():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])
    penalise_weights(model, FACTOR)
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False, run_eagerly=True)
    model.train_on_batch(np.zeros((1, 2), np.float32), np.zeros((1, 1), np.float32))
    assert model.layers[0].kernel.numpy() == pytest.approx(1 - 0.1 * FACTOR)


def test_weights_with_a_penalty_of_their_own_keep_it_and_0_adds_none():
    model = build_model("mars_ls_net", filters=2, kernel_size=3, levels=1, l2=1e-3)
    before = {v.path: v.regularizer for v in model.trainable_variables}
    own = [path for path, regularizer in before.items() if regularizer]
    penalise_weights(model, 0.0)
    assert {v.path: v.regularizer for v in model.trainable_variables} == before and own
    penalise_weights(model, FACTOR)
    for variable in model.trainable_variables:
        kept = before[variable.path]
        assert variable.regularizer is kept if kept else float(variable.regularizer.l2) == FACTOR / 2


def test_training_reads_the_key(data_root, tmp_path):
    config = parse_config(
        {
            "model": {"options": {"base_filters": 2, "depth": 1}},
            "data": {"folds": 2},
            "training": {"l2_penalty": FACTOR, "weight_decay": 0.0, "batch_size": 4},
        },
        "test",
    )
    root = data_root()
    tiles = load_folder(root, config.data)
    run = Run.create(tmp_path / "run", config, make_splits(tiles, config.data, 0), fingerprint(tiles, root), False)
    normalizer = Normalizer.fit(tiles.images, config.data, tiles.bands, tiles.valid)
    model = Attempt(FoldData(run, 0, tiles, tiles, normalizer), Recovery(4, 1), None, 1, None, None).build()
    assert float(sum(model.losses)) == pytest.approx(FACTOR / 2 * squares(model), rel=1e-5)
