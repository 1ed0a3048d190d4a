"""MMLSv2, the public dataset (Paheding et al., 2026): 465 / 66 / 133 tiles and 276 isolated ones, values in [0, 1]."""

from __future__ import annotations

from marsls_keras.bands.names import BANDS
from marsls_keras.datasets.mars import CELL, LAYOUT, geo_tags, is_canonical, is_patch, without_border
from marsls_keras.datasets.release import Release, SyntheticFile, SyntheticForm, SyntheticTile


def _files(tile: SyntheticTile) -> list[SyntheticFile]:
    name = f"col{tile.cell[1]:05d}_row{tile.cell[0]:05d}.tif"
    options = {
        "photometric": "minisblack",
        "compression": "lzw",
        "metadata": None,
        "extratags": geo_tags(tile.cell, tile.image.shape[0]),
    }
    image = without_border(tile.image, tile.index)
    return [
        SyntheticFile(f"{tile.split}/images/{name}", image, {**options, "planarconfig": "contig"}),
        SyntheticFile(f"{tile.split}/masks/{name}", tile.mask, options),
    ]


RELEASE = Release(
    name="mmls_v2",
    title="MMLSv2",
    description="public MMLSv2: values in [0, 1], col<col>_row<row>.tif",
    order=BANDS,
    family="mmls_v2",
    layout=LAYOUT,
    synthetic=SyntheticForm(_files),
    cell=CELL,
    claims=lambda tile: is_canonical(tile) and not is_patch(tile),
    # Tiles of any release can look like this if a band has no data or only zeros, so those are not certain.
    certain=lambda image: bool(image.any(axis=(0, 1)).all()),
)
