"""`marsls bench` on tiny networks and tiles: what it measures and what it refuses."""

import json
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from competition.bench import network
from competition.cli import main
from marsls_keras.data.synthetic.mars import write_dataset
from marsls_keras.models import build_model

TINY = ["model={options: {base_filters: 2, depth: 1}}", "data.sampling=tiles", "training.encoder_learning_rate=null"]
TINY += ["training.precision=float32", "training.batch_size=4", "data.folds=2", "inference.batch_size=3"]
PRESETS = ["none", "flips", "dual_swin", "rmau_net", "strong"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("bench") / "data"
    write_dataset(root, train=10, val=4, test=2, size=32)
    return root


def run(capsys, *arguments, settings=TINY):
    """Run the real command; return its exit code, stdout and stderr."""
    code = main(["bench", *map(str, arguments), *(part for setting in settings for part in ("--set", setting))])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def assert_speed(speed):
    assert 0 < speed["slowest"] <= speed["tiles_per_second"] <= speed["fastest"]


@pytest.mark.slow
def test_everything_is_measured_on_generated_tiles_and_told_as_json(capsys, monkeypatch):
    monkeypatch.delenv("MARSLS_DATA", raising=False)
    code, out, err = run(capsys, "--seconds", 0.2, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["recipe"] == "default"
    assert result["environment"]["precision"] == "float32" and result["environment"]["xla"] is False
    decode = result["decode"]
    assert decode["tiles"] == 96 and decode["tiles_per_second"] == pytest.approx(96 / decode["seconds"])
    assert result["training"]["batch"] == [4, 128, 128, 7] and result["inference"]["batch"] == [3, 128, 128, 7]
    assert result["training"]["first_step_seconds"] > 0
    assert list(result["pipeline"]) == [*PRESETS, "windows, flips"]
    for speed in (result["training"], result["inference"], *result["pipeline"].values()):
        assert_speed(speed)
    assert result["training_with_data"]["tiles_per_second"] > 0 and 0 <= result["training_with_data"]["wait_share"] < 1
    assert 0.1 < result["memory"]["host"] < 100
    model = build_model("unet", base_filters=2, depth=1)
    assert result["trainable"] == sum(int(np.prod(v.shape)) for v in model.trainable_variables)


@pytest.mark.slow
def test_the_table_is_for_people(data, capsys):
    settings = [
        *TINY,
        "data.sampling=windows",
        "data.window_sizes=[16, 48]",
        "augmentation.noise.probability=0.5",
        "model.options.depth=3",
    ]
    code, out, err = run(capsys, "--data", data, "--seconds", 0.2, settings=settings)
    assert code == 0, err
    for row in (
        "decode",
        "training step",
        "inference step",
        "training with its data",
        *(f"pipeline, {name}" for name in PRESETS),
    ):
        assert row in out
    assert "pipeline, recipe" in out and "pipeline, windows, recipe" in out  # noise is in no preset beside flips alone
    assert "16 tiles in" in out and "waits for data" in out and "GiB" in out and "float32, XLA off" in out
    assert "Measuring" in err and "Measuring" not in out


@pytest.mark.parametrize(
    "arguments,settings,message",
    [
        (["--data", "nowhere"], TINY, "nowhere"),
        (["--seconds", "0"], TINY, "--seconds 0"),
        (["--config", "fastest"], TINY, "There is no configuration 'fastest'"),
        ([], [*TINY, "model.name=resnet"], "resnet"),
        ([], [*TINY, "model.options.depth=6"], "divisible by 64"),
        ([], [*TINY, "data.sampling=windows", "data.window_sizes=[32, 51]"], "51 x 51"),
    ],
)
def test_bad_input_is_named(data, capsys, arguments, settings, message):
    arguments = arguments if "--data" in arguments else [*arguments, "--data", data]
    code, out, err = run(capsys, *arguments, settings=settings)
    assert code == 2 and message in err and "Traceback" not in err and not out


def test_waiting_for_data_is_told_from_computing():
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(1, 3, padding="same")])
    model.compile("sgd", "mse", jit_compile=False)
    image = tf.zeros((2, 8, 8, 1))
    quick = tf.data.Dataset.from_tensors((image, image, image)).repeat()
    # Each batch takes 50 ms to make, and a few to train on.
    slow = quick.map(lambda *batch: tf.numpy_function(lambda *b: (time.sleep(0.05), b)[1], batch, [tf.float32] * 3))
    assert network.train_for(model, quick.prefetch(2), 64, 1, 0.5)["wait_share"] < 0.3
    waiting = network.train_for(model, slow, 64, 1, 0.5)
    assert waiting["wait_share"] > 0.7
    assert waiting["tiles_per_second"] == pytest.approx(2 / 0.055, rel=0.4)


def test_windows_count_by_their_pixels():
    assert network.tiles_in((4, 64, 64, 7), 128 * 128) == 1
    assert network.tiles_in((2, 256, 128, 7), 128 * 128) == 4


def test_a_step_is_timed_at_least_once_and_for_as_long_as_asked():
    calls = []
    assert len(network.timed(lambda: calls.append(1), 0)) == len(calls) == 1
    taken = network.timed(lambda: time.sleep(0.02), 0.1)
    assert 2 <= len(taken) <= 5 and min(taken) >= 0.02


def test_the_first_turn_warms_up():
    asked = []

    def turn(seconds):
        asked.append(seconds)
        return [1000, 3, 50, 7, 9, 11][len(asked) - 1]

    assert network.throughput(turn, 5) == {"tiles_per_second": 9, "slowest": 3, "fastest": 50}
    assert asked == [1.0] * 6
