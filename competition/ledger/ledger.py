"""The ledger of submissions: a line for every zip that was written, and for every answer of the leaderboard."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from marsls_keras.errors import InputError, RunError
from marsls_keras.files import atomic

LEDGER_COLUMNS = (
    *("time", "zip", "sha256", "runs", "folds", "views", "threshold", "expected_miou", "low", "high", "images", "tiles"),
    *("phase", "score"),
)
"""Columns of the ledger; phase and score are those of the leaderboard's answer, which `marsls ledger add` fills in."""

_PATIENCE = 60  # seconds; another process needs milliseconds


@dataclass(frozen=True)
class Ledger:
    """A ledger as it is on disk. Lines keep their bytes, whatever program has written them, until they are changed.

    Attributes:
        path: The CSV file.
        header: Its columns, those of `LEDGER_COLUMNS` and any that someone added.
        head: The header's line, bytes; empty where there is no file yet.
        lines: The other lines, bytes with their line ends; a line may have several rows of text within quotes.
    """

    path: Path
    header: tuple[str, ...] = LEDGER_COLUMNS
    head: bytes = b""
    lines: tuple[bytes, ...] = ()

    @classmethod
    def read(cls, path: str | Path) -> Ledger:
        """Read a ledger; one that does not exist is empty.

        Raises:
            InputError: If the file is there and is no ledger.
        """
        path = Path(path)
        try:
            records = _records(path.read_bytes())
        except FileNotFoundError:
            return cls(path)
        except OSError as error:
            raise InputError(f"{path} cannot be read as a ledger: {error.strerror}.") from None
        if not records:
            return cls(path)
        try:
            header = tuple(_cells(records[0].removeprefix(b"\xef\xbb\xbf")))
        except csv.Error:  # no text at all
            header = ()
        if missing := [column for column in LEDGER_COLUMNS if column not in header]:
            raise InputError(
                f"{path} is not a ledger of submissions: no column {', '.join(missing)}. Move it away; a new one will be made."
            )
        return cls(path, header, records[0], tuple(records[1:]))

    @classmethod
    @contextmanager
    def locked(cls, path: str | Path) -> Iterator[Ledger]:
        """Read a ledger and keep other processes, also of other machines that share the folder, from changing it within the block.

        The lock is a hidden file beside the ledger. The operating system lets go of it when the process ends, however it ends.

        Raises:
            InputError: If the file is there and is no ledger; then there is no lock either.
            RunError: If the folder cannot be written to, or another process does not let go.
        """
        path = Path(path)
        cls.read(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path.with_name(f".{path.name}.lock")).acquire(timeout=_PATIENCE)
        except OSError as error:
            reason = error.strerror or str(error)
            raise RunError(f"Could not write {path}: {reason}. Nothing was changed; wait, or choose another place.") from error
        with lock:
            yield cls.read(path)

    def rows(self) -> list[dict[str, str]]:
        """Return the cells of each line by column; a cell that is missing is empty, a blank line has none but empty ones.

        Raises:
            InputError: If a line cannot be read.
        """
        found = []
        for number, line in enumerate(self.lines, 2):
            try:
                cells = _cells(line)
            except csv.Error as error:
                raise InputError(f"{self.path}: line {number} is no line of a ledger ({error}). Mend it in a text editor.") from None
            found.append(dict.fromkeys(self.header, "") | dict(zip(self.header, cells, strict=False)))
        return found

    def append(self, row: Mapping[str, Any]) -> None:
        """Write the ledger, which is `locked`, with one more line; see `append_ledger`."""
        text = _text(self.header, {"time": datetime.now(UTC).isoformat(timespec="seconds")} | dict(row))
        old = self.head + b"".join(self.lines) if self.head else _text(self.header, dict(zip(self.header, self.header, strict=True)))
        gap = b"" if old.endswith((b"\n", b"\r")) else b"\n"
        self._write(old + gap + text)

    def fill(self, line: int, cells: Mapping[str, Any]) -> None:
        """Write the ledger, which is `locked`, with some cells of a line changed; the other lines stay byte for byte.

        Args:
            line: Position in `lines`.
            cells: Value by column.
        """
        old = self.lines[line]
        values = _cells(old)
        beyond = values[len(self.header) :]  # what a spreadsheet has to the right of the last column
        end = old[len(old.rstrip(b"\r\n")) :]
        new = _text(self.header, self.rows()[line] | dict(cells), beyond).removesuffix(b"\n") + end
        self._write(self.head + b"".join((*self.lines[:line], new, *self.lines[line + 1 :])))

    def _write(self, content: bytes) -> None:
        with atomic(self.path) as temporary:  # bytes and not text, since a spreadsheet may have left other line ends
            temporary.write_bytes(content)


def append_ledger(path: str | Path, row: Mapping[str, Any]) -> None:
    """Add a line to the ledger of submissions; the lines before stay byte for byte, and of processes that add at once none loses one.

    Args:
        path: The CSV file, made with its header if it is not there. Columns that someone added are kept and left empty.
        row: Value by column of `LEDGER_COLUMNS`; lists are joined by spaces, what is missing is left empty, the time defaults to now.

    Raises:
        InputError: If the file is there and is no ledger.
        RunError: If it cannot be written.
        ValueError: If `row` has a column that the ledger does not know.
    """
    if unknown := set(row) - set(LEDGER_COLUMNS):
        raise ValueError(f"The ledger has the columns {', '.join(LEDGER_COLUMNS)}. Received: {', '.join(sorted(unknown))}")
    with Ledger.locked(path) as book:
        book.append(row)


def ledger_row(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the ledger notes of a submission, from its manifest."""
    expected = manifest.get("expected") or {"miou": "", "interval": ("", "")}
    low, high = expected["interval"] or ("", "")
    same = {
        column: manifest[column] for column in ("zip", "sha256", "folds", "views", "threshold", "images", "tiles") if column in manifest
    }
    return same | {"runs": list(manifest.get("runs", [])), "expected_miou": expected["miou"], "low": low, "high": high}


def _records(content: bytes) -> list[bytes]:
    """Return the lines of a CSV file with their ends; a line break within quotes is no end."""
    records, begun = [], b""
    for line in content.splitlines(keepends=True):
        begun += line
        if begun.count(b'"') % 2 == 0:
            records.append(begun)
            begun = b""
    return records + ([begun] if begun else [])


def _cells(line: bytes) -> list[str]:
    """Return the cells of a line; bytes that are no UTF-8 are kept as surrogates, which `_text` turns back.

    Raises:
        csv.Error: If it is no line of CSV, such as one whose cells are longer than the reader takes.
    """
    return next(csv.reader(io.StringIO(line.decode("utf-8", "surrogateescape"), newline="")), [])


def _text(header: Sequence[str], row: Mapping[str, Any], beyond: Sequence[str] = ()) -> bytes:
    """Return a line with its end; lists are joined by spaces."""
    text = io.StringIO()
    values = [row.get(column, "") for column in header]
    cells = [" ".join(map(str, value)) if isinstance(value, list | tuple) else value for value in values]
    csv.writer(text, lineterminator="\n").writerow([*cells, *beyond])
    return text.getvalue().encode("utf-8", "surrogateescape")
