"""Map the landslides of a raster with trained runs."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from competition.processes import worker_environments
from marsls_keras.data.splits import Fold
from marsls_keras.errors import InputError
from marsls_keras.mapping.map_raster import MapRequest
from marsls_keras.mapping.map_raster import map_raster as compute_map
from marsls_keras.mapping.stac import write_item
from marsls_keras.training.pseudo_labelling import pseudo_trained

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MapCommand:
    """Arguments of `marsls map`.

    Attributes:
        raster: File, VRT or URL of the raster.
        out: Folder to write to.
        names: Names of the runs.
        runs: Folder of the runs.
        folds: Folds to use; all by default.
        release: Release of the raster's bands, or "auto".
        stride: Spacing of windows in pixels, for views of single tiles.
        uncertainty: Whether variance and entropy are mapped, too.
        polygons: Whether the landslides are written as polygons, too.
        stac: Whether a STAC item is written, too.
        workers: Number of processes, or of actors on a cluster; None for this process, or an actor a device.
        shard: "i/n", to compute the i-th of n parts only.
        ray: Address of a Ray cluster, or "auto".
        overwrite: Whether an earlier map in `out` is removed first.

    Example:
        >>> MapCommand("valles.tif", Path("valles"), ["default"]).release
        'auto'
    """

    raster: str
    out: Path
    names: Sequence[str]
    runs: Path = Path("runs")
    folds: Sequence[Fold] | None = None
    release: str = "auto"
    stride: int | None = None
    uncertainty: bool = False
    polygons: bool = True
    stac: bool = False
    workers: int | None = None
    shard: str | None = None
    ray: str | None = None
    overwrite: bool = False


def map_raster(command: MapCommand) -> dict[str, Any]:
    """Map a raster; see `marsls_keras.mapping.map_raster`.

    Raises:
        InputError: If an argument, a run or the raster cannot be used.
        RunError: If the map cannot be computed or written.

    Example:
        >>> map_raster(MapCommand("valles.tif", Path("valles"), ["default"]))["missing"]  # doctest: +SKIP
        0
    """
    part = parse_shard(command.shard)
    if part is not None and command.ray is not None:
        raise InputError("--shard is for batch systems, --ray for a cluster that divides the work itself: give one.")
    if part is not None and command.overwrite:
        raise InputError(
            "--shard with --overwrite: each part would remove what the others computed. Remove the folder of the map "
            f"first, or choose another one than {command.out}."
        )
    request = MapRequest(
        command.raster,
        command.out,
        command.names,
        command.runs,
        command.folds,
        command.release,
        command.stride,
        command.uncertainty,
        command.polygons,
        _environments(command),
        part,
        command.ray,
        command.overwrite,
    )
    try:
        found = compute_map(request)
    except KeyboardInterrupt:
        logger.info(f"Finished shards are kept in {command.out}: the same command goes on.")
        raise
    products = found.products
    if command.stac and products:
        products["item"] = command.out / "item.json"
        write_item(products["item"], products["mask"], found.products, found.opened, found.folds, found.decision)
    return {
        "out": str(found.out),
        "raster": found.raster.path,
        "release": found.raster.release.name,
        "height": found.raster.height,
        "width": found.raster.width,
        "window": found.manifest.window,
        "stride": found.manifest.stride,
        **found.decision.to_values(),
        "pseudo_labels": pseudo_trained(found.opened, found.folds),
        "shards": len(found.manifest.boxes),
        "computed": found.computed,
        "missing": found.missing,
        "products": {kind: str(path) for kind, path in products.items()},
        "inventory": None if found.manifest.inventory is None else found.manifest.inventory.model_dump(),
    }


def _environments(command: MapCommand) -> list[dict[str, str]] | None:
    """Return the environment variables of each worker; None for no processes of their own."""
    if command.workers is None:
        return None
    if command.ray is not None:  # only their number counts
        return [{}] * command.workers
    return worker_environments(command.workers, "--workers", "process")


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """Parse the value of --shard; None if it was not given.

    Raises:
        InputError: If it is not "i/n" with 0 <= i < n.

    Example:
        >>> parse_shard("0/8")
        (0, 8)
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise InputError(f"--shard {text}: expected i/n with i from 0 to n - 1, such as 0/8 for the first of 8 parts.")
    return int(match[1]), int(match[2])
