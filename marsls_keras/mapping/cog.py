"""Assemble the shards of a map to one Cloud Optimised GeoTIFF, in bounded memory."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from marsls_keras.errors import InputError, RunError
from marsls_keras.files import atomic
from marsls_keras.mapping.manifest import BLOCK, Manifest
from marsls_keras.mapping.raster import Raster
from marsls_keras.mapping.shards import BANDS, shard_path
from marsls_keras.progress import stage


def assemble(out: Path, name: str, manifest: Manifest, raster: Raster, bands: Sequence[int]) -> Path:
    """Write some bands of all shards as one tiled, compressed GeoTIFF with overviews (COG).

    GDAL copies block by block from a virtual raster (VRT) of the shards, so the whole is never in memory. The bytes
    depend on the shards alone.

    Args:
        out: Folder of the map.
        name: Name of the file in it.
        manifest: The manifest.
        raster: The raster that was mapped, which gives the place.
        bands: Bands of the shards, from 1 on.

    Returns:
        The file.

    Raises:
        RunError: If a shard is damaged, or the file cannot be written.

    Example:
        >>> assemble(Path("valles"), "probability.tif", manifest, raster, [1])  # doctest: +SKIP
        PosixPath('valles/probability.tif')
    """
    from rasterio._err import CPLE_BaseError  # what GDAL reports while it copies
    from rasterio.errors import RasterioError
    from rasterio.shutil import copy

    tags = {
        "runs": ", ".join(manifest.members),
        "decision": ", ".join(f"{key} {value}" for key, value in manifest.decision.items()),
    }
    virtual = out / "shards" / f"{name}.vrt"
    virtual.write_text(_virtual_raster(out, manifest, raster, bands, tags), encoding="utf-8")
    options = {"compress": "deflate", "predictor": "yes", "blocksize": BLOCK, "bigtiff": "if_safer"}
    with atomic(out / name) as temporary, stage(f"Writing {out / name}"):
        try:
            copy(virtual, temporary, driver="COG", overview_resampling="average", num_threads="all_cpus", **options)
        except (RasterioError, CPLE_BaseError) as error:
            raise RunError(
                f"{out / name} could not be written: {error.__cause__ or error}. If a shard is damaged, remove it from "
                f"{out / 'shards'}; the same command computes it again."
            ) from error
    return out / name


def _virtual_raster(
    out: Path, manifest: Manifest, raster: Raster, bands: Sequence[int], tags: Mapping[str, str]
) -> str:
    """Return the text of a VRT that places the shards."""
    root = ElementTree.Element("VRTDataset", rasterXSize=str(raster.width), rasterYSize=str(raster.height))
    if raster.crs is not None:
        _add(root, "SRS", raster.crs.to_wkt(version="WKT2_2019"), dataAxisToSRSAxisMapping="1,2")
    _add(root, "GeoTransform", ", ".join(map(repr, raster.transform.to_gdal())))
    metadata = _add(root, "Metadata")
    for key, value in tags.items():
        _add(metadata, "MDI", value, key=key)
    for number, band in enumerate(bands, 1):
        part = _add(root, "VRTRasterBand", dataType="Float32", band=str(number))
        _add(part, "Description", BANDS[band - 1])
        _add(part, "NoDataValue", "nan")
        for shard, box in enumerate(manifest.boxes):
            source = _add(part, "SimpleSource")
            _add(source, "SourceFilename", shard_path(out, shard).name, relativeToVRT="1")
            _add(source, "SourceBand", str(band))
            size = {"xSize": str(box.width), "ySize": str(box.height)}
            # Without this GDAL opens each file to ask.
            block = {"BlockXSize": str(BLOCK), "BlockYSize": str(BLOCK)}
            _add(
                source,
                "SourceProperties",
                DataType="Float32",
                **block,
                RasterXSize=str(box.width),
                RasterYSize=str(box.height),
            )
            _add(source, "SrcRect", xOff="0", yOff="0", **size)
            _add(source, "DstRect", xOff=str(box.left), yOff=str(box.top), **size)
    return ElementTree.tostring(root, encoding="unicode")


def _add(parent: ElementTree.Element, name: str, text: str | None = None, **attributes: str) -> ElementTree.Element:
    """Append an XML element and return it."""
    element = ElementTree.SubElement(parent, name, attributes)
    element.text = text
    return element


def require_space(out: Path, manifest: Manifest, shards: int) -> None:
    """Check that a disk has room for the shards that are missing and for the files that are made of all of them.

    Args:
        out: Folder of the map; it need not exist.
        manifest: The manifest.
        shards: Number of shards that are not finished.

    Raises:
        InputError: If there is less than they may take at most.

    Example:
        >>> require_space(Path("valles"), Manifest.read(Path("valles/map.json")), shards=12)  # doctest: +SKIP
    """
    pixels = manifest.raster.height * manifest.raster.width
    share = shards / len(manifest.boxes)
    bands = len(BANDS) if manifest.uncertainty else 1
    # 4 bytes a value in the shards; as much again in the result, a third for overviews, and GDAL's copy of these; 1
    # byte a pixel for the mask, with overviews.
    needed = int(pixels * (4 * bands * (share + 1 + 2 / 3) + 5 / 3))
    there = next(folder for folder in (out.resolve(), *out.resolve().parents) if folder.exists())
    if (free := shutil.disk_usage(there).free) < needed:
        raise InputError(
            f"-o {out}: a map of {manifest.raster.width} x {manifest.raster.height} pixels may need "
            f"{needed / 1e9:.1f} GB there, and {free / 1e9:.1f} GB are free. Free some space, or choose another disk."
        )
