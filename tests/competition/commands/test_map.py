"""`marsls map` from the raster to the files: places, parts, what goes on and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from filelock import FileLock
from helpers.cli import marsls
from helpers.rasters import MARS, NORTH_UP, write_raster
from rasterio.transform import Affine, from_origin

from marsls_keras.bands.names import BANDS
from marsls_keras.data.formats.tiff import write_raster as write_tile
from marsls_keras.data.synthetic.mars import make_mosaic
from marsls_keras.errors import InputError, RunError
from marsls_keras.mapping.manifest import Manifest, shard_side
from marsls_keras.mapping.map_raster import MapRequest, map_raster
from marsls_keras.mapping.shards import missing_shards, shard_path

SIZE = (540, 560)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return make_mosaic(17, 18, size=32, seed=7)[0][: SIZE[0], : SIZE[1]]


@pytest.fixture(scope="module")
def raster(tmp_path_factory, picture) -> Path:
    """A raster of four shards; some pixels have no data."""
    image = picture.copy()
    image[100:140, 200:230] = -1
    return write_raster(tmp_path_factory.mktemp("raster") / "valles.tif", image, names=BANDS, nodata=-1.0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, raster, tiny_run) -> Path:
    """The map of the raster, in the simplest windows."""
    out = tmp_path_factory.mktemp("maps") / "valles"
    map_raster(request(raster, out, tiny_run))
    return out


def request(raster: Path, out: Path, tiny_run, **options) -> MapRequest:
    settings = {"names": [tiny_run.name], "runs": tiny_run.runs, "stride": 32, "polygons": False}
    return MapRequest(str(raster), out, **settings | options)


def arguments(raster: Path, out: Path, tiny_run) -> list[str]:
    words = ["map", raster, "-o", out, "--run", tiny_run.name, "--runs", tiny_run.runs, "--stride", 32]
    return [str(word) for word in words]


def content(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.tif"))}


def test_the_map_has_the_place_of_the_raster_and_predicts_like_predict(whole, picture, tiny_run, tmp_path):
    with rasterio.open(whole / "probability.tif") as file:
        found = file.read(1)
        assert file.crs == rasterio.CRS.from_string(MARS) and file.transform == NORTH_UP and np.isnan(file.nodata)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG" and file.block_shapes == [(512, 512)]
        assert file.descriptions == ("probability",) and file.tags()["runs"] == "tiny" and file.overviews(1) == [2]
    empty = np.zeros(SIZE, bool)
    empty[100:140, 200:230] = True
    assert np.array_equal(np.isnan(found), empty) and not (whole / "shards").exists()
    tiles = tmp_path / "tiles"
    tiles.mkdir()
    places = [(0, 0), (7, 3), (14, 15)]  # the windows that end with the raster overlap the last ones
    for row, column in places:
        image = picture[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32]
        write_tile(tiles / f"col{column:05d}_row{row:05d}.tif", image, ())
    code = marsls("predict", tiny_run.name, "--images", tiles, "--out", tmp_path / "out", "--runs", tiny_run.runs)
    assert code.code == 0, code.err
    for row, column in places:
        with rasterio.open(tmp_path / "out" / "probability" / f"col{column:05d}_row{row:05d}.tif") as file:
            part = found[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32]
            assert np.abs(file.read(1) - part).max() < 1e-6
    with rasterio.open(whole / "mask.tif") as file:
        assert np.array_equal(file.read(1), np.where(empty, 255, found >= 0.5))


def test_parts_make_the_same_files_bit_for_bit(raster, whole, tiny_run, tmp_path):
    out = tmp_path / "valles"
    for part in ((0, 3), (2, 3)):
        found = map_raster(request(raster, out, tiny_run, shard=part))
        assert not found.products and found.computed == len(range(part[0], 4, part[1]))
    assert missing_shards(out, Manifest.read(out / "map.json")) == [1] and found.missing == 1
    map_raster(request(raster, out, tiny_run, shard=(1, 4)))
    damaged = shard_path(out, 1)
    damaged.write_bytes(damaged.read_bytes()[:2000])
    with pytest.raises(RunError, match=f"If a shard is damaged, remove it from {out}/shards"):
        map_raster(request(raster, out, tiny_run))
    damaged.unlink()
    found = map_raster(request(raster, out, tiny_run))
    assert found.computed == 1 and content(out) == content(whole)
    assert Manifest.read(out / "map.json").outputs == Manifest.read(whole / "map.json").outputs


def test_what_is_finished_is_kept_and_what_is_lost_is_made_again(raster, whole, tiny_run, tmp_path):
    out = tmp_path / "valles"
    shutil.copytree(whole, out)
    before = content(out)
    (out / "mask.tif").unlink()
    found = map_raster(request(raster, out, tiny_run))
    assert found.computed == 0 and content(out) == before
    assert sorted(found.products) == ["mask", "probability"]
    part = map_raster(request(raster, out, tiny_run, shard=(0, 2)))  # a task of a batch system that is run again
    assert part.computed == part.missing == 0 and sorted(part.products) == ["mask", "probability"]


def test_two_processes_cannot_make_one_map(raster, whole, tiny_run, tmp_path):
    out = tmp_path / "valles"
    shutil.copytree(whole, out)
    before = content(out)
    with FileLock(out / ".map.lock"):
        for overwrite in (False, True):
            with pytest.raises(InputError, match="valles is being written by another process"):
                map_raster(request(raster, out, tiny_run, overwrite=overwrite))
        assert map_raster(request(raster, out, tiny_run, shard=(0, 2))).computed == 0
    map_raster(request(raster, out, tiny_run))
    assert content(out) == before


def test_another_raster_run_or_window_is_refused_and_overwritten_on_request(raster, whole, tiny_run, tmp_path, picture):
    out = tmp_path / "valles"
    shutil.copytree(whole, out)
    other = write_raster(tmp_path / "other.tif", picture[:200, :200])
    for changed, message in (
        ({"raster": str(other)}, "raster.sha256: .*there.*raster.height: 540 there, 200 now"),
        ({"stride": 16}, "stride: 32 there, 16 now"),
        ({"folds": [0]}, r"members.tiny.1: \w+ there, none now"),
        ({"uncertainty": True}, "uncertainty: False there, True now"),
    ):
        settings = {"raster": raster, "out": out, "tiny_run": tiny_run} | changed
        with pytest.raises(InputError, match="(?s)holds another map, of .*" + message):
            map_raster(request(**settings))
    found = map_raster(request(other, out, tiny_run, overwrite=True))
    assert found.computed == 1 and (found.raster.height, found.raster.width) == (200, 200)


def test_uncertainty_polygons_and_stac_on_request(picture, tiny_run, tmp_path):
    raster, out = write_raster(tmp_path / "a.tif", picture[:70, :53]), tmp_path / "out"
    result = marsls(*arguments(raster, out, tiny_run), "--uncertainty", "--stac", "--json")
    assert result.code == 0, result.err
    told = json.loads(result.out)
    assert set(told["products"]) == {"probability", "uncertainty", "mask", "landslides", "item"}
    assert all(Path(path).exists() for path in told["products"].values())
    with rasterio.open(out / "uncertainty.tif") as file, rasterio.open(out / "probability.tif") as sure:
        variance, bits = file.read()
        p = sure.read(1).astype(float)
        assert file.descriptions == ("variance", "entropy") and variance.max() > 0
        assert np.abs(bits + p * np.log2(p) + (1 - p) * np.log2(1 - p)).max() < 1e-5
    assert told["inventory"]["landslides"] > 0 and told["inventory"]["area_km2"] > 0
    before = content(out)
    (out / "uncertainty.tif").unlink()
    again = marsls(*arguments(raster, out, tiny_run), "--uncertainty", "--stac", "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out) == told and content(out) == before


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (MARS, Affine(232, 0, 0, 0, 232, -9e5)),
        (MARS, Affine.translation(1e5, 2e5) * Affine.rotation(30) * Affine.scale(232, -232)),
        ("IAU_2015:49935", from_origin(-5e5, 5e5, 232, 232)),
        ("EPSG:4326", from_origin(179.9, 10, 0.002, 0.002)),
    ],
    ids=["south-up", "rotated", "polar", "antimeridian"],
)
def test_any_place_passes_through(picture, tiny_run, tmp_path, crs, transform):
    raster = write_raster(tmp_path / "a.tif", picture[:40, :70], crs=crs, transform=transform)
    map_raster(request(raster, tmp_path / "out", tiny_run, folds=[0]))
    with rasterio.open(raster) as asked:
        for name in ("probability.tif", "mask.tif"):
            with rasterio.open(tmp_path / "out" / name) as file:
                assert file.crs == asked.crs and file.transform.almost_equals(transform, 1e-6)
                assert file.shape == (40, 70)


def test_bad_input_is_named(raster, tiny_run, tmp_path, picture):
    def error(*changed: object, path: object = raster, out: Path = tmp_path / "out") -> str:
        result = marsls(*arguments(Path(str(path)), out, tiny_run), *map(str, changed))
        assert result.code == 2 and not result.out, result.err
        return result.err

    assert "There is no raster none.tif" in error(path="none.tif")
    assert "is a folder, expected one raster" in error(path=tmp_path)
    no_crs = write_raster(tmp_path / "a.tif", picture[:40, :40], crs=None)
    assert "has no coordinate system" in error(path=no_crs)
    few = write_raster(tmp_path / "b.tif", picture[:40, :40, :5])
    assert "5 bands; " in error(path=few)
    assert "--shard 3/3: expected i/n" in error("--shard", "3/3")
    assert "--stride 40: expected 1 to 32" in error("--stride", 40)
    assert "--shard is for batch systems" in error("--shard", "0/2", "--ray", "auto")
    assert "each part would remove what the others computed" in error("--shard", "0/2", "--overwrite")
    (tmp_path / "file").write_text("")
    assert "is a file, expected a folder" in error(out=tmp_path / "file")
    assert "cannot be made" in error(out=tmp_path / "file" / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mask.tif").write_text("mine")
    assert "holds mask.tif, which no map of marsls wrote" in error("--overwrite", out=tmp_path / "mine")


def test_a_disk_that_is_too_small_is_told_before(raster, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(InputError, match=r"560 x 540 pixels may need 0.0 GB there, and 0.0 GB are free"):
        map_raster(request(raster, tmp_path / "out", tiny_run))


def test_predict_sends_a_raster_to_map(raster, tiny_run, tmp_path):
    result = marsls("predict", tiny_run.name, "--images", raster, "--out", tmp_path / "o", "--runs", tiny_run.runs)
    assert result.code == 2 and f"marsls map {raster} --run tiny -o OUT" in result.err


def test_shards_are_whole_tiles_and_blocks_where_both_fit():
    from marsls_keras.mapping.lattice import Lattice

    for tile, window, side in ((128, 128, 1024), (128, 256, 2048), (128, 192, 1536), (32, 32, 512), (100, 100, 800)):
        assert shard_side(Lattice(tile, window, window // 2, alone=tile == window)) == side
