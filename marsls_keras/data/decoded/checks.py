"""Checks of decoded tiles: shape, georeference, masks, no-data, release."""

from __future__ import annotations

import numpy as np

from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.formats.georeference import difference, file_tags, georeference
from marsls_keras.data.formats.pam import unread_place
from marsls_keras.data.formats.tile import Tile
from marsls_keras.data.index.tile_ref import Problem, TileRef
from marsls_keras.datasets import RELEASES
from marsls_keras.errors import InputError


def wrong_shape(ref: TileRef, tile: Tile, mask: np.ndarray | None, shape: tuple[int, ...]) -> Problem | None:
    """Return a problem if a tile differs in size or bands from the others, or in size from its mask; else None.

    Example:
        >>> wrong_shape(ref, read_tile(ref.image), None, (128, 128, 7)) is None  # doctest: +SKIP
        True
    """
    height, width, bands = tile.image.shape
    if bands != shape[2]:
        return Problem("wrong shape", f"{ref.image}: {bands} bands, expected {shape[2]} as the others have")
    if (height, width) != shape[:2]:
        expected = f"{shape[0]} x {shape[1]} as the others have"
        return Problem(
            "wrong shape",
            f"{ref.image}: {height} x {width} pixels, expected {expected}; data.resize brings all to one size",
        )
    return wrong_mask(ref, tile, mask)


def wrong_mask(ref: TileRef, tile: Tile, mask: np.ndarray | None) -> Problem | None:
    """Return a problem if a mask differs in size from its image; else None.

    Example:
        >>> wrong_mask(ref, read_tile(ref.image), read_mask(ref.mask)) is None  # doctest: +SKIP
        True
    """
    height, width, _ = tile.image.shape
    if mask is None or mask.shape == (height, width):
        return None
    return Problem(
        "wrong shape", f"{ref.mask}: {mask.shape[0]} x {mask.shape[1]} pixels, its image has {height} x {width}"
    )


def without_data(tiles: Tiles, tile: int) -> bool:
    """Return whether a tile has no data in any band: no pixel is valid, and every band was filled with 0.

    Example:
        >>> [i for i in range(len(tiles)) if without_data(tiles, i)]  # doctest: +SKIP
        []
    """
    stored = len(RELEASES[tiles.release].bands)
    return not tiles.valid[tile].any() and not tiles.images[tile][..., :stored].any()


def require_same_family(trained: str, found: str, what: str) -> None:
    """Raise an error if tiles are of a release whose values have another meaning than those of a run.

    Raises:
        InputError: If the releases are of different families.

    Example:
        >>> require_same_family("mmls_v2", "challenge", "data/test")
    """
    if RELEASES[trained].family != RELEASES[found].family:
        raise InputError(
            f"{what} holds tiles of {found}, but the run was trained on {trained}, whose bands have other scales. "
            f"Train on tiles of {found}'s kind, or say what the tiles are with --release."
        )


def barren(tiles: Tiles) -> list[Problem]:
    """Return a warning if no labelled tile holds landslide.

    Nothing can be learnt from such data, and often the masks were written wrongly.

    Example:
        >>> barren(tiles)  # doctest: +SKIP
        []
    """
    labelled = [i for i, ref in enumerate(tiles.refs) if ref.labelled]
    if not labelled or tiles.masks[labelled].any():
        return []
    what = (
        f"none of the {len(labelled)} labelled tiles holds any landslide, such as {tiles.refs[labelled[0]].image}. "
        "Are the masks right?"
    )
    return [Problem("no landslide", what, "warning")]


def misplaced_mask(ref: TileRef, tile: Tile, mask: np.ndarray | None) -> list[Problem]:
    """Return problems of georeferencing: a mask at another place than its image, or georeferencing that is not read.

    Example:
        >>> misplaced_mask(ref, read_tile(ref.image), read_mask(ref.mask))  # doctest: +SKIP
        []
    """
    problems = []
    place = georeference(tile.geo)
    if place.control:
        what = (
            f"{ref.image}: placed by {place.control}, which results keep; "
            "which tiles overlap, or --mosaic, cannot be told from them"
        )
        problems.append(Problem("georeference", what, "warning"))
    for path in (ref.image, ref.mask, *ref.more_masks):
        if path is not None and (aux := unread_place(path)) is not None:
            problems.append(
                Problem(
                    "georeference",
                    f"{aux}: georeferencing in such files is not read; write it into the TIFF",
                    "warning",
                )
            )
    for path in (ref.mask, *ref.more_masks):
        if path is None or mask is None or not tile.geo:
            continue
        try:
            differs = difference(georeference(file_tags(path)), place, mask.shape, tile.image.shape[:2])
        except InputError as error:
            differs = [str(error)]
        if differs:
            what = f"{path} does not lie where its image {ref.image.name} does: {'; '.join(differs)}"
            problems.append(Problem("georeference", f"{what}. Write both on one grid of pixels"))
    return problems


def suspicious(ref: TileRef, tile: Tile, mask: np.ndarray | None) -> list[Problem]:
    """Return problems of a tile's content.

    A mask that contradicts its folder is an error. Constant bands, filled pixels and empty masks in a folder of
    landslides are warnings.

    Example:
        >>> [problem.kind for problem in suspicious(ref, read_tile(ref.image), read_mask(ref.mask))]  # doctest: +SKIP
        ['no-data']
    """
    problems = []
    if ref.landslide is False and mask is not None and mask.any():
        what = f"{ref.mask}: {int(mask.sum())} pixels of landslide in the mask of a tile that is filed as having none"
        problems.append(Problem("contradictory mask", what))
    if ref.landslide and mask is not None and not mask.any():
        problems.append(
            Problem(
                "empty mask", f"{ref.mask}: no landslide in the mask of a tile that is filed as having one", "warning"
            )
        )
    flat = np.ptp(tile.image, axis=(0, 1)) == 0  # (C,)
    if flat.any():
        names = ", ".join(band for band, constant in zip(RELEASES[tile.release].bands, flat, strict=True) if constant)
        problems.append(Problem("constant band", f"{ref.image}: {names} has one value everywhere", "warning"))
    if filled := int((~tile.valid).sum()):
        problems.append(
            Problem(
                "no-data", f"{ref.image}: {filled} pixels without data in some band, filled from the nearest", "warning"
            )
        )
    return problems
