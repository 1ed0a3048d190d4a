"""TIFF files of malicious or damaged structure: read with bounded time and memory, or refused by name."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from helpers.tiffs import (
    empty_ring,
    gray,
    long_chain,
    own_child,
    page,
    page_size,
    ring,
    shared_values,
    start,
    sub_ring,
    write_gdal,
)

from marsls_keras.data.formats.tiff_structure import MAX_PAGES, walk
from marsls_keras.data.formats.tile import read_mask, read_shape, read_tile
from marsls_keras.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

HOSTILE = Path(__file__).resolve().parents[3].parent / "shared" / "cases" / "hostile"

RINGS = {
    "two pages": ring(2),
    "itself": ring(1, 0),
    "120 pages": ring(120),
    "120 pages, late": ring(120, 119),
    "beyond tifffile's look": ring(300, 150),
    "pages below": sub_ring(),
    "its own child": own_child(),
}
BOMBS = {
    "a ring of empty pages": empty_ring(120),
    "too many pages": long_chain(MAX_PAGES + 1),
    "one value for all pages": shared_values(500, 50_000),
    "tags beyond the end": start() + page([*gray(4, 200), (42113, 2, 1 << 27, 8)], 0) + bytes(400),
    "a type that is not known": start() + page([*gray(4, 200), (42113, 99, 1, 8)], 0) + bytes(400),
    "an offset beyond the end": start(1 << 30) + bytes(400),
}


def refused(content: bytes, path: Path, message: str) -> None:
    """Check that all readers refuse a file quickly, with little memory, and with a message that names it."""
    path.write_bytes(content)
    for read in (read_mask, read_tile, read_shape):
        began = time.process_time()
        with pytest.raises(InputError, match=rf"{path.name}: unreadable or truncated TIFF \(.*{message}"):
            read(path)
        assert time.process_time() - began < 2
    tracemalloc.start()
    with pytest.raises(InputError):
        read_mask(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 27


@pytest.mark.parametrize("content", RINGS.values(), ids=RINGS.keys())
def test_rings_of_pages(tmp_path: Path, content: bytes) -> None:
    refused(content, tmp_path / "ring.tif", "its pages refer to one another in a ring")


@pytest.mark.parametrize("content", BOMBS.values(), ids=BOMBS.keys())
def test_structures_without_bound(tmp_path: Path, content: bytes) -> None:
    refused(content, tmp_path / "bomb.tif", "pages|tags|cut off|no known type")


@pytest.mark.skipif(not HOSTILE.is_dir(), reason=f"the hostile files are not at {HOSTILE}")
@pytest.mark.parametrize("name", ["cycle120.tif", "mask_hang.tif", "lzw_image_hang.tif"])
def test_files_that_once_hung(name: str, tmp_path: Path) -> None:
    refused((HOSTILE / name).read_bytes(), tmp_path / name, "pages|cut off")


def test_the_structure_of_files_that_are_good(tmp_path: Path) -> None:
    for number, options in enumerate([{}, {"bigtiff": True}, {"byteorder": ">"}, {"byteorder": ">", "bigtiff": True}]):
        path = tmp_path / f"{number}.tif"
        tifffile.imwrite(
            path, np.zeros((3, 8, 5), np.uint16), photometric="minisblack", software="a long name of it", **options
        )
        structure = walk(io.BytesIO(path.read_bytes()))
        with tifffile.TiffFile(path) as tif:
            assert [header.offset for header in structure.pages] == [header.offset for header in tif.pages]
            for header, expected in zip(structure.pages, tif.pages, strict=True):
                assert header.numbers(256) == (expected.imagewidth,) and header.numbers(257) == (expected.imagelength,)
                assert header.numbers(273) == tuple(expected.dataoffsets)
            assert structure.pages[0].text(305) == "a long name of it"
        with pytest.raises(ValueError, match="begin like a TIFF"):
            walk(io.BytesIO(b"IX" + path.read_bytes()[2:]))


def test_what_follows_a_camera_directory_is_of_no_account(tmp_path: Path) -> None:
    tags = [*gray(16, 0), (34665, 4, 1, 0)]
    exif = [(36864, 7, 4, 0x30323230)]
    below = 8 + page_size(tags)
    pixels = below + page_size(exif)
    content = start() + page([*gray(16, pixels), (34665, 4, 1, below)], 0) + page(exif, 0xDEADBEEF) + bytes(256)
    (tmp_path / "mask.tif").write_bytes(content)
    assert not read_mask(tmp_path / "mask.tif").any()


# Decompression bombs


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_pixels_of_far_more_bytes_than_the_file(tmp_path: Path, compression: str) -> None:
    with tifffile.TiffWriter(tmp_path / "bomb.tif") as tif:
        tif.write(
            np.zeros((9000, 9000), np.uint8),
            photometric="minisblack",
            compression=compression,
            rowsperstrip=9000,
            metadata=None,
        )
    assert (tmp_path / "bomb.tif").stat().st_size < 9000**2 / 100
    refused((tmp_path / "bomb.tif").read_bytes(), tmp_path / "bomb.tif", "9000x9000 is no tile")


def test_a_jpeg_that_says_it_is_far_larger_than_its_strip(tmp_path: Path) -> None:
    path = write_gdal(
        tmp_path / "tile.tif", np.full((64, 64, 3), 99, np.uint8), compress="jpeg", photometric="ycbcr", blockysize=16
    )
    content = path.read_bytes()
    with tifffile.TiffFile(path) as tif:
        first = tif.pages.first.dataoffsets[0]
    frame = content.index(b"\xff\xc0", first) + 5  # height and width follow
    path.write_bytes(content[:frame] + struct.pack(">HH", 65000, 65000) + content[frame + 4 :])
    with pytest.raises(InputError, match=r"tile\.tif: .*a JPEG of 65000 x 65000 pixels in a strip or tile of 16 x 64"):
        read_tile(path)


def test_an_empty_mask_that_compresses_well_is_no_bomb(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "mask.tif",
        np.zeros((4096, 4096), np.uint8),
        photometric="minisblack",
        compression="zstd",
        metadata=None,
    )
    assert read_mask(tmp_path / "mask.tif").shape == (4096, 4096)


def test_too_little_memory_names_the_file(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "tile.tif", np.zeros((1200, 1200, 7), np.float32), photometric="minisblack", planarconfig="contig"
    )
    code = """
import resource, sys
from marsls_keras.data.formats.tile import read_tile
from marsls_keras.errors import InputError
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 90_000_000,) * 2)
try:
    read_tile(sys.argv[1])
except InputError as error:
    print(error)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", code, str(tmp_path / "tile.tif")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert said.startswith(f"{tmp_path / 'tile.tif'}: reading it takes more memory than there is.")


# Lost pages, edited headers


def rows_as_pages(path: Path, image: np.ndarray, contiguous: bool, **options: object) -> None:
    """Write an image in the layout of mmls_v1, its pixels contiguous or page by page."""
    if contiguous:
        tifffile.imwrite(path, image, photometric="minisblack", **options)
        return
    with tifffile.TiffWriter(path) as tif:
        for row in image:
            tif.write(row, photometric="minisblack", contiguous=False, metadata=None, **options)


@pytest.mark.parametrize("kept", [2, 7, 31])
@pytest.mark.parametrize(
    "options",
    [
        {"contiguous": True},
        {"contiguous": True, "metadata": None},
        {"contiguous": False},
        {"contiguous": False, "compression": "zlib"},
    ],
)
def test_a_chain_of_pages_that_was_cut(tmp_path: Path, kept: int, options: dict) -> None:
    path = tmp_path / "Image_patch_1_2.tif"
    rows_as_pages(path, np.random.default_rng(0).random((32, 24, 7), np.float32), **options)
    assert read_tile(path).image.shape == (32, 24, 7)
    content = bytearray(path.read_bytes())
    last = walk(io.BytesIO(content)).pages[kept - 1]
    content[last.end - 4 : last.end] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"Image_patch_1_2\.tif: "):
        read_tile(path)


@pytest.mark.parametrize("height", [100, 127, 129, 200])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rowsperstrip": 128},
        {"rowsperstrip": 50},
        {"compression": "lzw", "rowsperstrip": 128},
        {"compression": "lzw", "rowsperstrip": 50, "predictor": 3},
        {"compression": "zlib", "rowsperstrip": 64},
        {"compression": "zstd", "rowsperstrip": 64, "planarconfig": "separate"},
    ],
)
def test_a_height_that_was_edited(tmp_path: Path, height: int, options: dict) -> None:
    path = tmp_path / "tile.tif"
    image = np.random.default_rng(1).random((128, 16, 7), np.float32)
    if options.get("planarconfig") == "separate":
        image = np.ascontiguousarray(np.moveaxis(image, -1, 0))
    tifffile.imwrite(
        path, image, **{"photometric": "minisblack", "planarconfig": "contig", "metadata": None, **options}
    )
    assert read_tile(path).image.shape == (128, 16, 7)
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tif.pages.first.tags["ImageLength"].overwrite(height)
    with pytest.raises(InputError, match=r"tile\.tif: unreadable or truncated TIFF"):
        read_tile(path)


def test_blocks_that_gdal_wrote_anew_leave_gaps_that_are_no_damage(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    path = write_gdal(tmp_path / "tile.tif", np.zeros((24, 20, 7), np.float32), compress="lzw", blockysize=5)
    image = rng.random((7, 24, 20), np.float32)
    with rasterio.open(path, "r+") as file:
        file.write(image)
        file.update_tags(NOTE="x" * 2000)  # GDAL also rewrites the header at the end of the file
    assert path.stat().st_size > 7 * 24 * 20 * 4
    np.testing.assert_array_equal(np.moveaxis(read_tile(path).image, -1, 0), image)


def test_every_field_of_a_header_with_an_extreme_value(tmp_path: Path) -> None:
    content = bytearray(long_chain(1, 16))
    tags = gray(16, 0)
    for i in range(len(tags)):
        for at, form, value in ((4, "<I", 2**32 - 1), (8, "<I", 2**32 - 1), (8, "<I", 0), (2, "<H", 12)):
            changed = bytearray(content)
            struct.pack_into(form, changed, 10 + 12 * i + at, value)
            (tmp_path / "mask.tif").write_bytes(changed)
            began = time.process_time()
            try:
                assert read_mask(tmp_path / "mask.tif").shape == (16, 16)
            except InputError as error:
                assert "mask.tif" in str(error)
            assert time.process_time() - began < 2
