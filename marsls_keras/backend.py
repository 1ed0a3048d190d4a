"""Import the deep-learning backend on demand and without its log messages."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from marsls_keras.errors import InputError
from marsls_keras.progress import stage

state = {"debug": False, "imported": False}
"""debug: whether to show tracebacks and TensorFlow's log (--debug). imported: whether the backend is imported."""


def import_backend() -> None:
    """Import the deep-learning backend without its log messages.

    The import takes seconds. Call this after all checks of input that need no backend.

    Raises:
        InputError: If KERAS_BACKEND is neither tensorflow nor jax, or that backend is not installed.

    Example:
        >>> import_backend()
        >>> state["imported"]
        True
    """
    if not state["debug"]:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
    wanted = os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # without it, Keras would read ~/.keras/keras.json
    if wanted not in ("tensorflow", "jax") or find_spec(wanted) is None:
        hint = 'pip install "marsls-keras[jax]" brings it.' if wanted == "jax" else "Expected tensorflow or jax."
        raise InputError(f"KERAS_BACKEND={wanted}: there is no such backend here. {hint}")
    if not state["imported"]:
        from marsls_keras.runtime import accelerators

        with stage("Importing the backend"), quiet_stderr(state["debug"]):
            accelerators()
        state["imported"] = True


@contextmanager
def quiet_stderr(loud: bool) -> Iterator[None]:
    """Suppress output of native code to stderr in a block, and show it only if the block fails.

    TensorFlow logs a dozen lines before its log level can be set from Python. With `loud`, nothing is suppressed.

    Example:
        >>> with quiet_stderr(loud=False):
        ...     keras.backend.backend() in ("tensorflow", "jax")
        True
    """
    if loud:
        yield
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        saved = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(saved, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
