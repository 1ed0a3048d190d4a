"""Keeping the better of the last weights and their moving average, with networks whose scores are known."""

from pathlib import Path

import keras
import numpy as np
import pytest

from marsls_keras.config import Training
from marsls_keras.counts import confusion
from marsls_keras.data.pipeline import evaluation_batches
from marsls_keras.losses import build_loss
from marsls_keras.metrics import SegmentationCounts
from marsls_keras.models import build_model
from marsls_keras.training.ema import KeepBest, averaged_weights
from marsls_keras.training.optim import build_optimizer

# Logits are kernel · x + bias with x uniform in [-1, 1] and the mask x > 0, so the bias sets the score: 0 is perfect.
IMAGES = np.random.default_rng(0).uniform(-1, 1, (3, 8, 8, 1)).astype(np.float32)
MASKS = (IMAGES[..., 0] > 0).astype(np.uint8)


def miou(weights: tuple[float, float]) -> float:
    kernel, bias = np.float32(weights)
    return confusion(MASKS, kernel * IMAGES[..., 0] + bias >= 0).scores()["miou"]


PERFECT, GOOD, FAIR, BAD = (2.0, 0.0), (1.0, 0.2), (1.0, 0.5), (-1.0, 0.0)


def compiled(model: keras.Model, ema: bool = True) -> tuple[keras.Model, SegmentationCounts]:
    metric = SegmentationCounts()
    optimizer = build_optimizer(Training(epochs=2, warmup_epochs=0, learning_rate=0.1, ema_decay=0.9 if ema else None), 2)
    model.compile(optimizer=optimizer, loss=build_loss({"bce": 1.0}), weighted_metrics=[metric], jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model, metric


def pointwise() -> keras.Model:
    return keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(1, 1, name="point")])


def set_weights(model: keras.Model, last: tuple[float, float], average: tuple[float, float] | None) -> None:
    """Give the model its weights, and the optimiser their moving average."""
    model.set_weights([np.full((1, 1, 1, 1), last[0]), np.array([last[1]])])
    if average is not None:
        kernel, bias = averages(model)
        kernel.assign(np.full((1, 1, 1, 1), average[0]))
        bias.assign([average[1]])


def averages(model: keras.Model) -> list:
    return [v for v in model.optimizer.variables if v.path.endswith("average")]


def own(model: keras.Model) -> tuple[float, float]:
    return tuple(float(w.ravel()[0]) for w in model.get_weights())


def saved(path: Path) -> tuple[float, float]:
    model = pointwise()
    model.load_weights(path)
    return own(model)


def keeper(folder: Path, ema: bool = True) -> KeepBest:
    model, metric = compiled(pointwise(), ema)
    keep = KeepBest(evaluation_batches(IMAGES, MASKS, batch_size=2), metric, folder / "best.weights.h5", ema)
    keep.set_model(model)
    return keep


def test_the_scores_that_the_tests_rely_on():
    assert miou(PERFECT) == 1 > miou(GOOD) > miou(FAIR) > 0.5 > miou(BAD) == 0


@pytest.mark.parametrize(
    "last,average,kept,winner",
    [
        (FAIR, GOOD, GOOD, "ema"),
        (GOOD, FAIR, GOOD, "last"),
        (PERFECT, BAD, PERFECT, "last"),
        (PERFECT, (1.0, 0.0), PERFECT, "last"),  # equal scores: the last weights
    ],
)
def test_the_better_of_both_is_kept(tmp_path, last, average, kept, winner):
    keep = keeper(tmp_path)
    set_weights(keep.model, last, average)
    logs = {"loss": 0.3}
    keep.on_epoch_end(4, logs)
    assert keep.best == {"epoch": 4, "miou": pytest.approx(miou(kept)), "weights": winner}
    assert saved(keep.path) == pytest.approx(kept) and own(keep.model) == pytest.approx(last)
    assert [v.numpy().ravel()[0] for v in averages(keep.model)] == pytest.approx(average)
    assert [path.name for path in tmp_path.iterdir()] == ["best.weights.h5"]

    scores = confusion(MASKS, np.float32(kept[0]) * IMAGES[..., 0] + np.float32(kept[1]) >= 0).scores()
    assert {name: logs[f"val_{name}"] for name in scores} == pytest.approx(scores)
    assert (logs["miou_last"], logs["miou_ema"], logs["ema"]) == pytest.approx((miou(last), miou(average), float(winner == "ema")))
    assert logs["loss"] == 0.3 and set(logs) == {"loss", "val_loss", "miou_last", "miou_ema", "ema", *(f"val_{name}" for name in scores)}


def test_the_loss_is_that_of_the_weights_that_were_chosen(tmp_path):
    keep = keeper(tmp_path)
    keep.batches = evaluation_batches(IMAGES, MASKS, batch_size=3)
    set_weights(keep.model, FAIR, GOOD)
    logs = {}
    keep.on_epoch_end(0, logs)
    logits = GOOD[0] * IMAGES[..., 0].astype(np.float64) + GOOD[1]
    assert logs["val_loss"] == pytest.approx(np.mean(np.log1p(np.exp(-np.where(MASKS, 1, -1) * logits))), rel=1e-5)


def test_only_a_better_epoch_replaces_the_best(tmp_path):
    keep = keeper(tmp_path)
    history = []
    for epoch, (last, average) in enumerate([(BAD, FAIR), (FAIR, BAD), (GOOD, FAIR), (BAD, FAIR), ((3.0, 0.6), GOOD), (PERFECT, GOOD)]):
        set_weights(keep.model, last, average)
        keep.on_epoch_end(epoch, {})
        assert own(keep.model) == pytest.approx(last)
        history.append((keep.best["epoch"], keep.best["weights"], saved(keep.path)))
    assert miou((3.0, 0.6)) == miou(GOOD)  # equal to the best so far, by last and by average: the earlier one stays
    assert history == [
        (0, "ema", pytest.approx(FAIR)),
        (0, "ema", pytest.approx(FAIR)),
        (2, "last", pytest.approx(GOOD)),
        (2, "last", pytest.approx(GOOD)),
        (2, "last", pytest.approx(GOOD)),
        (5, "last", pytest.approx(PERFECT)),
    ]


def test_without_a_moving_average_the_last_weights_are_kept(tmp_path):
    keep = keeper(tmp_path, ema=False)
    set_weights(keep.model, GOOD, None)
    logs = {}
    keep.on_epoch_end(0, logs)
    assert (keep.best["weights"], saved(keep.path)) == ("last", pytest.approx(GOOD))
    assert logs["miou_last"] == logs["val_miou"] == pytest.approx(miou(GOOD)) and not {"miou_ema", "ema"} & set(logs)


def test_within_fit_each_epoch_is_evaluated_and_training_goes_on_undisturbed(tmp_path):
    def train(callbacks):
        model, metric = compiled(pointwise())
        set_weights(model, BAD, None)
        batches = evaluation_batches(IMAGES, MASKS, batch_size=2)
        keep = KeepBest(batches, metric, tmp_path / "best.weights.h5", ema=True)
        history = model.fit(batches, epochs=3, verbose=0, callbacks=[keep] * callbacks)
        return model, keep, history.history

    plain, _, alone = train(0)
    watched, keep, history = train(1)
    assert [w.tolist() for w in watched.get_weights()] == [w.tolist() for w in plain.get_weights()]
    assert history["loss"] == alone["loss"]
    assert len(history["val_miou"]) == len(history["miou_ema"]) == 3
    assert keep.best["miou"] == max(history["val_miou"]) == pytest.approx(miou(saved(keep.path)))


@pytest.fixture
def policy():
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_averaged_weights_are_lent_and_returned(policy, precision):
    policy(precision)  # mixed_float16 wraps the optimiser for the scaling of the loss
    model, _ = compiled(build_model("unet", bands=2, base_filters=2, depth=1))
    rng = np.random.default_rng(1)
    for variable in [*model.variables, *averages(model)]:
        variable.assign(rng.uniform(0.5, 1, variable.shape))
    before = [v.numpy() for v in model.trainable_variables]
    statistics = [v.numpy() for v in model.non_trainable_variables]
    mean = [v.numpy() for v in averages(model)]
    assert len(mean) == len(before) and not any(np.array_equal(a, b) for a, b in zip(mean, before, strict=True))

    def equal(variables, values):
        return all(np.array_equal(v.numpy(), value) for v, value in zip(variables, values, strict=True))

    with averaged_weights(model):
        assert equal(model.trainable_variables, mean) and equal(model.non_trainable_variables, statistics)
    assert equal(model.trainable_variables, before) and equal(averages(model), mean)
    with pytest.raises(KeyError), averaged_weights(model):
        raise KeyError("stopped within")
    assert equal(model.trainable_variables, before)


def test_weights_that_are_no_numbers_are_not_kept_though_they_have_a_score(tmp_path):
    keep = keeper(tmp_path)
    nan = (float("nan"), float("nan"))
    set_weights(keep.model, BAD, BAD)
    keep.on_epoch_end(0, {"loss": 0.9})
    set_weights(keep.model, nan, nan)
    logs = {"loss": 0.9}
    keep.on_epoch_end(1, logs)
    assert logs["val_miou"] > miou(BAD)  # all background, which would win
    assert keep.best["epoch"] == 0 and saved(keep.path) == pytest.approx(BAD)
