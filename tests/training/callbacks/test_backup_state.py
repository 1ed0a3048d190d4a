"""Saved training states: contents, restoring, and damaged files.

Killed commands are tested in test_train_killed.py.
"""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from marsls_keras.config import Training
from marsls_keras.errors import RunError
from marsls_keras.losses import build_loss
from marsls_keras.metrics import SegmentationCounts
from marsls_keras.training.callbacks.backup_state import BackupState, NotFinite, TrainingState, read_state
from marsls_keras.training.callbacks.best_checkpoint import BestCheckpoint
from marsls_keras.training.optimizer import build_optimizer
from marsls_keras.training.recovery import Recovery

CONFIG = Training(epochs=4, batch_size=2, warmup_epochs=1, learning_rate=0.01, ema_decay=0.8, accumulate=2, patience=3)
PLAN = Recovery(batch_size=1, accumulate=4, rollbacks=1, trouble=("NaN in epoch 1",))


@pytest.fixture
def policy():
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


def network(seed: int, filters: int = 2) -> tuple[keras.Model, SegmentationCounts]:
    """Build a small network with every kind of state: weights, moving statistics, dropout, accumulated gradients."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    hidden = [
        layers.Conv2D(filters, 3, padding="same"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Dropout(0.3),
    ]
    model, metric = (
        keras.Sequential([keras.Input((None, None, 2)), *hidden, layers.Conv2D(1, 1, dtype="float32")]),
        SegmentationCounts(),
    )
    model.compile(
        build_optimizer(CONFIG, 2),
        loss=build_loss({"bce": 0.5, "dice": 0.5}),
        weighted_metrics=[metric],
        jit_compile=False,
    )
    model.optimizer.build(model.trainable_variables)
    return model, metric


def variables(model: keras.Model) -> list:
    return [*model.variables, *model.optimizer.variables]


def keeper(folder: Path, metric: SegmentationCounts) -> BestCheckpoint:
    return BestCheckpoint(None, metric, folder.parent, CONFIG)


def saved_states(folder: Path, epochs: range, filters: int = 2) -> list[list[np.ndarray]]:
    """Save a state after each epoch, every variable of model and optimiser filled with random numbers; return them."""
    model, metric = network(0, filters)
    keep = keeper(folder, metric)
    rows: list[dict[str, float]] = []
    save = BackupState(folder, keep, rows, CONFIG.epochs, PLAN)
    save.set_model(model)
    rng, values = np.random.default_rng(1), []
    for epoch in epochs:
        values.append([])
        for variable in variables(model):
            variable.assign(rng.integers(1, 1000, variable.shape))
            values[-1].append(keras.ops.convert_to_numpy(variable))
        rows.append({"miou": epoch / 7})
        keep.best = {"epoch": epoch, "miou": epoch / 7, "weights": "ema", "file": f"best-{epoch}.weights.h5"}
        keep.waited = epoch
        save.on_epoch_end(epoch, {})
    return values


def restored(folder: Path, filters: int = 2) -> tuple[TrainingState, keras.Model, BestCheckpoint]:
    state = read_state(folder)
    model, metric = network(7, filters)
    keep = keeper(folder, metric)
    state.restore(model, keep)
    return state, model, keep


def holds(model: keras.Model, values: list[np.ndarray]) -> bool:
    found = [keras.ops.convert_to_numpy(v) for v in variables(model)]
    return all(np.array_equal(v, value) and v.dtype == value.dtype for v, value in zip(found, values, strict=True))


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_the_last_two_states_are_kept_and_the_newest_is_restored(tmp_path, policy, precision):
    policy(precision)  # mixed_float16 adds the scale of the loss to the optimiser's variables
    folder = tmp_path / "state"
    values = saved_states(folder, range(4))
    assert sorted(path.name for path in folder.iterdir()) == ["00003_000000.npz", "00004_000000.npz"]
    state, model, keep = restored(folder)
    assert (state.epochs, state.step, state.epochs_planned, state.recovery) == (4, 0, 4, PLAN)
    assert state.history == [{"miou": epoch / 7} for epoch in range(4)]
    assert keep.best == {"epoch": 3, "miou": 3 / 7, "weights": "ema", "file": "best-3.weights.h5"}
    assert keep.waited == 3 and keep.stopped
    assert holds(model, values[3])


def test_a_state_within_an_epoch_has_what_the_metrics_counted(tmp_path):
    model, metric = network(0)
    save = BackupState(tmp_path / "state", keeper(tmp_path / "state", metric), [], 4, PLAN)
    save.set_model(model)
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 2)).astype(np.float32)
    model.train_on_batch(x, (x[..., :1] > 0).astype(np.float32))
    loss, counts = float(model.get_metrics_result()["loss"]), metric.counts()
    save.save(2, 1)
    state = read_state(tmp_path / "state")
    assert (state.epochs, state.step) == (2, 1)
    again, metric_again = network(3)  # without any step yet, as in a resumed training
    state.restore_metrics(again, keeper(tmp_path / "state", metric_again))
    assert float(again.metrics[0].result()) == loss and metric_again.counts() == counts and counts.tp + counts.tn > 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_state_that_is_no_number_is_not_saved(tmp_path, value):
    folder = tmp_path / "state"
    saved_states(folder, range(1))
    model, metric = network(0)
    save = BackupState(folder, keeper(folder, metric), [], 4, PLAN)
    save.set_model(model)
    weights = model.trainable_variables[0]
    weights.assign(keras.ops.full(weights.shape, value))
    with pytest.raises(NotFinite):
        save.on_epoch_end(1, {})
    assert [path.name for path in folder.iterdir()] == ["00001_000000.npz"]


def test_a_state_whose_weights_give_no_loss_is_not_saved(tmp_path):
    model, metric = network(0)
    keep = keeper(tmp_path / "state", metric)
    save = BackupState(tmp_path / "state", keep, [], 4, PLAN)
    save.set_model(model)
    keep.sound = False
    with pytest.raises(NotFinite):
        save.on_epoch_end(1, {})
    assert not (tmp_path / "state").exists()


def test_a_damaged_newest_state_gives_way_to_the_one_before(tmp_path):
    folder = tmp_path / "state"
    values = saved_states(folder, range(8, 10))
    newest = folder / "00010_000000.npz"
    whole = newest.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    # The archive's directory says how each part is packed (two bytes, 10 after its mark) and whether it is locked (8
    # after it).
    packing, locked = bytearray(whole), bytearray(whole)
    packing[whole.index(b"PK\x01\x02") + 10] ^= 0xFF
    locked[whole.index(b"PK\x01\x02") + 8] ^= 0x01
    damages = [
        b"",
        whole[:1],
        whole[: len(whole) // 3],
        whole[:-1],
        b"no archive",
        bytes(len(whole)),
        bytes(flipped),
        packing,
        locked,
    ]
    for damage in damages:
        newest.write_bytes(damage)
        state, model, _ = restored(folder)
        assert state.epochs == 9 and len(state.history) == 1 and holds(model, values[0])


def test_a_state_of_an_unknown_form_is_passed_over(tmp_path):
    folder = tmp_path / "state"
    saved_states(folder, range(1))
    np.savez(folder / "00002_000000.npz", state=np.array(json.dumps({"epoch": 1})))
    assert read_state(folder).epochs == 1


def test_without_a_state_nothing_is_read(tmp_path):
    assert read_state(tmp_path / "none") is None
    (tmp_path / "00000_000000.npz").write_bytes(b"torn")
    assert read_state(tmp_path) is None


def test_a_state_of_another_network_is_refused(tmp_path):
    saved_states(tmp_path / "state", range(2), filters=3)
    state = read_state(tmp_path / "state")
    model, metric = network(7)
    before = [keras.ops.convert_to_numpy(v) for v in variables(model)]
    with pytest.raises(RunError, match="another network or optimiser"):
        state.restore(model, keeper(tmp_path / "state", metric))
    assert holds(model, before)


def test_the_factor_of_the_learning_rate_halves_with_each_rollback():
    assert [Recovery(8, 1, rollbacks=n).factor for n in range(3)] == [1, 0.5, 0.25]
