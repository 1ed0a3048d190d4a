"""The deep-learning backend, imported only when something has to be computed."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec

from marsls_keras.errors import InputError
from marsls_keras.progress import stage

state = {"debug": False, "imported": False}
"""Whether to show tracebacks and the messages of TensorFlow, as the command line asks for, and whether the backend is imported."""


def backend() -> None:
    """Import the deep-learning backend, which takes seconds, without its chatter; once everything that can be refused without it was.

    Raises:
        InputError: If KERAS_BACKEND names one that is not there.
    """
    if not state["debug"]:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
    wanted = os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # else ~/.keras/keras.json would decide
    if wanted not in ("tensorflow", "jax") or find_spec(wanted) is None:
        hint = 'pip install "marsls-keras[jax]" brings it.' if wanted == "jax" else "Expected tensorflow or jax."
        raise InputError(f"KERAS_BACKEND={wanted}: there is no such backend here. {hint}")
    if not state["imported"]:
        from competition.console import quiet_stderr
        from marsls_keras.runtime import accelerators

        with stage("Importing the backend"), quiet_stderr(state["debug"]):
            accelerators()
        state["imported"] = True
