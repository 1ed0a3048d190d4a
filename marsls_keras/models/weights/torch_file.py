"""Safe reader of PyTorch checkpoints: needs no PyTorch and runs no code from the file."""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
"""Number at the start of a checkpoint of PyTorch before 1.6."""
_LARGEST = 4 << 30
_TYPES = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


class UnsafeError(Exception):
    """Report a checkpoint whose pickle needs more than tensors, such as a call of a function.

    Example:
        >>> raise UnsafeError("it asks for os.system, which is no part of a tensor")
        Traceback (most recent call last):
        ...
        marsls_keras.models.weights.torch_file.UnsafeError: it asks for os.system, which is no part of a tensor
    """


@dataclass(frozen=True)
class _Storage:
    key: str
    kind: str
    number: int


@dataclass(frozen=True)
class _Lazy:
    """Shape and strides of a tensor whose values are not read yet."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Kind:
    name: str


class _Setting:
    """Stand-in for an object that says how a network was trained, such as parsed arguments. It keeps nothing."""

    def __init__(self, *values: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


_SETTINGS = (
    ("argparse", "Namespace"),
    ("pathlib", "PosixPath"),
    ("torch", "device"),
    ("_codecs", "encode"),  # bytes, as of NumPy's numbers
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
)
"""Types of values beside the tensors in checkpoints of training, which are not read."""


def read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """Read the tensors of a file written by `torch.save`.

    The file holds a state dictionary, or a dictionary that has one under "state_dict", "model" or "params". Unpickling
    is restricted to dictionaries, lists, numbers, strings and tensors, since a pickle can run any code. Parsed
    arguments, paths, devices and NumPy's numbers, which checkpoints of training have beside the tensors, are passed
    over without being built.

    Args:
        path: A file of PyTorch 1.6 or later (zip), or of an earlier version.

    Returns:
        Arrays by name, of the dtype in the file.

    Raises:
        UnsafeError: If the pickle needs anything else.
        ValueError: If the file is damaged, or not of PyTorch.

    Example:
        >>> {name: x.shape for name, x in read_torch_file(Path("momo.pth")).items()}  # doctest: +SKIP
        {'cls_token': (1, 1, 768), 'pos_embed': (1, 197, 768), 'patch_embed.proj.weight': (768, 3, 16, 16)}
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("larger than 4 GiB")
        file = io.BytesIO(
            path.read_bytes()
        )  # from memory, a wrong length in the file cannot allocate more than the file's size
        found, storages = _zipped(file) if zipfile.is_zipfile(file) else _legacy(file)
        return {name: _values(tensor, storages) for name, tensor in _state(found).items()}
    except UnsafeError:
        raise
    except Exception as error:  # a damaged pickle makes the unpickler raise nearly anything
        raise ValueError(f"damaged, or no checkpoint of PyTorch ({type(error).__name__}: {error})") from error


class _Unpickler(pickle._Unpickler):
    """Unpickler that builds only the types of a state dictionary, with storages as descriptions.

    It extends the unpickler in Python: the one in C allocates memory for the number of objects that a damaged file
    claims.
    """

    _ALLOWED: Mapping[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, shape, strides, *_: _lazy(
            storage, offset, shape, strides
        ),
        ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        ("torch", "Size"): tuple,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return an allowed class or function; raise UnsafeError for all others."""
        if module == "torch" and name in _TYPES:
            return _Kind(name)
        if (module, name) in _SETTINGS:
            return _Setting
        if (module, name) not in self._ALLOWED:
            raise UnsafeError(f"it asks for {module}.{name}, which is no part of a tensor")
        return self._ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        """Return the description of a storage; raise UnsafeError for other persistent objects."""
        what, kind, key, _, number, *view = pid
        if (
            what != "storage"
            or not isinstance(kind, _Kind)
            or not isinstance(number, int)
            or (view and view[0] is not None)
        ):
            raise UnsafeError("it has a storage of an unknown kind")
        return _Storage(str(key), _TYPES[kind.name], number)


def _lazy(storage: Any, offset: Any, shape: Any, strides: Any) -> _Lazy:
    numbers = (offset, *shape, *strides)
    if (
        not isinstance(storage, _Storage)
        or len(shape) != len(strides)
        or not all(type(n) is int and n >= 0 for n in numbers)
    ):
        raise UnsafeError("a tensor is described by something else than numbers")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if math.prod(shape) and last >= storage.number:
        raise ValueError("a tensor reaches beyond its storage")
    if math.prod(shape) > max(storage.number, 1):
        raise ValueError("a tensor is larger than its storage")
    return _Lazy(storage, offset, tuple(shape), tuple(strides))


def _zipped(file: BinaryIO) -> tuple[Any, dict[str, np.ndarray]]:
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in entries if name.endswith("/data.pkl") or name == "data.pkl"]
        if len(pickles) != 1 or sum(entry.file_size for entry in entries.values()) > _LARGEST:
            raise ValueError("expected one data.pkl and at most 4 GiB")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise ValueError("compressed, which PyTorch never writes")
        root = pickles[0].removesuffix("data.pkl")
        order = archive.read(f"{root}byteorder") if f"{root}byteorder" in entries else b"little"
        if order != b"little":
            raise ValueError("written on a big-endian machine")
        unpickler = _Unpickler(io.BytesIO(archive.read(pickles[0])))
        found = unpickler.load()
        storages = {
            s.key: np.frombuffer(archive.read(f"{root}data/{s.key}"), s.kind, s.number) for s in _storages(found)
        }
    return found, storages


def _legacy(file: BinaryIO) -> tuple[Any, dict[str, np.ndarray]]:
    file.seek(0)
    if _Unpickler(file).load() != _MAGIC:
        raise ValueError("it does not begin as a checkpoint does")
    _Unpickler(file).load()  # version of the protocol
    if not _Unpickler(file).load()["little_endian"]:
        raise ValueError("written on a big-endian machine")
    found = _Unpickler(file).load()
    known, storages = {s.key: s for s in _storages(found)}, {}
    for key in _Unpickler(file).load():
        number = int.from_bytes(file.read(8), "little")
        storage = known.get(str(key))
        if storage is None or number != storage.number:
            raise ValueError(f"storage {key} is not as large as it is said to be")
        room = number * np.dtype(storage.kind).itemsize
        if room > _LARGEST or len(data := file.read(room)) != room:
            raise ValueError("cut off")
        storages[storage.key] = np.frombuffer(data, storage.kind)
    return found, storages


def _state(found: Any) -> dict[str, _Lazy]:
    """Return the dictionary of tensors in an unpickled object."""
    for key in ("state_dict", "model", "params"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    tensors = {str(k): v for k, v in found.items() if isinstance(v, _Lazy)} if isinstance(found, Mapping) else {}
    if not tensors:
        raise ValueError("it holds no tensors by name")
    return tensors


def _storages(found: Any) -> list[_Storage]:
    return list({tensor.storage.key: tensor.storage for tensor in _state(found).values()}.values())


def _values(tensor: _Lazy, storages: dict[str, np.ndarray]) -> np.ndarray:
    values = storages[tensor.storage.key][tensor.offset :]
    steps = [step * values.itemsize for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(values, tensor.shape, steps, writeable=False).copy()
