"""PyTorch files: tensors of both formats without PyTorch, and pickles that need more than tensors."""

import argparse
import io
import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import PosixPath

import numpy as np
import pytest

from marsls_keras.errors import InputError
from marsls_keras.models.weights import read_tensors
from marsls_keras.models.weights.torch_file import UnsafeError, read_torch_file

TENSORS = {
    "a.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "b.bias": np.array([1.5, -2], np.float16),
    "count": np.array(7, np.int64),
}


class _Storage:
    """Stand-in for the storage of a tensor in a pickle."""

    def __init__(self, key, array):
        self.key, self.array = key, array


class _Pickler(pickle.Pickler):
    def persistent_id(self, value):
        if not isinstance(value, _Storage):
            return None
        kind = {"f4": "FloatStorage", "f2": "HalfStorage", "i8": "LongStorage"}[value.array.dtype.str[1:]]
        number = value.array.size
        tail = (None,) if self.legacy else ()
        return ("storage", getattr(sys.modules["torch"], kind), value.key, "cpu", number, *tail)


@pytest.fixture
def fake_torch(monkeypatch):
    """Provide modules with PyTorch's names, so that the pickler writes the same references as PyTorch."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in ("FloatStorage", "HalfStorage", "LongStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*arguments):
        raise AssertionError("never called")

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return utils


class _Tensor:
    def __init__(self, storage, offset, shape, strides):
        self.arguments = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.arguments


def saved(path, arrays, legacy=False, wrap=lambda state: state, change=None):
    """Write arrays as torch.save does, in the format of PyTorch 1.6 and later, or the earlier one."""
    storages, state = [], OrderedDict()
    for i, (name, array) in enumerate(arrays.items()):
        storages.append(_Storage(str(i), array))
        strides = tuple(step // array.itemsize for step in array.strides)
        state[name] = _Tensor(storages[-1], 0, array.shape, strides)
    if change:
        change(state, storages)
    body = io.BytesIO()
    pickler = _Pickler(body, 2)
    pickler.legacy = legacy
    pickler.dump(wrap(state))
    if legacy:
        head = b"".join(
            pickle.dumps(v, 2)
            for v in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True})
        )
        data = b"".join(struct.pack("<q", s.array.size) + s.array.tobytes() for s in storages)
        path.write_bytes(head + body.getvalue() + pickle.dumps([s.key for s in storages], 2) + data)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", body.getvalue())
            for storage in storages:
                archive.writestr(f"archive/data/{storage.key}", storage.array.tobytes())
            archive.writestr("archive/version", "3\n")
    return path


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"epoch": 3, "state_dict": s, "notes": ["x"]}, lambda s: {"model": dict(s)}]
)
def test_tensors_come_back(fake_torch, tmp_path, legacy, wrap):
    found = read_torch_file(saved(tmp_path / "w.pth", TENSORS, legacy, wrap))
    assert list(found) == list(TENSORS)
    for name, expected in TENSORS.items():
        assert found[name].dtype == expected.dtype
        np.testing.assert_array_equal(found[name], expected)


@pytest.mark.parametrize("legacy", [False, True])
def test_settings_of_training_beside_the_tensors_are_passed_over(fake_torch, tmp_path, legacy):
    """The code of MOMO and of masked autoencoders saves the parsed arguments with the network."""
    arguments = argparse.Namespace(lr=1e-4, betas=(0.9, 0.95), folder=PosixPath("/data"), best=np.float32(0.5))
    path = saved(tmp_path / "w.pth", TENSORS, legacy, lambda s: {"model": s, "args": arguments, "best": np.float64(1)})
    found = read_torch_file(path)
    assert list(found) == list(TENSORS)
    np.testing.assert_array_equal(found["a.weight"], TENSORS["a.weight"])


def test_views_of_one_storage_and_strides(fake_torch, tmp_path):
    base = np.arange(12, dtype=np.float32)

    def change(state, storages):
        state["base"] = _Tensor(storages[0], 2, (2, 3), (1, 4))

    found = read_torch_file(saved(tmp_path / "w.pth", {"base": base}, change=change))
    np.testing.assert_array_equal(found["base"], [[2, 6, 10], [3, 7, 11]])


def test_only_floats_are_weights(fake_torch, tmp_path):
    found = read_tensors(saved(tmp_path / "w.bin", TENSORS))
    assert {name: value.dtype.name for name, value in found.items()} == {"a.weight": "float32", "b.bias": "float32"}


class _Runs:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s, "x": _Runs(os.system, "touch PWNED")},
        lambda s: {"state_dict": s, "x": _Runs(eval, "open('PWNED', 'w')")},
        lambda s: {"state_dict": s, "x": _Runs(getattr, OrderedDict, "fromkeys")},
        lambda s: {"state_dict": s, "x": _Runs(np.frombuffer, b"1234")},
        lambda s: {"state_dict": s, "x": _Runs(bytearray, 1 << 40)},
    ],
)
def test_a_pickle_that_runs_code_is_refused_by_name(fake_torch, tmp_path, monkeypatch, legacy, wrap):
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path / "evil.pth", TENSORS, legacy, wrap)
    with pytest.raises(UnsafeError, match="asks for .*no part of a tensor"):
        read_torch_file(path)
    with pytest.raises(InputError, match="evil.pth is not loaded: it asks for"):
        read_tensors(path)
    assert not (tmp_path / "PWNED").exists()


def test_tensors_that_reach_beyond_their_storage(fake_torch, tmp_path):
    for arguments in (
        (0, (1 << 40,), (0,)),
        (20, (8,), (1,)),
        (0, (5, 5), (24, 1)),
        (-4, (2,), (1,)),
        (0, ("2",), (1,)),
        (0, (2, 2), (1,)),
    ):

        def change(state, storages, arguments=arguments):
            state["a.weight"] = _Tensor(storages[0], *arguments)

        with pytest.raises((ValueError, UnsafeError)):
            read_torch_file(saved(tmp_path / "w.pth", TENSORS, change=change))


@pytest.mark.parametrize("legacy", [False, True])
def test_damage_is_an_error_that_names_the_file(fake_torch, tmp_path, legacy):
    whole = saved(tmp_path / "whole.pth", TENSORS, legacy).read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[:n] for n in range(0, len(whole), 7)]
    for _ in range(300):
        edited = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            edited[place] = rng.integers(256)
        damaged.append(bytes(edited))
    refused = 0
    for data in [b"", b"no tensors", *damaged]:
        (tmp_path / "torn.pth").write_bytes(data)
        try:
            read_tensors(tmp_path / "torn.pth")
        except InputError as error:
            refused += 1
            assert "torn.pth" in str(error)
    assert refused > len(damaged) // 3
