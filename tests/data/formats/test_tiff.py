"""Reader of TIFF tiles and masks on all layouts, releases and kinds of damage; writer of georeferenced results."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile

from marsls_keras.data.formats.no_data import fill_nearest
from marsls_keras.data.formats.tiff import write_raster
from marsls_keras.data.formats.tile import detect_release, read_mask, read_shape, read_tile
from marsls_keras.errors import InputError, RunError

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

HEIGHT, WIDTH = 24, 20
MINIMUM = float(np.finfo(np.float32).min)
Write = Callable[[Path, np.ndarray], None]


def one_page(**options) -> Write:
    """Return a writer of one page whose samples are the bands (axes YXS)."""
    return lambda path, image: tifffile.imwrite(path, image, photometric="minisblack", planarconfig="contig", **options)


def planar(**options) -> Write:
    """Return a writer of one page with a plane per band (axes SYX)."""
    return lambda path, image: tifffile.imwrite(
        path, bands_first(image), photometric="minisblack", planarconfig="separate", **options
    )


def page_per_band(**options) -> Write:
    """Return a writer of seven pages; tifffile stores their shape in ImageDescription unless metadata=None."""
    return lambda path, image: tifffile.imwrite(path, bands_first(image), photometric="minisblack", **options)


def page_per_row(**options) -> Write:
    """Return a writer of one page of W x 7 per image row, the layout of mmls_v1."""
    return lambda path, image: tifffile.imwrite(path, image, photometric="minisblack", **options)


def scattered(per_row: bool, **options) -> Write:
    """Return a writer of pages that are not contiguous in the file and have no description."""

    def write(path: Path, image: np.ndarray) -> None:
        with tifffile.TiffWriter(path) as tif:
            for page in image if per_row else bands_first(image):
                tif.write(page, photometric="minisblack", contiguous=False, metadata=None, **options)

    return write


def gdal(**options) -> Write:
    """Return a writer that uses GDAL."""

    def write(path: Path, image: np.ndarray) -> None:
        height, width, bands = image.shape
        with rasterio.open(
            path, "w", driver="GTiff", height=height, width=width, count=bands, dtype=image.dtype, **options
        ) as file:
            file.write(bands_first(image))

    return write


def bands_first(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(image, -1, 0))


FLAVOURS: dict[str, Write] = {
    "one page": one_page(),
    "one page, bare": one_page(metadata=None),
    "one page in strips": one_page(metadata=None, rowsperstrip=5),
    "one page, big-endian": one_page(byteorder=">"),
    "one page, BigTIFF": one_page(bigtiff=True),
    "planar": planar(),
    "planar in strips": planar(metadata=None, rowsperstrip=5),
    "page per band, described": page_per_band(),
    "page per band": page_per_band(metadata=None),
    "page per band, scattered": scattered(per_row=False),
    "page per band, LZW": scattered(per_row=False, compression="lzw"),
    "page per row, described": page_per_row(),
    "page per row": page_per_row(metadata=None),
    "page per row, Deflate": scattered(per_row=True, compression="zlib"),
    "page per row, big-endian": page_per_row(metadata=None, byteorder=">"),
    "tiled": one_page(tile=(16, 16)),
    "tiled, Deflate": one_page(tile=(16, 16), compression="zlib"),
    "tiled, planar, ZSTD": planar(tile=(16, 16), compression="zstd"),
    "LZW": one_page(compression="lzw", rowsperstrip=5),
    "LZW, one strip": one_page(compression="lzw", metadata=None),
    "LZW, big-endian": one_page(compression="lzw", byteorder=">"),
    "Deflate": one_page(compression="zlib"),
    "ZSTD": one_page(compression="zstd"),
    "Deflate, floating-point predictor": one_page(compression="zlib", predictor=3),
    "ZSTD, predictor, planar": planar(compression="zstd", predictor=3, rowsperstrip=5),
    "ImageJ": lambda path, image: tifffile.imwrite(path, bands_first(image), imagej=True),
    "OME": lambda path, image: tifffile.imwrite(path, bands_first(image), ome=True, photometric="minisblack"),
    "GDAL": gdal(),
    "GDAL, LZW by pixel, no-data": gdal(compress="lzw", interleave="pixel", nodata=MINIMUM),
    "GDAL, Deflate by band, predictor": gdal(compress="deflate", interleave="band", predictor=3),
    "GDAL, ZSTD, tiled": gdal(compress="zstd", tiled=True, blockxsize=16, blockysize=16),
    "GDAL, BigTIFF, big-endian": gdal(BIGTIFF="YES", ENDIANNESS="BIG", compress="lzw"),
}
every_flavour = pytest.mark.parametrize("write", FLAVOURS.values(), ids=FLAVOURS.keys())


@pytest.fixture
def image() -> np.ndarray:
    """Return an image in [0, 1) with distinct values, so that any exchange of axes shows."""
    values = np.random.default_rng(1).permutation(HEIGHT * WIDTH * 7) / (HEIGHT * WIDTH * 7)
    return values.reshape(HEIGHT, WIDTH, 7).astype(np.float32)


# Layouts


@every_flavour
def test_every_flavour_reads_to_the_same_tile(tmp_path: Path, image: np.ndarray, write: Write) -> None:
    path = tmp_path / "tile.tif"
    write(path, image)
    tile = read_tile(path)
    assert tile.image.dtype == np.float32 and tile.image.dtype.isnative
    np.testing.assert_array_equal(tile.image, image)
    assert tile.valid.dtype == bool and tile.valid.shape == (HEIGHT, WIDTH) and tile.valid.all()
    assert (tile.release, tile.path) == ("mmls_v2", path)
    assert read_shape(path) == (HEIGHT, WIDTH, 7)


@pytest.mark.parametrize("write", [page_per_row(), page_per_row(metadata=None)], ids=["described", "bare"])
def test_mmls_v1_as_published(tmp_path: Path, write: Write) -> None:
    image = np.random.default_rng(2).random((128, 128, 7), np.float32)
    path = tmp_path / "Image_patch_10_1.tif"
    write(path, image)
    with tifffile.TiffFile(path) as tif:
        assert len(tif.pages) == 128 and tif.pages[0].shape == (128, 7)
    tile = read_tile(path)
    np.testing.assert_array_equal(tile.image, image[..., [0, 1, 2, 3, 5, 4, 6]])  # thermal is stored before slope
    assert tile.release == "mmls_v1"
    assert read_shape(path) == (128, 128, 7)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.uint8, np.int16])
def test_other_number_types_become_float32(tmp_path: Path, dtype: type) -> None:
    image = np.random.default_rng(3).integers(0, 2, (HEIGHT, WIDTH, 7)).astype(dtype)
    one_page()(tmp_path / "tile.tif", image)
    tile = read_tile(tmp_path / "tile.tif")
    assert tile.image.dtype == np.float32
    np.testing.assert_array_equal(tile.image, image)


@pytest.mark.parametrize("metadata", [{}, None], ids=["described", "bare"])
def test_rows_and_bands_that_cannot_be_told_apart_are_refused(tmp_path: Path, metadata: dict | None) -> None:
    path = tmp_path / "cube.tif"
    page_per_row(metadata=metadata)(path, np.zeros((7, 7, 7), np.float32))
    for read in (read_tile, read_shape):
        with pytest.raises(InputError, match=r"cube\.tif: cannot tell rows from bands"):
            read(path)


def test_seven_by_seven_pixels_in_one_page_are_no_riddle(tmp_path: Path) -> None:
    image = np.random.default_rng(4).random((7, 7, 7), np.float32)
    for name, write in {"contiguous": one_page(), "planar": planar()}.items():
        write(tmp_path / f"{name}.tif", image)
        np.testing.assert_array_equal(read_tile(tmp_path / f"{name}.tif").image, image)


# Releases: the numbers are those of data/README.md


def test_challenge_order_and_scale(tmp_path: Path) -> None:
    stored = {
        "thermal": 127,
        "slope": 15.700652175,
        "dem": 6988,
        "gray": 25.4,
        "red": 37.8 + 18,
        "green": 159.75 + 18,
        "blue": 18,
    }
    canonical = {"red": 0.2, "green": 0.75, "blue": 0.0, "dem": 1.0, "slope": 0.25, "thermal": 0.5, "gray": 0.1}
    one_page(compression="lzw")(
        tmp_path / "col00051_row00028.tif", np.tile(np.float32(list(stored.values())), (8, 8, 1))
    )
    tile = read_tile(tmp_path / "col00051_row00028.tif")
    assert tile.release == "challenge"
    np.testing.assert_allclose(tile.image, np.tile(np.float32(list(canonical.values())), (8, 8, 1)), atol=1e-6)


def test_release_is_detected_and_can_be_forced(tmp_path: Path, image: np.ndarray) -> None:
    one_page()(tmp_path / "col00001_row00002.tif", image)
    one_page()(tmp_path / "ImageT_patch_1_2.tif", image)
    assert read_tile(tmp_path / "col00001_row00002.tif").release == "mmls_v2"
    assert read_tile(tmp_path / "ImageT_patch_1_2.tif").release == "mmls_v1"
    forced = read_tile(tmp_path / "col00001_row00002.tif", release="challenge")
    assert forced.release == "challenge"
    # DEM is the third band of the file.
    np.testing.assert_allclose(forced.image[..., 3], (image[..., 2] + 5834) / 12822, rtol=1e-6)
    with pytest.raises(InputError, match=r"(?s)Unknown release 'mmls_v3'.*auto.*mmls_v1.*mmls_v2.*challenge"):
        read_tile(tmp_path / "col00001_row00002.tif", release="mmls_v3")


def test_no_data_does_not_decide_the_release() -> None:
    image = np.full((4, 4, 7), 0.5, np.float32)
    image[0, 0] = [MINIMUM, np.nan, np.inf, -np.inf, MINIMUM, np.nan, np.inf]
    assert detect_release("col00000_row00000.tif", image) == "mmls_v2"
    image[1, 1, 0] = 200
    assert detect_release("col00000_row00000.tif", image) == "challenge"
    assert detect_release("col00000_row00000.tif", np.full((4, 4, 7), np.nan)) == "mmls_v2"


# No-data


def test_no_data_is_marked_and_filled_from_the_nearest_pixel(tmp_path: Path, image: np.ndarray) -> None:
    rng = np.random.default_rng(5)
    broken = image.copy()
    broken[rng.random(image.shape) < 0.3] = np.nan
    broken[:6, :, 4] = MINIMUM
    broken[-3:, 2:5, 0] = np.inf
    broken[4:7, -3:, 6] = -np.inf
    one_page()(tmp_path / "tile.tif", broken)
    tile = read_tile(tmp_path / "tile.tif")
    known = np.isfinite(broken) & (broken > -1e30)
    np.testing.assert_array_equal(tile.valid, known.all(-1))
    np.testing.assert_array_equal(tile.image[known], image[known])
    for row, column, band in np.argwhere(~known):
        y, x = np.nonzero(known[..., band])
        distance = (y - row) ** 2 + (x - column) ** 2
        nearest = distance == distance.min()
        assert tile.image[row, column, band] in image[y[nearest], x[nearest], band]


def test_a_challenge_border_is_filled_in_its_band_only(tmp_path: Path) -> None:
    stored = np.tile(np.float32([127, 31.40130435, 577, 127, 112.5, 124.5, 136.5]), (16, 16, 1))  # every band is 0.5
    stored[:, :3, 1] = MINIMUM  # slope
    gdal(compress="lzw", interleave="pixel", nodata=MINIMUM)(tmp_path / "col00001_row00001.tif", stored)
    tile = read_tile(tmp_path / "col00001_row00001.tif")
    np.testing.assert_allclose(tile.image, 0.5, atol=1e-6)
    np.testing.assert_array_equal(tile.valid, np.broadcast_to(np.arange(16) >= 3, (16, 16)))


def test_a_band_without_any_data_is_zero_in_canonical_values(tmp_path: Path) -> None:
    stored = np.tile(np.float32([127, 31.40130435, 577, 127, 112.5, 124.5, 136.5]), (8, 8, 1))
    stored[..., 2] = MINIMUM  # DEM, whose canonical 0 is -5834 m
    one_page()(tmp_path / "tile.tif", stored)
    tile = read_tile(tmp_path / "tile.tif")
    assert not tile.valid.any()
    np.testing.assert_array_equal(tile.image[..., 3], 0)
    np.testing.assert_allclose(tile.image[..., [0, 1, 2, 4, 5, 6]], 0.5, atol=1e-6)


def test_fill_nearest_leaves_a_whole_band_alone() -> None:
    band = np.random.default_rng(6).random((5, 6))
    np.testing.assert_array_equal(fill_nearest(band, np.ones((5, 6), bool)), band)


# Wrong and damaged files


def test_wrong_number_of_bands(tmp_path: Path) -> None:
    for shape in ((), (3,), (6,), (8,)):
        tifffile.imwrite(
            tmp_path / "tile.tif",
            np.zeros((HEIGHT, WIDTH, *shape), np.float32),
            **({"planarconfig": "contig"} if shape else {}),
            photometric="minisblack",
        )
        found = "x".join(map(str, (HEIGHT, WIDTH, *shape)))
        for read in (read_tile, read_shape):
            with pytest.raises(InputError, match=rf"tile\.tif: expected 7 bands of H x W, found {found} "):
                read(tmp_path / "tile.tif")


def test_pages_of_different_shapes(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "tile.tif") as tif:
        for size in (8, 16):
            tif.write(np.zeros((size, size, 7), np.float32), photometric="minisblack", planarconfig="contig")
    with pytest.raises(InputError, match=r"tile\.tif: expected one image, found 2 of different shapes"):
        read_tile(tmp_path / "tile.tif")


def test_files_that_are_no_tiff(tmp_path: Path) -> None:
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "empty.tif").touch()
    (tmp_path / "page.tif").write_text("<html>404 Not Found</html>" * 99)
    (tmp_path / "header.tif").write_bytes(b"II*\0\x08\0\0\0")
    rng = np.random.default_rng(7)
    for i in range(50):
        (tmp_path / f"noise{i}.tif").write_bytes(b"II*\0\x08\0\0\0" + rng.bytes(int(rng.integers(1, 400))))
    for name in ("folder", "empty", "page", "header", "missing", *(f"noise{i}" for i in range(50))):
        for read in (read_tile, read_mask, read_shape):
            with pytest.raises(InputError, match=rf"{name}\.tif"):
                read(tmp_path / f"{name}.tif")


def read_or_none(path: Path, read: Callable = read_tile) -> np.ndarray | None:
    """Return the pixels, or None if the file is refused by a message that names it."""
    try:
        read_shape(path)  # must not raise another error either
    except InputError:
        pass
    try:
        result = read(path)
    except InputError as error:
        assert path.name in str(error)
        return None
    return result.image if read is read_tile else result


@every_flavour
def test_a_truncated_file_is_never_read_to_other_pixels(tmp_path: Path, image: np.ndarray, write: Write) -> None:
    path, cut = tmp_path / "whole.tif", tmp_path / "cut.tif"
    write(path, image)
    content = path.read_bytes()
    with tifffile.TiffFile(path) as tif:
        starts = {page.offset + shift for page in tif.pages if page is not None for shift in (0, 2)}  # of page headers
    ends = {*range(12), *range(1, len(content), len(content) // 40), *starts, *range(len(content) - 20, len(content))}
    refused = 0
    for end in ends:
        cut.write_bytes(content[:end])
        if (found := read_or_none(cut)) is None:
            refused += 1
        else:  # only the end of a header is missing, no pixels
            np.testing.assert_array_equal(found, image)
    assert refused >= len(ends) - 20


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize(
    "name", ["one page, bare", "planar", "LZW", "ZSTD", "tiled, Deflate", "GDAL, LZW by pixel, no-data"]
)
def test_a_flipped_bit_in_the_header_is_never_read_to_other_pixels(
    tmp_path: Path, image: np.ndarray, name: str
) -> None:
    path, flipped = tmp_path / "whole.tif", tmp_path / "flipped.tif"
    FLAVOURS[name](path, image)
    content = path.read_bytes()
    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        start = page.offset
        stop = page.offset + tif.tiff.tagnosize + len(page.tags) * tif.tiff.tagsize + tif.tiff.offsetsize
        values = [
            position
            for tag in page.tags
            if tag.valueoffset >= stop or tag.valueoffset < start
            for position in range(tag.valueoffset, tag.valueoffset + tag.valuebytecount)
        ]
    assert stop - start > 100
    for number, position in enumerate([*range(8), *range(start, stop), *values]):
        changed = bytearray(content)
        changed[position] ^= 1 << number % 8
        flipped.write_bytes(changed)
        found = read_or_none(flipped)
        # A wrong width that gives the same number of TIFF tiles cannot be detected here; the integrity check compares
        # the tile with its neighbours.
        if found is not None and (found.shape == image.shape or "tiled" not in name):
            np.testing.assert_array_equal(found, image, err_msg=f"byte {position}, bit {number % 8}")


def test_a_header_that_tells_of_a_huge_image_does_not_take_the_memory(tmp_path: Path, image: np.ndarray) -> None:
    one_page(metadata=None, compression="zlib")(tmp_path / "tile.tif", image)
    with tifffile.TiffFile(tmp_path / "tile.tif", mode="r+b") as tif:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tif.pages.first.tags[name].overwrite(60_000)
    with pytest.raises(InputError, match=r"tile\.tif: unreadable or truncated TIFF \(60000x60000x7 is no tile\)"):
        read_tile(tmp_path / "tile.tif")


def test_values_that_no_band_has_are_refused(tmp_path: Path, image: np.ndarray) -> None:
    image[3, 4, 5] = np.finfo(np.float32).max  # no-data of another convention, or a damaged type
    one_page()(tmp_path / "tile.tif", image)
    with pytest.raises(InputError, match=r"tile\.tif: values up to 3\.40282e\+38, which no band has"):
        read_tile(tmp_path / "tile.tif")


# Masks


@pytest.fixture
def labels() -> np.ndarray:
    """Return a mask of booleans."""
    return np.random.default_rng(8).random((HEIGHT, WIDTH)) < 0.3


@pytest.mark.parametrize("high", [1, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
def test_masks(tmp_path: Path, labels: np.ndarray, high: int, dtype: type, compression: str | None) -> None:
    stored = (labels * high).astype(dtype)
    for name, array in {"flat": stored, "band last": stored[..., None], "band first": stored[None]}.items():
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, array, photometric="minisblack", compression=compression)
        mask = read_mask(path)
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, labels)


def test_masks_of_single_bits_and_by_gdal(tmp_path: Path, labels: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "bits.tif", labels, photometric="minisblack")
    gdal(compress="lzw")(tmp_path / "gdal.tif", labels[..., None].astype(np.uint8))
    gdal(NBITS=1)(tmp_path / "gdal bits.tif", labels[..., None].astype(np.uint8))
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(read_mask(path), labels, err_msg=path.name)


@pytest.mark.parametrize("constant", [0, 1, 255])
def test_constant_masks(tmp_path: Path, constant: int) -> None:
    tifffile.imwrite(tmp_path / "mask.tif", np.full((8, 8), constant, np.uint8))
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.tif"), np.full((8, 8), constant > 0))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 1, 2], "found 0, 1, 2."),
        ([0, 1, 255], "found 0, 1, 255."),
        ([0, 128, 255], "found 0, 128, 255."),
        ([0, 0.5, 1], "found 0, 0.5, 1."),
        ([0, 1, np.nan], "found 0, 1, nan."),
        ([-1, 0, 1], "found -1, 0, 1."),
        ([0, 1, 2, 3, 4, 5, 6], "found 0, 1, 2, 3, 4, …."),
    ],
)
def test_masks_with_other_values_are_refused(tmp_path: Path, values: list[float], message: str) -> None:
    tifffile.imwrite(tmp_path / "mask.tif", np.resize(np.float32(values), (8, 8)))
    with pytest.raises(InputError, match=r"mask\.tif: a mask holds 0 and 1 \(or 0 and 255\), " + re.escape(message)):
        read_mask(tmp_path / "mask.tif")


def test_an_image_is_no_mask(tmp_path: Path, image: np.ndarray) -> None:
    for write in (one_page(), planar(), page_per_band(metadata=None)):
        write(tmp_path / "tile.tif", image)
        with pytest.raises(InputError, match=r"tile\.tif: expected one band of H x W, found .*Is this a mask\?"):
            read_mask(tmp_path / "tile.tif")


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "zstd"])
def test_a_truncated_mask_is_never_read_to_other_pixels(
    tmp_path: Path, labels: np.ndarray, compression: str | None
) -> None:
    tifffile.imwrite(
        tmp_path / "whole.tif", labels.astype(np.uint8), compression=compression, rowsperstrip=7, metadata=None
    )
    content = (tmp_path / "whole.tif").read_bytes()
    for end in range(0, len(content), 3):
        (tmp_path / "cut.tif").write_bytes(content[:end])
        if (found := read_or_none(tmp_path / "cut.tif", read_mask)) is not None:
            np.testing.assert_array_equal(found, labels)


# Writing


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_written_raster_lies_where_its_tile_does(tmp_path: Path, image: np.ndarray, dtype: type) -> None:
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(30, 0, 500_000, 0, -30, 4_200_000)}
    gdal(compress="lzw", **place)(tmp_path / "tile.tif", image)
    band = (image[..., 0] * 200).astype(dtype)
    write_raster(tmp_path / "out" / "result.tif", band, read_tile(tmp_path / "tile.tif").geo)
    with rasterio.open(tmp_path / "out" / "result.tif") as result:
        assert (result.count, result.dtypes[0], result.shape) == (1, np.dtype(dtype).name, (HEIGHT, WIDTH))
        assert result.crs == place["crs"] and result.transform == place["transform"]
        np.testing.assert_array_equal(result.read(1), band)


def test_a_written_raster_lies_where_the_challenge_tile_does(tmp_path: Path, real_data: Path) -> None:
    for source in sorted((real_data / "challenge_layout" / "val" / "images").iterdir()):
        tile = read_tile(source)
        write_raster(tmp_path / "result.tif", tile.image[..., 0], tile.geo)
        with rasterio.open(source) as expected, rasterio.open(tmp_path / "result.tif") as result:
            assert expected.crs is not None and "Mars" in expected.crs.to_wkt()
            assert (result.crs, result.transform) == (expected.crs, expected.transform)


def test_a_raster_without_a_place_is_a_plain_tiff(tmp_path: Path, labels: np.ndarray) -> None:
    write_raster(tmp_path / "mask.tif", labels.astype(np.uint8))
    with tifffile.TiffFile(tmp_path / "mask.tif") as tif:
        assert len(tif.pages) == 1 and not tif.pages.first.is_geotiff
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.tif"), labels)


def test_a_full_disk_leaves_the_earlier_file(tmp_path: Path, labels: np.ndarray) -> None:
    write_raster(tmp_path / "mask.tif", labels.astype(np.uint8))
    before = (tmp_path / "mask.tif").read_bytes()
    # A limit on file sizes makes a write fail half-way, as a full disk does.
    code = """
import resource, sys
import numpy as np
from marsls_keras.data.formats.tiff import write_raster
from marsls_keras.errors import RunError
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    write_raster(sys.argv[1], np.random.default_rng(0).random((256, 256), np.float32))
except RunError as error:
    print(error)
"""
    root = Path(__file__).parents[3]
    run = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "mask.tif"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert run.stdout.startswith(f"Could not write {tmp_path / 'mask.tif'}: File too large. Nothing was changed")
    assert (tmp_path / "mask.tif").read_bytes() == before
    assert os.listdir(tmp_path) == ["mask.tif"]


def test_a_folder_in_the_way_is_a_run_error(tmp_path: Path, labels: np.ndarray) -> None:
    (tmp_path / "mask.tif").mkdir()
    with pytest.raises(RunError, match=r"Could not write .*mask\.tif: Is a directory"):
        write_raster(tmp_path / "mask.tif", labels.astype(np.uint8))
    assert os.listdir(tmp_path) == ["mask.tif"]
