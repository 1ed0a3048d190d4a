"""Files that are either whole or absent: write under a temporary name, flush, rename."""

from __future__ import annotations

import hashlib
import json
import math
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from marsls_keras.errors import InputError, RunError
from marsls_keras.temporary_files import remove_abandoned, temporary_beside

# What np.load raises on a torn or altered archive; zipfile calls a damaged header encrypted or unsupported.
DAMAGED_NPZ = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on leaving, what was written there is flushed and takes the place of `path`.

    The temporary name keeps the suffixes of `path`, since some writers choose their format by them. If the block fails, the temporary
    file is removed and an earlier `path` stays as it was. What processes that were killed here left half written in the same folder is
    removed first (`marsls_keras.temporary_files`).

    Raises:
        RunError: If the file cannot be written (disk full, no permission).
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
        # h5py reports a failed write as an OSError without errno, so the reason is whatever text it has.
        reason = error.strerror or str(error)
        raise RunError(f"Could not write {path}: {reason}. Nothing was changed; free some space or choose another place.") from error
    finally:
        with suppress(OSError):  # where the folder is a file, there is not even a temporary name to look for
            temporary.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file atomically, indented and with a final newline."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file strictly; `marsls_keras.json_records.read_record` also validates it against a model.

    Raises:
        InputError: If the file is missing, cannot be read or is not JSON in UTF-8; if it holds NaN or an infinite number, text that is no
            Unicode, a key twice, or more levels than can be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_no_number, parse_float=_finite)
        if "\\u" in text:  # only so can JSON hold a NUL character or half a surrogate pair
            require_text(value)
        return value
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:  # of UTF-8, of JSON, or a whole number of thousands of digits
        raise InputError(f"{path} is damaged: {error}") from None
    except RecursionError:
        raise InputError(f"{path} is damaged: it is nested too deeply.") from None


def require_text(value: Any) -> None:
    """Refuse text, in whatever depth of a value, that is no Unicode or holds a NUL character: no file name can be made of it.

    Raises:
        ValueError: If there is any.
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
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def no_folder(path: Path, kind: str = "folder") -> str:
    """Return the sentence about a path that is no folder: a file is called a file."""
    return f"{path} is a file, expected a {kind}." if path.exists() else f"There is no {kind} {path}."
