"""Keras, TensorFlow and NumPy as lazy modules, which are imported on first use.

These imports take seconds, and checks of a user's input must not wait for them. Modules of functions import Keras from
here. Modules with subclasses of Keras' classes import it as usual, and are themselves imported on demand.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf
    from keras import ops
else:

    class _Lazy:
        """Import a module at the first access to one of its attributes."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            value = getattr(import_module(self._name), attribute)
            setattr(self, attribute, value)
            return value

    keras, ops, tf, np = _Lazy("keras"), _Lazy("keras.ops"), _Lazy("tensorflow"), _Lazy("numpy")

__all__ = ["keras", "np", "ops", "tf"]
