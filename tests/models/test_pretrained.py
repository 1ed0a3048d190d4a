"""Checkpoints of timm: the reference's maps, names old and new, more bands, and files that do not fit."""

import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from marsls_keras.errors import InputError, RunError
from marsls_keras.models import build_model, load_pretrained, load_timm_swin_v2
from marsls_keras.models.encoders import LEVELS, build_encoder
from marsls_keras.models.weights import find_checkpoint, require_checkpoint

REFERENCE = Path(__file__).resolve().parents[2].parent / "shared" / "reference" / "swinv2_tiny_timm"
LIKE_REFERENCE = {"embed_dim": 12, "depths": [2, 2, 2, 2], "heads": [1, 2, 4, 8]}
SMALL = {"embed_dim": 4, "depths": [1, 1, 1, 1], "heads": [1, 2, 2, 4]}


@pytest.fixture
def reference():
    """Return the folder of maps computed by timm; skip the test if it is missing."""
    if not REFERENCE.is_dir():
        pytest.skip(f"the reference is not at {REFERENCE}")
    return REFERENCE


def tensors(bands=3, embed_dim=4, depths=(1, 1, 1, 1), heads=(1, 2, 2, 4), seed=0):
    """Return random tensors with timm's names and shapes."""
    rng, shapes = np.random.default_rng(seed), {}
    shapes["patch_embed.proj.weight"] = (embed_dim, bands, 4, 4)
    for name in ("patch_embed.proj.bias", "patch_embed.norm.weight", "patch_embed.norm.bias"):
        shapes[name] = (embed_dim,)
    for i, (depth, h) in enumerate(zip(depths, heads, strict=True)):
        c = embed_dim * 2**i
        if i:
            shapes[f"layers.{i}.downsample.reduction.weight"] = (c, 2 * c)
            shapes |= {f"layers.{i}.downsample.norm.{part}": (c,) for part in ("weight", "bias")}
        for j in range(depth):
            block = f"layers.{i}.blocks.{j}"
            shapes |= {
                f"{block}.attn.qkv.weight": (3 * c, c),
                f"{block}.attn.proj.weight": (c, c),
                f"{block}.attn.logit_scale": (h, 1, 1),
                f"{block}.attn.cpb_mlp.0.weight": (512, 2),
                f"{block}.attn.cpb_mlp.0.bias": (512,),
                f"{block}.attn.cpb_mlp.2.weight": (h, 512),
                f"{block}.mlp.fc1.weight": (4 * c, c),
                f"{block}.mlp.fc1.bias": (4 * c,),
                f"{block}.mlp.fc2.weight": (c, 4 * c),
            }
            vectors = (
                "attn.q_bias",
                "attn.v_bias",
                "attn.proj.bias",
                "mlp.fc2.bias",
                "norm1.weight",
                "norm1.bias",
                "norm2.weight",
                "norm2.bias",
            )
            shapes |= {f"{block}.{name}": (c,) for name in vectors}
    return {name: rng.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}


def written(path, values):
    save_file({name: np.ascontiguousarray(value) for name, value in values.items()}, path)
    return path


def values_of(model):
    return {v.path: v.numpy() for v in model.weights}


def test_the_maps_are_those_of_timm(reference):
    model = build_encoder("swin_v2_tiny", **LIKE_REFERENCE)
    assert model.count_params() == json.loads((reference / "config.json").read_text())["parameters"]
    load_timm_swin_v2(model, reference / "weights.safetensors")
    with np.load(reference / "expected.npz") as expected:
        maps = model(expected["input"])
        for i, level in enumerate(LEVELS, 1):
            assert np.abs(maps[level].numpy() - expected[f"stage{i}"]).max() < 1e-4
            assert np.abs(expected[f"stage{i}"]).max() > 1


JAX = """
import sys
import keras, numpy as np
from marsls_keras.models import load_timm_swin_v2
from marsls_keras.models.encoders import build_encoder
assert keras.backend.backend() == "jax"
model = build_encoder("swin_v2_tiny", **eval(sys.argv[3]))
load_timm_swin_v2(model, sys.argv[1])
maps = model.predict(np.load(sys.argv[2]), verbose=0)  # compiled as a whole, which is quicker than piece by piece
np.savez(sys.argv[4], **maps)
"""


@pytest.mark.slow
def test_jax_computes_the_same(tmp_path):
    path = written(tmp_path / "a.safetensors", tensors(depths=(2, 1, 1, 1)))
    options = {**SMALL, "depths": [2, 1, 1, 1], "window": 4}
    model = build_encoder("swin_v2_tiny", **options)
    load_timm_swin_v2(model, path)
    x = np.random.default_rng(1).normal(0, 1, (2, 36, 64, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", JAX, path, tmp_path / "x.npy", repr(options), tmp_path / "out.npz"]
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    maps = model(x)
    with np.load(tmp_path / "out.npz") as there:
        for level in LEVELS:
            assert there[level] == pytest.approx(maps[level].numpy(), abs=1e-4)


def test_every_tensor_comes_to_its_place(tmp_path):
    values = tensors()
    model = build_encoder("swin_v2_tiny", **SMALL)
    load_timm_swin_v2(model, written(tmp_path / "a.safetensors", values))
    found = values_of(model)
    assert found["embed_proj/kernel"] == pytest.approx(values["patch_embed.proj.weight"].transpose(2, 3, 1, 0))
    assert found["stage2_block0/attention/qkv/kernel"] == pytest.approx(values["layers.2.blocks.0.attn.qkv.weight"].T)
    assert found["stage3_block0/norm1/gamma"] == pytest.approx(values["layers.3.blocks.0.norm1.weight"])
    assert found["stage0_block0/attention/cpb_mlp_2/kernel"] == pytest.approx(
        values["layers.0.blocks.0.attn.cpb_mlp.2.weight"].T
    )
    # timm concatenates the pixels (0, 0), (1, 0), (0, 1), (1, 1), given as (row, column), before the linear layer.
    weight = values["layers.1.downsample.reduction.weight"]
    x = np.random.default_rng(1).normal(0, 1, (1, 4, 6, 4)).astype(np.float32)
    expected = np.concatenate([x[:, r::2, c::2] for c in (0, 1) for r in (0, 1)], -1) @ weight.T
    assert model.get_layer("stage1_merge")(x).numpy() == pytest.approx(expected, abs=1e-5)
    assert sum(v.size for v in values.values()) == model.count_params()


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 6])
def test_other_bands_begin_with_the_kernels_of_rgb_and_then_their_mean(tmp_path, bands):
    values = tensors()
    model = build_encoder("swin_v2_tiny", bands, "aux", **SMALL)
    load_timm_swin_v2(model, written(tmp_path / "a.safetensors", values))
    kernel = values_of(model)["embed_aux_proj/kernel"]
    rgb = values["patch_embed.proj.weight"].transpose(2, 3, 1, 0)
    for band in range(bands):
        assert kernel[:, :, band] == pytest.approx(rgb[:, :, band] if band < 3 else rgb.mean(2), abs=1e-6)


def test_every_group_begins_with_the_same_and_the_file_is_recorded(tmp_path):
    import hashlib

    path = written(tmp_path / "a.safetensors", tensors())
    model = build_model("dual_swin", encoder_options=SMALL, decoder_channels=4)
    before = values_of(model)
    assert load_pretrained(model, str(path)) == {
        "source": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    after = values_of(model)
    encoders = [p for p in after if p.startswith(("embed", "stage"))]
    for name in encoders:
        if "_rgb_" in name and name != "embed_rgb_proj/kernel":
            assert np.array_equal(after[name], after[name.replace("_rgb_", "_aux_")])
        assert not np.array_equal(after[name], before[name])
    assert all(np.array_equal(after[name], before[name]) for name in after if name not in encoders)


def test_files_of_older_timm_and_what_encoders_lack(tmp_path):
    values = tensors()
    new = build_encoder("swin_v2_tiny", **SMALL)
    load_timm_swin_v2(new, written(tmp_path / "new.safetensors", values))
    older = {
        re.sub(r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", k): v
        for k, v in values.items()
    }
    older |= {
        "head.weight": np.zeros((10, 32), np.float32),
        "head.bias": np.zeros(10, np.float32),
        "head.fc.bias": np.zeros(10, np.float32),
        "norm.weight": np.zeros(32, np.float32),
        "norm.bias": np.zeros(32, np.float32),
        "layers.0.blocks.0.attn_mask": np.zeros((4, 64, 64), np.float32),
        "layers.0.blocks.0.attn.relative_coords_table": np.zeros((1, 15, 15, 2), np.float32),
        "layers.0.blocks.0.attn.relative_position_index": np.zeros((64, 64), np.int64),
    }
    other = build_encoder("swin_v2_tiny", **SMALL)
    load_timm_swin_v2(other, written(tmp_path / "old.safetensors", older))
    assert all(np.array_equal(a, b) for a, b in zip(new.get_weights(), other.get_weights(), strict=True))
    halves = {name: value.astype(np.float16) for name, value in values.items()}
    load_timm_swin_v2(other, written(tmp_path / "half.safetensors", halves))
    assert np.array_equal(
        values_of(other)["stage0_block0/norm1/beta"], halves["layers.0.blocks.0.norm1.bias"].astype(np.float32)
    )


def without(values, *names):
    return {name: value for name, value in values.items() if name not in names}


@pytest.mark.parametrize(
    "change,said",
    [
        (
            lambda v: without(v, "layers.1.blocks.0.mlp.fc1.bias"),
            r"- layers.1.blocks.0.mlp.fc1.bias: absent, expected for .*fc1/bias \(32,\)",
        ),
        (
            lambda v: {**v, "layers.4.new": np.zeros((2, 3), np.float32)},
            r"- layers.4.new: \(2, 3\) in the file, unknown to the network",
        ),
        (lambda v: {**v, "norm_pre.weight": np.zeros(2, np.float32)}, r"- norm_pre.weight: \(2,\)"),
        (
            lambda v: tensors(embed_dim=8),
            r"- patch_embed.proj.weight: \(8, 3, 4, 4\) in the file does not fit embed_proj/kernel \(4, 4, 3, 4\)",
        ),
        (lambda v: tensors(bands=5), r"- patch_embed.proj.weight: \(4, 5, 4, 4\)"),
        (
            lambda v: tensors(depths=(1, 1, 2, 1)),
            r"- layers.2.blocks.1.attn.qkv.weight: \(48, 16\) in the file, unknown",
        ),
        (lambda v: {"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}, "- patch_embed.proj.weight: absent"),
        (
            lambda v: {**v, "patch_embed.norm.bias": np.zeros(4)},
            "expected tensors of F32 or F16, found:\n  - patch_embed.norm.bias: F64",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_and_changes_nothing(tmp_path, change, said):
    path = written(tmp_path / "a.safetensors", change(tensors()))
    model = build_encoder("swin_v2_tiny", **SMALL)
    before = model.get_weights()
    with pytest.raises(InputError, match=f"(?s)^{re.escape(str(path))}.*{said}"):
        load_timm_swin_v2(model, path)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_other_troubles_with_files_and_networks(tmp_path):
    model = build_encoder("swin_v2_tiny", **SMALL)
    with pytest.raises(InputError, match="There is no checkpoint .*absent.safetensors"):
        load_timm_swin_v2(model, tmp_path / "absent.safetensors")
    path = written(tmp_path / "a.safetensors", tensors())
    (tmp_path / "torn.safetensors").write_bytes(path.read_bytes()[:-100])
    (tmp_path / "text.safetensors").write_text("no tensors")
    for name in ("torn", "text"):
        with pytest.raises(InputError, match=f"{name}.safetensors is no safetensors file, or damaged"):
            load_timm_swin_v2(model, tmp_path / f"{name}.safetensors")
    with pytest.raises(InputError, match="network unet has no encoder that could take pretrained weights"):
        load_timm_swin_v2(build_model("unet", base_filters=2, depth=1), path)


def test_a_download_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"hf:timm/some_net: .*pip install \"marsls-keras\[hub\]\".* give its path"):
        load_pretrained(build_encoder("swin_v2_tiny", **SMALL), "hf:timm/some_net")
    with pytest.raises(InputError, match=r"hf:nvidia/mit-b2: .*pip install \"marsls-keras\[hub\]\""):
        require_checkpoint("hf:nvidia/mit-b2")  # which the commands ask before they read any data


def test_a_download_without_a_network_says_what_to_do(monkeypatch, tmp_path):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        RunError,
        match="hf:timm/some_net: model.safetensors or pytorch_model.bin could not be "
        ".*https://.*timm/some_net .*path of the file",
    ):
        load_pretrained(build_encoder("swin_v2_tiny", **SMALL), "hf:timm/some_net")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Stand in for the Hub's client: a repository is a folder, and files that are not in it are not found."""
    errors, module = types.ModuleType("huggingface_hub.errors"), types.ModuleType("huggingface_hub")
    errors.EntryNotFoundError = type("EntryNotFoundError", (Exception,), {})

    def hf_hub_download(repository, file):
        if not (tmp_path / repository).is_dir():
            raise OSError("no such repository")
        if not (tmp_path / repository / file).is_file():
            raise errors.EntryNotFoundError(f"404: no {file}")
        return str(tmp_path / repository / file)

    module.hf_hub_download, module.errors = hf_hub_download, errors
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    return tmp_path


def test_a_repository_may_have_a_file_of_pytorch_only(hub):
    (hub / "nvidia").mkdir()
    (hub / "nvidia" / "pytorch_model.bin").write_bytes(b"x")
    assert find_checkpoint("hf:nvidia") == hub / "nvidia" / "pytorch_model.bin"
    (hub / "nvidia" / "model.safetensors").write_bytes(b"x")
    assert find_checkpoint("hf:nvidia") == hub / "nvidia" / "model.safetensors"
    (hub / "empty").mkdir()
    with pytest.raises(
        RunError, match=r"hf:empty: model.safetensors or pytorch_model.bin could not be .*\(404: no model.safetensors\)"
    ):
        find_checkpoint("hf:empty")
    with pytest.raises(RunError, match=r"hf:absent: .*\(no such repository\)"):
        find_checkpoint("hf:absent")


def test_a_file_of_a_repository_may_be_named(hub):
    (hub / "a" / "momo" / "vit-b-16").mkdir(parents=True)
    (hub / "a" / "momo" / "vit-b-16" / "momo.pth").write_bytes(b"x")
    assert find_checkpoint("hf:a/momo/vit-b-16/momo.pth") == hub / "a" / "momo" / "vit-b-16" / "momo.pth"
    with pytest.raises(
        RunError, match=r"hf:a/momo/vit-s-16/momo.pth: vit-s-16/momo.pth could not be .*huggingface.co/a/momo \(404"
    ):
        find_checkpoint("hf:a/momo/vit-s-16/momo.pth")
