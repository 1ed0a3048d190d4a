"""A network of one weight with known scores, and functions that train it."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from marsls_keras.config import Augmentation, Training
from marsls_keras.counts import confusion
from marsls_keras.data.pipeline.batches import TrainingBatches, evaluation_batches
from marsls_keras.losses import build_loss
from marsls_keras.metrics import SegmentationCounts
from marsls_keras.training.callbacks.best_checkpoint import BestCheckpoint
from marsls_keras.training.optimizer import build_optimizer

# Logits are kernel · x + bias with x uniform in [-1, 1] and the mask x > 0, so the bias sets the score: 0 is perfect.
IMAGES = np.random.default_rng(0).uniform(-1, 1, (3, 8, 8, 1)).astype(np.float32)


MASKS = (IMAGES[..., 0] > 0).astype(np.uint8)
PERFECT, GOOD, FAIR, BAD = (2.0, 0.0), (1.0, 0.2), (1.0, 0.5), (-1.0, 0.0)
ABOVE, BELOW = (1.0, 0.4), (1.0, -0.4)  # their mean is perfect


def miou(weights: tuple[float, float]) -> float:
    kernel, bias = np.float32(weights)
    return confusion(MASKS, kernel * IMAGES[..., 0] + bias >= 0).scores()["miou"]


def compiled(model: keras.Model, config: Training) -> tuple[keras.Model, SegmentationCounts]:
    metric = SegmentationCounts()
    model.compile(build_optimizer(config, 2), build_loss({"bce": 1.0}), weighted_metrics=[metric], jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model, metric


def pointwise() -> keras.Model:
    return keras.Sequential([keras.Input((None, None, 1)), layers.Conv2D(1, 1, name="point")], name="pointwise")


def training_batches(epochs: int) -> TrainingBatches:
    options = {
        "augmentation": Augmentation(preset="none"),
        "bands": ("gray",),
        "units": np.ones(1, np.float32),
        "seed": 0,
    }
    return TrainingBatches(IMAGES, MASKS, batch_size=2, epochs=epochs, **options)


def training(**settings) -> Training:
    return Training(**{"epochs": 6, "warmup_epochs": 0, "learning_rate": 0.1, "ema_decay": None} | settings)


def keeper(folder: Path, config: Training, model: keras.Model | None = None) -> BestCheckpoint:
    model, metric = compiled(model or pointwise(), config)
    keep = BestCheckpoint(
        evaluation_batches(IMAGES, MASKS, batch_size=2), metric, folder, config, training_batches(config.epochs)
    )
    keep.set_model(model)
    return keep


def averages(model: keras.Model) -> list:
    return [v for v in model.optimizer.variables if v.path.endswith("average")]


def own(model: keras.Model) -> tuple[float, float]:
    return tuple(float(w.ravel()[0]) for w in model.get_weights())


def epoch(
    keep: BestCheckpoint, number: int, last: tuple[float, float], average: tuple[float, float] | None = None
) -> dict:
    """End an epoch with the given weights of the model and the given moving average of the optimiser."""
    keep.model.set_weights([np.full((1, 1, 1, 1), last[0]), np.array([last[1]])])
    for variable, value in zip(averages(keep.model), average or (), strict=True):
        variable.assign(np.full(variable.shape, value))
    logs = {"loss": 0.3}
    keep.on_epoch_end(number, logs)
    assert own(keep.model) == pytest.approx(last, nan_ok=True)
    return logs


def saved(keep: BestCheckpoint) -> tuple[float, float]:
    model = pointwise()
    model.load_weights(keep.folder / keep.best["file"])
    return own(model)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def tiny_fit(folder: Path, dropout: float = 0.0, watched: bool = True) -> dict:
    """Train a network with normalisation and dropout, a moving average, accumulation and a mean of the last epochs."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(5)
    steps = [
        layers.Conv2D(2, 1, use_bias=False, name="in"),
        layers.BatchNormalization(momentum=0.8),
        layers.Dropout(dropout, seed=2),
    ]
    model = keras.Sequential([keras.Input((8, 8, 1)), *steps, layers.Conv2D(1, 1)])
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 1, variable.shape))
    config = training(
        epochs=4, swa_epochs=2, ema_decay=0.9, ema_warmup=True, accumulate=2, clip_norm=0.5, layer_decay=0.5
    )
    metric, batches = SegmentationCounts(), training_batches(4)
    model.compile(
        build_optimizer(config, batches.steps_per_epoch, ["sequential/in"]),
        build_loss({"bce": 1.0}),
        weighted_metrics=[metric],
        jit_compile=keras.backend.backend() == "jax",
    )
    model.optimizer.build(model.trainable_variables)
    keep = BestCheckpoint(evaluation_batches(IMAGES, MASKS, batch_size=2), metric, folder, config, batches)
    ends = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: ends.append([w.tolist() for w in model.get_weights()])
    )
    history = model.fit(
        batches.dataset(),
        epochs=4,
        steps_per_epoch=batches.steps_per_epoch,
        verbose=0,
        shuffle=False,
        callbacks=[keep] * watched + [note],
    ).history
    best, end = [], [w.tolist() for w in model.get_weights()]
    if watched:
        keras.saving.load_weights(model, folder / keep.best["file"], objects_to_skip=[model.optimizer])
        best = [w.tolist() for w in model.get_weights()]
        assert keep.best["miou"] == max(history["val_miou"])
    assert end == ends[-1]  # and not the moving average
    found = {
        "history": history,
        "ends": ends,
        "best": best,
        "state": keep.state(),
        "arrays": [a.tolist() for a in keep.arrays().values()],
    }
    return json.loads(json.dumps(found))


def failing_fit() -> str:
    """Train with a loss that fails in the first step, as where memory runs out; return what `fit` raised."""

    def loss(y_true, y_pred):
        raise RuntimeError("out of memory")

    model = pointwise()
    model.compile(build_optimizer(training(ema_decay=0.9), 2), loss)
    model.optimizer.build(model.trainable_variables)
    try:
        model.fit(IMAGES, MASKS[..., None], verbose=0)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
