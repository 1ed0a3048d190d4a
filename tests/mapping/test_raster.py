"""Reading rasters: pixels and bands against what rasterio wrote, in all the forms that GDAL offers."""

import pickle
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
from helpers.rasters import MARS, write_raster
from rasterio.transform import Affine, from_origin

from marsls_keras.bands.names import BANDS
from marsls_keras.datasets import RELEASES
from marsls_keras.errors import InputError
from marsls_keras.mapping.grid import open_dataset
from marsls_keras.mapping.raster import Box, Raster, boxes

RNG = np.random.default_rng(0)


def picture(height: int = 70, width: int = 53) -> np.ndarray:
    return RNG.uniform(0.1, 0.9, (height, width, 7)).astype(np.float32)


def whole(raster: Raster) -> np.ndarray:
    return raster.read(Box(0, 0, raster.height, raster.width))


def test_bands_without_names_are_in_the_order_of_the_release(tmp_path):
    image = picture()
    raster = Raster.open(write_raster(tmp_path / "a.tif", image))
    assert raster.release.name == "mmls_v2" and (raster.height, raster.width) == (70, 53)
    assert np.array_equal(whole(raster), image)


def test_bands_with_names_are_found_in_any_order_and_among_others(tmp_path):
    image = picture()
    order = [6, 0, 3, 5, 4, 2, 1]
    stored = np.concatenate([image[..., order], image[..., :1] * 0], -1)
    names = [*(BANDS[i].upper() for i in order), "quality"]
    raster = Raster.open(write_raster(tmp_path / "a.tif", stored, names=names))
    assert np.array_equal(whole(raster), image)


def test_raw_values_are_told_and_scaled_like_a_tile(tmp_path):
    image, challenge = picture(), RELEASES["challenge"]
    raster = Raster.open(write_raster(tmp_path / "a.tif", challenge.from_canonical(image)), family="mmls_v2")
    assert raster.release.name == "challenge" and np.abs(whole(raster) - image).max() < 1e-6
    named = write_raster(tmp_path / "b.tif", challenge.from_canonical(image)[..., ::-1], names=challenge.order[::-1])
    assert np.array_equal(whole(Raster.open(named)), whole(raster))


def test_a_mosaic_is_of_the_only_release_in_the_family_of_the_run(tmp_path):
    raster = Raster.open(write_raster(tmp_path / "a.tif", picture()), family="mmls_v1")
    assert raster.release.name == "mmls_v1"


def test_what_is_no_data_is_nan_band_by_band_and_beyond_the_raster(tmp_path):
    image = picture()
    image[3, 4, 2], image[5, 6, 3], image[7, 8, 4] = -1.0, np.nan, np.inf
    raster = Raster.open(write_raster(tmp_path / "a.tif", image, nodata=-1.0))
    found = raster.read(Box(-2, 50, 10, 6))
    assert np.isnan(found[:2]).all() and np.isnan(found[:, 3:]).all() and not np.isnan(found[2:, :3]).any()
    image[[3, 5, 7], [4, 6, 8], [2, 3, 4]] = np.nan
    assert np.array_equal(whole(raster), image, equal_nan=True)
    assert np.array_equal(found[2:, :3], image[:8, 50:])
    assert np.isnan(raster.read(Box(500, 0, 3, 3))).all()


def test_scale_offset_and_masks_of_the_file_count(tmp_path):
    stored = RNG.integers(1, 200, (40, 40, 7)).astype(np.uint8)
    path = write_raster(tmp_path / "a.tif", stored)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (0.004,) * 7, (0.1,) * 7
        known = np.ones((40, 40), bool)
        known[:3] = False
        file.write_mask(known)
    found = whole(Raster.open(path, "mmls_v2"))
    assert np.isnan(found[:3]).all() and np.abs(found[3:] - (stored[3:] * 0.004 + 0.1)).max() < 1e-6


@pytest.mark.parametrize(
    "transform",
    [
        from_origin(-4.5e6, -2e5, 232, 232),
        Affine(232, 0, 0, 0, 232, -9e5),
        Affine.translation(1e5, 2e5) * Affine.rotation(30) * Affine.scale(232, -232),
    ],
    ids=["north-up", "south-up", "rotated"],
)
def test_place_and_pixels_pass_through(tmp_path, transform):
    image = picture()
    raster = Raster.open(write_raster(tmp_path / "a.tif", image, transform=transform))
    raster.require_place()
    assert raster.transform.almost_equals(transform, 1e-6) and raster.crs.to_dict()["R"] == 3396190
    assert np.array_equal(whole(raster), image)


@pytest.mark.parametrize("form", ["strips", "vrt", "cog", "zip"])
def test_any_form_that_gdal_reads(tmp_path, form):
    import zipfile

    from rasterio.shutil import copy

    image = picture(600, 530)
    path: str | Path = write_raster(tmp_path / "a.tif", image, tiled=False)
    if form in ("vrt", "cog"):
        copy(path, tmp_path / f"b.{form}", driver={"vrt": "VRT", "cog": "COG"}[form])
        path = tmp_path / f"b.{form}"
    elif form == "zip":
        with zipfile.ZipFile(tmp_path / "b.zip", "w") as file:
            file.write(path, "a.tif")
        path = f"zip://{tmp_path}/b.zip!a.tif"
    raster = Raster.open(path)
    assert np.array_equal(raster.read(Box(100, 200, 300, 310)), image[100:400, 200:510])


def test_a_raster_is_a_value_that_every_thread_opens_for_itself(tmp_path):
    image = picture()
    raster = Raster.open(write_raster(tmp_path / "a.tif", image))
    again = pickle.loads(pickle.dumps(raster))
    assert again == raster and np.array_equal(whole(again), image)
    seen = {}
    threads = [threading.Thread(target=lambda i=i: seen.update({i: raster.dataset})) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(handle) for handle in [*seen.values(), raster.dataset]}) == 4


def test_the_digest_is_that_of_the_content_and_not_of_the_path(tmp_path):
    image = picture()
    first = Raster.open(write_raster(tmp_path / "a.tif", image)).digest()
    assert first == Raster.open(write_raster(tmp_path / "b.tif", image, tiled=False)).digest()
    image[69, 52, 6] += 0.01
    assert first != Raster.open(write_raster(tmp_path / "a.tif", image)).digest()
    moved = write_raster(tmp_path / "c.tif", image, transform=from_origin(0, 0, 100, 100))
    assert Raster.open(moved).digest() != Raster.open(tmp_path / "a.tif").digest()


def test_boxes_cover_every_pixel_once():
    seen = np.zeros((70, 53), int)
    for box in boxes(70, 53, 32):
        seen[box.top : box.top + box.height, box.left : box.left + box.width] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((40, 40, 5), {}, r"5 bands; .* has 7: red, green"),
        ((40, 40, 8), {}, r"8 bands; .*name the bands"),
        ((40, 40, 7), {"names": (*BANDS[:6], "grey")}, r"expected each of gray once. Did you mean grey\?"),
        ((40, 40, 7), {"names": ("red", "red", *BANDS[2:])}, "expected each of red, green once"),
    ],
)
def test_other_bands_are_refused(tmp_path, shape, options, message):
    with pytest.raises(InputError, match=message):
        Raster.open(write_raster(tmp_path / "a.tif", RNG.random(shape, np.float32), **options))


def test_what_is_no_raster_is_named(tmp_path):
    (tmp_path / "text.tif").write_text("no raster")
    for path, message in (
        (tmp_path / "none.tif", "There is no raster"),
        (tmp_path, "is a folder, expected one raster. gdalbuildvrt"),
        (tmp_path / "text.tif", "text.tif cannot be read"),
    ):
        with pytest.raises(InputError, match=message):
            Raster.open(path)


def test_a_truncated_raster_is_named_with_the_place(tmp_path):
    path = write_raster(tmp_path / "a.tif", picture(600, 530))
    path.write_bytes(path.read_bytes()[:-200_000])
    with pytest.raises(InputError, match=r"a\.tif cannot be read in rows \d+ to \d+, columns .* truncated"):
        whole(Raster.open(path, "mmls_v2"))


def test_values_that_no_band_has_are_refused(tmp_path):
    image = picture()
    image[10, 10, 3] = 1e7
    with pytest.raises(InputError, match=r"values up to 1e\+07 in rows 0 to 69"):
        whole(Raster.open(write_raster(tmp_path / "a.tif", image), "mmls_v2"))


def test_a_raster_without_place_is_refused_where_one_is_needed(tmp_path):
    raster = Raster.open(write_raster(tmp_path / "a.tif", picture(), crs=None))
    with pytest.raises(InputError, match="has no coordinate system.*gdal_edit.py -a_srs"):
        raster.require_place()
    with pytest.raises(InputError, match="has a coordinate system, but no place"):
        Raster.open(write_raster(tmp_path / "c.tif", picture(), transform=None)).require_place()
    points = [rasterio.control.GroundControlPoint(r, c, c * 10.0, -r * 10.0) for r in (0, 69) for c in (0, 52)]
    with rasterio.open(tmp_path / "b.tif", "w", driver="GTiff", height=70, width=53, count=7, dtype="float32") as file:
        file.write(np.moveaxis(picture(), -1, 0))
        file.gcps = (points, rasterio.crs.CRS.from_string(MARS))
    with pytest.raises(InputError, match="ground control points.*gdalwarp"):
        Raster.open(tmp_path / "b.tif").require_place()


def test_a_release_of_another_family_is_refused(tmp_path):
    path = write_raster(tmp_path / "a.tif", picture())
    with pytest.raises(InputError, match="--release challenge: the run was trained on tiles of the family mmls_v1"):
        Raster.open(path, "challenge", family="mmls_v1")
    with pytest.raises(InputError, match="Unknown release 'mmls'"):
        Raster.open(path, "mmls")


def test_hdf5_is_refused_before_its_pixels_are_read_also_inside_a_vrt(tmp_path):
    with h5py.File(tmp_path / "bands.h5", "w") as file:
        file["image"] = np.zeros((8, 8), np.float32)
    (tmp_path / "bands.vrt").write_text(
        '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Float32" band="1"><SimpleSource>'
        '<SourceFilename relativeToVRT="1">bands.h5</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )
    for name in ("bands.h5", "bands.vrt"):
        with pytest.raises(InputError, match=f"{name} is HDF5 or netCDF .*Convert it first: gdal_translate"):
            open_dataset(tmp_path / name)
