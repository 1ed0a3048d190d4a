"""The state a stopped training goes on from: every variable of model, optimiser and metrics, after each epoch and where a signal came."""

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


class NotFinite(Exception):
    """A variable, or the loss that the weights give, is NaN or infinite, so the state is not worth keeping.

    Example:
        >>> raise NotFinite  # doctest: +SKIP
    """


@dataclass(frozen=True)
class TrainingState:
    """A state that was read.

    Attributes:
        epochs: Finished epochs.
        step: Steps done in the epoch after them.
        epochs_planned: Number of epochs that training was to have.
        history: HistoryLog of the history, one an epoch.
        recovery: What is done differently from the configuration.
        checkpoint: What `WeightCheckpoint.state` gave.
        arrays: All variables, and what `WeightCheckpoint.arrays` gave.

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
        """Give a compiled model with a built optimiser its variables, and the checkpoint its own.

        Raises:
            RunError: If the state is that of another network or optimiser.
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
        """Give the metrics what they had counted in the epoch that was stopped."""
        for i, variable in enumerate(_metric_variables(model, checkpoint)):
            assign_total(variable, self.arrays[f"metric_{i}"])


def _variables(model: keras.Model) -> list[Any]:
    return [*model.variables, *model.optimizer.variables]


def _metric_variables(model: keras.Model, checkpoint: WeightCheckpoint) -> list[Any]:
    # The first metric of a compiled model is the mean loss; it does not know the others before the first step.
    return [*model.metrics[0].variables, *checkpoint.metric.variables]


class BackupState(keras.callbacks.Callback):
    """Save the state after each epoch, and the rows of the history with it; the last two states are kept.

    Args:
        folder: Where the states go, as <finished epochs>_<steps in the next>.npz.
        checkpoint: The callback that keeps the best weights.
        rows: The history so far; a list that grows during training.
        epochs: Number of epochs in all.
        recovery: What is done differently from the configuration.

    Example:
        >>> backup = BackupState(folder / "state", checkpoint, rows=[], epochs=60, recovery=Recovery(16, 1))  # doctest: +SKIP
        >>> model.fit(batches, epochs=60, callbacks=[checkpoint, backup])  # doctest: +SKIP
    """

    def __init__(
        self, folder: Path, checkpoint: WeightCheckpoint, rows: list[dict[str, float]], epochs: int, recovery: Recovery
    ) -> None:
        super().__init__()
        self.folder, self.checkpoint, self.rows, self.epochs, self.recovery = folder, checkpoint, rows, epochs, recovery

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Save, then remove what only earlier states needed.

        Raises:
            NotFinite: If a variable or the loss of the held-out tiles is NaN or infinite; nothing is saved then.
            RunError: If the state cannot be written.
        """
        if not self.checkpoint.sound:
            raise NotFinite
        self.save(epoch + 1, 0)

    def save(self, epochs: int, step: int) -> None:
        """Save the state after `epochs` epochs and `step` steps of the next one; raises as `on_epoch_end`."""
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()  # within an epoch the variables are elsewhere
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
    """Return the newest undamaged state in a folder, or None if there is none that can be read.

    Example:
        >>> read_state(Path("a/folder/without/states")) is None
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
            continue  # the state before it is whole
    return None
