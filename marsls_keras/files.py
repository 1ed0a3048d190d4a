"""Atomic writes (temporary name, flush, rename) and strict reading of JSON."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from marsls_keras.errors import InputError, RunError
from marsls_keras.temporary_files import remove_abandoned, temporary_beside

# Errors of np.load on a truncated or altered archive; zipfile calls a damaged header encrypted or unsupported.
DAMAGED_NPZ = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Write a file atomically: yield a temporary path, then flush it and rename it to `path`.

    The temporary name keeps the suffixes of `path`, since some writers choose their format by them. If the block fails,
    the temporary file is removed and an earlier `path` stays as it was. Temporary files of killed processes in the same
    folder are removed first (`marsls_keras.temporary_files`).

    Raises:
        RunError: If the file cannot be written (disk full, no permission).

    Example:
        >>> with atomic("scores.txt") as temporary:
        ...     _ = temporary.write_text("0.83")
        >>> Path("scores.txt").read_text()
        '0.83'
    """
    path = Path(path)
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise RunError(
            f"Could not write {path}: {_reason(error)}. Nothing was changed; free some space or choose another place."
        ) from error
    finally:
        with suppress(OSError):  # the parent folder may itself be a file
            temporary.unlink()


@contextmanager
def atomic_folder(out: str | Path) -> Iterator[Path]:
    """Write a folder that appears whole or not at all: yield a temporary folder, then rename it to `out`.

    If `out` is an empty folder, the content is moved there, since it may be a mount point or the current folder.

    Raises:
        InputError: If `out` is a file or a folder that is not empty.
        RunError: If a file cannot be written.

    Example:
        >>> with atomic_folder("data") as temporary:
        ...     write_text(temporary / "train" / "note.txt", "465 tiles")
        >>> [path.as_posix() for path in Path("data").rglob("*.txt")]
        ['data/train/note.txt']
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} already exists and is not an empty folder: choose another folder or remove it.")
    filled = out.exists()
    temporary = (out if filled else out.parent) / f".{os.getpid()}.{out.name or 'folder'}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        for source in list(temporary.iterdir()) if filled else [temporary]:
            os.rename(source, out / source.name if filled else out)
    except (OSError, RunError) as error:  # a RunError names a temporary file that the user does not know
        raise RunError(
            f"Could not write {out}: {_reason(error)}. Nothing was left there; choose another place."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _reason(error: BaseException) -> str:
    """Return why a file could not be written: that of the system, or the text of the first error.

    h5py and rasterio report a failed write as an OSError without errno, rasterio with GDAL's own message as its cause.
    """
    first = error.__cause__ or error
    return getattr(error, "strerror", None) or getattr(first, "strerror", None) or str(first).rstrip(".")


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically, in UTF-8.

    Raises:
        RunError: If it cannot be written.

    Example:
        >>> write_text("note.txt", "Valles Marineris")
        >>> Path("note.txt").read_text()
        'Valles Marineris'
    """
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file atomically, indented and with a final newline.

    Raises:
        RunError: If it cannot be written.

    Example:
        >>> write_json("metrics.json", {"miou": 0.83})
        >>> read_json("metrics.json")
        {'miou': 0.83}
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file strictly; `marsls_keras.json_records.read_record` also validates it against a model.

    Raises:
        InputError: If the file is missing, cannot be read or is not JSON in UTF-8; if it holds NaN or an infinite
            number, text that is not valid Unicode, a key twice, or more levels than can be read.

    Example:
        >>> _ = Path("metrics.json").write_text('{"miou": NaN}')
        >>> read_json("metrics.json")
        Traceback (most recent call last):
            ...
        marsls_keras.errors.InputError: metrics.json is damaged: NaN is no number of JSON
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_no_number, parse_float=_finite)
        if "\\u" in text:  # JSON can hold a NUL character or half a surrogate pair only as an escape
            require_text(value)
        return value
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:  # invalid UTF-8 or JSON, or an integer of thousands of digits
        raise InputError(f"{path} is damaged: {error}") from None
    except RecursionError:
        raise InputError(f"{path} is damaged: it is nested too deeply.") from None


def require_text(value: Any) -> None:
    r"""Check that no string, at any depth, has a NUL character or an unpaired surrogate.

    File names cannot contain these.

    Raises:
        ValueError: If one does.

    Example:
        >>> require_text({"name": "default", "folds": [0, 1]})
        >>> require_text(["a\0b"])
        Traceback (most recent call last):
            ...
        ValueError: 'a\x00b' holds a NUL character or half a surrogate pair
    """
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= sign <= "\udfff" for sign in value):
            raise ValueError(f"{ascii(value)} holds a NUL character or half a surrogate pair")
    elif isinstance(value, dict):
        for item in value.items():
            require_text(item)
    elif isinstance(value, list | tuple):
        for item in value:
            require_text(item)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)} is there twice")
    return made


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is larger than any number of double precision")
    return value


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits.

    Example:
        >>> _ = Path("empty").write_bytes(b"")
        >>> sha256("empty")[:16]
        'e3b0c44298fc1c14'
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def no_folder(path: Path, kind: str = "folder") -> str:
    """Return the error message for a path that should be a folder but is a file or does not exist.

    Example:
        >>> no_folder(Path("runs/none"), "run folder")
        'There is no run folder runs/none.'
    """
    return f"{path} is a file, expected a {kind}." if path.exists() else f"There is no {kind} {path}."
