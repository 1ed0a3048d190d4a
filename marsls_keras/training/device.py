"""What the computation really runs on: device, precision, XLA, determinism; set here, printed and recorded."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from typing import Any

import keras

from marsls_keras import __version__
from marsls_keras.config import Training


def accelerators() -> list[str]:
    """Return the names of the GPUs or TPUs that the backend sees."""
    import tensorflow as tf

    if keras.backend.backend() == "jax":
        import jax

        tf.config.set_visible_devices([], "GPU")  # TensorFlow only feeds the data and must not take the GPU's memory
        tf.config.list_logical_devices()
        return [str(device) for device in jax.devices() if device.platform != "cpu"]
    return [device.name for kind in ("GPU", "TPU") for device in tf.config.list_logical_devices(kind)]


def use_xla(config: Training) -> bool:
    """Return whether XLA compiles the steps: always under JAX; with "auto", under TensorFlow on a GPU only.

    On two CPU cores XLA made the U-Net's training step 1.4 times slower than oneDNN's kernels.
    """
    if keras.backend.backend() == "jax":
        return True
    return bool(accelerators()) if config.xla == "auto" else config.xla == "on"


def prepare(config: Training) -> dict[str, Any]:
    """Set precision, seeds and determinism for this process, and return the content of environment.json."""
    keras.config.set_dtype_policy(config.precision)
    keras.utils.set_random_seed(config.seed)
    if config.deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    packages = ("keras", "tensorflow", "jax", "numpy", "tifffile", "scikit-learn")
    return {
        "marsls_keras": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "backend": keras.backend.backend(),
        "devices": accelerators() or ["CPU"],
        "precision": config.precision,
        "xla": use_xla(config),
        "deterministic": config.deterministic,
        "packages": {name: version for name in packages if (version := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
