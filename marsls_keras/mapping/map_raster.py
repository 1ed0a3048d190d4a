"""Map landslides over a raster of any size: shards in processes or on a cluster, then one raster of probability."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from marsls_keras.data.splits import Fold
from marsls_keras.errors import InputError
from marsls_keras.files import sha256
from marsls_keras.inference.decision import Decision
from marsls_keras.inference.decision_files import decision_of
from marsls_keras.inference.purpose import Purpose
from marsls_keras.mapping.cog import assemble, require_space
from marsls_keras.mapping.inventory import INVENTORY, MASK, write_inventory, write_mask
from marsls_keras.mapping.lattice import lattice_of
from marsls_keras.mapping.manifest import MANIFEST, InventoryRecord, Manifest
from marsls_keras.mapping.raster import Raster
from marsls_keras.mapping.ray_engine import compute_on_ray, require_ray
from marsls_keras.mapping.shards import Advance, ShardComputer, missing_shards, predictions
from marsls_keras.mapping.styles import ramp_style, write_style
from marsls_keras.mapping.vector_file import require_geo
from marsls_keras.mapping.workers import compute_in_processes
from marsls_keras.progress import stage
from marsls_keras.runs.opened import open_runs
from marsls_keras.runs.run import Run

logger = logging.getLogger(__name__)

PROBABILITY, UNCERTAINTY = "probability.tif", "uncertainty.tif"
"""Names of the rasters in the folder of a map."""

_PRODUCTS = (PROBABILITY, UNCERTAINTY, MASK, INVENTORY)


@dataclass(frozen=True)
class MapRequest:
    """What to map, with what, and how to compute it.

    Attributes:
        raster: File, VRT or URL of the raster.
        out: Folder to write to.
        names: Names of the runs.
        runs: Folder of the runs.
        folds: Folds to use; all by default.
        release: Release of the raster's bands, or "auto".
        stride: Spacing of windows in pixels, for views of single tiles; half a tile by default.
        uncertainty: Whether variance and entropy are mapped, too.
        polygons: Whether the landslides are written as polygons, too.
        environments: Environment variables of each worker process; None for no processes besides this one.
        shard: (i, n), to compute every n-th shard from the i-th on, and nothing else; None for all.
        ray: Address of a Ray cluster, or "auto"; None for none.
        overwrite: Whether an earlier map in `out` is removed first.

    Example:
        >>> MapRequest("valles.tif", Path("valles")).names
        ('default',)
    """

    raster: str
    out: Path
    names: Sequence[str] = ("default",)
    runs: Path = Path("runs")
    folds: Sequence[Fold] | None = None
    release: str = "auto"
    stride: int | None = None
    uncertainty: bool = False
    polygons: bool = True
    environments: Sequence[Mapping[str, str]] | None = None
    shard: tuple[int, int] | None = None
    ray: str | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Map:
    """A map of landslide probability.

    Attributes:
        out: Its folder.
        raster: The raster that was mapped.
        opened: The runs.
        folds: The folds.
        decision: The decision.
        manifest: Its manifest.
        computed: Number of shards that were computed now.
        missing: Number of shards that are still missing, where only a part was asked for.

    Example:
        >>> found = map_raster(MapRequest("valles.tif", Path("valles")))  # doctest: +SKIP
        >>> found.products["probability"]  # doctest: +SKIP
        PosixPath('valles/probability.tif')
    """

    out: Path
    raster: Raster
    opened: list[Run]
    folds: list[Fold]
    decision: Decision
    manifest: Manifest
    computed: int
    missing: int

    @property
    def products(self) -> dict[str, Path]:
        """The finished files by kind: probability, uncertainty, mask, landslides; empty while shards are missing."""
        return {Path(name).stem: self.out / name for name in self.manifest.outputs}


def map_raster(request: MapRequest) -> Map:
    """Map the landslide probability of a raster, or go on with a map that was begun.

    The pixels are those that `marsls predict` finds on tiles of the raster with the decision for a new region; all
    folds predict everywhere. Finished shards are kept, so that the same request goes on after it was stopped.

    Args:
        request: The request.

    Raises:
        InputError: If a run or the raster cannot be used, the folder holds another map, or the disk is too small.
        RunError: If a shard cannot be computed or written.

    Example:
        >>> map_raster(MapRequest("valles.tif", Path("valles"), names=["a", "b"])).computed  # doctest: +SKIP
        12
    """
    opened, folds = open_runs(request.names, request.runs, request.folds)
    family = _family(opened)
    raster = Raster.open(request.raster, request.release, family)
    raster.require_place()
    _tell_other_pixels(raster)
    decision = decision_of(opened, folds, Purpose.REGION)
    lattice = lattice_of(opened, decision.view_set, request.stride)
    if request.ray is not None:
        require_ray()
    if request.polygons:
        require_geo()
    manifest = Manifest.of(raster, opened, folds, decision, lattice, request.uncertainty)
    _require_folder(request.out)
    with _held(request):
        manifest = _begun(request, manifest)
        joined = all(_kept(request.out, manifest, name) for name, _ in _joined(manifest))
        todo = [] if joined else missing_shards(request.out, manifest)
        if not joined:
            require_space(request.out, manifest, len(todo))
        part = (
            todo
            if request.shard is None
            else [number for number in todo if number % request.shard[1] == request.shard[0]]
        )
        if not joined and len(todo) < len(manifest.boxes):
            logger.info(f"{len(manifest.boxes) - len(todo)} of {len(manifest.boxes)} shards are finished already.")
        total = sum(predictions(manifest, manifest.boxes[number]) for number in part)
        with stage("Mapping windows", total, time_left=True) as mapping:
            for _ in _compute(request, part, mapping.advance):
                pass
        if request.shard is None:
            manifest = _with_products(request, manifest, raster, decision)
            missing = 0
        else:
            missing = 0 if joined else len(missing_shards(request.out, manifest))
    return Map(request.out, raster, opened, folds, decision, manifest, len(part), missing)


def _kept(out: Path, manifest: Manifest, name: str) -> bool:
    """Return whether a product of the map is finished."""
    return name in manifest.outputs and (out / name).exists()


def _joined(manifest: Manifest) -> list[tuple[str, list[int]]]:
    """Return the rasters that are joined from the shards, and their bands in these."""
    return [(PROBABILITY, [1]), *([(UNCERTAINTY, [2, 3])] if manifest.uncertainty else [])]


def _with_products(request: MapRequest, manifest: Manifest, raster: Raster, decision: Decision) -> Manifest:
    """Write the products that are missing, each from those before it, and return the manifest with all of them."""
    out = request.out

    def finish(name: str, inventory: InventoryRecord | None = None) -> None:
        nonlocal manifest
        outputs = manifest.outputs | {name: sha256(out / name)}
        manifest = manifest.model_copy(update={"outputs": outputs, "inventory": inventory or manifest.inventory})
        manifest.write(out)

    for name, bands in _joined(manifest):
        if not _kept(out, manifest, name):
            assemble(out, name, manifest, raster, bands)
            write_style(out / name, ramp_style())
            finish(name)
    shutil.rmtree(out / "shards", ignore_errors=True)
    if not _kept(out, manifest, MASK):
        write_mask(out / PROBABILITY, out / MASK, decision)
        finish(MASK)
    if request.polygons and not _kept(out, manifest, INVENTORY):
        found = write_inventory(out / MASK, out / PROBABILITY, raster.path, out / INVENTORY, raster.file_bands)
        summary = InventoryRecord(landslides=found.landslides, area_km2=found.area_km2, at_edge=found.at_edge)
        finish(INVENTORY, summary)
    return manifest


def _compute(request: MapRequest, numbers: Sequence[int], advance: Advance) -> Iterator[int]:
    """Compute shards where the request says, and yield the number of each."""
    if not numbers:
        return
    if request.ray is not None:
        actors = None if request.environments is None else len(request.environments)
        yield from compute_on_ray(request.out, request.runs, request.raster, numbers, request.ray, actors, advance)
    elif request.environments is not None:
        yield from compute_in_processes(
            request.out, request.runs, request.raster, numbers, request.environments, advance
        )
    else:
        computer = ShardComputer.open(request.out, request.runs, request.raster)
        for number, following in zip(numbers, [*numbers[1:], None], strict=True):
            computer.compute(number, following, advance)
            yield number


def _family(runs: Sequence[Run]) -> str:
    """Return the family of releases of all runs."""
    from marsls_keras.datasets import RELEASES

    families = {RELEASES[run.fingerprint["release"]].family for run in runs}
    if len(families) > 1:
        raise InputError(
            f"The runs {', '.join(run.name for run in runs)} were trained on tiles of {len(families)} families "
            f"({', '.join(sorted(families))}), whose bands have other scales. No raster fits both."
        )
    return families.pop()


def _tell_other_pixels(raster: Raster) -> None:
    """Log a warning if pixels are much larger or smaller than those of the tiles."""
    if raster.crs is None or not raster.crs.is_projected:
        return
    a, b, _, d, e, _ = tuple(raster.transform)[:6]
    side, trained = abs(a * e - b * d) ** 0.5 * raster.crs.linear_units_factor[1], raster.release.pixel
    if not 0.67 < side / trained < 1.5:
        logger.warning(
            f"Warning: pixels of {raster.path} are {side:.4g} m wide, those of the tiles that the runs were trained on "
            f"{trained:g} m. Landslides of another size are seldom found; marsls stack changes the resolution."
        )


def _require_folder(out: Path) -> None:
    """Make the folder to write to.

    Raises:
        InputError: If it cannot be made or written to.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"-o {out} is a file, expected a folder to write to.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"-o {out} cannot be made: {error.strerror}. Choose another folder.") from None
    if not os.access(out, os.W_OK):
        raise InputError(f"-o {out} cannot be written to. Choose another folder.")


@contextmanager
def _held(request: MapRequest) -> Iterator[None]:
    """Lock the folder of a map, unless only a part is computed: whoever makes the files of all shards removes these.

    Raises:
        InputError: If another process writes the map.
    """
    if request.shard is not None:
        yield
        return
    lock = FileLock(request.out / ".map.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"-o {request.out} is being written by another process. Wait for it; --workers and --shard divide the work."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _begun(request: MapRequest, manifest: Manifest) -> Manifest:
    """Begin a map in a folder, or return the manifest of the same map that is there.

    Raises:
        InputError: If the folder holds another map or other files of these names.
    """
    out = request.out
    if (out / MANIFEST).exists():
        if not request.overwrite:
            earlier = Manifest.read(out / MANIFEST)
            manifest.require_same(earlier, out)
            return earlier
        _remove(out)
    if there := [name for name in _PRODUCTS if (out / name).exists()]:
        raise InputError(
            f"-o {out} holds {there[0]}, which no map of marsls wrote there ({MANIFEST} is missing). "
            "Choose another folder."
        )
    manifest.write(out)
    return manifest


def _remove(out: Path) -> None:
    """Remove an earlier map: its rasters, shards and manifest, and nothing else."""
    shutil.rmtree(out / "shards", ignore_errors=True)
    for name in (*_PRODUCTS, MANIFEST):
        (out / name).unlink(missing_ok=True)
