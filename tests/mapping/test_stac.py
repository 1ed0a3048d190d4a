"""STAC item of a map."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from helpers.inventories import MARS, NORTH_UP, write_raster
from pyproj import CRS, Transformer
from shapely.geometry import shape

from marsls_keras.inference.decision import Decision
from marsls_keras.mapping.geodesy import Body
from marsls_keras.mapping.stac import footprint, write_item
from marsls_keras.runs.run import Run


def test_an_item_tells_place_networks_and_data(tmp_path: Path, tiny_run) -> None:
    mask = write_raster(tmp_path / "mask.tif", np.zeros((20, 30), np.uint8))
    run = Run.open(tiny_run.path)
    out = tmp_path / "item.json"
    write_item(out, mask, {"mask": mask}, [run], [0, 1], Decision(threshold=0.4))
    item = json.loads(out.read_text())
    properties = item["properties"]
    # What the schemas of STAC and of the extension require.
    assert {"type", "stac_version", "id", "geometry", "bbox", "properties", "links", "assets"} <= set(item)
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.-]+[a-zA-Z0-9]", properties["mlm:name"])
    assert {"mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output"} <= set(properties)
    assert properties["mlm:input"][0]["input"]["shape"] == [-1, 32, 32, 7]
    assert properties["mlm:hyperparameters"]["threshold"] == 0.4
    assert properties["ssys:targets"] == ["Mars"]
    assert properties["marsls:fingerprint"]["tiny"]["sha256"] == run.fingerprint["sha256"]
    models = [asset for asset in item["assets"].values() if asset["roles"] == ["mlm:model"]]
    for asset, fold in zip(models, (0, 1), strict=True):
        digest = hashlib.sha256((tmp_path / asset["href"]).read_bytes()).hexdigest()
        assert asset["file:checksum"] == "1220" + digest == "1220" + run.metrics(fold)["weights_sha256"]
    assert (tmp_path / item["assets"]["mask"]["href"]).samefile(mask)
    corners = [
        NORTH_UP @ corner if hasattr(Affine, "__matmul__") else NORTH_UP * corner for corner in ((0, 20), (30, 0))
    ]
    to_degrees = Transformer.from_crs(MARS, CRS(MARS).geodetic_crs, always_xy=True).transform
    expected = [value for x, y in corners for value in to_degrees(x, y)]
    assert item["bbox"] == pytest.approx(expected, abs=1e-9)
    assert shape(item["geometry"]).bounds == pytest.approx(expected, abs=1e-9)


def test_a_footprint_around_a_pole_is_a_cap() -> None:
    body = Body("+proj=stere +lat_0=-90 +R=3396190 +units=m")
    place, box = footprint(body, Affine(1000, 0, -50_000, 0, -1000, 50_000), (100, 100))
    assert box[::2] == [-180, 180] and box[1] == -90
    corner = 90 - 2 * np.degrees(np.arctan(np.hypot(50_000, 50_000) / (2 * 3396190)))
    assert box[3] == pytest.approx(-corner, abs=1e-6)


def test_a_footprint_across_the_antimeridian_is_divided() -> None:
    place, box = footprint(Body("EPSG:4326"), Affine(0.5, 0, 178, 0, -0.5, 10), (4, 10))
    assert box == [178, 8, -177, 10]
    parts = shape(place)
    assert place["type"] == "MultiPolygon" and parts.area == pytest.approx(10) and parts.bounds == (-180, 8, 180, 10)
