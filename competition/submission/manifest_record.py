"""The form of the manifest beside a zip, as far as anything but a reader's eye takes something from it."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import ConfigDict

from marsls_keras.json_records import Digest, Interval, Name, Number, Record, Share


class _Expected(Record):
    model_config = ConfigDict(extra="allow")

    miou: Share
    interval: Interval | None


class ManifestRecord(Record):
    """What the ledger notes of a manifest (`competition.ledger.ledger.ledger_row`); other keys are for those who read it."""

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

    remedy: ClassVar[str] = "Restore the file from a copy, or move it away; then the ledger notes of the zip what is in it alone."
