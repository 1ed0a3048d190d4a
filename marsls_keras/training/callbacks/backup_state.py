"""Save and read the training state, from which an interrupted training resumes.

It holds every variable of model and optimiser, and those of the metrics if it was saved within an epoch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from marsls_keras.errors import RunError
from marsls_keras.files import DAMAGED_NPZ, atomic
from marsls_keras.runtime import assign_total
from marsls_keras.training.callbacks.weight_checkpoint import WeightCheckpoint
from marsls_keras.training.recovery import Recovery

_KEPT = 2
"""Number of states that are kept, so that there is another one if the last is damaged."""


class NotFinite(Exception):
    """Signal that a variable or the loss is NaN or infinite, so the state must not be saved.

    Example:
        >>> raise NotFinite
        Traceback (most recent call last):
            ...
        marsls_keras.training.callbacks.backup_state.NotFinite
    """


@dataclass(frozen=True)
class TrainingState:
    """Hold a training state that was read from a file, and restore it.

    Attributes:
        epochs: Finished epochs.
        step: Finished steps of the epoch after them.
        epochs_planned: Total number of epochs when the state was saved.
        history: Rows of history.csv, one per epoch.
        recovery: Batch size, accumulation and learning-rate factor.
        checkpoint: Result of `WeightCheckpoint.state`.
        arrays: All variables, and the result of `WeightCheckpoint.arrays`.

    Example:
        >>> state = read_state(Path("runs/default/fold_0/state"))  # doctest: +SKIP
        >>> state.restore(model, checkpoint)  # doctest: +SKIP
    """

    epochs: int
    step: int
    epochs_planned: int
    history: list[dict[str, float]]
    recovery: Recovery
    checkpoint: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def restore(self, model: keras.Model, checkpoint: WeightCheckpoint) -> None:
        """Restore the variables of a compiled model with a built optimiser, and the state of the checkpoint callback.

        Raises:
            RunError: If the state belongs to another network or optimiser.
        """
        variables = _variables(model)
        values = [self.arrays.get(f"variable_{i}") for i in range(len(variables))]
        if [v is None or v.shape for v in values] != [
            tuple(v.shape) for v in variables
        ] or f"variable_{len(values)}" in self.arrays:
            raise RunError(
                "The saved state is that of another network or optimiser. Begin the fold anew with --overwrite."
            )
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        checkpoint.restore(
            self.checkpoint, {name[5:]: value for name, value in self.arrays.items() if name.startswith("keep_")}
        )

    def restore_metrics(self, model: keras.Model, checkpoint: WeightCheckpoint) -> None:
        """Restore the totals of the metrics in the interrupted epoch."""
        for i, variable in enumerate(_metric_variables(model, checkpoint)):
            assign_total(variable, self.arrays[f"metric_{i}"])


def _variables(model: keras.Model) -> list[Any]:
    """Return the variables of a state: those of the model, then those of its optimiser."""
    return [*model.variables, *model.optimizer.variables]


def _metric_variables(model: keras.Model, checkpoint: WeightCheckpoint) -> list[Any]:
    """Return the variables of the mean loss and of the counting metric."""
    # The first metric of a compiled model is the mean loss; the others are not created before the first step.
    return [*model.metrics[0].variables, *checkpoint.metric.variables]


class BackupState(keras.callbacks.Callback):
    """Save the training state after each epoch, and keep the last two states.

    Args:
        folder: Folder of the states, files <finished epochs>_<steps of the next epoch>.npz.
        checkpoint: The callback that keeps the best weights.
        rows: Rows of history.csv so far; a list that grows during training.
        epochs: Total number of epochs.
        recovery: Batch size, accumulation and learning-rate factor of the attempt.

    Example:
        >>> backup = BackupState(folder / "state", checkpoint, [], 60, Recovery(16, 1))  # doctest: +SKIP
        >>> model.fit(batches, epochs=60, callbacks=[checkpoint, backup])  # doctest: +SKIP
    """

    def __init__(
        self, folder: Path, checkpoint: WeightCheckpoint, rows: list[dict[str, float]], epochs: int, recovery: Recovery
    ) -> None:
        super().__init__()
        self.folder, self.checkpoint, self.rows, self.epochs, self.recovery = folder, checkpoint, rows, epochs, recovery

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Save the state, then remove older states and the weight files that only they name.

        Raises:
            NotFinite: If a variable or the loss is NaN or infinite; nothing is saved then.
            RunError: If the state cannot be written.
        """
        if not self.checkpoint.sound:
            raise NotFinite
        self.save(epoch + 1, 0)

    def save(self, epochs: int, step: int) -> None:
        """Save the state after `epochs` epochs and `step` steps of the next one.

        Raises:
            NotFinite: If a variable is NaN or infinite; nothing is saved then.
            RunError: If the state cannot be written.
        """
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()  # within an epoch Keras keeps the variables outside the model
        arrays = {f"variable_{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(_variables(self.model))}
        if not all(np.isfinite(value).all() for value in arrays.values() if value.dtype.kind == "f"):
            raise NotFinite
        if step:
            arrays |= {
                f"metric_{i}": keras.ops.convert_to_numpy(v)
                for i, v in enumerate(_metric_variables(self.model, self.checkpoint))
            }
        arrays |= {f"keep_{name}": value for name, value in self.checkpoint.arrays().items()}
        state = {
            "epochs": epochs,
            "step": step,
            "epochs_planned": self.epochs,
            "history": self.rows,
            "plan": asdict(self.recovery),
            "keep": self.checkpoint.state(),
        }
        with atomic(self.folder / f"{epochs:05d}_{step:06d}.npz") as temporary:
            np.savez(temporary, state=np.array(json.dumps(state)), **arrays)
        for old in sorted(self.folder.glob("?????_??????.npz"))[:-_KEPT]:
            old.unlink()
        self.checkpoint.tidy()


def read_state(folder: Path) -> TrainingState | None:
    """Read the newest undamaged state in a folder; return None if no state can be read.

    Example:
        >>> read_state(Path("runs/default/fold_0/state")) is None  # the folder does not exist
        True
    """
    for path in sorted(folder.glob("?????_??????.npz"), reverse=True):
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            state = json.loads(str(arrays.pop("state")))
            recovery, checkpoint = state.pop("plan"), state.pop("keep")  # the names that version 0.1 gave them
            recovery = Recovery(**{**recovery, "trouble": tuple(recovery["trouble"])})
            return TrainingState(**state, recovery=recovery, checkpoint=checkpoint, arrays=arrays)
        except (*DAMAGED_NPZ, TypeError, RecursionError):
            continue  # try the state before it
    return None
