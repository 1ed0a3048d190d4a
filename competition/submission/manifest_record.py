"""Schema of the manifest beside a zip, for the keys that the ledger reads."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import ConfigDict

from marsls_keras.json_records import Digest, Interval, Name, Number, Record, Share


class _Expected(Record):
    model_config = ConfigDict(extra="allow")

    miou: Share
    interval: Interval | None


class ManifestRecord(Record):
    """Validated keys of a manifest that the ledger needs (`ledger_row`); other keys are allowed.

    Example:
        >>> from marsls_keras.json_records import read_record
        >>> read_record("submissions/default.json", ManifestRecord)["threshold"]  # doctest: +SKIP
        0.45
    """

    model_config = ConfigDict(extra="allow")

    zip: Name
    sha256: Digest
    tiles: Number
    images: Name
    runs: dict[Name, Any]
    folds: list[Number | str]
    views: Name
    threshold: Share
    expected: _Expected | None

    remedy: ClassVar[str] = (
        "Restore the file from a copy, or move it away; then the ledger notes of the zip what is in it alone."
    )
