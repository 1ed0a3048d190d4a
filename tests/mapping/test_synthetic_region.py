"""A synthetic region: stacked, it is the mosaic that it was made of, and its polygons are the mask to the pixel."""

import re

import numpy as np
import pyogrio
import pytest
import rasterio
from helpers.cli import marsls, strict_json, succeed

from marsls_keras.data.synthetic.mars import make_mosaic
from marsls_keras.datasets import RELEASES
from marsls_keras.mapping.grid import RasterGrid, open_raster
from marsls_keras.mapping.labels import open_labels
from marsls_keras.mapping.stack import ORDER

WIDTH, HEIGHT, MARGIN = 90, 70, 16
BAND_TOLERANCE = {"dem": 120.0, "thermal": 8.0, "gray": 15.0, "slope": 6.0}
"""Mean difference that resampling there and back may leave, in metres, steps of 8 bits, and degrees."""


@pytest.fixture(scope="module")
def region(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "region"
    shown = succeed("synth", folder, "--mosaic", f"{WIDTH}x{HEIGHT}", "--seed", 3).out
    command = shown.splitlines()[-1].removeprefix("Next: marsls ").split()
    succeed(*command)  # the next step that is printed is one that works
    return folder


@pytest.fixture(scope="module")
def truth():
    """The mosaic of the region, raw (7, H, W), and its mask."""
    image, mask = make_mosaic(1, 1, 128, seed=3)
    inner = np.s_[MARGIN : MARGIN + HEIGHT, MARGIN : MARGIN + WIDTH]
    return np.moveaxis(RELEASES["challenge"].from_canonical(image[inner]), -1, 0), mask[inner]


def test_the_composite_is_the_mosaic(region, truth):
    raw, _ = truth
    with rasterio.open(region / "composite.tif") as file:
        assert (file.height, file.width) == (HEIGHT, WIDTH) and file.descriptions == ORDER
        found = file.read(masked=True)
    assert np.ma.getmaskarray(found).mean() < 0.002
    for name, band, expected in zip(ORDER, found, raw, strict=True):
        inside = np.s_[4:-4, 4:-4]
        differs = np.abs(band - expected)[inside].mean()
        assert differs <= BAND_TOLERANCE.get(name, 0.5), name
        assert np.corrcoef(band[inside].filled(0).ravel(), expected[inside].ravel())[0, 1] > 0.97, name


def test_rasters_have_grids_and_projections_of_their_own(region):
    places = {}
    for name in ("colour", "dem", "thermal", "gray"):
        with rasterio.open(region / f"{name}.tif") as file:
            places[name] = (file.crs.to_dict().get("proj"), file.res, file.dtypes[0])
    assert places["colour"] == ("eqc", (232.0, 232.0), "uint8") and places["dem"][:2] == ("eqc", (200.0, 200.0))
    assert places["thermal"][0] == "longlat" and places["gray"][:2] == ("sinu", (58.0, 58.0))
    with rasterio.open(region / "thermal.tif") as file:
        assert 280 < file.bounds.left < 290  # longitudes from 0 to 360
    assert -80 < pyogrio.read_bounds(region / "landslides.gpkg")[1][0].min() < -70


def test_the_polygons_are_the_landslides_to_the_pixel(region, truth):
    with open_raster(region / "composite.tif") as raster:
        grid = RasterGrid.of(raster)
    with open_labels(region / "landslides.gpkg", grid) as labels:
        assert np.array_equal(labels.read(0, 0, HEIGHT, WIDTH), truth[1])
    assert 0.02 < truth[1].mean() < 0.9


def test_a_region_becomes_a_dataset(region, tmp_path):
    data = tmp_path / "data"
    arguments = ("--labels", region / "landslides.gpkg", "-o", data, "--size", 16, "--json")
    result = strict_json(succeed("tile", region / "composite.tif", *arguments).out)
    assert result["release"] == "challenge" and "reprojected from Mars (2015)" in result["labels"]
    found = strict_json(succeed("check", data, "--json").out)
    assert not [problem for problem in found["problems"] if problem["severity"] == "error"]
    assert found["slope"]["slope"] > 0.9  # degrees of the DEM's gradient


@pytest.mark.slow
def test_a_region_trains_a_network(region, tmp_path):
    """Two folds of one epoch on tiles of 32 pixels, with an isolated region that is predicted."""
    folder = tmp_path / "wide"
    succeed("synth", folder, "--mosaic", "420x260")
    rasters = [folder / f"{name}.tif" for name in ("colour", "dem", "thermal", "gray")]
    succeed("stack", *rasters, "-o", folder / "composite.tif")
    with rasterio.open(folder / "composite.tif") as file:
        boundary = file.bounds.left + 0.7 * (file.bounds.right - file.bounds.left)
    labels = ("--labels", folder / "landslides.gpkg", f"--isolated-east-of={boundary}", "--size", 32)
    succeed("tile", folder / "composite.tif", *labels, "-o", tmp_path / "data")
    place = ("--data", tmp_path / "data", "--runs", tmp_path / "runs")
    small = ["model={options: {base_filters: 2, depth: 1}}", "data.folds=2", "data.sampling=tiles", "training.epochs=1"]
    small += ["training.encoder_learning_rate=null", "training.warmup_epochs=0", "training.precision=float32"]
    small += ["inference.views=identity", "inference.view_sets=[identity, flips]"]
    settings = [word for part in small for word in ("--set", part)]
    succeed("train", "--config", "unet", "--run", "region", *place, *settings)
    succeed("tune", "--run", "region", "--runs", tmp_path / "runs")
    images = tmp_path / "data" / "isolated" / "images"
    shown = succeed("predict", "region", "--images", images, "--out", tmp_path / "out", "--runs", tmp_path / "runs").out
    assert f"{len(list(images.iterdir()))} tiles" in shown


@pytest.mark.parametrize(
    ("mosaic", "message"),
    [
        ("90", "--mosaic 90: expected width x height in pixels, such as 1500x1100"),
        ("90x20", "at least 64 x 64 and at most .* Received: 90 x 20"),
        ("100000x100000", "Received: 100000 x 100000"),
    ],
)
def test_a_wrong_size_is_refused(tmp_path, mosaic, message):
    result = marsls("synth", tmp_path / "region", "--mosaic", mosaic)
    assert result.code == 2 and not (tmp_path / "region").exists()
    assert re.search(message, result.err)
