"""What the computation really runs on: devices, precision, XLA, determinism, memory; set here, printed and recorded."""

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
from marsls_keras.lazy import keras


def accelerators() -> list[str]:
    """Return the names of the GPUs or TPUs that the backend sees."""
    import tensorflow as tf

    if keras.backend.backend() == "jax":
        import jax

        tf.config.set_visible_devices([], "GPU")  # TensorFlow only feeds the data and must not take the GPU's memory
        tf.config.list_logical_devices()
        return [str(device) for device in jax.devices() if device.platform != "cpu"]
    return [device.name for kind in ("GPU", "TPU") for device in tf.config.list_logical_devices(kind)]


def use_xla(config: Training, devices: int = 1) -> bool:
    """Return whether XLA compiles the steps: always under JAX; with "auto", under TensorFlow on one GPU and not deterministically.

    On two CPU cores XLA made the U-Net's training step 1.4 times slower than oneDNN's kernels.
    """
    if keras.backend.backend() == "jax":
        return True
    if config.xla == "auto":
        return bool(accelerators()) and devices == 1 and not config.deterministic
    return config.xla == "on"


def effective_precision(precision: str) -> str:
    """Return the precision that is computed in: "auto" is mixed_bfloat16 where the GPU, or else the processor, has bfloat16 natively.

    Elsewhere bfloat16 is emulated and slower than float32, which "auto" then is. GPUs have it from compute capability 8.0 on (Ampere), TPUs
    all do, processors of x86 with the flags avx512_bf16 or amx_bf16.
    """
    if precision != "auto":
        return precision
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


def prepare(config: Training, devices: int = 1) -> dict[str, Any]:
    """Set precision, seeds and determinism for this process, and return the content of environment.json.

    Raises:
        InputError: As `require_devices` does.
    """
    require_devices(config, devices)
    precision = effective_precision(config.precision)
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


def require_devices(config: Training, devices: int = 1) -> None:
    """Refuse a training that this machine's devices cannot do as it is asked for, before anything of it is begun.

    Raises:
        InputError: If there are fewer devices, or they cannot compute in this precision, with or without XLA, or deterministically.
    """
    if keras.backend.backend() == "jax":
        if config.xla == "off":
            raise InputError("training.xla off: JAX compiles every step with XLA. Set it to auto.")
        # XLA reads its flags when the backend starts, which it has by now.
        if config.deterministic and accelerators() and "deterministic_ops=true" not in os.environ.get("XLA_FLAGS", ""):
            raise InputError(
                "training.deterministic: on a GPU, JAX repeats its results only if marsls is started with "
                "XLA_FLAGS=--xla_gpu_deterministic_ops=true in the environment."
            )
    elif config.xla == "on" and (devices > 1 or config.deterministic):
        # Keras either fails, since XLA's variables must be on one device, or goes on without XLA.
        what = f"--devices {devices}" if devices > 1 else "training.deterministic"
        raise InputError(f"training.xla on does not go together with {what} under TensorFlow. Set it to auto or off.")
    if devices > 1:
        _replicas(devices)
    require_precision(effective_precision(config.precision))


def scope(devices: int) -> AbstractContextManager[Any]:
    """Return the context in which a model must be built to be trained on several devices of this machine, each with a share of the batch.

    Raises:
        InputError: If there are fewer devices, or the backend is not TensorFlow.
    """
    return nullcontext() if devices == 1 else _strategy(devices).scope()


@cache
def _strategy(devices: int) -> Any:
    """Return the same strategy every time: two of them number their exchanges between devices alike, and mistake one for the other's."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(_replicas(devices))


def assign_total(variable: keras.Variable, value: Any) -> None:
    """Give a metric's variable a value; on several devices, where each has a part and the sum of them counts, the first device has all."""
    import tensorflow as tf

    if not isinstance(variable.value, tf.distribute.DistributedValues):
        variable.assign(value)
        return
    # Assigned as a whole, each part would be the value over the number of devices, rounded down where it is a whole number.
    for i, part in enumerate(variable.value.values):
        part.assign(value if i == 0 else np.zeros_like(value))


def _replicas(devices: int) -> list[str]:
    """Return the names of the devices that share a batch: GPUs, or the logical CPUs where there is no GPU."""
    if keras.backend.backend() != "tensorflow":
        raise InputError(f"--devices {devices}: several devices for one fold need the TensorFlow backend, not {keras.backend.backend()}.")
    import tensorflow as tf

    names = [device.name for device in tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")]
    if len(names) < devices:
        there = f"is only one device here, {names[0]}" if len(names) == 1 else f"are only {len(names)} devices here: {', '.join(names)}"
        raise InputError(f"--devices {devices}: there {there}.")
    return names[:devices]


def require_precision(precision: str) -> None:
    """Refuse a precision that the device cannot compute in, by trying a convolution and its gradient.

    Raises:
        InputError: If it cannot.
    """
    if precision == "float32":
        return
    if precision == "mixed_float16" and not accelerators():
        raise InputError(
            "training.precision mixed_float16: a CPU emulates float16, which is many times slower than float32 and less exact. Use "
            "float32, or on a CPU that has it mixed_bfloat16."
        )
    kind = keras.dtype_policies.get(precision).compute_dtype
    try:
        model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(1, 3, dtype=precision)])
        model.compile("sgd", "mse", jit_compile=keras.backend.backend() == "jax")
        model.train_on_batch(keras.ops.ones((1, 8, 8, 1)), keras.ops.ones((1, 6, 6, 1)))
    except Exception as error:  # each backend and device has its own way to say no
        device = ", ".join(accelerators() or ["CPU"])
        reason = str(error).splitlines()[0]
        raise InputError(f"training.precision {precision}: {device} cannot compute in {kind} ({reason}). Use float32.") from error


def out_of_memory(error: BaseException) -> str | None:
    """Return what an error of TensorFlow or JAX says about memory that ran out, or None if it is about something else."""
    text = str(error)
    lines = [line for line in text.splitlines() if re.search(r"\bOOM\b|RESOURCE_EXHAUSTED|CUDA_ERROR_OUT_OF_MEMORY", line)]
    if type(error).__name__ != "ResourceExhaustedError" and not lines:
        return None
    if re.search("no space left|quota exceeded", text, re.IGNORECASE):  # TensorFlow has one error for memory and disks
        return None
    return (lines or text.splitlines())[0].strip()


def peak_memory() -> dict[str, float]:
    """Return the largest amount of memory in use so far, in GiB: "host" for the process (not on Windows), "device" for the first GPU."""
    peak = {}
    if sys.platform != "win32":
        import resource

        # Linux counts in KiB, macOS in bytes.
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
