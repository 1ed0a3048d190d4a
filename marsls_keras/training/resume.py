"""The state a killed training goes on from: every variable of model and optimiser, saved at the end of each epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from marsls_keras.files import DAMAGED_NPZ, atomic
from marsls_keras.training.ema import KeepBest

_KEPT = 2


def _variables(model: keras.Model) -> list[Any]:
    return [*model.variables, *model.optimizer.variables]


class SaveState(keras.callbacks.Callback):
    """Save the state after each epoch, and the rows of the history with it; the last two states are kept.

    Args:
        folder: Where the states go, as epoch_00012.npz.
        keep: The callback that knows the best epoch.
        rows: The history so far; a list that grows during training.
    """

    def __init__(self, folder: Path, keep: KeepBest, rows: list[dict[str, float]]) -> None:
        super().__init__()
        self.folder, self.keep, self.rows = folder, keep, rows

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Save, then remove the states before the last two."""
        arrays = {str(i): keras.ops.convert_to_numpy(variable) for i, variable in enumerate(_variables(self.model))}
        state = json.dumps({"epoch": epoch, "best": self.keep.best, "history": self.rows})
        with atomic(self.folder / f"epoch_{epoch:05d}.npz") as temporary:
            np.savez(temporary, state=np.array(state), **arrays)
        for old in sorted(self.folder.glob("epoch_*.npz"))[:-_KEPT]:
            old.unlink()


def restore_state(folder: Path, model: keras.Model) -> dict[str, Any] | None:
    """Give model and optimiser their newest undamaged state.

    Args:
        folder: Folder of the states.
        model: Compiled model whose optimiser is built.

    Returns:
        {"epoch", "best", "history"} of that state, or None if there is none that can be read.
    """
    for path in sorted(folder.glob("epoch_*.npz"), reverse=True):
        try:
            with np.load(path, allow_pickle=False) as arrays:
                state = json.loads(str(arrays["state"]))
                values = [arrays[str(i)] for i in range(len(arrays.files) - 1)]
        except DAMAGED_NPZ:
            continue  # the state before it is whole
        variables = _variables(model)
        if [tuple(v.shape) for v in variables] != [v.shape for v in values]:
            continue
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        return state
    return None
