"""Georeferencing compared with rasterio's reading of the same files, and masks placed elsewhere than their images."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import tifffile
from helpers.georeferenced import MARS, PLACE, image, mask, write
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine

from marsls_keras.data.decoded.load import examine, load
from marsls_keras.data.formats.georeference import crs_difference, file_tags, georeference, require_one_grid
from marsls_keras.data.formats.tiff import write_raster
from marsls_keras.data.formats.tile import read_tile
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.errors import InputError


@pytest.mark.parametrize(
    ("transform", "axes"),
    [
        (PLACE, "north-up"),
        (Affine(0.25, 0, -70.5, 0, -0.5, 12.25), "north-up"),
        (Affine(10, 0, 5000, 0, 10, 8000), "south-up"),
        (Affine(-10, 0, 5000, 0, -10, 8000), "mirrored"),
        (Affine(8, 3, 5000, 3, -8, 8000), "rotated"),
    ],
)
@pytest.mark.parametrize("crs", [MARS, "EPSG:4326", "EPSG:32633", None])
@pytest.mark.parametrize("point", [False, True])
def test_places_are_those_of_rasterio(tmp_path, transform, axes, crs, point):
    path = write(tmp_path / "a.tif", image(), transform, crs, **({"AREA_OR_POINT": "Point"} if point else {}))
    if point:
        with rasterio.open(path, "r+") as file:
            file.update_tags(AREA_OR_POINT="Point")
            file.transform = transform
    found = georeference(file_tags(path))
    with rasterio.open(path) as file:
        assert found.affine == pytest.approx(tuple(file.transform)[:6]) and bool(found.crs) == (crs is not None)
        assert found.at(3, 5) == pytest.approx(file.transform * (3, 5))
        if axes != "rotated":
            left, bottom, right, top = file.bounds
            assert found.box(32, 32) == pytest.approx(
                (min(left, right), min(bottom, top), max(left, right), max(bottom, top))
            )
    assert found.axes() == axes and found.unit == {None: "map units", "EPSG:4326": "degrees"}.get(crs, "m")
    assert read_tile(path).geo == file_tags(path)


def test_coordinate_systems(tmp_path):
    files = {
        crs: write(tmp_path / f"{i}.tif", image(), crs=crs)
        for i, crs in enumerate([MARS, "EPSG:32633", "EPSG:32634", "EPSG:4326"])
    }
    other = write(tmp_path / "other.tif", image(), crs=MARS.replace("3396190", "3376200"))
    places = {crs: georeference(file_tags(path)) for crs, path in files.items()}
    for one, first in places.items():
        for two, second in places.items():
            assert bool(crs_difference(first, second)) == (one != two)
    assert crs_difference(
        georeference(file_tags(other)), places[MARS]
    ) == "semi-major axis 3376200 instead of 3396190, " + ("GeoKey 2058 3376200 instead of 3396190")
    assert crs_difference(places["EPSG:32633"], places["EPSG:32634"]) == "EPSG code 32633 instead of 32634"


@pytest.mark.parametrize(
    ("ending", "text"),
    [
        (".tfw", "10\n0\n0\n-10\n5005\n7995\n"),
        (".TIFW", "10,0\n0,0\n0,0\n-10,0\n5005,0\n7995,0"),
        (".wld", "8\n3\n3\n-8\n5005.5\n7997.5"),
    ],
)
def test_a_world_file_is_kept(tmp_path, ending, text):
    path = write(tmp_path / "a.tif", image(), None, None)
    path.with_suffix(ending).write_text(text)
    tile = read_tile(path)
    affine = PLACE if "8\n3" not in text else Affine(8, 3, 5000, 3, -8, 8000)
    assert georeference(tile.geo).affine == pytest.approx(tuple(affine)[:6])
    write_raster(tmp_path / "out" / "a.tif", tile.image[..., 0], tile.geo)
    with rasterio.open(tmp_path / "out" / "a.tif") as file:
        assert tuple(file.transform) == pytest.approx(tuple(affine)) and file.crs is None
    inner = write(tmp_path / "b.tif", image())
    inner.with_suffix(ending).write_text("1\n0\n0\n-1\n0\n0\n")
    assert georeference(read_tile(inner).geo).affine == tuple(PLACE)[:6]  # as GDAL has it: the file's own counts


@pytest.mark.parametrize(
    "text", ["", "10\n0\n0\n-10\n5005\n", "a\nb\nc\nd\ne\nf", "10\n0\n0\n-10\nnan\n0", "0\n0\n0\n0\n1\n1"]
)
def test_a_damaged_world_file_is_named(tmp_path, text):
    path = write(tmp_path / "a.tif", image(), None, None)
    path.with_suffix(".tfw").write_text(text)
    with pytest.raises(InputError, match=r"a\.tfw: a world file holds six numbers"):
        read_tile(path)


def test_ground_control_points_are_kept_and_named(data_root, tmp_path):
    root = data_root(train=2, val=0, test=0)
    path = root / "train" / "images" / "col00000_row00000.tif"
    points = [
        GroundControlPoint(row, col, 5000 + 10 * col, 8000 - 10 * row)
        for row, col in ((0, 0), (0, 32), (32, 0), (32, 31))
    ]
    write(path, image(), None, MARS, gcps=points)
    other = root / "train" / "images" / "col00001_row00000.tif"
    other.with_name(f"{other.name}.aux.xml").write_text(
        "<PAMDataset><GeoTransform>1,2,3,4,5,6</GeoTransform></PAMDataset>"
    )
    messages = [problem.message for problem in examine(Dataset.open(root).tiles)[1] if problem.kind == "georeference"]
    assert (
        len(messages) == 2
        and f"{path}: placed by ground control points" in messages[0]
        and ".aux.xml: georeferencing" in messages[1]
    )
    write_raster(tmp_path / "out.tif", np.zeros((32, 32), np.uint8), read_tile(path).geo)
    with rasterio.open(tmp_path / "out.tif") as file:
        assert [(p.row, p.col, p.x, p.y) for p in file.gcps[0]] == [(p.row, p.col, p.x, p.y) for p in points]
    with pytest.raises(InputError, match="placed by ground control points, which tell no grid"):
        require_one_grid([path])


def test_rational_polynomial_coefficients_are_kept(tmp_path):
    numbers = tuple(float(i) for i in range(92))
    tifffile.imwrite(
        tmp_path / "a.tif",
        image(),
        photometric="minisblack",
        metadata=None,
        extratags=[(50844, "d", 92, numbers, True)],
    )
    tile = read_tile(tmp_path / "a.tif")
    assert georeference(tile.geo).control == "rational polynomial coefficients"
    write_raster(tmp_path / "out.tif", np.zeros((32, 32), np.uint8), tile.geo)
    with tifffile.TiffFile(tmp_path / "out.tif") as tif:
        assert tif.pages.first.tags[50844].value == numbers


@pytest.mark.parametrize(
    ("transform", "crs", "message"),
    [
        (
            Affine(10, 0, 5030, 0, -10, 7980),
            MARS,
            "shifted by 3.00 pixels to the east and 2.00 to the south (30 and 20 m)",
        ),
        (
            Affine(10, 0, 4995, 0, -10, 8000),
            MARS,
            "shifted by -0.50 pixels to the east and 0.00 to the south (-5 and 0 m)",
        ),
        (Affine(10, 0, 5000, 0, 10, 7680), MARS, "south-up instead of north-up"),
        (Affine(20, 0, 5000, 0, -20, 8000), MARS, "pixels of 20 x 20 m instead of 10 x 10"),
        (PLACE, "EPSG:32633", "another coordinate system (EPSG code 32633 instead of user-defined"),
        (PLACE, MARS, None),
        (Affine(10, 0, 5000.2, 0, -10, 8000), MARS, None),  # rounding is tolerated
        (None, None, None),  # the mask has no georeferencing
    ],
)
def test_a_mask_that_lies_elsewhere_than_its_image(data_root, transform, crs, message):
    root = data_root(train=4, val=0, test=0)
    name = "col00001_row00001.tif"
    write(root / "train" / "images" / name, image())
    path = write(root / "train" / "masks" / name, mask(), transform, crs)
    _, problems = examine(Dataset.open(root).tiles)
    if message is None:
        assert problems == [] and len(load(Dataset.open(root))) == 4
        return
    (problem,) = problems
    assert (problem.kind, problem.severity) == ("georeference", "error")
    assert str(path) in problem.message and message in problem.message
    if "shifted" not in message:
        assert "shifted" not in problem.message
    with pytest.raises(InputError, match="does not lie where its image"):
        load(Dataset.open(root))


def test_a_mask_of_another_size_says_its_pixels(data_root):
    root = data_root(train=4, val=0, test=0)
    write(root / "train" / "images" / "col00001_row00001.tif", image())
    write(root / "train" / "masks" / "col00001_row00001.tif", mask(16), Affine(20, 0, 5000, 0, -20, 8000))
    _, problems = examine(Dataset.open(root).tiles)
    (text,) = [problem.message for problem in problems if problem.kind == "georeference"]
    assert "pixels of 20 x 20 m instead of 10 x 10; 16 x 16 pixels instead of 32 x 32." in text


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (
            Affine(10, 0, 5324, 0, -10, 8000),
            r"b\.tif lies 0\.40 pixels to the east and 0\.00 to the south \(4 and 0 m\) beside the grid of a",
        ),
        (
            Affine(10, 0, 5320, 0, -10, 8003),
            r"b\.tif lies 0\.00 pixels to the east and -0\.30 to the south \(0 and -3 m\)",
        ),
        (Affine(10.1, 0, 5320, 0, -10, 8000), r"b\.tif has pixels of 10\.1 x 10 m instead of 10 x 10, unlike a\.tif"),
        (Affine(-10, 0, 5320, 0, -10, 8000), r"b\.tif is mirrored"),
    ],
)
def test_only_tiles_of_one_grid_are_joined(tmp_path, transform, message):
    files = [write(tmp_path / "a.tif", image()), write(tmp_path / "b.tif", image(), transform)]
    with pytest.raises(InputError, match=message):
        require_one_grid(files)
    require_one_grid([files[0], write(tmp_path / "c.tif", image(), Affine(10, 0, 5030.01, 0, -10, 8000))])


def test_the_real_tiles_have_masks_in_their_places(real_data):
    files = sorted((real_data / "challenge_layout" / "val" / "images").iterdir())
    for file in files:
        place = georeference(file_tags(file))
        with rasterio.open(file) as raster:
            assert place.affine == tuple(raster.transform)[:6]
    _, problems = examine(Dataset.open(real_data / "challenge_layout").tiles)
    assert {problem.kind for problem in problems} <= {"no-data"}
    require_one_grid(files)
