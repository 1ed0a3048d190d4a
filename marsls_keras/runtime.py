"""Check, set and record devices, precision, XLA, determinism and memory of the computation."""

from __future__ import annotations

import os
import platform
import re
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from marsls_keras import __version__
from marsls_keras.config import Training
from marsls_keras.errors import InputError
from marsls_keras.lazy_imports import keras


def accelerators() -> list[str]:
    """Return the names of the GPUs or TPUs that are visible to the backend.

    Example:
        >>> accelerators()  # of a machine with one GPU  # doctest: +SKIP
        ['/device:GPU:0']
    """
    import tensorflow as tf

    if keras.backend.backend() == "jax":
        import jax

        tf.config.set_visible_devices([], "GPU")  # TensorFlow only runs tf.data and must leave the GPU's memory to JAX
        tf.config.list_logical_devices()
        return [str(device) for device in jax.devices() if device.platform != "cpu"]
    return [device.name for kind in ("GPU", "TPU") for device in tf.config.list_logical_devices(kind)]


def use_xla(config: Training, devices: int = 1) -> bool:
    """Return whether XLA compiles the training steps.

    Always under JAX; with "auto", under TensorFlow on one GPU without determinism.

    On two CPU cores XLA made the U-Net's training step 1.4 times slower than oneDNN's kernels.

    Example:
        >>> use_xla(Training(xla="off")) == (keras.backend.backend() == "jax")
        True
    """
    if keras.backend.backend() == "jax":
        return True
    if config.xla == "auto":
        return bool(accelerators()) and devices == 1 and not config.deterministic
    return config.xla == "on"


def effective_precision(precision: str, depthwise: bool = False) -> str:
    """Resolve the precision "auto" to mixed_bfloat16 or float32, and return others unchanged.

    "auto" is mixed_bfloat16 where the GPU, or without one the CPU, has bfloat16 natively. Elsewhere bfloat16 is
    emulated and slower than float32. GPUs have it from compute capability 8.0 on (Ampere), all TPUs have it, and x86
    CPUs with the flag avx512_bf16 or amx_bf16. On a CPU "auto" is float32 for networks of depthwise convolutions: on
    two idle cores with amx_bf16 the default recipe's EfficientNet-Lite0 trained on 55 to 57 tiles a second in float32
    and on 34 to 39 in mixed_bfloat16, while the plain U-Net was 2.6 times faster in mixed_bfloat16.

    Args:
        precision: `training.precision`.
        depthwise: Whether the network consists mainly of depthwise convolutions (`models.is_depthwise`).

    Example:
        >>> effective_precision("mixed_float16", depthwise=True)
        'mixed_float16'
        >>> effective_precision("auto") in ("float32", "mixed_bfloat16")
        True
    """
    if precision != "auto":
        return precision
    if depthwise and not accelerators():
        return "float32"
    return "mixed_bfloat16" if _has_bfloat16() else "float32"


def _has_bfloat16() -> bool:
    import tensorflow as tf

    if not accelerators():
        return bool(re.search(r"^flags\s*:.*\b(avx512_bf16|amx_bf16)\b", _cpu_information(), re.MULTILINE))
    if keras.backend.backend() == "jax":
        import jax

        found = [getattr(device, "compute_capability", None) for device in jax.devices()]
        return all(capability is None or float(capability) >= 8 for capability in found)
    details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    return all(detail.get("compute_capability", (0, 0)) >= (8, 0) for detail in details)


def _cpu_information() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return ""


def prepare(config: Training, devices: int = 1, depthwise: bool = False) -> dict[str, Any]:
    """Set precision, random seeds and determinism of this process; return the content of environment.json.

    Args:
        config: The section `training` of the configuration.
        devices: Devices that share each batch.
        depthwise: As in `effective_precision`.

    Raises:
        InputError: As `require_devices` does.

    Example:
        >>> environment = prepare(Training(precision="float32", seed=1))
        >>> environment["precision"], environment["replicas"]
        ('float32', 1)
    """
    require_devices(config, devices, depthwise)
    precision = effective_precision(config.precision, depthwise)
    keras.config.set_dtype_policy(precision)
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
        "devices": _replicas(devices) if devices > 1 else accelerators()[:1] or ["CPU"],
        "replicas": devices,
        "precision": precision,
        "xla": use_xla(config, devices),
        "deterministic": config.deterministic,
        "packages": {name: version for name in packages if (version := _version(name))},
    }


def require_devices(config: Training, devices: int = 1, depthwise: bool = False) -> None:
    """Check that the devices of this machine can compute a training as configured.

    Raises:
        InputError: If there are fewer devices, or they cannot compute in this precision, with or without XLA, or
            deterministically.

    Example:
        >>> require_devices(Training(precision="float32"), devices=1)
    """
    if keras.backend.backend() == "jax":
        if config.xla == "off":
            raise InputError("training.xla off: JAX compiles every step with XLA. Set it to auto.")
        # XLA reads its flags when the backend starts, which has happened: they cannot be set from here.
        if config.deterministic and accelerators() and "deterministic_ops=true" not in os.environ.get("XLA_FLAGS", ""):
            raise InputError(
                "training.deterministic: on a GPU, JAX repeats its results only if marsls is started with "
                "XLA_FLAGS=--xla_gpu_deterministic_ops=true in the environment."
            )
    elif config.xla == "on" and (devices > 1 or config.deterministic):
        # Keras either fails, since XLA needs its variables on one device, or silently trains without XLA.
        what = f"--devices {devices}" if devices > 1 else "training.deterministic"
        raise InputError(f"training.xla on does not go together with {what} under TensorFlow. Set it to auto or off.")
    if devices > 1:
        _replicas(devices)
    require_precision(effective_precision(config.precision, depthwise))


def scope(devices: int) -> AbstractContextManager[Any]:
    """Return the context for building a model for data-parallel training on several devices.

    With one device the context does nothing. With several, each device gets a share of every batch.

    Raises:
        InputError: If there are fewer devices, or the backend is not TensorFlow.

    Example:
        >>> with scope(devices=1):
        ...     model = keras.Sequential([keras.Input((8, 8, 7)), keras.layers.Conv2D(1, 1)])
    """
    return nullcontext() if devices == 1 else _strategy(devices).scope()


@cache
def _strategy(devices: int) -> Any:
    """Return the distribution strategy of this process, the same one at every call.

    Two strategies in a process would use the same numbers for different exchanges between devices.
    """
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(_replicas(devices))


def assign_total(variable: keras.Variable, value: Any) -> None:
    """Assign a value to a metric's variable so that its sum over all devices is the value.

    With several devices, each has a part of the sum: the first device gets the value, the others 0.

    Example:
        >>> metric = keras.metrics.Sum()
        >>> assign_total(metric.total, 3.0)
        >>> float(metric.result())
        3.0
    """
    import tensorflow as tf

    if not isinstance(variable.value, tf.distribute.DistributedValues):
        variable.assign(value)
        return
    # Assigned as a whole, each part would be value / devices, which is rounded down for integers.
    for i, part in enumerate(variable.value.values):
        part.assign(value if i == 0 else np.zeros_like(value))


def _replicas(devices: int) -> list[str]:
    """Return the names of the devices that share a batch: GPUs, or the logical CPUs where there is no GPU."""
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            f"--devices {devices}: several devices for one fold need the TensorFlow backend, "
            f"not {keras.backend.backend()}."
        )
    import tensorflow as tf

    names = [device.name for device in tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")]
    if len(names) < devices:
        there = (
            f"is only one device here, {names[0]}"
            if len(names) == 1
            else f"are only {len(names)} devices here: {', '.join(names)}"
        )
        raise InputError(f"--devices {devices}: there {there}.")
    return names[:devices]


def require_precision(precision: str) -> None:
    """Check that the device can compute in a precision, by a convolution and its gradient.

    Raises:
        InputError: If it cannot, or if a CPU would emulate float16.

    Example:
        >>> require_precision("float32")
    """
    if precision == "float32":
        return
    if precision == "mixed_float16" and not accelerators():
        raise InputError(
            "training.precision mixed_float16: a CPU emulates float16, which is many times slower than float32 and "
            "less exact. Use float32, or on a CPU that has it mixed_bfloat16."
        )
    kind = keras.dtype_policies.get(precision).compute_dtype
    try:
        model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(1, 3, dtype=precision)])
        model.compile("sgd", "mse", jit_compile=keras.backend.backend() == "jax")
        model.train_on_batch(keras.ops.ones((1, 8, 8, 1)), keras.ops.ones((1, 6, 6, 1)))
    except Exception as error:  # backends and devices raise different exceptions
        device = ", ".join(accelerators() or ["CPU"])
        reason = str(error).splitlines()[0]
        raise InputError(
            f"training.precision {precision}: {device} cannot compute in {kind} ({reason}). Use float32."
        ) from error


def out_of_memory(error: BaseException) -> str | None:
    """Return the line of a TensorFlow or JAX error that reports exhausted memory, None for other errors.

    Example:
        >>> out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 GiB"))
        'RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 GiB'
        >>> out_of_memory(ValueError("wrong shape")) is None
        True
    """
    text = str(error)
    lines = [
        line for line in text.splitlines() if re.search(r"\bOOM\b|RESOURCE_EXHAUSTED|CUDA_ERROR_OUT_OF_MEMORY", line)
    ]
    if type(error).__name__ != "ResourceExhaustedError" and not lines:
        return None
    # TensorFlow raises the same error for a full disk.
    if re.search("no space left|quota exceeded", text, re.IGNORECASE):
        return None
    return (lines or text.splitlines())[0].strip()


def peak_memory() -> dict[str, float]:
    """Return the peak memory use of the process in GiB: "host" in main memory, "device" on the first GPU.

    "host" is missing on Windows, "device" without a GPU.

    Example:
        >>> peak_memory()["host"] > 0
        True
    """
    peak = {}
    if sys.platform != "win32":
        import resource

        # ru_maxrss is in KiB on Linux, in bytes on macOS.
        unit = 1 if sys.platform == "darwin" else 1024
        peak["host"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
    if keras.backend.backend() == "jax":
        import jax

        statistics = jax.devices()[0].memory_stats() or {}
        if "peak_bytes_in_use" in statistics:
            peak["device"] = statistics["peak_bytes_in_use"] / 2**30
    elif found := accelerators():
        import tensorflow as tf

        if "GPU" in found[0]:
            peak["device"] = tf.config.experimental.get_memory_info(found[0].removeprefix("/device:"))["peak"] / 2**30
    return peak


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
