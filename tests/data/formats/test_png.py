"""PNG files of all kinds compared with Pillow: palettes, transparency, depths, interlacing; damage and bombs."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers.pngs import GRAY, GRAY_ALPHA, PALETTE, RGB, RGB_ALPHA, make_png, part, save
from PIL import Image

from marsls_keras.data.formats.tile import read_mask, read_shape, read_tile
from marsls_keras.errors import InputError

SHAPE = (19, 21)
RNG = np.random.default_rng(0)
LABELS = (RNG.random(SHAPE) < 0.4).astype(np.uint8)
COLOURS = RNG.integers(0, 256, (*SHAPE, 3), np.uint8)
INDICES = RNG.integers(0, 4, SHAPE).astype(np.uint8)
PAIR = [(0, 0, 0), (200, 30, 40)]


# Images


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_colours_of_a_palette(tmp_path: Path, bits: int, interlaced: bool) -> None:
    palette = [(1, 2, 3), (40, 50, 60), (7, 250, 90), (255, 0, 128)]
    path = save(tmp_path / "a.png", INDICES, PALETTE, bits, palette, interlaced=interlaced)
    expected = np.asarray(Image.open(path).convert("RGB"))
    tile = read_tile(path)
    np.testing.assert_allclose(tile.image, expected / 255, atol=1e-7)
    assert tile.valid.all() and read_shape(path) == (*SHAPE, 3)


@pytest.mark.parametrize("interlaced", [False, True])
def test_transparent_colour_of_a_picture_is_no_data(tmp_path: Path, interlaced: bool) -> None:
    colours = COLOURS.copy()
    colours[4:7, 5] = (9, 8, 7)
    colours[0, 0] = (9, 8, 6)
    path = save(tmp_path / "a.png", colours, RGB, trns=struct.pack(">3H", 9, 8, 7), interlaced=interlaced)
    expected = np.asarray(Image.open(path).convert("RGBA"))
    tile = read_tile(path)
    np.testing.assert_array_equal(tile.valid, expected[..., 3] > 0)
    assert (~tile.valid).sum() == 3
    np.testing.assert_allclose(tile.image[tile.valid], expected[tile.valid][:, :3] / 255, atol=1e-7)
    np.testing.assert_array_equal(tile.image[5, 5], tile.image[5, 4])  # filled from a nearest pixel


def test_transparent_colour_of_a_palette_is_no_data(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", INDICES, PALETTE, 2, [(0, 0, 0), *PAIR, (3, 3, 3)], trns=b"\xff\x00")
    tile = read_tile(path)
    np.testing.assert_array_equal(tile.valid, np.asarray(Image.open(path).convert("RGBA"))[..., 3] > 0)
    np.testing.assert_array_equal(tile.valid, INDICES != 1)


def test_alpha_of_a_picture(tmp_path: Path) -> None:
    alpha = np.full(SHAPE, 255, np.uint8)
    path = save(tmp_path / "a.png", np.dstack([COLOURS, alpha]), RGB_ALPHA)
    np.testing.assert_allclose(read_tile(path).image, COLOURS / 255, atol=1e-7)
    alpha[2, 3:6] = 0
    tile = read_tile(save(path, np.dstack([COLOURS, alpha]), RGB_ALPHA))
    np.testing.assert_array_equal(tile.valid, alpha > 0)
    alpha[0, :7] = 100
    with pytest.raises(InputError, match=r"a\.png: expected RGB, found 7 half-transparent pixels"):
        read_tile(save(path, np.dstack([COLOURS, alpha]), RGB_ALPHA))


# Masks


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_mask_of_a_palette_goes_by_index(tmp_path: Path, bits: int, interlaced: bool) -> None:
    path = save(tmp_path / "a.png", LABELS, PALETTE, bits, PAIR, interlaced=interlaced)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), LABELS)
    np.testing.assert_array_equal(read_mask(path), LABELS)


def test_a_mask_of_a_palette_with_other_classes_is_refused(tmp_path: Path) -> None:
    white = [(0, 0, 0)] * 3 + [(255, 255, 255)]
    with pytest.raises(InputError, match="a mask holds 0 and 1 .*found 0, 3"):
        read_mask(save(tmp_path / "a.png", LABELS * 3, PALETTE, 8, white))
    with pytest.raises(InputError, match=r"a\.png: a palette in which class 0 is white and class 1 is black"):
        read_mask(save(tmp_path / "a.png", LABELS, PALETTE, 1, [(255, 255, 255), (0, 0, 0)]))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_gray_mask_of_few_bits(tmp_path: Path, bits: int, interlaced: bool) -> None:
    for value in (1, 2**bits - 1):
        path = save(tmp_path / "a.png", LABELS * np.uint8(value), GRAY, bits, interlaced=interlaced)
        np.testing.assert_array_equal(read_mask(path), LABELS)
    if bits in (2, 4):
        with pytest.raises(InputError, match="a mask holds 0 and 1"):
            read_mask(save(tmp_path / "a.png", LABELS * np.uint8(2), GRAY, bits))


@pytest.mark.parametrize(
    ("colour", "samples"),
    [
        (RGB_ALPHA, np.dstack([np.zeros((*SHAPE, 3), np.uint8), LABELS * 255])),
        (RGB_ALPHA, np.dstack([np.full((*SHAPE, 3), 255, np.uint8), LABELS * 100])),
        (GRAY_ALPHA, np.dstack([np.ones(SHAPE, np.uint8), LABELS * 255])),
    ],
)
def test_labels_that_lie_only_in_alpha_are_refused(tmp_path: Path, colour: int, samples: np.ndarray) -> None:
    with pytest.raises(
        InputError, match=r"a\.png: its one value is \d+ and the labels lie only in how transparent it is"
    ):
        read_mask(save(tmp_path / "a.png", samples, colour))


def test_transparent_pixels_of_a_mask(tmp_path: Path) -> None:
    white, path = LABELS * np.uint8(255), tmp_path / "a.png"
    # Transparent background in all encodings
    np.testing.assert_array_equal(read_mask(save(path, np.dstack([white] * 4), RGB_ALPHA)), LABELS)
    np.testing.assert_array_equal(read_mask(save(path, np.dstack([white, white]), GRAY_ALPHA)), LABELS)
    np.testing.assert_array_equal(read_mask(save(path, white, GRAY, trns=b"\0\0")), LABELS)
    np.testing.assert_array_equal(read_mask(save(path, LABELS, PALETTE, 1, PAIR, trns=b"\0")), LABELS)
    # Transparent labels, which are ambiguous
    for made in (
        make_png(np.dstack([white, 255 - white]), GRAY_ALPHA),
        make_png(white, GRAY, trns=b"\0\xff"),
        make_png(LABELS, PALETTE, 1, PAIR, trns=b"\xff\0"),
    ):
        path.write_bytes(made)
        with pytest.raises(InputError, match=rf"a\.png: {LABELS.sum()} labelled pixels are transparent"):
            read_mask(path)


# Damage


@pytest.mark.parametrize(("colour", "samples"), [(RGB, COLOURS), (PALETTE, LABELS)])
def test_every_bit_that_is_flipped_is_noticed_or_means_nothing(
    tmp_path: Path, colour: int, samples: np.ndarray
) -> None:
    good = make_png(samples, colour, palette=PAIR if colour == PALETTE else None)
    path = tmp_path / "a.png"
    for place in range(0, len(good), max(1, len(good) // 150)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        with pytest.raises(InputError, match=r"a\.png: unreadable or truncated PNG"):
            read_tile(path)


def test_what_follows_the_picture_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    text = part(b"tEXt", b"Comment\0" + b"x" * 5000)
    path.write_bytes(make_png(COLOURS, RGB, extra=text) + b"trailing" * 1000)
    np.testing.assert_allclose(read_tile(path).image, COLOURS / 255, atol=1e-7)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (make_png(COLOURS, RGB, extra=part(b"ABCD", b"")), "an unknown part 'ABCD'"),
        (make_png(LABELS, PALETTE, 8), "a palette of 0 bytes"),
        (make_png(LABELS, PALETTE, 8, [(0, 0, 0)]), "pixels of colour 1 in a palette of 1"),
        (make_png(LABELS, PALETTE, 1, [(0, 0, 0)] * 3), "a palette of 9 bytes"),
        (make_png(COLOURS, RGB, trns=b"\0"), "a tRNS of 1 bytes"),
        (make_png(COLOURS, RGB).replace(part(b"IEND", b""), b""), "cut off"),
        (make_png(COLOURS, RGB).replace(b"IHDR", b"iHDR"), "wrong checksum"),
        (make_png(COLOURS[:9], RGB)[:33] + make_png(COLOURS[:4], RGB)[33:], ""),
    ],
)
def test_parts_that_do_not_fit(tmp_path: Path, made: bytes, message: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(made)
    with pytest.raises(InputError, match=rf"a\.png: unreadable or truncated PNG \(.*{message}"):
        read_tile(path)


# Memory


def test_bombs_are_not_unpacked(tmp_path: Path) -> None:
    """Check three bombs: a huge size in the header, more pixel data than declared, and a gigabyte of metadata."""

    def bomb(height: int, width: int, raw: int) -> bytes:
        packer = zlib.compressobj(9)
        data = b"".join(packer.compress(bytes(1 << 20)) for _ in range(raw >> 20)) + packer.flush()
        header = struct.pack(">IIBBBBB", width, height, 8, RGB, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", data) + part(b"IEND", b"")

    (tmp_path / "says.png").write_bytes(bomb(30_000, 30_000, 1 << 20))
    (tmp_path / "hides.png").write_bytes(bomb(16, 16, 1 << 27))
    with (tmp_path / "long.png").open("wb") as file:
        file.write(make_png(COLOURS, RGB))
        file.truncate(1 << 31)  # a sparse file
    script = f"""
import pathlib, resource
from marsls_keras.data.formats.tile import read_tile
from marsls_keras.errors import InputError
for path in sorted(pathlib.Path({str(tmp_path)!r}).glob("*.png")):
    try:
        print(path.name, read_tile(path).image.shape)
    except InputError as error:
        print(error)
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    hides, long, says, peak = done.stdout.splitlines()
    assert "hides.png: unreadable or truncated PNG (its pixels are not the 784 bytes that its header tells)" in hides
    assert "long.png: unreadable or truncated PNG (2,147,483,648 bytes for a picture that takes" in long
    assert "says.png: unreadable or truncated PNG (30000 x 30000 pixels are no tile)" in says
    assert int(peak) < 250_000  # kB, most of it the interpreter and its libraries


def test_where_memory_does_not_suffice_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (3000, 3000)).save(path)
    script = f"""
import resource
from marsls_keras.data.formats.tile import read_tile
from marsls_keras.errors import InputError
read_tile({str(save(tmp_path / "small.png", COLOURS, RGB))!r})  # so that all libraries are there
held = int(open("/proc/self/status").read().split("VmData:")[1].split()[0])
resource.setrlimit(resource.RLIMIT_DATA, ((held + 20_000) * 1024,) * 2)
try:
    read_tile({str(path)!r})
except InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{path}: not enough memory to read it.")
