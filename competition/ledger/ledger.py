"""Read and write the ledger of submissions: a CSV file with a line for every zip and leaderboard score."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from marsls_keras.errors import InputError, RunError
from marsls_keras.files import atomic

LEDGER_COLUMNS = (
    *(
        "time",
        "zip",
        "sha256",
        "runs",
        "folds",
        "views",
        "threshold",
        "expected_miou",
        "low",
        "high",
        "images",
        "tiles",
    ),
    *("phase", "score"),
)
"""Columns of the ledger; `marsls ledger add` fills in phase and score, from the leaderboard."""

_PATIENCE = 60  # seconds to wait for the lock; another process needs milliseconds
_BOM = b"\xef\xbb\xbf"  # byte order mark, by which spreadsheets recognise UTF-8


@dataclass
class Ledger:
    """The content of a ledger file.

    Cells that users added are kept: in other columns, beyond the last column, and bytes that are not UTF-8.

    Attributes:
        path: The CSV file.
        columns: Its columns, those of `LEDGER_COLUMNS` and any others.
        lines: The cells of each line, as many as it has.
        bom: Whether the file begins with a byte order mark.

    Example:
        >>> append_ledger("ledger.csv", {"zip": "default.zip"})
        >>> Ledger.read("ledger.csv").rows()[0]["zip"]
        'default.zip'
    """

    path: Path
    columns: list[str]
    lines: list[list[str]]
    bom: bool

    @classmethod
    def read(cls, path: str | Path) -> Ledger:
        """Read a ledger; a missing file is an empty ledger.

        Raises:
            InputError: If the file is there and is no ledger.
        """
        path = Path(path)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            content = b""
        except OSError as error:
            raise InputError(f"{path} cannot be read as a ledger: {error.strerror}.") from None
        text = content.removeprefix(_BOM).decode("utf-8", "surrogateescape")
        reader = csv.reader(io.StringIO(text, newline=""))
        try:
            lines = list(reader)
        except csv.Error as error:  # such as a cell longer than the reader's limit
            raise InputError(
                f"{path}: line {reader.line_num} is no line of a ledger ({error}). Mend it in a text editor."
            ) from None
        columns = lines[0] if lines else list(LEDGER_COLUMNS)
        if missing := [column for column in LEDGER_COLUMNS if column not in columns]:
            raise InputError(
                f"{path} is not a ledger of submissions: no column {', '.join(missing)}. "
                "Move it away; a new one will be made."
            )
        return cls(path, columns, lines[1:], content.startswith(_BOM))

    @classmethod
    @contextmanager
    def locked(cls, path: str | Path) -> Iterator[Ledger]:
        """Lock and read a ledger, and write it at the end of the block unless the block raises.

        Other processes, also on other machines that share the folder, wait until then. The lock is a hidden file beside
        the ledger. The operating system releases it when the process ends, even if it is killed.

        Raises:
            InputError: If the file exists and is no ledger; then no lock is made.
            RunError: If the ledger cannot be written, or another process does not release the lock.

        Example:
            >>> with Ledger.locked("ledger.csv") as ledger:
            ...     ledger.append({"zip": "default.zip"})
        """
        path = Path(path)
        cls.read(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path.with_name(f".{path.name}.lock")).acquire(timeout=_PATIENCE)
        except OSError as error:
            reason = error.strerror or str(error)
            raise RunError(
                f"Could not write {path}: {reason}. Nothing was changed; wait, or choose another place."
            ) from error
        with lock:
            ledger = cls.read(path)
            yield ledger
            ledger._write()

    def rows(self) -> list[dict[str, str]]:
        """Return each line as a dictionary of cells by column; missing cells are empty."""
        return [dict.fromkeys(self.columns, "") | dict(zip(self.columns, cells, strict=False)) for cells in self.lines]

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a line.

        Args:
            row: Value by column; lists are joined by spaces, missing cells are left empty, the time defaults to now.
        """
        self.lines.append([])
        self.fill(-1, {"time": datetime.now(UTC).isoformat(timespec="seconds")} | dict(row))

    def fill(self, line: int, cells: Mapping[str, Any]) -> None:
        """Change some cells of a line.

        Args:
            line: Position in `lines`.
            cells: Value by column; lists are joined by spaces.
        """
        found = self.lines[line]
        found += [""] * (len(self.columns) - len(found))
        for column, value in cells.items():
            text = " ".join(map(str, value)) if isinstance(value, list | tuple) else value
            found[self.columns.index(column)] = "" if text is None else str(text)

    def _write(self) -> None:
        text = "".join(map(_line, [self.columns, *self.lines]))
        with atomic(self.path) as temporary:
            temporary.write_bytes(_BOM * self.bom + text.encode("utf-8", "surrogateescape"))


def append_ledger(path: str | Path, row: Mapping[str, Any]) -> None:
    """Add a line to the ledger of submissions, safely also if several processes add lines at once.

    Args:
        path: The CSV file; created with its header if it is missing.
        row: Value by column of `LEDGER_COLUMNS`, see `Ledger.append`.

    Raises:
        InputError: If the file is there and is no ledger.
        RunError: If it cannot be written.
        ValueError: If `row` has a column that the ledger does not know.

    Example:
        >>> append_ledger("ledger.csv", {"zip": "both.zip", "runs": ["unet", "segmenter"], "expected_miou": 0.82})
    """
    if unknown := set(row) - set(LEDGER_COLUMNS):
        raise ValueError(
            f"The ledger has the columns {', '.join(LEDGER_COLUMNS)}. Received: {', '.join(sorted(unknown))}"
        )
    with Ledger.locked(path) as ledger:
        ledger.append(row)


def ledger_row(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cells of a ledger line for a submission, from its manifest.

    Example:
        >>> ledger_row({"zip": "default.zip", "sha256": "…", "runs": {"unet": {}}})["runs"]
        ['unet']
    """
    expected = manifest.get("expected") or {"miou": "", "interval": ("", "")}
    low, high = expected["interval"] or ("", "")
    same = {
        column: manifest[column]
        for column in ("zip", "sha256", "folds", "views", "threshold", "images", "tiles")
        if column in manifest
    }
    return same | {"runs": list(manifest.get("runs", [])), "expected_miou": expected["miou"], "low": low, "high": high}


def _line(cells: list[str]) -> str:
    text = io.StringIO()
    # The writer quotes cells that hold a character of its line end, so the line end must have both.
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"
