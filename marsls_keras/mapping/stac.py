"""STAC item of a map: its files, place and coordinate system, and the networks that made it (extension mlm)."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from marsls_keras.data.splits import Fold
from marsls_keras.errors import InputError
from marsls_keras.files import write_json
from marsls_keras.inference.decision import Decision
from marsls_keras.json_records import read_record
from marsls_keras.mapping.geodesy import Body
from marsls_keras.mapping.vector_file import require_geo
from marsls_keras.runs.fold import WEIGHTS
from marsls_keras.runs.records import EnvironmentRecord
from marsls_keras.runs.run import Run

_SCHEMAS = "https://stac-extensions.github.io"
_EXTENSIONS = ("mlm/v1.4.0", "projection/v2.0.0", "file/v2.1.0")
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_TYPES = {".tif": _COG, ".gpkg": "application/geopackage+sqlite3"}
_BODIES = {"Mars": (3_370_000, 3_400_000), "Earth": (6_350_000, 6_385_000), "Moon": (1_730_000, 1_740_000)}
"""Least and largest equatorial radius in metres, of ellipsoids and spheres in use."""


def write_item(
    out: Path,
    grid: Path,
    products: Mapping[str, Path],
    runs: Sequence[Run],
    folds: Sequence[Fold],
    decision: Decision,
) -> None:
    """Write the STAC item (version 1.1) of a map.

    It has the extensions mlm (the networks, their bands and the decision), projection, file and, elsewhere than on
    Earth, ssys. The fingerprint of the training data is under "marsls:fingerprint". The geometry is in longitude and
    latitude on the body. Paths are relative to the item.

    Args:
        out: JSON file to write.
        grid: A raster of the map, such as its mask, which tells place and coordinate system.
        products: Files of the map by key, such as "probability", "mask" and "landslides".
        runs: Runs whose networks made it, at least one.
        folds: Their folds.
        decision: Decision that it followed.

    Raises:
        InputError: If a package is missing, or the raster has no coordinate system of a body.
        RunError: If the item cannot be written.

    Example:
        >>> write_item(Path("map/item.json"), mask, {"mask": mask}, [run], [0, 1], decision)  # doctest: +SKIP
    """
    require_geo()
    import rasterio

    with rasterio.open(grid) as raster:
        if not raster.crs:
            raise InputError(f"{grid} has no coordinate system, so that its place is unknown (gdal_edit.py -a_srs).")
        body, shape, transform = Body(raster.crs.to_wkt()), list(raster.shape), raster.transform
    place, box = footprint(body, transform, shape)
    radius = body.radius
    target = next((name for name, (least, most) in _BODIES.items() if least <= radius <= most), "")
    extensions = [*_EXTENSIONS, *(["ssys/v1.1.1"] if target != "Earth" else [])]
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    properties = {
        "datetime": now,
        "created": now,
        **({"ssys:targets": [target]} if target and target != "Earth" else {}),
        "proj:wkt2": body.crs.to_wkt(),
        "proj:shape": shape,
        "proj:transform": list(transform)[:6],
        **_model(runs, folds, decision),
    }
    item = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [f"{_SCHEMAS}/{name}/schema.json" for name in extensions],
        "id": f"{runs[0].name}-{out.resolve().parent.name}",
        "geometry": place,
        "bbox": box,
        "properties": properties,
        "links": [],
        "assets": {
            **{
                key: {
                    "href": _href(path, out),
                    "type": _TYPES.get(path.suffix, "application/octet-stream"),
                    "roles": ["data"],
                }
                for key, path in products.items()
            },
            **_weights(runs, folds, out),
        },
    }
    write_json(out, item)


def footprint(body: Body, transform: Any, shape: Sequence[int]) -> tuple[dict[str, Any], list[float]]:
    """Return the outline of a raster as GeoJSON in longitude and latitude, and its box [west, south, east, north].

    An outline across the antimeridian is divided there, and the box then has a west larger than its east. Around a
    pole it is the cap down to the outline's farthest latitude.

    Args:
        body: Coordinate system of the raster.
        transform: Affine transform of its pixels.
        shape: Height and width.

    Example:
        >>> from affine import Affine
        >>> body = Body("+proj=longlat +R=3396190 +no_defs")
        >>> footprint(body, Affine(0.5, 0, 179, 0, -0.5, 10), (2, 4))[1]
        [179.0, 9.0, -179.0, 10.0]
    """
    import shapely
    from affine import Affine

    steps = np.linspace(0, 1, 33)[:-1]
    sides = [(steps, 0 * steps), (1 + 0 * steps, steps), (1 - steps, 1 + 0 * steps), (0 * steps, 1 - steps)]
    columns, rows = (np.concatenate(part) for part in zip(*sides, strict=True))
    a, b, c, d, e, f = list(Affine(*list(transform)[:6]))[:6]
    columns, rows = columns * shape[1], rows * shape[0]
    ring = shapely.linearrings(np.stack([a * columns + b * rows + c, d * columns + e * rows + f], axis=1))
    degrees = np.asarray(body.degrees(ring).coords)
    lon, lat = np.unwrap(degrees[:, 0], period=360), degrees[:, 1]
    if abs(lon[-1] - lon[0]) > 180:  # the outline goes around a pole
        south, north = (float(lat.min()), 90.0) if lat.mean() > 0 else (-90.0, float(lat.max()))
        return dict(shapely.box(-180, south, 180, north).__geo_interface__), [-180.0, south, 180.0, north]
    lon = lon - 360 * np.floor((lon.min() + 180) / 360)  # its west lies in [-180, 180)
    whole = shapely.polygons(np.stack([lon, lat], 1))
    inside = shapely.intersection(whole, shapely.box(-180, -90, 180, 90))
    beyond = shapely.transform(shapely.intersection(whole, shapely.box(180, -90, 540, 90)), lambda xy: xy - (360, 0))
    shape_ = whole if shapely.is_empty(beyond) or not shapely.area(beyond) else shapely.multipolygons([inside, beyond])
    west, south, east, north = map(float, shapely.bounds(whole))
    return dict(shape_.__geo_interface__), [west, south, east - 360 if east > 180 else east, north]


def _href(path: Path, out: Path) -> str:
    return Path(os.path.relpath(path.resolve(), out.resolve().parent)).as_posix()


def _model(runs: Sequence[Run], folds: Sequence[Fold], decision: Decision) -> dict[str, Any]:
    """Return the fields of the extension mlm, and the fingerprint of the training data."""
    first = runs[0]
    bands, (height, width) = list(first.fingerprint["bands"]), first.fingerprint["size"]
    environment = read_record(first.fold_path(folds[0]) / "environment.json", EnvironmentRecord)
    classes = [{"value": 0, "name": "background"}, {"value": 1, "name": "landslide"}]
    order = ["batch", "height", "width", "channel"]
    return {
        "mlm:name": "marsls-" + re.sub(r"[^a-zA-Z0-9_.-]", "-", "-".join(run.name for run in runs)).strip("-."),
        "mlm:architecture": first.config.model.name,
        "mlm:framework": "Keras",
        "mlm:framework_version": environment["packages"]["keras"],
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:input": [
            {
                "name": "bands",
                "bands": bands,
                "input": {"shape": [-1, height, width, len(bands)], "dim_order": order, "data_type": "float32"},
            }
        ],
        "mlm:output": [
            {
                "name": "probability of landslide",
                "tasks": ["semantic-segmentation"],
                "result": {"shape": [-1, height, width, 1], "dim_order": order, "data_type": "float32"},
                "classification:classes": classes,
            }
        ],
        "mlm:hyperparameters": decision.to_values(),
        "marsls:fingerprint": {
            run.name: {k: run.fingerprint[k] for k in ("sha256", "release", "tiles")} for run in runs
        },
    }


def _weights(runs: Sequence[Run], folds: Sequence[Fold], out: Path) -> dict[str, Any]:
    """Return the assets of the networks' weights; a checksum is a multihash of SHA-256 (code 12, 20 bytes)."""
    return {
        f"weights-{run.name}-{fold}": {
            "href": _href(run.fold_path(fold) / WEIGHTS, out),
            "type": "application/x-hdf5",
            "roles": ["mlm:model"],
            "file:checksum": "1220" + run.metrics(fold)["weights_sha256"],
        }
        for run in runs
        for fold in folds
    }
