"""All commands on the JAX backend, in separate processes, since the backend is chosen at the start."""

import json
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers.stopped_commands import run_code, run_commands

from competition.cli import main
from marsls_keras.counts import confusion
from marsls_keras.runs.run import read_history

SETTINGS = [
    *(
        "training.epochs=3",
        "training.patience=3",
        "training.swa_epochs=2",
        "training.ema_warmup=true",
        "training.accumulate=2",
    ),
    *("training.clip_norm=0.5", "augmentation.preset=strong", "data.sampling=windows", "data.window_sizes=[32,48]"),
]


@pytest.fixture(scope="module")
def jax(tmp_path_factory):
    """Return a function that runs code under JAX, and returns the JSON that it printed last, and its stderr."""
    # What one process has compiled, the next need not: compiling is most of what they do.
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    environment = {**cache, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}

    def run(*commands: list[str], code: str = "") -> tuple:
        return run_code(code, "", environment) if code else run_commands(commands, environment=environment)

    return run


def train(tiny_run, runs: Path, *options: str, settings: list[str] = SETTINGS) -> list[str]:
    given = [part for setting in settings for part in ("--set", setting)]
    return [
        "train",
        *map(str, ["--config", tiny_run.recipe, "--data", tiny_run.data, "--runs", runs]),
        *given,
        *options,
    ]


def probabilities(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: tifffile.imread(path) for path in sorted((folder / "probability").glob("*.tif"))}


@pytest.mark.slow
def test_the_road_from_training_to_a_score_and_the_same_predictions_as_under_tensorflow(tiny_run, tmp_path, jax):
    runs, images = ["--runs", str(tmp_path / "runs")], tiny_run.data / "test" / "images"
    predict = ["predict", "tiny", "--runs", str(tiny_run.runs), "--images", str(images), "--out"]
    codes, said = jax(
        train(tiny_run, tmp_path / "runs", settings=["training.accumulate=2", "training.clip_norm=0.5"]),
        ["tune", "--run", "tiny", *runs],
        ["submit", "--run", "tiny", *runs, "--out", str(tmp_path / "made.zip")],
        ["score", str(tmp_path / "made.zip"), "--masks", str(tiny_run.data / "test" / "masks"), "--json"],
        [*predict, str(tmp_path / "jax")],
        train(tiny_run, tmp_path / "more", "--devices", "2"),
    )
    assert codes == [0, 0, 0, 0, 0, 2] and said.count("jax on CPU, float32, XLA on, deterministic.") == 2, said
    assert "--devices 2: several devices for one fold need the TensorFlow backend, not jax." in said
    for fold in (0, 1):
        folder = tmp_path / "runs" / "tiny" / f"fold_{fold}"
        environment, metrics = (
            json.loads((folder / f"{name}.json").read_text()) for name in ("environment", "metrics")
        )
        assert environment["backend"] == "jax" and environment["xla"] and environment["packages"]["jax"]
        rows = read_history(folder / "history.csv")
        assert len(rows) == 2 and all(np.isfinite(list(row.values())).all() for row in rows)
        assert (
            metrics["scores"]["miou"] == rows[metrics["best_epoch"]]["val_miou"] == max(row["val_miou"] for row in rows)
        )

    assert main([*predict, str(tmp_path / "tensorflow")]) == 0
    ours, theirs = probabilities(tmp_path / "tensorflow"), probabilities(tmp_path / "jax")
    assert ours.keys() == theirs.keys() and len(ours) == 4
    assert max(values.std() for values in ours.values()) > 0.01
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-4)


@pytest.mark.slow
def test_a_signal_saves_within_the_epoch_and_the_rest_is_the_same(tiny_run, tmp_path, jax):
    settings = [*SETTINGS, "model.options.dropout=0.3"]
    (code,), _ = jax(train(tiny_run, tmp_path / "whole", "--fold", "0", settings=settings))
    (stopped,), said = jax(["stop", *train(tiny_run, tmp_path / "runs", "--fold", "0", settings=settings)])
    assert (code, stopped) == (
        0,
        128 + signal.SIGTERM,
    ) and "Stopped in epoch 2, after step 1 of 2; the state is saved." in said
    whole, folder = (tmp_path / name / "tiny" / "fold_0" for name in ("whole", "runs"))
    assert sorted(path.name for path in (folder / "state").iterdir()) == ["00001_000000.npz", "00001_000001.npz"]
    (code,), said = jax(train(tiny_run, tmp_path / "runs", "--fold", "0", "--resume", settings=settings))
    assert code == 0 and "Resuming after epoch 1 and step 1 of the next." in said
    timing = ("seconds", "tiles_per_second")
    a, b = (
        [{k: repr(v) for k, v in row.items() if k not in timing} for row in read_history(f / "history.csv")]
        for f in (whole, folder)
    )
    assert a == b and len(a) == 3
    assert (whole / "best.weights.h5").read_bytes() == (folder / "best.weights.h5").read_bytes()
    with np.load(whole / "oof.npz") as one, np.load(folder / "oof.npz") as other:
        assert all(one[name].tobytes() == other[name].tobytes() for name in one.files)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16"])  # a CPU is refused mixed_float16
def test_half_precision_trains_with_scores_that_are_those_of_its_predictions(tiny_run, tmp_path, jax, precision):
    settings = [f"training.precision={precision}", "training.accumulate=2", "training.clip_norm=0.5"]
    (code,), said = jax(train(tiny_run, tmp_path, "--fold", "0", settings=settings))
    assert code == 0 and f"jax on CPU, {precision}, XLA on" in said
    folder = tmp_path / "tiny" / "fold_0"
    rows = read_history(folder / "history.csv")
    assert len(rows) == 2 and all(np.isfinite(list(row.values())).all() for row in rows)
    with np.load(folder / "oof.npz") as oof:
        probability, places = oof["view_identity"], [str(place).split("/") for place in oof["ids"]]
    masks = [tifffile.imread(tiny_run.data / split / "masks" / f"{name}.tif") for split, name in places]
    assert (
        confusion(np.stack(masks), probability >= 0.5).scores()
        == json.loads((folder / "metrics.json").read_text())["scores"]
    )


@pytest.mark.slow
def test_a_training_that_diverges_goes_back_three_times_and_names_its_tiles(tiny_run, tmp_path, jax):
    settings = ["training.learning_rate=1e30", "training.warmup_epochs=0"]
    (code,), said = jax(train(tiny_run, tmp_path, "--fold", "0", settings=settings))
    assert code == 1 and [said.count(f"learning rate × {factor}.\n") for factor in ("0.5", "0.25", "0.125")] == [
        1,
        1,
        1,
    ]
    named = re.search(
        r"Error: .* diverged: .* in epoch 1, step 2\. The tiles of that step: (.*?)\. Going back 3 times", said
    )
    assert named and len(named[1].split(", ")) == 4


ANSWERS = """
import json
import jax
import keras
from keras import ops
from marsls_keras import runtime
from marsls_keras.config import Training
from marsls_keras.errors import InputError

assert keras.backend.backend() == "jax"

def refused(**settings):
    try:
        runtime.require_devices(Training(**settings))
    except InputError as error:
        return str(error)

memory = []
for compute in (lambda x: ops.sort(ops.outer(x, x)), lambda x: ops.reshape(x, (3, 3))):
    try:
        jax.block_until_ready(jax.jit(compute)(ops.ones(2**21)))
    except Exception as error:
        memory.append(runtime.out_of_memory(error))
settings = [refused(xla="off"), refused(deterministic=True)]
runtime.accelerators = lambda: ["cuda:0"]
print(json.dumps([memory, [*settings, refused(deterministic=True), refused()]]))
"""


@pytest.mark.slow
def test_memory_that_ran_out_is_told_and_settings_that_would_do_nothing_are_refused(jax):
    ((memory, other), answers), _ = jax(code=ANSWERS)
    assert memory == f"RESOURCE_EXHAUSTED: Out of memory allocating {4 * 2**42} bytes." and other is None
    assert answers[0] == "training.xla off: JAX compiles every step with XLA. Set it to auto."
    assert answers[2].startswith("training.deterministic: on a GPU, JAX repeats its results only if")
    assert answers[1] is None and answers[3] is None
