"""The ledger of submissions: a line for every zip that was written."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from marsls_keras.errors import InputError
from marsls_keras.files import atomic

LEDGER_COLUMNS = (
    *("time", "zip", "sha256", "runs", "folds", "views", "threshold", "expected_miou", "low", "high", "images", "tiles"),
    *("phase", "score"),
)
"""Columns of the ledger; phase and score are filled in by hand, once CodaBench has answered."""


def append_ledger(ledger: str | Path, row: Mapping[str, Any]) -> None:
    """Add a line to the ledger of submissions; the lines before stay byte for byte.

    Args:
        ledger: The CSV file, made with its header if it is not there. Columns that someone added are kept and left empty.
        row: Value by column of `LEDGER_COLUMNS`; lists are joined by spaces, what is missing is left empty, the time defaults to now.

    Raises:
        InputError: If the file is there and is no ledger.
        RunError: If it cannot be written.
        ValueError: If `row` has a column that the ledger does not know.
    """
    ledger = Path(ledger)
    if unknown := set(row) - set(LEDGER_COLUMNS):
        raise ValueError(f"The ledger has the columns {', '.join(LEDGER_COLUMNS)}. Received: {', '.join(sorted(unknown))}")
    try:
        old = ledger.read_bytes()
    except FileNotFoundError:
        old = b""
    except OSError as error:
        raise InputError(f"{ledger} cannot be read as a ledger: {error.strerror}.") from None
    header = list(LEDGER_COLUMNS)
    if old:
        header = next(csv.reader([old.splitlines()[0].decode("utf-8-sig", "replace")]), [])
        if missing := [column for column in LEDGER_COLUMNS if column not in header]:
            raise InputError(
                f"{ledger} is not a ledger of submissions: no column {', '.join(missing)}. Move it away; a new one will be made."
            )
    text = io.StringIO()
    writer = csv.DictWriter(text, header, restval="", lineterminator="\n")
    if not old:
        writer.writeheader()
    now = {"time": datetime.now(UTC).isoformat(timespec="seconds")}
    writer.writerow(now | {key: " ".join(map(str, value)) if isinstance(value, list | tuple) else value for key, value in row.items()})
    with atomic(ledger) as temporary:  # bytes and not text, since a spreadsheet may have left other line ends
        gap = b"" if not old or old.endswith((b"\n", b"\r")) else b"\n"
        temporary.write_bytes(old + gap + text.getvalue().encode())
