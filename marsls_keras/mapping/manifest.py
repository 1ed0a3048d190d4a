"""The manifest of a map: all that its pixels depend on, and the shards that the work is divided into."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from marsls_keras.data.splits import FULL, Fold
from marsls_keras.errors import InputError, listing
from marsls_keras.files import write_json
from marsls_keras.inference.decision import Decision
from marsls_keras.json_records import Digest, Name, Number, Positive, Record, read_record
from marsls_keras.mapping.lattice import Lattice
from marsls_keras.mapping.raster import Box, Raster, boxes
from marsls_keras.runs.run import Run

MANIFEST = "map.json"
"""Name of the manifest in the folder of a map."""

BLOCK = 512
"""Side in pixels of the blocks of the rasters that are written."""

_WINDOWS = 8
"""Side of a shard in windows. Windows at its edge are predicted for both neighbours, 13 % of all with half a stride."""


class RasterRecord(Record):
    """The mapped raster.

    Attributes:
        path: File or URL.
        sha256: `Raster.digest`.
        height: Rows.
        width: Columns.
        release: Name of its release.

    Example:
        >>> RasterRecord(path="a.tif", sha256="ab" * 32, height=1, width=2, release="mmls_v2").width
        2
    """

    path: Name
    sha256: Digest
    height: Positive
    width: Positive
    release: Name


class InventoryRecord(Record):
    """Summary of the polygons of a map; see `marsls_keras.mapping.inventory.Inventory`.

    Example:
        >>> InventoryRecord(landslides=12, area_km2=40.5, at_edge=3).landslides
        12
    """

    landslides: Number
    area_km2: Annotated[float, Field(ge=0)]
    at_edge: Number


class Manifest(Record):
    """Content of map.json. The same manifest gives the same pixels, however its shards are computed.

    Attributes:
        raster: The raster.
        members: SHA-256 of the weights of each fold, by run and fold.
        decision: Values of the decision's elements, as in decision.json.
        tile: Side of a tile (`Lattice`).
        window: Side of a window.
        stride: Spacing of windows.
        alone: Whether windows are tiles of their own.
        shard: Side of a shard in pixels.
        uncertainty: Whether variance and entropy are mapped, too.
        outputs: SHA-256 of each finished file of the map, by name; empty until then.
        inventory: Summary of the polygons; None before they are written.

    Example:
        >>> Manifest.read(Path("valles/map.json")).boxes[0]  # doctest: +SKIP
        Box(top=0, left=0, height=1024, width=1024)
    """

    raster: RasterRecord
    members: dict[Name, dict[Name, Digest]]
    decision: dict[Name, Any]
    tile: Positive
    window: Positive
    stride: Positive
    alone: bool
    shard: Positive
    uncertainty: bool
    outputs: dict[Name, Digest] = Field(default_factory=dict)
    inventory: InventoryRecord | None = None

    remedy: ClassVar[str] = "Choose another folder, or have the map begun anew with --overwrite."

    @classmethod
    def of(
        cls,
        raster: Raster,
        runs: Sequence[Run],
        folds: Sequence[Fold],
        decision: Decision,
        lattice: Lattice,
        uncertainty: bool,
    ) -> Manifest:
        """Return the manifest of a map that has not begun."""
        place = {"path": raster.path, "sha256": raster.digest(), "height": raster.height, "width": raster.width}
        return cls(
            raster=RasterRecord(**place, release=raster.release.name),
            members={run.name: run.digest(folds) for run in runs},
            decision=decision.to_values(),
            **vars(lattice),
            shard=shard_side(lattice),
            uncertainty=uncertainty,
        )

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read map.json.

        Raises:
            InputError: If it is missing or damaged.
        """
        return cls.model_validate(read_record(path, cls))

    def write(self, out: Path) -> None:
        """Write map.json into the folder of the map, atomically."""
        write_json(out / MANIFEST, self.model_dump(mode="json"))

    @property
    def lattice(self) -> Lattice:
        """Positions of the windows."""
        return Lattice(self.tile, self.window, self.stride, self.alone)

    @property
    def boxes(self) -> list[Box]:
        """Boxes of the shards, in reading order."""
        return list(boxes(self.raster.height, self.raster.width, self.shard))

    @property
    def folds(self) -> list[Fold]:
        """The folds, the same of every run."""
        return [FULL if fold == FULL else int(fold) for fold in next(iter(self.members.values()))]

    def windows(self, box: Box) -> int:
        """Return the number of windows over a shard, for one member and view."""
        return len(self.lattice.places(box, self.raster.height, self.raster.width))

    def require_same(self, earlier: Manifest, out: Path) -> None:
        """Check that a map that was begun in a folder has the same pixels.

        Raises:
            InputError: If raster, runs, decision or windows differ; the differences are listed.
        """
        ours, theirs = (_flat(each.model_dump(mode="json")) for each in (self, earlier))
        changed = [
            f"{key}: {theirs.get(key, 'none')} there, {ours.get(key, 'none')} now"
            for key in dict.fromkeys([*ours, *theirs])
            if key != "raster.path"
            and key.partition(".")[0] not in ("outputs", "inventory")
            and ours.get(key) != theirs.get(key)
        ]
        if changed:
            raise InputError(
                f"-o {out} holds another map, of {earlier.raster.path}:{listing(changed)}\n"
                "Choose another folder, or have that map removed with --overwrite."
            )


def shard_side(lattice: Lattice) -> int:
    """Return the side of a shard in pixels: about eight windows, in whole tiles, and in whole blocks where both fit.

    Example:
        >>> shard_side(Lattice(128, 192, 96, alone=False)), shard_side(Lattice(100, 100, 50, alone=True))
        (1536, 800)
    """
    least, both = _WINDOWS * lattice.window, math.lcm(lattice.tile, BLOCK)
    unit = both if both <= max(least, BLOCK) else lattice.tile
    return -(-least // unit) * unit


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """Return nested keys as one level, joined by dots."""
    if not isinstance(value, dict):
        return {key: value}
    return {
        name: leaf for part, inner in value.items() for name, leaf in _flat(inner, f"{key}.{part}".lstrip(".")).items()
    }
