"""Describe the tiles of a data folder and list its problems."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from marsls_keras.data import distribution_shift as shift
from marsls_keras.data.decoded.checks import barren, require_same_family
from marsls_keras.data.decoded.load import examine
from marsls_keras.data.decoded.slope_check import slope_correlations, slope_problems
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.fingerprint import band_statistics
from marsls_keras.data.index.conflicts import differing
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.index.folder_layouts import masks_beside
from marsls_keras.data.index.tile_ref import Problem, TileRef
from marsls_keras.datasets import RELEASES
from marsls_keras.errors import InputError
from marsls_keras.progress import tracked


def check_data(
    root: Path,
    release: str = "auto",
    resize: int | None = None,
    images: Path | None = None,
    picture: Path | None = None,
    conflicts: str = "error",
) -> dict[str, Any]:
    """Read every tile of a data folder, and return statistics and problems.

    Args:
        root: Data folder.
        release: Name of a release, or "auto" to detect it.
        resize: Height and width to bring all tiles to; None for their own.
        images: Another folder of images, such as those that are to be predicted, to be compared with the data.
        picture: Where the distributions of the bands are drawn, as .png or .svg; None for nowhere.
        conflicts: What becomes of copies of a tile whose masks differ, as data.conflicts.

    Returns:
        Release, size, and per split: tiles, labelled tiles, foreground ratio, neighbours per tile, filled pixels, band
        statistics; between the first split and each other one the two-sample Kolmogorov-Smirnov statistic of each band
        (0 alike, 1 disjoint), by how many standard deviations its mean is higher, and how many tiles touch; how each
        band correlates with the gradient of the DEM, as "slope"; and all problems with their severity. The tiles of
        `images` are one more split, "images"; whether they touch others is not known.

    Raises:
        InputError: If a folder is missing or empty, or the picture's name is no name of one.
        RunError: If the picture cannot be written.

    Example:
        >>> check_data(Path("data"))["release"]  # doctest: +SKIP
        'mmls_v1'
    """
    if picture is not None:
        shift.require_format(picture)
    dataset = Dataset.open(root, strict=False, release=release, conflicts=conflicts)
    tiles, problems = examine(dataset.tiles, release, resize)
    if tiles is not None:
        problems += barren(tiles.subset([i for i, ref in enumerate(tiles.refs) if ref.split != "test"]))
    targets = None
    if images is not None:
        targets, more = examine(Dataset.from_images(images).tiles, release, resize)
        problems += [*more, *_between(tiles, targets, images)]
    result: dict[str, Any] = {
        "root": str(root),
        "release": None,
        "size": None,
        "splits": {},
        "shift": {},
        "difference": {},
        "touching": {},
    }
    result["slope"] = slope_correlations(tiles) if tiles is not None else {}
    problems += slope_problems(result["slope"])
    result["problems"] = [asdict(problem) for problem in _ordered([*dataset.problems, *problems])]
    if tiles is None:
        return result
    result["release"], result["size"] = tiles.release, list(tiles.images.shape[1:3])
    splits = [name for name in ("train", "val", "test") if any(ref.split == name for ref in tiles.refs)]
    parts = {name: tiles.subset([i for i, ref in enumerate(tiles.refs) if ref.split == name]) for name in splits}
    if targets is not None and targets.bands == tiles.bands:
        parts["images"] = targets
    result["splits"] = {name: _describe(parts[name]) for name in tracked("Describing splits", parts)}
    samples = {name: shift.sample_pixels(part) for name, part in parts.items()}
    first, *others = parts
    for name in tracked("Comparing splits", others):
        pair = f"{first}-{name}"
        result["shift"][pair] = shift.ks_statistics(samples[first], samples[name], tiles.bands)
        result["difference"][pair] = shift.mean_differences(
            result["splits"][first]["bands"], result["splits"][name]["bands"]
        )
        if name != "images":
            result["touching"][pair] = _touching(parts[name].refs, parts[first].refs)
    if picture is not None:
        shift.plot_distributions(samples, tiles.bands, picture)
    return result


def _between(tiles: Tiles | None, targets: Tiles | None, images: Path) -> list[Problem]:
    """Return problems of images of another kind than the data, and of images that are labelled tiles."""
    if tiles is None or targets is None:
        return []
    try:
        require_same_family(tiles.release, targets.release, str(images))
    except InputError as error:
        return [Problem("other kind", str(error))]
    known = {
        (trace.content or tiles.hashes[i]): i for i, trace in enumerate(tiles.traces) if tiles.refs[i].split != "test"
    }
    labelled = [
        (i, known[key])
        for i, trace in enumerate(targets.traces)
        if (key := trace.content or targets.hashes[i]) in known
    ]
    if not labelled:
        return []
    i, k = labelled[0]
    turned = sum(targets.hashes[i] != tiles.hashes[k] for i, k in labelled)
    which = f" ({turned} of them turned or mirrored)" if turned else ""
    what = f"{len(labelled)} images of {images} are labelled tiles of the data{which}, such as {targets.refs[i].image}"
    problems = [Problem("overlap", f"{what}, which is {tiles.refs[k].image}", "warning")]
    beside = masks_beside([ref.image for ref in targets.refs], RELEASES[tiles.release].layout)
    pairs = [(targets.refs[i], tiles.refs[k]) for i, k in labelled if targets.hashes[i] == tiles.hashes[k]]
    other = [differs for ref, copy in pairs if (differs := differing([copy, replace(ref, mask=beside[ref.image])]))]
    if other:
        what = f"{len(other)} of these have another mask there than in the data, such as: {other[0]}"
        problems.append(Problem("conflict", what, "warning"))
    return problems


def _ordered(problems: list[Problem]) -> list[Problem]:
    """Return the problems sorted: errors before warnings, each kind together."""
    return sorted(problems, key=lambda problem: (problem.severity != "error", problem.kind))


def _describe(tiles: Tiles) -> dict[str, Any]:
    labelled = [i for i, ref in enumerate(tiles.refs) if ref.labelled]
    ratio = tiles.masks[labelled].mean(axis=(1, 2))
    return {
        "tiles": len(tiles),
        "labelled": len(labelled),
        "foreground": {"min": float(ratio.min()), "mean": float(ratio.mean()), "max": float(ratio.max())}
        if labelled
        else None,
        "neighbours": _touching(tiles.refs, tiles.refs, count_all=True) / len(tiles),
        "no_data_pixels": int((~tiles.valid).sum()),
        "bands": band_statistics(tiles.images, tiles.bands, tiles.valid),
    }


def _touching(refs: tuple[TileRef, ...], others: tuple[TileRef, ...], count_all: bool = False) -> int:
    """Return how many tiles share a side with one of the others; with `count_all`, how many such sides there are."""
    cells = {(ref.raster, ref.cell) for ref in others if ref.cell is not None}
    sides = [
        sum(
            (ref.raster, (ref.cell[0] + dr, ref.cell[1] + dc)) in cells for dr, dc in ((0, 1), (1, 0), (0, -1), (-1, 0))
        )
        for ref in refs
        if ref.cell is not None
    ]
    return sum(sides) if count_all else sum(side > 0 for side in sides)
