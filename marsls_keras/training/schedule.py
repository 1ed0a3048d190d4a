"""Learning-rate schedules: linear warm-up, then constant, cosine, step or exponential."""

from __future__ import annotations

import math
from typing import Any

from keras import ops, saving
from keras.optimizers import schedules

from marsls_keras.config import Cosine, Exponential, Step, Training


@saving.register_keras_serializable("marsls_keras")
class WarmUp(schedules.LearningRateSchedule):
    """Raise the learning rate linearly, then follow another schedule.

    The last update of the warm-up has the full rate, and no update has a rate of zero.
    Keras calls a schedule with the number of batches, also where several batches make one update. The learning rate of
    an update is that of its first batch. All counting is in whole numbers, so that a rate that changes after an epoch
    changes exactly at the first update of the next one.

    Args:
        after: The schedule after the warm-up.
        warmup: Number of batches of the warm-up.
        unit: Number of batches for one step of `after`.
        accumulate: Batches per update; the last update of an epoch may have fewer.
        epoch: Batches per epoch; None if batches are not grouped into epochs.

    Call arguments:
        step: Number of batches so far, a whole number.

    Example:
        >>> rate = WarmUp(schedules.ExponentialDecay(0.1, 1, 1.0), warmup=4)
        >>> [round(float(rate(step)), 3) for step in range(5)]
        [0.025, 0.05, 0.075, 0.1, 0.1]
    """

    def __init__(
        self,
        after: schedules.LearningRateSchedule,
        warmup: int = 0,
        unit: int = 1,
        accumulate: int = 1,
        epoch: int | None = None,
    ) -> None:
        super().__init__()
        self.after, self.warmup, self.unit, self.accumulate, self.epoch = after, warmup, unit, accumulate, epoch

    def __call__(self, step: Any) -> Any:
        """Return the learning rate, a float32 scalar."""
        first = step - (step if self.epoch is None else step % self.epoch) % self.accumulate
        rate = self.after(ops.floor_divide(ops.maximum(first - self.warmup, 0), self.unit))
        if not self.warmup:
            return rate
        return rate * ops.minimum(ops.cast(first + self.accumulate, "float32") / self.warmup, 1.0)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        numbers = {"warmup": self.warmup, "unit": self.unit, "accumulate": self.accumulate, "epoch": self.epoch}
        return {"after": schedules.serialize(self.after), **numbers}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WarmUp:
        """Build the schedule from the result of `get_config`."""
        return cls(**{**config, "after": schedules.deserialize(config["after"])})


def build_schedule(config: Training, steps_per_epoch: int, factor: float = 1.0, accumulate: int = 1) -> WarmUp:
    """Return the learning-rate schedule of a configuration, as a function of the number of batches.

    After the warm-up: cosine falls to zero at the end of the last epoch (Loshchilov & Hutter, "SGDR", ICLR 2017,
    without restarts); step and exponential change after whole epochs, counted from the end of the warm-up, the latter
    by exp(-rate) as in MarsLS-Net.

    Args:
        config: The section `training` of the configuration.
        steps_per_epoch: Batches per epoch.
        factor: Factor of every learning rate.
        accumulate: Batches per update.

    Example:
        >>> rate = build_schedule(Training(learning_rate=0.1, warmup_epochs=0, epochs=2), steps_per_epoch=5)
        >>> round(float(rate(0)), 3), round(float(rate(10)), 3)
        (0.1, 0.0)
    """
    peak, warmup = config.learning_rate * factor, round(config.warmup * steps_per_epoch)
    match config.schedule:
        case Cosine():
            return WarmUp(
                schedules.CosineDecay(peak, max(1, config.epochs * steps_per_epoch - warmup)),
                warmup,
                1,
                accumulate,
                steps_per_epoch,
            )
        case Step(every=every, factor=decay):
            return WarmUp(
                schedules.ExponentialDecay(peak, 1, decay), warmup, every * steps_per_epoch, accumulate, steps_per_epoch
            )
        case Exponential(rate=rate):
            return WarmUp(
                schedules.ExponentialDecay(peak, 1, math.exp(-rate)),
                warmup,
                steps_per_epoch,
                accumulate,
                steps_per_epoch,
            )
        case _:
            return WarmUp(schedules.ExponentialDecay(peak, 1, 1.0), warmup, 1, accumulate, steps_per_epoch)
