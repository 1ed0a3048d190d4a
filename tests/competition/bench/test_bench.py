"""`marsls bench` on tiny networks and tiles: what it measures, what it refuses, and whether the peer is the same network."""

import json
import sys
import time
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from competition.bench import bench
from competition.bench.peers import Peer, require_peer, timed
from competition.cli import main
from competition.console import show
from marsls_keras.config import Config, load_config
from marsls_keras.data.synthetic.mars import write_dataset
from marsls_keras.errors import InputError, RunError
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


def test_everything_is_measured_on_generated_tiles_and_told_as_json(capsys, monkeypatch):
    monkeypatch.delenv("MARSLS_DATA", raising=False)
    code, out, err = run(capsys, "--seconds", 0.2, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert (result["recipe"], result["peer"]) == ("default", None)
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
    settings = [*TINY, "data.sampling=windows", "data.window_sizes=[16, 48]", "augmentation.noise.probability=0.5", "model.options.depth=3"]
    code, out, err = run(capsys, "--data", data, "--seconds", 0.2, settings=settings)
    assert code == 0, err
    for row in ("decode", "training step", "inference step", "training with its data", *(f"pipeline, {name}" for name in PRESETS)):
        assert row in out
    assert "pipeline, recipe" in out and "pipeline, windows, recipe" in out  # noise is in no preset beside flips alone
    assert "16 tiles in" in out and "waits for data" in out and "GiB" in out and "float32, XLA off" in out
    assert "Measuring" in err and "Measuring" not in out


@pytest.mark.parametrize(
    "arguments,settings,message",
    [
        (["--peer", "caffe"], TINY, "--peer caffe: there is no such peer. Known: torch"),
        (["--data", "nowhere"], TINY, "nowhere"),
        (["--seconds", "0"], TINY, "--seconds 0"),
        (["--config", "fastest"], TINY, "There is no configuration 'fastest'"),
        ([], [*TINY, "model.name=resnet"], "resnet"),
        ([], [*TINY, "model.options.depth=6"], "divisible by 64"),
        ([], [*TINY, "data.sampling=windows", "data.window_sizes=[32, 50]"], "50 x 50"),
    ],
)
def test_bad_input_is_named(data, capsys, arguments, settings, message):
    arguments = arguments if "--data" in arguments else [*arguments, "--data", data]
    code, out, err = run(capsys, *arguments, settings=settings)
    assert code == 2 and message in err and "Traceback" not in err and not out


def test_a_peer_without_this_network_is_refused():
    with pytest.raises(InputError, match="no counterpart of swin, only of unet"):
        require_peer("torch", Config.model_validate({"model": {"name": "swin"}}))


def test_a_peer_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # as Python has it for a package that cannot be imported
    with pytest.raises(InputError, match="pip install torch"):
        require_peer("torch", Config())


def test_a_peer_that_fails_says_why():
    config = Config.model_validate({"model": {"options": {"depth": "many"}}})
    with pytest.raises(RunError, match=r"(?s)--peer torch: its process ended with code 1: \w+Error"):
        Peer("torch", config, {"training": (1, 8, 8, 7), "inference": (1, 8, 8, 7)})


def test_waiting_for_data_is_told_from_computing():
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(1, 3, padding="same")])
    model.compile("sgd", "mse", jit_compile=False)
    image = tf.zeros((2, 8, 8, 1))
    quick = tf.data.Dataset.from_tensors((image, image, image)).repeat()
    # Each batch takes 50 ms to make, and a few to train on.
    slow = quick.map(lambda *batch: tf.numpy_function(lambda *b: (time.sleep(0.05), b)[1], batch, [tf.float32] * 3))
    assert bench.train_for(model, quick.prefetch(2), 64, 1, 0.5)["wait_share"] < 0.3
    waiting = bench.train_for(model, slow, 64, 1, 0.5)
    assert waiting["wait_share"] > 0.7
    assert waiting["tiles_per_second"] == pytest.approx(2 / 0.055, rel=0.4)


def test_windows_count_by_their_pixels():
    assert bench.tiles_in((4, 64, 64, 7), 128 * 128) == 1
    assert bench.tiles_in((2, 256, 128, 7), 128 * 128) == 4


def test_a_step_is_timed_at_least_once_and_for_as_long_as_asked():
    calls = []
    assert len(timed(lambda: calls.append(1), 0)) == len(calls) == 1
    taken = timed(lambda: time.sleep(0.02), 0.1)
    assert 2 <= len(taken) <= 5 and min(taken) >= 0.02


def test_contenders_take_turns():
    order = []

    def turn(name, speed, seconds):
        order.append((name, seconds))
        return speed + len(order)

    speeds = bench.in_turns({"a": partial(turn, "a", 0), "b": partial(turn, "b", 100)}, 5)
    assert order == [("a", 1.0), ("b", 1.0)] * 6
    assert speeds == {"a": [3, 5, 7, 9, 11], "b": [104, 106, 108, 110, 112]}  # the first turn of each warms up


def test_the_peer_is_measured_in_turns(data, capsys):
    pytest.importorskip("torch")
    code, out, err = run(capsys, "--data", data, "--seconds", 0.2, "--peer", "torch", "--json")
    assert code == 0, err
    result = json.loads(out)
    peer = result["peer"]
    assert peer["name"] == "torch" and peer["parameters"] == result["trainable"]
    for what in ("training", "inference"):
        assert_speed(peer[what])
        assert peer[what]["ratio"] > 0
    show(*bench.tables(result))
    out = capsys.readouterr().out
    assert f"inference step in torch {peer['version']}" in out and f"Keras × {peer['training']['ratio']:.2f}" in out


def test_the_peer_is_the_same_network():
    torch = pytest.importorskip("torch")
    from competition.bench.torch_peer import steps

    _, config = load_config("unet", ["model.options.base_filters=4", "model.options.depth=2"])
    shape = [2, 16, 16, 7]
    network, _, known = steps(config.model_dump(mode="json"), {"training": shape, "inference": shape})
    model = build_model("unet", base_filters=4, depth=2)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape) if "variance" in variable.name else rng.normal(0, 0.3, variable.shape))

    def give(parameter, value):
        parameter.data = torch.from_numpy(np.ascontiguousarray(value))

    def block(sequential, name):
        for i, (convolution, normalisation) in enumerate(((sequential[0], sequential[1]), (sequential[3], sequential[4])), 1):
            give(convolution.weight, model.get_layer(f"{name}_conv{i}").kernel.numpy().transpose(3, 2, 0, 1))
            theirs = (normalisation.weight, normalisation.bias, normalisation.running_mean, normalisation.running_var)
            for parameter, value in zip(theirs, model.get_layer(f"{name}_bn{i}").get_weights(), strict=True):
                give(parameter, value)

    for level in range(2):
        block(network.down[level], f"down{level}")
        block(network.decode[1 - level], f"decode{level}")
        up, ours = network.up[1 - level], model.get_layer(f"up{level}")
        give(up.weight, ours.kernel.numpy().transpose(3, 2, 0, 1))
        give(up.bias, ours.bias.numpy())
    block(network.bottom, "bottom")
    head = model.get_layer("logits")
    give(network.logits.weight, head.kernel.numpy().transpose(3, 2, 0, 1))
    give(network.logits.bias, head.bias.numpy())
    x = rng.normal(size=shape).astype(np.float32)
    for training in (False, True):
        network.train(training)
        with torch.no_grad():
            theirs = network(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
        assert theirs == pytest.approx(model(x, training=training).numpy(), rel=1e-3, abs=1e-3)
    before = network.logits.weight.detach().clone()
    known["training"]()
    assert not torch.equal(before, network.logits.weight)
    known["inference"]()
    assert not network.training
