"""The benchmark beside PyTorch: turns in processes of their own, and whether the two networks are the same."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import unet_torch
from in_turns import Process, keras_steps, race, timed

from marsls_keras.config import load_config
from marsls_keras.models import build_model

SERVER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from in_turns import serve
pause, log = float(sys.argv[2]), sys.argv[3]

def step(name):
    with open(log, "a") as file:
        print(pause, name, file=file)
    time.sleep(pause)

serve({"training": lambda: step("training"), "inference": lambda: step("inference")})
"""


def command(pause, log):
    return [sys.executable, "-c", SERVER, str(Path(__file__).parent), str(pause), str(log)]


def test_the_libraries_take_turns_of_which_the_first_does_not_count(tmp_path):
    log = tmp_path / "log.txt"
    result = race({"quick": command(0.05, log), "slow": command(0.1, log)}, turns=2, seconds=0)
    order = [f"{pause} {step}" for step in ("training", "inference") for _ in range(3) for pause in (0.05, 0.1)]
    assert log.read_text().splitlines() == order
    for step in ("training", "inference"):
        assert result[step]["ratio"] == pytest.approx(2, rel=0.2)
        assert result[step]["quick"] == pytest.approx([0.05, 0.05], rel=0.2) and len(result[step]["slow"]) == 2


def test_a_process_that_fails_says_why():
    with Process([sys.executable, "-c", "raise KeyError('depth')"]) as process:
        with pytest.raises(RuntimeError, match="ended with code 1: KeyError: 'depth'"):
            process.turn("training", 0)


def test_a_step_is_timed_at_least_once():
    assert len(timed(lambda: None, 0)) == 1


def test_the_steps_of_keras_train_and_predict():
    _, config = load_config("unet", ["model.options.base_filters=2", "model.options.depth=1"])
    steps = keras_steps(config, 1)
    losses = [steps["training"]() for _ in range(20)]
    assert losses[-1] < losses[0] and steps["inference"]().shape == (1, 128, 128, 1)


@pytest.mark.slow
def test_the_command():
    pytest.importorskip("torch")
    words = ["--set", "training.batch_size=2", "--set", "model.options.base_filters=4", "--seconds", "0.2"]
    done = subprocess.run([sys.executable, unet_torch.__file__, *words], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert (
        first.startswith("training, 2 tiles: keras ")
        and second.startswith("inference, 2 tiles: ")
        and "torch / keras " in second
    )


def test_the_network_in_pytorch_is_the_same():
    torch = pytest.importorskip("torch")
    _, config = load_config("unet", ["model.options.base_filters=4", "model.options.depth=2"])
    shape = [2, 16, 16, 7]
    network, known = unet_torch.torch_steps(config.model_dump(mode="json"), 2, 16)
    model = build_model("unet", base_filters=4, depth=2)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(
            rng.uniform(0.5, 1.5, variable.shape) if "variance" in variable.name else rng.normal(0, 0.3, variable.shape)
        )

    def give(parameter, value):
        parameter.data = torch.from_numpy(np.ascontiguousarray(value))

    def block(sequential, name):
        for i, (convolution, normalisation) in enumerate(
            ((sequential[0], sequential[1]), (sequential[3], sequential[4])), 1
        ):
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
