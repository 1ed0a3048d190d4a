"""Learning rates of all updates, compared with the formulas of the schedules."""

import keras
import numpy as np
import pytest

from marsls_keras.config import Training
from marsls_keras.training.schedule import build_schedule


def rates(steps: int, accumulate: int = 1, factor: float = 1.0, **settings) -> np.ndarray:
    """Return the learning rates of every batch of a training, and of the ten batches after it."""
    config = Training(learning_rate=0.01, **settings)
    schedule = build_schedule(config, steps, factor, accumulate)
    return keras.ops.convert_to_numpy(schedule(keras.Variable(np.arange(config.epochs * steps + 10), dtype="int")))


def test_linear_warm_up_then_cosine_to_zero():
    batch = np.arange(60)
    expected = np.where(
        batch < 10, 0.01 * (batch + 1) / 10, 0.005 * (1 + np.cos(np.pi * np.minimum(batch - 10, 40) / 40))
    )
    assert rates(5, epochs=10, warmup_epochs=2) == pytest.approx(expected, rel=1e-5, abs=1e-9)
    assert expected[[0, 4, 10, 30, 50]] == pytest.approx([0.001, 0.005, 0.01, 0.005, 0])


def test_without_warm_up_the_first_update_has_the_full_rate():
    assert rates(5, epochs=4, warmup_epochs=0)[[0, 10, 20]] == pytest.approx([0.01, 0.005, 0], rel=1e-5, abs=1e-9)


def test_a_warm_up_of_part_of_an_epoch():
    assert rates(8, epochs=2, warmup_epochs=0.5)[[0, 1, 3, 4, 10]] == pytest.approx(
        [0.0025, 0.005, 0.01, 0.01, 0.005], rel=1e-5
    )


def test_constant():
    expected = np.where(np.arange(40) < 10, np.arange(1, 41) / 1000, 0.01)
    assert rates(5, epochs=6, warmup_epochs=2, schedule={"name": "constant"}) == pytest.approx(expected, rel=1e-6)
    assert (rates(5, epochs=6, warmup_epochs=0, schedule={"name": "constant"}) == np.float32(0.01)).all()


def test_steps_come_after_whole_epochs():
    epoch = np.arange(60 + 10) // 6
    found = rates(6, epochs=10, warmup_epochs=0, schedule={"name": "step", "every": 3, "factor": 0.5})
    assert found == pytest.approx(0.01 * 0.5 ** (epoch // 3), rel=1e-6)
    assert found[17] == 2 * found[18] and found[35] == 2 * found[36]


def test_exponential_decay_is_that_of_mars_ls_net():
    epoch = np.arange(1000 * 3 + 10) // 3
    found = rates(3, epochs=1000, warmup_epochs=0, schedule={"name": "exponential", "rate": 0.01})
    assert found == pytest.approx(0.01 * np.exp(-0.01 * epoch), rel=1e-4)
    assert len(np.unique(found[:3000])) == 1000 and (found[:3000].reshape(1000, 3) == found[:3000:3, None]).all()


@pytest.mark.parametrize(
    "schedule", [{"name": "step", "every": 2, "factor": 0.1}, {"name": "exponential", "rate": 0.2}]
)
def test_epochs_are_counted_from_the_end_of_the_warm_up(schedule):
    with_warmup = rates(4, epochs=9, warmup_epochs=3, schedule=schedule)
    without = rates(4, epochs=6, warmup_epochs=0, schedule=schedule)
    assert with_warmup[:12] == pytest.approx(0.01 * np.arange(1, 13) / 12)
    assert (with_warmup[12:] == without).all()


@pytest.mark.parametrize(
    "schedule", [{"name": "cosine"}, {"name": "step", "every": 2}, {"name": "exponential"}, {"name": "constant"}]
)
@pytest.mark.parametrize("steps", [6, 5])
def test_an_update_of_several_batches_has_the_rate_of_its_first(schedule, steps):
    alone = rates(steps, epochs=6, warmup_epochs=2, schedule=schedule)
    accumulated = rates(steps, accumulate=3, epochs=6, warmup_epochs=2, schedule=schedule)
    batch = np.arange(len(alone))
    first = batch - batch % steps % 3  # an epoch's last update may have fewer batches
    assert (accumulated == alone[first])[first >= 2 * steps].all()
    assert accumulated[: 2 * steps] == pytest.approx(0.01 * np.minimum((first[: 2 * steps] + 3) / (2 * steps), 1))


def test_a_factor_multiplies_every_rate():
    for schedule in ({"name": "cosine"}, {"name": "step"}, {"name": "exponential"}, {"name": "constant"}):
        settings = {"epochs": 5, "warmup_epochs": 1, "schedule": schedule}
        assert rates(4, factor=0.25, **settings) == pytest.approx(0.25 * rates(4, **settings), rel=1e-6)


def test_a_rate_changes_at_the_very_batch_also_after_millions_of_them():
    schedule = build_schedule(
        Training(epochs=100, warmup_epochs=0, schedule={"name": "step", "every": 1, "factor": 0.5}), 479_001
    )
    for epoch in (1, 7, 31):
        before, after = keras.ops.convert_to_numpy(
            schedule(keras.Variable([epoch * 479_001 - 1, epoch * 479_001], dtype="int"))
        )
        assert before == 2 * after == np.float32(1e-3) * 0.5 ** (epoch - 1)


@pytest.mark.parametrize("name", ["constant", "cosine", "step", "exponential"])
def test_a_schedule_survives_its_configuration(name):
    schedule = build_schedule(Training(epochs=5, warmup_epochs=1, schedule={"name": name}), 7, 0.5, 2)
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert again.get_config() == schedule.get_config()
    steps = keras.Variable(np.arange(40), dtype="int")
    assert np.array_equal(again(steps), schedule(steps))
