"""Capabilities of the machine: precisions, XLA, memory, and out-of-memory errors."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from marsls_keras import runtime as device
from marsls_keras.config import Training
from marsls_keras.errors import InputError
from marsls_keras.models import is_depthwise
from marsls_keras.runtime import (
    accelerators,
    effective_precision,
    out_of_memory,
    peak_memory,
    require_precision,
    use_xla,
)


def test_a_precision_that_the_device_cannot_compute_in_is_refused():
    for precision in ("float32", "mixed_bfloat16"):
        require_precision(precision)
    if not accelerators():
        with pytest.raises(
            InputError, match=r"mixed_float16: a CPU emulates float16.* Use float32, or .* mixed_bfloat16\."
        ):
            require_precision("mixed_float16")
    with pytest.raises(
        InputError, match=r"training.precision complex64: .* cannot compute in complex64 \(.+\)\. Use float32\."
    ):
        require_precision("complex64")  # none that the configuration knows fails on a CPU


def test_the_automatic_precision_is_bfloat16_where_the_processor_has_it(monkeypatch):
    assert effective_precision("mixed_float16") == "mixed_float16" and effective_precision("float32") == "float32"
    if accelerators():
        pytest.skip("there is a GPU, which decides")
    for flags, expected in (
        ("avx2 avx512_bf16 amx", "mixed_bfloat16"),
        ("amx_bf16", "mixed_bfloat16"),
        ("avx512f avx512_bf16x", "float32"),
    ):
        monkeypatch.setattr(
            device, "_cpu_information", lambda flags=flags: f"processor : 0\nflags\t\t: fpu {flags}\nbugs : none\n"
        )
        assert effective_precision("auto") == expected
    monkeypatch.setattr(device, "_cpu_information", lambda: "")
    assert effective_precision("auto") == "float32"


def test_networks_of_depthwise_convolutions_compute_in_float32_on_a_processor(monkeypatch):
    monkeypatch.setattr(device, "_cpu_information", lambda: "flags\t\t: fpu amx_bf16\n")
    monkeypatch.setattr(device, "accelerators", list)
    assert effective_precision("auto") == "mixed_bfloat16" and effective_precision("auto", depthwise=True) == "float32"
    assert effective_precision("mixed_bfloat16", depthwise=True) == "mixed_bfloat16"
    monkeypatch.setattr(device, "accelerators", lambda: ["GPU:0"])
    monkeypatch.setattr(device, "_has_bfloat16", lambda: True)
    assert effective_precision("auto", depthwise=True) == "mixed_bfloat16"


def test_only_encoders_of_inverted_bottlenecks_are_depthwise():
    assert is_depthwise("segmenter", {}) and is_depthwise("dual_swin", {"encoder": "efficientnet_lite2"})
    for name, options in (("segmenter", {"encoder": "mit_b0"}), ("dual_swin", {}), ("unet", {})):
        assert not is_depthwise(name, options)


def test_xla_is_on_by_itself_only_on_one_gpu_and_not_deterministically():
    gpu = bool(accelerators())
    assert use_xla(Training()) == gpu
    assert not use_xla(Training(), devices=2) and not use_xla(Training(deterministic=True))
    assert use_xla(Training(xla="on")) and not use_xla(Training(xla="off"))


@pytest.mark.slow
def test_the_peak_of_memory_grows_with_what_is_held():
    before = peak_memory()["host"]
    held = np.ones(int((before + 0.5) * 2**30), np.uint8)
    # All of it is new, and what the process held already was no more than its peak so far.
    assert before + 0.4 < peak_memory()["host"] < 2 * before + 0.6 and held.all()


@pytest.mark.slow  # TensorFlow waits for ten seconds whether somebody gives memory back
def test_memory_that_ran_out_is_recognised():
    with pytest.raises(tf.errors.ResourceExhaustedError) as memory:
        tf.raw_ops.Empty(shape=[2**24, 2**20], dtype=tf.float32)
    told = out_of_memory(memory.value)
    assert told and "OOM when allocating tensor with shape[16777216,1048576]" in told and "\n" not in told


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, a device that is always full")
def test_a_full_disk_is_not_taken_for_memory_that_ran_out():
    with pytest.raises(tf.errors.ResourceExhaustedError) as disk:
        tf.io.write_file("/dev/full", "x" * 10_000_000)
    assert out_of_memory(disk.value) is None
    assert out_of_memory(tf.errors.InvalidArgumentError(None, None, "in ROOM 12")) is None
    assert out_of_memory(ValueError("a bad\nvalue")) is None
