"""Training from a checkpoint, and networks with band groups from the configuration, with the real commands."""

import hashlib
import json

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from competition.cli import main
from marsls_keras.inference.member import load_member
from marsls_keras.models.encoders import build_encoder
from marsls_keras.models.weights.swin_v2 import SwinV2
from marsls_keras.runs.run import Run

SWIN = {"embed_dim": 4, "depths": [1, 1, 1, 1], "heads": [1, 1, 1, 1], "window": 4}
RECIPE = {
    "model": {
        "name": "dual_swin",
        "options": {
            "groups": {"rgb": ["red", "green", "blue"], "aux": ["slope", "dem"]},
            "encoder_options": SWIN,
            "decoder": "fpn",
            "decoder_channels": 4,
        },
    },
    "data": {"bands": ["dem", "red", "green", "blue", "slope"], "folds": 2, "cv": "official"},
    # So small a rate leaves float32 weights of this size as they were.
    "training": {
        "epochs": 1,
        "batch_size": 4,
        "warmup_epochs": 0,
        "learning_rate": 1e-20,
        "weight_decay": 0,
        "ema_decay": None,
    },
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Write the weights of an encoder under timm's names, with convolutions and linear layers in timm's layout."""
    path = tmp_path_factory.mktemp("checkpoint") / "it's a model.safetensors"
    tensors = {}
    for variable in build_encoder("swin_v2_tiny", 3, **SWIN).weights:
        value, name = variable.numpy() + np.float32(0.01), SwinV2().locate(variable.path)[1]
        if name.endswith("reduction.weight"):
            value = value.transpose(3, 1, 0, 2).reshape(value.shape[3], -1)
        elif value.ndim == 4:
            value = value.transpose(3, 2, 0, 1)
        tensors[name] = np.ascontiguousarray(value.T if value.ndim == 2 and "reduction" not in name else value)
    save_file(tensors, path)
    return path


def run(tmp_path, *options, **changes):
    recipe = tmp_path / "dual.yaml"
    recipe.write_text(yaml.safe_dump({**RECIPE, **changes}))
    return main(
        ["train", "--config", str(recipe), "--data", str(tmp_path / "data"), "--runs", str(tmp_path / "runs"), *options]
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are using a softmax over axis -1")  # a window of one token
def test_a_run_begins_with_a_checkpoint_records_it_and_needs_it_no_more(tmp_path, data_root, checkpoint, capsys):
    data_root(tmp_path / "data", train=4, val=2, test=2, size=32)
    own = tmp_path / "it's a copy: #1.safetensors"
    own.write_bytes(checkpoint.read_bytes())
    assert run(tmp_path, "--pretrained", str(own)) == 0
    folder = tmp_path / "runs" / "dual" / "fold_0"
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert json.loads((folder / "pretrained.json").read_text()) == {"source": str(own), "sha256": digest}
    assert yaml.safe_load((folder / "config.yaml").read_text())["model"]["pretrained"] == str(own)
    own.unlink()  # neither prediction nor more epochs read it
    assert run(tmp_path, "--pretrained", str(own), "--resume", "--epochs", "2") == 0
    begun = Run.open(tmp_path / "runs" / "dual")
    model = load_member(begun, 0).model
    found = {v.path: v.numpy() for v in model.weights}
    from safetensors.numpy import load_file

    tensors = load_file(checkpoint)
    for group in ("rgb", "aux"):
        kernel = found[f"stage1_{group}_block0/attention/qkv/kernel"]
        assert np.array_equal(kernel, tensors["layers.1.blocks.0.attn.qkv.weight"].T)
    images = ["--images", str(tmp_path / "data" / "test" / "images"), "--out", str(tmp_path / "out")]
    assert main(["predict", "dual", "--runs", str(tmp_path / "runs"), *images]) == 0
    assert json.loads((folder / "pretrained.json").read_text())["sha256"] == digest


def test_what_does_not_fit_is_refused_before_there_is_a_run(tmp_path, data_root, checkpoint, capsys):
    data_root(tmp_path / "data", train=4, val=2, test=2, size=32)
    absent, text = tmp_path / "absent.safetensors", tmp_path / "text.safetensors"
    text.write_text("nothing")
    options = RECIPE["model"]["options"]
    cases = [
        (["--pretrained", str(absent)], {}, f"There is no checkpoint {absent}."),
        (["--pretrained", str(text)], {}, f"{text} is no safetensors file, or damaged"),
        (["--pretrained", ""], {}, "model.pretrained: String should have at least 1 character"),
        (
            ["--pretrained", str(checkpoint), "--set", "model.options.encoder_options.embed_dim=8"],
            {},
            "- patch_embed.proj.weight: (4, 3, 4, 4) in",
        ),
        (
            ["--pretrained", str(checkpoint)],
            {"model": {"name": "unet"}},
            "network unet has no encoder that could take pretrained weights",
        ),
        (
            ["--set", "model.options.groups.aux=[dem]"],
            {},
            "model.options: groups leaves out input bands: slope. The input bands are dem, red",
        ),
        (
            ["--set", "model.options.groups.aux=[dem, slope, gray]"],
            {},
            "groups names bands that are not among the input: gray",
        ),
        (["--set", "model.options.groups.aux=[dem, slope, red]"], {}, "groups names bands more than once: red"),
        (
            [],
            {"data": {**RECIPE["data"], "sampling": "windows", "window_sizes": [16]}},
            "dual_swin needs height and width divisible by 32",
        ),
        (
            [],
            {"model": {"name": "dual_swin", "options": {**options, "encoder": "vit"}}},
            "encoder must be one of swin_v2_tiny",
        ),
    ]
    for given, changes, said in cases:
        capsys.readouterr()
        assert run(tmp_path, *given, **changes) == 2, said
        assert said in capsys.readouterr().err, said
        assert not (tmp_path / "runs").exists()
