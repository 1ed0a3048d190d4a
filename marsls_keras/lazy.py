"""Keras, TensorFlow and NumPy, imported when something of them is first used, since that takes time.

What only checks a user's input must not wait for them. Modules of functions take Keras from here. Modules that derive classes from those of
Keras import it as usual, and are imported where they are needed.
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
        """Stands for a module and imports it when it is first asked for anything."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            value = getattr(import_module(self._name), attribute)
            setattr(self, attribute, value)
            return value

    keras, ops, tf, np = _Lazy("keras"), _Lazy("keras.ops"), _Lazy("tensorflow"), _Lazy("numpy")

__all__ = ["keras", "np", "ops", "tf"]
