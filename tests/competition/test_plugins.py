"""Plug-ins: files of users that add networks, losses, augmentations, callbacks and datasets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from competition.cli import main
from competition.commands.new import TEMPLATES
from marsls_keras import plugins
from marsls_keras.config import Config, parse_config, read_config, write_config
from marsls_keras.errors import InputError
from marsls_keras.losses import LOSSES, build_loss
from marsls_keras.models import registry
from marsls_keras.runs.run import Run

OWN = """
import keras
import tensorflow as tf
from keras import ops

def build(bands, *, width=4):
    image = keras.Input((None, None, bands))
    x = keras.layers.Conv2D(width, 3, padding="same", activation="relu")(image)
    return keras.Model(image, keras.layers.Conv2D(1, 1, dtype="float32")(x))

def squared(truth, logits, weight, *, power=2.0):
    error = ops.abs(truth - ops.sigmoid(logits)) ** power
    return ops.sum(weight * error) / ops.sum(weight)

class Shift:
    def __init__(self, by):
        self.active, self.by = by != 0, by
    def draw(self, number, height, width, seed):
        return (tf.ones((number,)),)
    def __call__(self, tile, draws, batch):
        image, mask, weight = tile
        return image + self.by * draws[0], mask, weight

class Count(keras.callbacks.Callback):
    def __init__(self, file):
        super().__init__()
        self.file = file
    def on_epoch_end(self, epoch, logs=None):
        with open(self.file, "a") as file:
            file.write(f"{epoch} {'val_loss' in logs}\\n")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Return a plug-in in the working folder, of a name that no other test uses; forget it afterwards."""
    name = f"own_{abs(hash(request.node.name)) % 10**8}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    before = dict(LOSSES)
    path = tmp_path / f"{name}.py"
    path.write_text(OWN)
    yield path
    plugins._LOADED.pop(str(path), None)
    sys.modules.pop(name, None)
    LOSSES.clear()
    LOSSES.update(before)


def test_names_of_a_file_in_the_working_folder_are_found_and_recorded(own, tmp_path):
    name = own.stem
    values = {
        "model": {"name": f"{name}:build", "options": {"width": 3}},
        "loss": {f"{name}.squared": {"weight": 2, "power": 1.0}, "bce": 0.5},
    }
    config = parse_config(values, "mine.yaml")
    assert config.plugins == (str(own),)
    assert registry.build_model(config.model.name, 7, width=3).count_params() == (9 * 7 + 1) * 3 + 3 + 1
    loss = build_loss(config.loss)
    truth, logits = np.array([0, 1, 1]).reshape(1, 1, 3, 1), np.array([0.0, 2, -1]).reshape(1, 1, 3, 1)
    p = 1 / (1 + np.exp(-logits))
    expected = 2 * np.abs(truth - p).mean() - 0.5 * np.log(np.where(truth == 1, p, 1 - p)).mean()
    assert float(loss(truth, logits)) == pytest.approx(expected, rel=1e-5)

    write_config(tmp_path / "config.yaml", config)
    plugins._LOADED.clear()
    sys.modules.pop(name)
    assert read_config(tmp_path / "config.yaml") == config and name in sys.modules
    with pytest.raises(InputError, match=f"model.options: {name}:build has no option widht. Did you mean width"):
        registry.build_model(config.model.name, 7, widht=3)


def test_transforms_are_applied_after_the_others(own):
    import tensorflow as tf

    from marsls_keras.data.augmentation.augment import Augment

    config = parse_config({"augmentation": {"custom": {f"{own.stem}.Shift": {"by": 0.25}}}}, "mine.yaml")
    augment = Augment(config.augmentation, ("red",), (1.0,))
    image, mask = tf.random.normal((2, 16, 16, 1)), tf.zeros((2, 16, 16, 1))
    moved, _, _ = augment(image, mask, tf.ones_like(mask), tf.constant([0, 1]))
    np.testing.assert_allclose(moved, image + 0.25, atol=1e-6)
    with pytest.raises(InputError, match="augmentation.custom.*Shift"):
        Augment(Config(augmentation={"custom": {f"{own.stem}.Shift": {"amount": 1}}}).augmentation, ("red",), (1.0,))


def test_from_training_to_a_zip_and_a_changed_file(own, tiny_run, tmp_path, capsys):
    runs = tmp_path / "runs"
    settings = [
        f"model={{name: '{own.stem}:build'}}",
        f"loss={{{own.stem}.squared: 1}}",
        f"augmentation.custom={{{own.stem}.Shift: {{by: 0.1}}}}",
        f"training.callbacks={{{own.stem}.Count: {{file: seen.txt}}, keras.callbacks.TerminateOnNaN: {{}}}}",
        "training.epochs=1",
    ]
    given = [part for setting in settings for part in ("--set", setting)]
    common = ["--runs", str(runs)]
    assert (
        main(["train", "--config", str(tiny_run.recipe), "--data", str(tiny_run.data), *common, "--run", "own", *given])
        == 0
    )
    assert Path("seen.txt").read_text().splitlines() == ["0 True"] * 2  # one epoch of each of two folds
    recorded = json.loads((runs / "own" / "plugins.json").read_text())["sha256"]
    assert recorded == plugins.digests([str(own)]) and list(recorded) == [str(own)]
    assert main(["tune", "--run", "own", *common]) == 0
    assert main(["submit", "--run", "own", *common, "--out", "made.zip"]) == 0

    # From another folder and another process the run finds its file.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = f"from marsls_keras.runs.run import Run; print(Run.open({str(runs / 'own')!r}).config.model.name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=elsewhere)
    assert done.stdout.strip() == f"{own.stem}:build", done.stderr

    capsys.readouterr()
    own.write_text(OWN + "\nopen('ran', 'w')\n")
    plugins._LOADED.pop(str(own))
    del sys.modules[own.stem]
    assert main(["evaluate", "own", *common]) == 2
    assert f"Plug-ins have changed since {runs / 'own'} was trained with them:\n  - {own}" in capsys.readouterr().err
    assert not Path("ran").exists()  # what changed is refused before it runs
    own.unlink()
    plugins._LOADED.clear()
    with pytest.raises(InputError, match=f"There is no plug-in {own}"):
        Run.open(runs / "own")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"plugins": ["nowhere.py"]}, "There is no plug-in nowhere.py: expected the path of a Python file"),
        ({"plugins": ["no_such_module"]}, "There is no plug-in 'no_such_module': neither no_such_module.py in"),
        ({"model": {"name": "nowhere:build"}}, "There is no plug-in 'nowhere'"),
        ({"plugins": "mine.py"}, "plugins: "),
        (
            {"plugins": ["broken.py"]},
            r"Plug-in .*broken.py cannot be imported: ZeroDivisionError.*\(line 2 of .*broken",
        ),
        ({"plugins": ["typo.py"]}, r"Plug-in .*typo.py cannot be imported: SyntaxError.*\(line 1 of"),
        ({"plugins": ["json.py"]}, "there is a module json already"),
        ({"plugins": ["not-a-name.py"]}, "expected a file name of letters, digits and _"),
    ],
)
def test_bad_input(values, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file, text in (
        ("broken.py", "x = 1\nx / 0\n"),
        ("typo.py", "def (:\n"),
        ("json.py", ""),
        ("not-a-name.py", ""),
    ):
        Path(file).write_text(text)
    with pytest.raises(InputError, match=told):
        parse_config(values, "mine.yaml")


def test_a_name_that_the_file_lacks_is_told_with_the_nearest(own):
    with pytest.raises(InputError, match="has no 'biuld'.*Did you mean build"):
        registry.require_options(parse_config({"model": {"name": f"{own.stem}:biuld"}}, "mine.yaml").model.name, {})


def test_a_dataset_of_the_environment_is_an_option_of_the_commands(tmp_path):
    plugin = tmp_path / "alps.py"
    plugin.write_text(
        "from dataclasses import replace\n"
        "from marsls_keras.datasets import RELEASES, register\n"
        "register(replace(RELEASES['nepal'], name='alps', title='Alps'))\n"
    )
    code = "import sys; from competition.cli import main; sys.exit(main(sys.argv[1:]))"
    counts = "--release alps --train 2 --val 1 --test 1 --size 32".split()
    command = [sys.executable, "-c", code, "synth", str(tmp_path / "tiles"), *counts]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "MARSLS_PLUGINS": str(plugin)})
    assert done.returncode == 0 and "2 train tiles" in done.stdout, done.stderr
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "MARSLS_PLUGINS": "none.py"})
    assert done.returncode == 2 and "Error: MARSLS_PLUGINS: There is no plug-in none.py" in done.stderr


@pytest.fixture
def templates(tmp_path, monkeypatch):
    """Write a plug-in of each kind into the working folder."""
    monkeypatch.chdir(tmp_path)
    for kind in TEMPLATES:
        assert main(["new", kind, f"my_{kind}"]) == 0
    return tmp_path


def test_templates_are_refused_where_they_would_hide_something(templates, capsys):
    for words, told in (
        (["loss", "my_loss"], "my_loss.py, test_my_loss.py, my_loss.yaml exists already"),
        (["loss", "json"], "There is a module json already"),
        (["network", "My-net"], "'My-net' is no name of a module"),
        (["layer", "mine"], "'layer' is not one of"),
    ):
        assert main(["new", *words]) == 2
        assert told in " ".join(capsys.readouterr().err.replace("\u2502", " ").split())
    assert sorted(path.name for path in templates.iterdir()) == [
        *("my_dataset.py", "my_loss.py", "my_loss.yaml", "my_network.py", "my_network.yaml"),
        *(f"test_my_{kind}.py" for kind in ("dataset", "loss", "network")),
    ]


@pytest.mark.slow
def test_templates_work_as_they_are(templates, tiny_run):
    def run(*words, **variables):
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **variables}
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    assert "5 passed" in run("-m", "pytest", "-q", *(f"test_my_{kind}.py" for kind in TEMPLATES))
    marsls = ["-m", "competition.cli"]
    for kind in ("network", "loss"):
        run(
            *marsls,
            "train",
            "--config",
            f"my_{kind}.yaml",
            "--data",
            str(tiny_run.data),
            "--epochs",
            "1",
            "--fold",
            "0",
        )
    dataset = {"MARSLS_PLUGINS": "my_dataset.py"}
    run(*marsls, "synth", "tiles", "--release", "my_dataset", "--train", "8", "--size", "32", **dataset)
    assert "0 error(s)" in run(*marsls, "check", "tiles", **dataset)
