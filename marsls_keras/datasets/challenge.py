"""The Mars-LS challenge: the tiles of MMLSv2 with raw values and another band order.

Scale and offset per band convert its raw values to those of MMLSv2.
"""

from __future__ import annotations

from marsls_keras.datasets.mars import (
    ANOTHER,
    CELL,
    LAYOUT,
    SLOPE_DEGREES,
    border,
    geo_tags,
    is_canonical,
    is_patch,
    without_border,
)
from marsls_keras.datasets.release import Release, StoredTile, SyntheticFile, SyntheticForm, SyntheticTile
from marsls_keras.errors import InputError
from marsls_keras.lazy_imports import np

_NO_DATA = -3.4028234663852886e38  # lowest float32: no data in the band slope at the raster's edge, where MMLSv2 has 0


def _claims(tile: StoredTile) -> bool:
    low, high = tile.span
    if is_canonical(tile):
        return False
    if max(-low, high) > RELEASE.limit:
        return True  # the limit refuses it later
    if is_patch(tile):
        return False
    found = f"{tile.path}: values from {low:g} to {high:g}"
    if np.issubdtype(tile.kind, np.integer):
        raise InputError(
            f"{found} of {tile.kind}; tiles of the challenge have float32, those of the other releases [0, 1]. "
            f"{ANOTHER}"
        )
    for position, band in enumerate(RELEASE.order):
        scale, offset = RELEASE.scale[position], RELEASE.offset[position]
        values = tile.image[..., position]
        least, most = float(np.nanmin(values, initial=np.inf)), float(np.nanmax(values, initial=-np.inf))
        # Other regions may be steeper or higher, but not by that much.
        if least < offset - 4 * scale or most > offset + 5 * scale:
            raise InputError(
                f"{found}, of no Mars release: mmls_v1 and mmls_v2 have values in [0, 1], "
                f"and the challenge has about {offset:g} to {offset + scale:g} in its band {position + 1}, {band}, "
                f"found {least:g} to {most:g}. {ANOTHER}"
            )
    return True


def _files(tile: SyntheticTile) -> list[SyntheticFile]:
    size, tags = tile.image.shape[0], geo_tags(tile.cell, tile.image.shape[0])
    image = RELEASE.from_canonical(without_border(tile.image, tile.index))
    image[border(tile.index, size)][..., RELEASE.order.index("slope")] = _NO_DATA
    name = f"col{tile.cell[1]:05d}_row{tile.cell[0]:05d}.tif"
    options = {"photometric": "minisblack", "compression": "lzw", "metadata": None}
    no_data = (42113, "s", 0, "-3.4028234663852886e+38", True)
    return [
        SyntheticFile(
            f"{tile.split}/images/{name}", image, {**options, "planarconfig": "contig", "extratags": [*tags, no_data]}
        ),
        SyntheticFile(f"{tile.split}/masks/{name}", tile.mask, {**options, "extratags": tags}),
    ]


RELEASE = Release(
    name="challenge",
    title="the challenge",
    description="Mars-LS challenge: the tiles of MMLSv2 with raw values and another band order",
    order=("thermal", "slope", "dem", "gray", "red", "green", "blue"),
    family="mmls_v2",
    layout=LAYOUT,
    synthetic=SyntheticForm(_files),
    scale=(254.0, SLOPE_DEGREES, 12822.0, 254.0, 189.0, 213.0, 237.0),
    offset=(0.0, 0.0, -5834.0, 0.0, 18.0, 18.0, 18.0),
    cell=CELL,
    claims=_claims,
)
