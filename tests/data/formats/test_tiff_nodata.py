"""TIFF no-data tags, masks, scale and offset, and absent blocks, compared with GDAL's reading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from helpers.tiffs import read_gdal, write_gdal

from marsls_keras.data.formats.contents import Contents
from marsls_keras.data.formats.tiff import read_image
from marsls_keras.data.formats.tile import read_mask, read_shape, read_tile
from marsls_keras.errors import InputError
from marsls_keras.inference.geotiff import join_tiles

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

HEIGHT, WIDTH = 24, 20
WHERE = (slice(3, 9), slice(5, 17))  # where there is no data


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(1).random((HEIGHT, WIDTH, 7)).astype(np.float32)


def holes(image: np.ndarray, value: float) -> np.ndarray:
    image = image.copy()
    image[WHERE] = value
    return image


def assert_as_gdal(path: Path, release: str = "auto") -> None:
    """Compare values and validity with GDAL's; the release must leave values and band order unchanged."""
    expected, tile = read_gdal(path), read_tile(path, release)
    known = ~np.ma.getmaskarray(expected)
    np.testing.assert_array_equal(tile.valid, known.all(-1))
    np.testing.assert_array_equal(tile.image[known], expected.data[known])
    assert np.abs(tile.image).max() <= 1
    assert not known.all()


@pytest.mark.parametrize(
    "options", [{}, {"interleave": "pixel", "compress": "lzw"}, {"tiled": True, "blockxsize": 16, "blockysize": 16}]
)
@pytest.mark.parametrize("value", [-9999, -32768, 255, 65535, -3.4028234663852886e38, 1e20, 0.1, 0, np.nan])
def test_the_no_data_tag_decides_before_the_release(
    tmp_path: Path, image: np.ndarray, value: float, options: dict
) -> None:
    path = write_gdal(tmp_path / "tile.tif", holes(image, value), nodata=value, **options)
    assert_as_gdal(path)
    assert read_tile(path).release == "mmls_v2"
    np.testing.assert_array_equal(
        read_tile(path).valid, read_tile(write_gdal(tmp_path / "nan.tif", holes(image, np.nan))).valid
    )


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32, np.float64])
def test_the_tag_in_other_types(tmp_path: Path, dtype: type) -> None:
    image = np.random.default_rng(2).integers(0, 2, (HEIGHT, WIDTH, 7)).astype(dtype)
    value = 65535 if dtype is np.uint16 else -32768
    assert_as_gdal(write_gdal(tmp_path / "tile.tif", holes(image, value), nodata=value), "mmls_v2")


@pytest.mark.parametrize(
    ("text", "dtype", "expected"),
    [
        ("-9999", np.float32, -9999),
        (" -9999.0 ", np.int16, -9999),
        ("-3.4e+38", np.float32, np.float32(-3.4e38)),
        ("-3.4028235e+38", np.float32, np.finfo(np.float32).min),
        ("0.1", np.float32, np.float32(0.1)),
        ("1e5", np.int32, 100_000),
        ("18446744073709551615", np.uint64, 2**64 - 1),
        ("-9999", np.uint8, None),
        ("0.5", np.uint8, None),
        ("nan", np.uint8, None),
        ("-1.#IND", np.float32, np.nan),
        ("nan", np.float64, np.nan),
    ],
)
def test_the_text_of_the_tag(tmp_path: Path, text: str, dtype: type, expected: float | None) -> None:
    pixels = np.zeros((8, 8, 7), dtype)
    if expected is not None:
        pixels[2, 3] = expected
    options = {"photometric": "minisblack", "planarconfig": "contig", "metadata": None}
    tifffile.imwrite(tmp_path / "tile.tif", pixels, extratags=[(42113, 2, 0, text, True)], **options)
    masked = np.argwhere(np.ma.getmaskarray(read_image(tmp_path / "tile.tif", [Contents(7)])[0])[..., 0]).tolist()
    assert masked == ([] if expected is None else [[2, 3]])


def test_a_tag_that_is_no_number_is_refused(tmp_path: Path, image: np.ndarray) -> None:
    options = {"photometric": "minisblack", "planarconfig": "contig", "metadata": None}
    tifffile.imwrite(tmp_path / "tile.tif", image, extratags=[(42113, 2, 0, "none", True)], **options)
    with pytest.raises(InputError, match=r"tile\.tif: GDAL's no-data tag says 'none', which is no number\. Correct"):
        read_tile(tmp_path / "tile.tif")


@pytest.mark.parametrize("internal", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"interleave": "pixel", "compress": "lzw"}, {"tiled": True, "blockxsize": 16, "blockysize": 16}]
)
def test_masks_of_valid_pixels(tmp_path: Path, image: np.ndarray, internal: bool, options: dict) -> None:
    valid = np.ones((HEIGHT, WIDTH), bool)
    valid[WHERE] = False
    path = write_gdal(tmp_path / "tile.tif", holes(image, 200), valid, internal, **options)
    assert (tmp_path / "tile.tif.msk").exists() != internal
    assert_as_gdal(path)
    assert read_shape(path) == (HEIGHT, WIDTH, 7)


def test_a_mask_beside_an_image_of_another_size_is_refused(tmp_path: Path, image: np.ndarray) -> None:
    path = write_gdal(tmp_path / "tile.tif", image)
    write_gdal(tmp_path / "tile.tif.msk", np.full((HEIGHT, WIDTH + 1), 255, np.uint8))
    with pytest.raises(InputError, match=r"tile\.tif\.msk: a mask of 24 x 21 pixels for an image of 24 x 20"):
        read_tile(path)


def test_smaller_copies_in_the_file_are_passed_over(tmp_path: Path, image: np.ndarray) -> None:
    valid = np.ones((HEIGHT, WIDTH), bool)
    valid[WHERE] = False
    path = write_gdal(tmp_path / "tile.tif", image, valid, compress="deflate")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.build_overviews([2], rasterio.enums.Resampling.average)
    with tifffile.TiffFile(path) as tif:
        assert len(tif.pages) == 4  # with the mask, and its own smaller copy
    assert_as_gdal(path)


def test_scale_and_offset_are_applied(tmp_path: Path) -> None:
    stored = np.random.default_rng(3).integers(0, 250, (HEIGHT, WIDTH, 7)).astype(np.int16)
    stored[WHERE] = -1
    scales, offsets = [0.004, 0.002, 0.001, 0.004, 0.004, 0.004, 0.003], [0, 0.5, 0, 0, -0.25, 0, 0]
    path = write_gdal(tmp_path / "tile.tif", stored, nodata=-1, scales=scales, offsets=offsets)
    tile, known = read_tile(path), stored[..., 0] != -1
    assert tile.release == "mmls_v2"
    np.testing.assert_array_equal(tile.valid, known)
    np.testing.assert_allclose(tile.image[known], (stored * scales + offsets)[known], rtol=1e-6)


@pytest.mark.parametrize(
    "text",
    ["<GDALMetadata><Item role='scale' sample='9'>2</Item></GDALMetadata>", "<Item role='scale'", "<!DOCTYPE role=>"],
)
def test_a_scale_that_cannot_be_read_is_refused(tmp_path: Path, image: np.ndarray, text: str) -> None:
    options = {"photometric": "minisblack", "planarconfig": "contig", "metadata": None}
    tifffile.imwrite(tmp_path / "tile.tif", image, extratags=[(42112, 2, 0, text, True)], **options)
    with pytest.raises(
        InputError, match=r"tile\.tif: GDAL's metadata \(tag 42112\) tell scale or offset in a way that cannot be read"
    ):
        read_tile(tmp_path / "tile.tif")


# Blocks that GDAL left out, or filled


def write_top(path: Path, image: np.ndarray, rows: int, **options: object) -> None:
    """Write the first rows of an image and close the file."""
    height, width, bands = image.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=bands, dtype=image.dtype, **options
    ) as file:
        file.write(np.moveaxis(image, -1, 0)[:, :rows], window=rasterio.windows.Window(0, 0, width, rows))


@pytest.mark.parametrize("sparse", ["TRUE", "FALSE"])
@pytest.mark.parametrize("nodata", [None, -9999])
@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize(
    "options", [{}, {"compress": "lzw", "predictor": 3}, {"compress": "deflate"}], ids=["plain", "lzw", "deflate"]
)
def test_blocks_that_were_never_written(
    tmp_path: Path, image: np.ndarray, sparse: str, nodata: int | None, interleave: str, options: dict
) -> None:
    path = tmp_path / "tile.tif"
    write_top(path, image, 7, SPARSE_OK=sparse, nodata=nodata, interleave=interleave, blockysize=5, **options)
    tile = read_tile(path)
    np.testing.assert_array_equal(tile.image[:7], image[:7])
    if nodata is None:
        assert tile.valid.all() and not tile.image[7:].any()
    else:
        np.testing.assert_array_equal(tile.valid.all(-1), np.arange(HEIGHT) < 7)
    if options.get("compress") != "deflate":  # GDAL 3.10 reads the end of a padded last strip wrongly
        known = ~np.ma.getmaskarray(read_gdal(path))
        np.testing.assert_array_equal(tile.valid, known.all(-1))
        np.testing.assert_array_equal(tile.image[known], read_gdal(path).data[known])


def test_a_last_strip_padded_to_full_size(tmp_path: Path, image: np.ndarray) -> None:
    write_top(tmp_path / "tile.tif", image, 7, interleave="pixel", blockysize=5)
    with tifffile.TiffFile(tmp_path / "tile.tif") as tif:
        assert tif.pages.first.databytecounts[-1] == 5 * WIDTH * 7 * 4 > 4 * WIDTH * 7 * 4
    np.testing.assert_array_equal(read_tile(tmp_path / "tile.tif").image[:7], image[:7])
    content = bytearray((tmp_path / "tile.tif").read_bytes())
    content[-3] = 1  # the block is not empty
    (tmp_path / "tile.tif").write_bytes(content)
    with pytest.raises(InputError, match=r"tile\.tif: .*2800 bytes of pixels instead of 2240"):
        read_tile(tmp_path / "tile.tif")


def test_sparse_tiles(tmp_path: Path, image: np.ndarray) -> None:
    options = {"tiled": True, "blockxsize": 16, "blockysize": 16, "SPARSE_OK": "TRUE"}
    write_top(tmp_path / "tile.tif", image, 7, nodata=-9999, compress="zstd", **options)
    assert_as_gdal(tmp_path / "tile.tif")


# Masks of landslide


def test_no_data_in_a_mask_is_no_landslide(tmp_path: Path) -> None:
    labels = (np.random.default_rng(4).random((HEIGHT, WIDTH)) < 0.3).astype(np.uint8)
    labels[WHERE] = 0
    gaps = labels.copy()
    gaps[WHERE] = 255
    valid = np.ones((HEIGHT, WIDTH), bool)
    valid[WHERE] = False
    number = int((~valid).sum())
    options = {
        "driver": "GTiff",
        "height": HEIGHT,
        "width": WIDTH,
        "count": 1,
        "dtype": "uint8",
        "blockysize": 5,
        "SPARSE_OK": "TRUE",
    }
    write_gdal(tmp_path / "tagged.tif", gaps * (gaps == 255), nodata=255)
    write_gdal(tmp_path / "three.tif", gaps, nodata=255)
    write_gdal(tmp_path / "one.tif", labels, nodata=1)
    write_gdal(tmp_path / "internal.tif", labels, valid)
    write_gdal(tmp_path / "beside.tif", labels, valid, internal=False)
    with rasterio.open(tmp_path / "absent.tif", "w", nodata=255, **options) as file:
        file.write(labels[None, :5], window=rasterio.windows.Window(0, 0, WIDTH, 5))
    for name, expected in {
        "tagged": number,
        "three": number,
        "one": int(labels.sum()),
        "internal": number,
        "beside": number,
        "absent": 380,
    }.items():
        with pytest.raises(
            InputError, match=rf"{name}\.tif: {expected} pixels are no data .*nobody knows whether they are landslide"
        ):
            read_mask(tmp_path / f"{name}.tif")


def test_a_mosaic_with_gaps_is_no_mask_and_one_without_is(tmp_path: Path) -> None:
    labels = np.eye(8, dtype=np.uint8)
    files = []
    for column in (0, 1, 3):
        place = {"crs": "EPSG:32633", "transform": rasterio.Affine(30, 0, 240 * column, 0, -30, 0)}
        files.append(write_gdal(tmp_path / f"{column}.tif", labels, **place))
    join_tiles(files[:2], tmp_path / "whole.tif")
    join_tiles(files, tmp_path / "gap.tif")
    with rasterio.open(tmp_path / "gap.tif") as file:
        assert file.nodata == 255 and (file.read(1)[:, 16:24] == 255).all()
    np.testing.assert_array_equal(read_mask(tmp_path / "whole.tif"), np.hstack([labels, labels]))
    with pytest.raises(InputError, match=r"gap\.tif: 64 pixels are no data \(by a mask or the no-data tag, 255\)"):
        read_mask(tmp_path / "gap.tif")


def test_masks_of_bits_with_a_tag(tmp_path: Path) -> None:
    labels = np.eye(8, dtype=np.uint8)
    np.testing.assert_array_equal(read_mask(write_gdal(tmp_path / "0.tif", labels, nodata=0, NBITS=1)), labels)
    with pytest.raises(InputError, match=r"1\.tif: 8 pixels are no data"):
        read_mask(write_gdal(tmp_path / "1.tif", labels, nodata=1, NBITS=1))


def test_masks_that_are_whole_are_read_whatever_their_tag(tmp_path: Path) -> None:
    labels = (np.random.default_rng(5).random((HEIGHT, WIDTH)) < 0.3).astype(np.uint8)
    whole = np.ones((HEIGHT, WIDTH), bool)
    files = [write_gdal(tmp_path / f"{value}.tif", labels, nodata=value) for value in (0, 2, 255)]
    files += [
        write_gdal(tmp_path / "high.tif", labels * 255, nodata=0),
        write_gdal(tmp_path / "masked.tif", labels, whole),
    ]
    files += [write_gdal(tmp_path / "beside.tif", labels, whole, internal=False)]
    for path in files:
        np.testing.assert_array_equal(read_mask(path), labels, err_msg=path.name)


def test_absent_blocks_of_a_mask_are_background(tmp_path: Path) -> None:
    mask = np.ones((64, 64), np.uint8)
    mask[:32] = 0
    write_gdal(tmp_path / "sparse.tif", mask, blockysize=8, SPARSE_OK="TRUE")
    with tifffile.TiffFile(tmp_path / "sparse.tif") as tif:
        assert 0 in tif.pages.first.databytecounts
    np.testing.assert_array_equal(read_mask(tmp_path / "sparse.tif"), mask)


def test_a_scaled_mask_is_refused(tmp_path: Path) -> None:
    write_gdal(tmp_path / "mask.tif", np.ones((8, 8), np.uint8), scales=[2], offsets=[0])
    with pytest.raises(
        InputError, match=r"mask\.tif: GDAL's metadata tell a scale or offset, which a mask cannot have"
    ):
        read_mask(tmp_path / "mask.tif")


# Values that need interpretation


def foreign_files(folder: Path, array: np.ndarray) -> dict[str, Path]:
    """Write an array with tags that change the meaning of its values; the key is the expected text of the message."""
    bits = {"metadata": None, "planarconfig": "contig"} if array.ndim == 3 else {"metadata": None}
    extra = array if array.ndim == 3 else np.stack([array, array], -1)
    write = {
        "MINISWHITE": lambda path: tifffile.imwrite(path, array, photometric="miniswhite", **bits),
        "Orientation is 3": lambda path: tifffile.imwrite(
            path, array, photometric="minisblack", extratags=[(274, 3, 1, 3, True)], **bits
        ),
        "alpha": lambda path: tifffile.imwrite(
            path,
            extra,
            photometric="minisblack",
            planarconfig="contig",
            metadata=None,
            extrasamples=[0] * (extra.shape[-1] - 2) + [2],
        ),
    }
    if array.ndim == 2:
        colours = np.zeros((3, 256), np.uint16)
        write["palette"] = lambda path: tifffile.imwrite(path, array, photometric="palette", colormap=colours, **bits)
    files = {}
    for reason, writer in write.items():
        files[reason] = folder / f"{reason.split()[0]}.tif"
        writer(files[reason])
    return files


def test_values_that_are_not_what_they_seem(tmp_path: Path, image: np.ndarray) -> None:
    (tmp_path / "image").mkdir()
    for reason, path in foreign_files(tmp_path / "image", image).items():
        for read in (read_tile, read_shape):
            with pytest.raises(InputError, match=rf"{path.name}: .*{reason}.*; write (it|the values)"):
                read(path)
    with_alpha = np.concatenate([image, image[..., :1]], -1)
    path = foreign_files(tmp_path / "image", with_alpha)["alpha"]
    with pytest.raises(
        InputError, match=r"expected 7 bands of H x W, found 24x20x8 \(axes YXS\)\. One of its bands is alpha"
    ):
        read_tile(path)
    (tmp_path / "mask").mkdir()
    files = foreign_files(tmp_path / "mask", np.ones((8, 8), np.uint8))
    assert len(files) == 4
    for reason, path in files.items():
        with pytest.raises(InputError, match=rf"{path.name}: .*{reason}"):
            read_mask(path)


def test_compressions_that_no_tile_has_are_named(tmp_path: Path, image: np.ndarray) -> None:
    write_gdal(tmp_path / "tile.tif", image, compress="lerc")
    with pytest.raises(
        InputError, match=r"tile\.tif: compressed by LERC; write it plain, or with LZW, Deflate, ZSTD or JPEG"
    ):
        read_tile(tmp_path / "tile.tif")


def test_jpeg_pictures_are_read_as_gdal_reads_them(tmp_path: Path) -> None:
    rows, columns = np.indices((64, 64))
    picture = np.stack([rows * 2 + 60, columns * 2 + 60, rows + columns + 60], -1).astype(np.uint8)
    path = write_gdal(tmp_path / "tile.tif", picture, compress="jpeg", photometric="ycbcr", interleave="pixel")
    tile = read_tile(path)
    assert tile.release == "nepal"
    np.testing.assert_allclose(tile.image * 255, read_gdal(path).data, atol=4)


# GDAL's sidecar files


def pam(path: Path, *bands: str) -> None:
    inner = "".join(f'<PAMRasterBand band="{i}">{band}</PAMRasterBand>' for i, band in enumerate(bands, 1))
    path.with_name(f"{path.name}.aux.xml").write_text(f"<PAMDataset>{inner}</PAMDataset>")


@pytest.mark.parametrize(
    "band,said",
    [
        ("<NoDataValue>255</NoDataValue>", "says that 255 is no data"),
        ('<NoDataValue le_hex_endian="x"> 2.550E+02 </NoDataValue>', "is no data; write it into the TIFF"),
        ("<Scale>0.5</Scale>", "values have a scale"),
        ("<Offset>-3</Offset>", "values have an offset"),
    ],
)
def test_a_sidecar_that_changes_values_is_refused_by_name(tmp_path: Path, band: str, said: str) -> None:
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, np.full((16, 16), 255, np.uint8), photometric="minisblack")
    pam(path, band)
    with pytest.raises(InputError, match=r"m\.tif\.aux\.xml says that .*") as caught:
        read_mask(path)
    assert said in str(caught.value)


def test_a_sidecar_of_statistics_or_of_the_same_no_data_is_not_minded(tmp_path: Path) -> None:
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, np.ones((16, 16), np.uint8), photometric="minisblack")
    pam(path, "<Scale>1</Scale><Offset>0</Offset><Metadata><MDI key='STATISTICS_MEAN'>1</MDI></Metadata>")
    assert read_mask(path).all()
    tags = [(42113, "s", 0, "0", True)]
    tifffile.imwrite(path, np.ones((16, 16), np.uint8), photometric="minisblack", extratags=tags)
    pam(path, "<NoDataValue>0</NoDataValue>")
    assert read_mask(path).all()
