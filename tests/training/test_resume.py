"""A training that was killed and resumed ends bit for bit as one that was not."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.config import disable_op_determinism

from marsls_keras.config import Augmentation, Training
from marsls_keras.data.pipeline import evaluation_batches, steps_per_epoch, training_batches
from marsls_keras.losses import build_loss
from marsls_keras.metrics import SegmentationCounts
from marsls_keras.training.ema import KeepBest
from marsls_keras.training.optim import build_optimizer
from marsls_keras.training.resume import SaveState, restore_state

CONFIG = Training(epochs=4, batch_size=2, warmup_epochs=1, learning_rate=0.01, ema_decay=0.8)
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(0, 1, (6, 8, 8, 2)).astype(np.float32)
MASKS = (IMAGES[..., 0] + 0.5 * RNG.normal(0, 1, (6, 8, 8)) > 0).astype(np.uint8)
STEPS = steps_per_epoch(4, CONFIG.batch_size)


class Killed(Exception):
    pass


class KillAfter(keras.callbacks.Callback):
    def __init__(self, epoch: int | None):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs):
        if epoch == self.epoch:
            raise Killed


class Row(keras.callbacks.Callback):
    def __init__(self, rows: list):
        super().__init__()
        self.rows = rows

    def on_epoch_end(self, epoch, logs):
        self.rows.append({name: float(value) for name, value in logs.items()})


@pytest.fixture
def deterministic():
    tf.config.experimental.enable_op_determinism()
    yield
    disable_op_determinism()


@pytest.fixture
def policy():
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


def network(seed: int, filters: int = 2) -> tuple[keras.Model, SegmentationCounts]:
    """A small network with everything that has a state: weights, moving statistics, dropout."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    hidden = [layers.Conv2D(filters, 3, padding="same"), layers.BatchNormalization(), layers.ReLU(), layers.Dropout(0.3)]
    model, metric = keras.Sequential([keras.Input((None, None, 2)), *hidden, layers.Conv2D(1, 1, dtype="float32")]), SegmentationCounts()
    optimizer = build_optimizer(CONFIG, STEPS)
    model.compile(optimizer=optimizer, loss=build_loss({"bce": 0.5, "dice": 0.5}), weighted_metrics=[metric], jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model, metric


def train(folder: Path, seed: int = 0, kill: int | None = None, resume: bool = False) -> tuple[list, KeepBest]:
    model, metric = network(seed)
    rows: list[dict[str, float]] = []
    keep = KeepBest(evaluation_batches(IMAGES[4:], MASKS[4:], batch_size=2), metric, folder / "best.weights.h5", ema=True)
    if resume:
        state = restore_state(folder / "state", model)
        rows += state["history"]
        keep.best = state["best"]
        assert state["epoch"] + 1 == len(rows)
    batches = training_batches(
        IMAGES[:4], MASKS[:4], batch_size=2, augmentation=Augmentation(), seed=0, epochs=CONFIG.epochs, start_epoch=len(rows)
    )
    model.fit(
        batches,
        epochs=CONFIG.epochs,
        initial_epoch=len(rows),
        steps_per_epoch=STEPS,
        verbose=0,
        callbacks=[keep, Row(rows), SaveState(folder / "state", keep, rows), KillAfter(kill)],
    )
    return rows, keep


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path, deterministic):
    rows, keep = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "torn", kill=1)
    # Another seed: nothing of the fresh network may be left, neither in weights nor in the state of dropout.
    rows_again, keep_again = train(tmp_path / "torn", seed=99, resume=True)
    assert rows_again == rows and len(rows) == CONFIG.epochs
    assert keep_again.best == keep.best
    for epoch in (2, 3):
        whole, torn = (arrays(tmp_path / name / "state" / f"epoch_{epoch:05d}.npz") for name in ("whole", "torn"))
        assert whole.keys() == torn.keys()
        assert [name for name in whole if whole[name].tobytes() != torn[name].tobytes()] == []
    weights = []
    for name in ("whole", "torn"):
        model, _ = network(5)
        model.load_weights(tmp_path / name / "best.weights.h5")
        weights.append(model.get_weights())
    assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))


def saved_states(folder: Path, epochs: range, filters: int = 2) -> tuple[keras.Model, list[list[np.ndarray]]]:
    """Save a state after each epoch, every variable of model and optimiser filled with random numbers; return them."""
    model, metric = network(0, filters)
    keep = KeepBest(None, metric, folder / "best.weights.h5", ema=True)
    rows: list[dict[str, float]] = []
    save = SaveState(folder, keep, rows)
    save.set_model(model)
    rng, values = np.random.default_rng(1), []
    for epoch in epochs:
        values.append([])
        for variable in [*model.variables, *model.optimizer.variables]:
            variable.assign(rng.integers(1, 1000, variable.shape))
            values[-1].append(variable.numpy())
        rows.append({"miou": epoch / 7})
        keep.best = {"epoch": epoch, "miou": epoch / 7, "weights": "ema"}
        save.on_epoch_end(epoch, {})
    return model, values


def holds(model: keras.Model, values: list[np.ndarray]) -> bool:
    variables = [*model.variables, *model.optimizer.variables]
    return all(np.array_equal(v.numpy(), value) and v.numpy().dtype == value.dtype for v, value in zip(variables, values, strict=True))


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_the_last_two_states_are_kept_and_the_newest_is_restored(tmp_path, policy, precision):
    policy(precision)  # mixed_float16 adds the scale of the loss to the optimiser's variables
    _, values = saved_states(tmp_path, range(4))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch_00002.npz", "epoch_00003.npz"]
    model, _ = network(7)
    assert restore_state(tmp_path, model) == {
        "epoch": 3,
        "best": {"epoch": 3, "miou": 3 / 7, "weights": "ema"},
        "history": [{"miou": epoch / 7} for epoch in range(4)],
    }
    assert holds(model, values[3])


def test_a_damaged_newest_state_gives_way_to_the_one_before(tmp_path):
    _, values = saved_states(tmp_path, range(8, 10))
    newest = tmp_path / "epoch_00009.npz"
    whole = newest.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    # The archive's directory says how each part is packed (two bytes, 10 after its mark) and whether it is locked (8 after it).
    packing, locked = bytearray(whole), bytearray(whole)
    packing[whole.index(b"PK\x01\x02") + 10] ^= 0xFF
    locked[whole.index(b"PK\x01\x02") + 8] ^= 0x01
    damages = [b"", whole[:1], whole[: len(whole) // 3], whole[:-1], b"no archive", bytes(len(whole)), bytes(flipped), packing, locked]
    for damage in damages:
        newest.write_bytes(damage)
        model, _ = network(7)
        state = restore_state(tmp_path, model)
        assert state["epoch"] == 8 and len(state["history"]) == 1 and holds(model, values[0])


def test_without_a_state_nothing_is_restored(tmp_path):
    model, _ = network(7)
    before = [v.numpy() for v in [*model.variables, *model.optimizer.variables]]
    assert restore_state(tmp_path / "none", model) is None
    (tmp_path / "epoch_00000.npz").write_bytes(b"torn")
    assert restore_state(tmp_path, model) is None
    assert holds(model, before)


def test_a_state_of_another_network_is_not_restored(tmp_path):
    saved_states(tmp_path, range(2), filters=3)
    model, _ = network(7)
    before = [v.numpy() for v in [*model.variables, *model.optimizer.variables]]
    assert restore_state(tmp_path, model) is None and holds(model, before)
