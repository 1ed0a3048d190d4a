"""Training on several devices: two virtual CPUs, which must be configured at the start of a process."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.stopped_commands import run_commands

from competition.cli import main
from marsls_keras.runs.run import read_history

TWO_DEVICES = """
import tensorflow as tf
cpu, *_ = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
"""

SETTINGS = [
    *("training.learning_rate=0.002", "training.swa_epochs=1", "training.ema_warmup=true", "training.accumulate=2"),
    *(
        "training.clip_norm=0.1",
        "data.sampling=windows",
        "data.window_sizes=[32,48]",
        "loss={weighted_bce: 0.5, iou: 0.5}",
    ),
]
"""Steps of 4 and of 2 windows."""


def run(*commands: list[str]) -> tuple[list[int], str]:
    return run_commands(commands, before=TWO_DEVICES)


def weights(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def alike(one: Path, other: Path, tolerance: float, pixels: float) -> None:
    """Check that two folds are equal except for rounding, by which a few pixels may cross the threshold."""
    rows = [read_history(folder / "history.csv") for folder in (one, other)]
    assert len(rows[0]) == len(rows[1]) == 2
    for a, b in zip(*rows, strict=True):
        for name in a.keys() - {"seconds", "tiles_per_second"}:
            assert a[name] == pytest.approx(b[name], rel=1e-5, abs=0 if "loss" in name else pixels, nan_ok=True), name
    a, b = (weights(folder / "best.weights.h5") for folder in (one, other))
    assert a.keys() == b.keys() and len(a) > 20
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-4, atol=tolerance, err_msg=name)
    with np.load(one / "oof.npz") as a, np.load(other / "oof.npz") as b:
        np.testing.assert_allclose(a["view_identity"].astype(float), b["view_identity"].astype(float), atol=2e-3)


@pytest.mark.slow
def test_two_devices_do_what_one_does_and_go_on_where_the_other_stopped(tiny_run, tmp_path):
    def command(runs: str, devices: int, *more: str) -> list[str]:
        settings = [part for setting in SETTINGS for part in ("--set", setting)]
        named = [
            "--config",
            tiny_run.recipe,
            "--data",
            tiny_run.data,
            "--runs",
            tmp_path / runs,
            "--fold",
            "1",
            "--devices",
            devices,
        ]
        return ["train", *map(str, named), *settings, *more]

    codes, said = run(
        ["stop", *command("two-one", 2)],
        command("two-one", 1, "--resume"),
        ["stop", *command("one-two", 1)],
        command("one-two", 2, "--resume"),
    )
    stopped = 128 + signal.SIGTERM
    assert codes == [stopped, 0, stopped, 0], said
    assert said.count("Stopped in epoch 2, after step 1 of") == 2
    assert "tensorflow on /device:CPU:0, /device:CPU:1, float32, XLA off, deterministic." in said
    alike(tmp_path / "two-one" / "tiny" / "fold_1", tmp_path / "one-two" / "tiny" / "fold_1", 2e-5, 1e-4)
    environment = json.loads((tmp_path / "one-two" / "tiny" / "fold_1" / "environment.json").read_text())
    assert (
        environment["replicas"] == 2
        and environment["devices"] == ["/device:CPU:0", "/device:CPU:1"]
        and not environment["xla"]
    )


@pytest.mark.slow
def test_all_folds_on_two_devices_are_those_of_one(tiny_run, tmp_path):
    # Adam's first update moves each weight by the whole learning rate, whichever way the rounding of a tiny gradient
    # points; small steps keep that small.
    def command(runs: str, devices: int) -> list[str]:
        named = ["--config", tiny_run.recipe, "--data", tiny_run.data, "--runs", tmp_path / runs, "--devices", devices]
        return ["train", *map(str, named), "--set", "training.learning_rate=0.0003"]

    codes, said = run(command("two", 2), command("one", 1))
    assert codes == [0, 0], said
    for fold in (0, 1):
        alike(tmp_path / "two" / "tiny" / f"fold_{fold}", tmp_path / "one" / "tiny" / f"fold_{fold}", 2e-4, 2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16"])  # a CPU is refused mixed_float16
def test_two_devices_in_half_precision_come_close_to_one(tiny_run, tmp_path, precision):
    named = [
        "--config",
        tiny_run.recipe,
        "--data",
        tiny_run.data,
        "--fold",
        0,
        "--set",
        f"training.precision={precision}",
    ]
    one, two = (["train", *map(str, named), "--runs", str(tmp_path / str(n)), "--devices", str(n)] for n in (1, 2))
    codes, said = run(one, two)
    assert codes == [0, 0] and said.count(f"{precision}, XLA off") == 2
    folders = [tmp_path / n / "tiny" / "fold_0" for n in "12"]
    assert {json.loads((folder / "environment.json").read_text())["precision"] for folder in folders} == {precision}
    first, second = (read_history(folder / "history.csv") for folder in folders)
    assert all(np.isfinite(list(row.values())).all() for row in first + second)
    assert first[0]["loss"] == pytest.approx(second[0]["loss"], rel=1e-3)


PARTS = """
import json
import tensorflow as tf
cpu, *_ = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
import numpy as np
from marsls_keras.config import Training
from marsls_keras.metrics import SegmentationCounts
from marsls_keras.runtime import assign_total, scope
from marsls_keras.training.optimizer import build_optimizer
from marsls_keras.training.multi_device import LossScale

with scope(2):
    strategy = tf.distribute.get_strategy()
    weights = keras.Variable(np.ones(3, "float32"), name="kernel")
    optimizer = LossScale(build_optimizer(Training(epochs=2, warmup_epochs=0), 4))
    optimizer.build([weights])

@tf.function
def step(overflowing):
    def on_device():
        here = tf.distribute.get_replica_context().replica_id_in_sync_group
        optimizer.apply_gradients([(tf.where(tf.equal(here, overflowing), np.inf, 1.0) * tf.ones(3), weights)])
    strategy.run(on_device)

result = []
for overflowing in (-1, 0, 1):
    step(tf.constant(overflowing))
    parts = [part.numpy().tolist() for part in strategy.experimental_local_results(weights.value)]
    result.append([parts, float(optimizer.dynamic_scale.numpy()), int(optimizer.iterations.numpy())])
print(json.dumps(result))
with scope(2):
    metric = SegmentationCounts()
assign_total(metric.cells, np.array([3, 0, 5, 8]))
print(json.dumps(vars(metric.counts())))
"""


@pytest.fixture(scope="module")
def parts() -> list:
    done = subprocess.run([sys.executable, "-c", PARTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()[-2:]]


@pytest.mark.slow
def test_an_overflow_on_any_device_skips_the_update_of_all(parts):
    (start, scale, updates), *skipped = parts[0]
    assert updates == 1 and start[0] == start[1] and start[0][0] < 1
    assert skipped == [[start, scale / 2, 1], [start, scale / 4, 1]]


@pytest.mark.slow
def test_counts_are_divided_among_devices_without_losing_any(parts):
    assert parts[1] == {"tp": 3, "fp": 0, "fn": 5, "tn": 8}


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        (
            ["training.batch_size=3"],
            ["--devices", "2"],
            "batch_size 3 cannot be shared evenly by 2 devices. Choose a multiple of 2",
        ),
        (
            ["inference.batch_size=1"],
            ["--devices", "2"],
            "inference.batch_size 1 cannot be shared evenly by 2 devices.",
        ),
        (
            [*SETTINGS, "training.batch_size=6"],
            ["--devices", "2"],
            "so many windows: 6 of 32 pixels, 3 of 48 pixels. 2 devices can share",
        ),
        (
            ["training.xla=on", "training.deterministic=false"],
            ["--devices", "2"],
            "training.xla on does not go together with --devices 2",
        ),
        (["training.xla=on"], [], "training.xla on does not go together with training.deterministic"),
        ([], ["--devices", "2"], "--devices 2: there is only one device here, /device:CPU:0"),
    ],
)
def test_what_devices_cannot_do_is_refused_before_there_is_a_run(
    tiny_run, tmp_path, capsys, settings, options, message
):
    given = [part for setting in settings for part in ("--set", setting)]
    named = ["--config", str(tiny_run.recipe), "--data", str(tiny_run.data), "--runs", str(tmp_path)]
    assert main(["train", *named, *given, *options]) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())
