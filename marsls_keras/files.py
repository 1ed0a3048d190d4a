"""Files that are either whole or absent: write under a temporary name, flush, rename."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from marsls_keras.errors import InputError, RunError

# What np.load raises on a torn or altered archive; zipfile calls a damaged header encrypted or unsupported.
DAMAGED_NPZ = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on leaving, what was written there is flushed and takes the place of `path`.

    The temporary name keeps the suffixes of `path`, since some writers choose their format by them. If the block fails, the temporary
    file is removed and an earlier `path` stays as it was.

    Raises:
        RunError: If the file cannot be written (disk full, no permission).
    """
    path = Path(path)
    # Random, since two machines on a shared folder may write the same file from processes of the same number.
    temporary = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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
    """Return the content of a JSON file.

    Raises:
        InputError: If the file is missing, cannot be read or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is damaged: {error}") from None


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def no_folder(path: Path, kind: str = "folder") -> str:
    """Return the sentence about a path that is no folder: a file is called a file."""
    return f"{path} is a file, expected a {kind}." if path.exists() else f"There is no {kind} {path}."
