"""Broken zips: each gets its message, from `verify_zip` and the real command, which agree."""

import hashlib
import io
import stat
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers.cli import imported, marsls, strict_json, succeed
from helpers.tiffs import empty_ring, ring, sub_ring, write_gdal
from helpers.zips import EXPECTED, GOOD, SIZE, A, B, C, make_zip, patch_headers, replace_entry, tiff, with_mode
from PIL import Image

from competition.submission.verify import entry_names, verify_zip
from competition.submission.write import write_submission

CYCLE = Path(__file__).resolve().parents[3].parent / "shared" / "cases" / "hostile" / "cycle120.zip"


def write_images(folder, expected):
    """Write seven-band images of these names and sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in expected.items():
        tifffile.imwrite(
            folder / name, np.zeros((*size, 7), np.float32), photometric="minisblack", planarconfig="contig"
        )


def problems_of(path, expected):
    """Return the problems of a zip, after checking that the command prints the same with the right exit code."""
    found = verify_zip(path, expected)
    images = path.parent / f"{path.stem}_images"
    write_images(images, expected)
    result = marsls("submit", "--verify", path, "--images", images)
    assert (result.code, result.err) == (2 if found else 0, "")
    first, *lines = result.out.splitlines()
    if found:
        assert first == f"{path} is not fit for CodaBench, {len(found)} problem(s):"
        assert [line.removeprefix("  - ") for line in lines if line.startswith("  - ")] == found
    else:
        assert first.startswith(f"{path} is good: {len(expected)} masks, ")
    return found


def test_a_good_zip(tmp_path):
    assert problems_of(make_zip(tmp_path / "a.zip", [(n, GOOD) for n in (B, A, C)]), EXPECTED) == []


@pytest.mark.parametrize(
    "options",
    [{"compression": "lzw"}, {"compression": "zlib"}, {"tile": (16, 16)}, {"byteorder": ">"}, {"bigtiff": True}],
)
def test_any_lossless_tiff_and_stored_entries_are_good(tmp_path, options):
    data = tiff(np.eye(*SIZE, dtype=np.uint8), **options)
    assert problems_of(replace_entry(tmp_path / "a.zip", data, method=zipfile.ZIP_STORED), EXPECTED) == []


def check(path, *messages):
    assert problems_of(path, EXPECTED) == list(messages)


def test_what_is_said_of_a_good_zip(tmp_path):
    masks = [np.eye(*SIZE, dtype=np.uint8), np.zeros(SIZE, np.uint8), np.ones(SIZE, np.uint8)]
    path = make_zip(tmp_path / "a.zip", [(n, tiff(mask)) for n, mask in zip((A, B, C), masks, strict=True)])
    write_images(tmp_path / "test" / "images", EXPECTED)
    share = (24 + 32 * 24) / (3 * 32 * 24)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    shown = succeed("submit", "--verify", path, "--images", tmp_path / "test").out
    said, _, following = shown.partition("Upload ")
    assert said == f"{path} is good: 3 masks, {share:.1%} landslide, 1 of them without any.\nSHA-256 {digest}\n"
    assert f"\nNext: marsls ledger add {path} --phase PHASE --score SCORE" in following
    found = strict_json(succeed("submit", "--verify", path, "--images", tmp_path / "test", "--json").out)
    assert found.pop("foreground_ratio") == pytest.approx(share)
    assert found == {
        "zip": str(path),
        "good": True,
        "problems": [],
        "tiles": 3,
        "sha256": digest,
        "manifest": None,
        "empty": 1,
    }


def test_json_of_a_broken_zip(tmp_path):
    path = make_zip(tmp_path / "a.zip", [(A, GOOD), (B, GOOD)])
    write_images(tmp_path / "images", EXPECTED)
    result = marsls("submit", "--verify", path, "--images", tmp_path / "images", "--json")
    assert (result.code, result.err) == (2, "")
    found = strict_json(result.out)
    assert (found["good"], found["problems"]) == (False, [f"{C}: missing (1 of 3 masks)"])
    assert (found["foreground_ratio"], found["empty"]) == (None, None)
    assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ('{"sha256": "%s"}', "The manifest beside it is of these bytes.\n"),
        ('{"sha256": "00"}', "The manifest beside it is of other bytes: one of the two was replaced since.\n"),
        ('{"sha256"', "The manifest beside it is damaged.\n"),
        ('{"other": 1}', ""),
        ("[1]", ""),
    ],
)
def test_the_manifest_beside_the_zip(tmp_path, manifest, said):
    path = make_zip(tmp_path / "a.zip", [(n, GOOD) for n in (A, B, C)])
    write_images(tmp_path / "images", EXPECTED)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "a.json").write_text(manifest.replace("%s", digest))
    shown = succeed("submit", "--verify", path, "--images", tmp_path / "images").out
    assert shown.partition("Upload ")[0].endswith(f"SHA-256 {digest}\n{said}")


def test_a_zip_that_was_written_here_agrees_with_its_manifest(tmp_path):
    path = write_submission([(n, np.eye(*SIZE, dtype=np.uint8)) for n in EXPECTED], tmp_path / "a.zip", EXPECTED, {})
    write_images(tmp_path / "images", EXPECTED)
    assert (
        strict_json(succeed("submit", "--verify", path, "--images", tmp_path / "images", "--json").out)["manifest"]
        == "agrees"
    )


def test_the_images_of_a_run(tiny_run, tmp_path):
    names = [path.name for path in (tiny_run.data / "test" / "images").iterdir()]
    path = make_zip(tmp_path / "a.zip", [(name, tiff(np.eye(32, dtype=np.uint8))) for name in names])
    assert (
        f"{path} is good: 4 masks" in succeed("submit", "--verify", path, "--run", "tiny", "--runs", tiny_run.runs).out
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            [],
            "--verify needs the test images, whose names and sizes the masks must have: "
            "give --images DIR (or --run NAME).",
        ),
        (["--images", "images", "--run", "a"], "--verify needs one set of test images"),
        (["--run", "a", "--run", "b"], "--verify needs one set of test images"),
        (
            ["--images", "images", "--out", "b.zip", "--folds", "0"],
            "--verify writes nothing: leave out --folds, --out.",
        ),
        (["--images", "nowhere"], "There is no folder nowhere."),
        (["--run", "nowhere"], "nowhere"),
    ],
)
def test_options_that_verify_refuses(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    write_images(Path("images"), EXPECTED)
    result = marsls("submit", "--verify", make_zip(Path("a.zip"), [(n, GOOD) for n in (A, B, C)]), *options)
    assert (result.code, result.out) == (2, "") and result.err.startswith("Error: ") and message in result.err
    assert sorted(path.name for path in Path().iterdir()) == ["a.zip", "images"]


def test_verify_does_without_tensorflow(tmp_path):
    path = make_zip(tmp_path / "a.zip", [(n, GOOD) for n in (A, B, C)])
    write_images(tmp_path / "images", EXPECTED)
    packages, result = imported("submit", "--verify", path, "--images", tmp_path / "images")
    assert result.code == 0 and "zipfile" in packages
    assert not packages & {"tensorflow", "keras", "jax", "matplotlib"}


FOLDER = "in a folder: zip the masks themselves, not the folder that holds them"
JUNK = "left by the file manager: remove it, or make the zip with marsls submit"
OUTSIDE = "leads outside the folder it is unpacked in (path traversal)"


def test_nested(tmp_path):
    entries = [(with_mode("masks/", stat.S_IFDIR | 0o755), b"")] + [(f"masks/{n}", GOOD) for n in (A, B)]
    check(
        make_zip(tmp_path / "a.zip", entries), f"masks/, masks/{A}, masks/{B}: {FOLDER}", f"{C}: missing (1 of 3 masks)"
    )


def test_nested_by_windows(tmp_path):
    check(
        make_zip(tmp_path / "a.zip", [(f"masks\\{n}", GOOD) for n in (A, B, C)]),
        f"masks\\{A}, masks\\{B}, masks\\{C}: {FOLDER}",
    )


def test_missing_and_extra(tmp_path):
    check(
        make_zip(tmp_path / "a.zip", [(A, GOOD), (B.upper(), GOOD), ("readme.txt", b"")]),
        f"{B.upper()}, readme.txt: not expected, there is no such test image",
        f"{B}, {C}: missing (2 of 3 masks)",
    )


def test_many_missing_are_not_all_named(tmp_path):
    expected = {f"{i:03}.tif": SIZE for i in range(276)}
    path = make_zip(tmp_path / "a.zip", [])
    assert problems_of(path, expected) == [
        "000.tif, 001.tif, 002.tif, 003.tif and 272 more: missing (276 of 276 masks)"
    ]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_entries(tmp_path):
    check(make_zip(tmp_path / "a.zip", [(A, GOOD), (B, GOOD), (C, GOOD), (A, GOOD)]), f"{A}: in the zip more than once")


def test_path_traversal(tmp_path):
    names = (f"../{A}", f"/{A}", f"..\\{B}", f"C:\\{C}")
    entries = [(n, GOOD) for n in (A, B, C, *names)]
    check(make_zip(tmp_path / "a.zip", entries), f"../{A}, /{A}, ..\\{B}, C:\\{C}: {OUTSIDE}")


def test_symlink(tmp_path):
    entries = [(A, GOOD), (with_mode(B, stat.S_IFLNK | 0o777), b"/etc/passwd"), (C, GOOD)]
    check(make_zip(tmp_path / "a.zip", entries), f"{B}: a symbolic link, expected a file")


def test_device(tmp_path):
    entries = [(A, GOOD), (with_mode(B, stat.S_IFCHR | 0o666), b""), (C, GOOD)]
    check(make_zip(tmp_path / "a.zip", entries), f"{B}: neither a file nor a folder")


def test_file_managers(tmp_path):
    junk = [f"__MACOSX/._{A}", ".DS_Store", f"._{B}"]
    entries = [(n, GOOD) for n in (A, B, C, *junk)]
    check(make_zip(tmp_path / "a.zip", entries), f"__MACOSX/._{A}, .DS_Store, ._{B}: {JUNK}")


def test_control_characters_do_not_reach_the_terminal(tmp_path):
    check(
        make_zip(tmp_path / "a.zip", [(n, GOOD) for n in (A, B, C, "\x1b[2Jx.tif", "y" * 3000)]),
        f"\\x1b[2Jx.tif, {'y' * 117}…: not expected, there is no such test image",
    )


def test_name_with_nul(tmp_path):
    path = make_zip(tmp_path / "a.zip", [(n, GOOD) for n in (A, B, C + "_x")])
    path.write_bytes(path.read_bytes().replace(C.encode() + b"_x", C.encode() + b"\0x"))
    check(path, f"{C}\\x00x: not expected, there is no such test image", f"{C}: missing (1 of 3 masks)")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (tiff(np.zeros(SIZE, np.int8)), "int8, expected uint8: save the mask with astype('uint8')"),
        (tiff(np.zeros(SIZE, np.float32)), "float32, expected uint8: save the mask with astype('uint8')"),
        (tiff(np.zeros(SIZE, bool)), "bool, expected uint8: save the mask with astype('uint8')"),
        (tiff(np.eye(*SIZE, dtype=np.uint8) * 255), "values 0 and 255: divide by 255"),
        (tiff(np.full(SIZE, 255, np.uint8)), "values 0 and 255: divide by 255"),
        (tiff(np.full(SIZE, 2, np.uint8)), "values 2: expected 0 (background) and 1 (landslide) only"),
        (
            tiff(np.arange(32 * 24, dtype=np.uint8).reshape(SIZE)),
            "values 0, 1, 2, 3, …: expected 0 (background) and 1 (landslide) only",
        ),
        (tiff(np.zeros(SIZE[::-1], np.uint8)), "size 24 x 32, expected 32 x 24"),
        (tiff(np.zeros((2, *SIZE), np.uint8)), "2 pages, expected one"),
        (tiff(np.zeros((*SIZE, 3), np.uint8), photometric="rgb"), "3 bands, expected one"),
        (tiff(np.zeros((3, *SIZE), np.uint8), photometric="rgb", planarconfig="separate"), "3 bands, expected one"),
        (tiff(np.zeros(SIZE, np.uint8), compression="jpeg"), "TIFF compression 7, expected none, LZW or Deflate"),
        (
            tiff(np.eye(*SIZE, dtype=np.uint8), photometric="miniswhite"),
            "the file stores white as 0 (MINISWHITE), so that a reader may invert it; "
            "write the values themselves, with MINISBLACK (or RGB)",
        ),
        (
            tiff(np.eye(*SIZE, dtype=np.uint8), photometric="palette", colormap=np.zeros((3, 256), np.uint16)),
            "the file holds indices of a palette, not values; write the values themselves, with MINISBLACK (or RGB)",
        ),
        (
            tiff(np.eye(*SIZE, dtype=np.uint8), extratags=[(274, 3, 1, 4, True)]),
            "its Orientation is 4, so the rows or columns are turned; write it upright, "
            "from the top left (Orientation 1)",
        ),
        (
            tiff(np.eye(*SIZE, dtype=np.uint8), extratags=[(42113, 2, 0, "1", True)]),
            "landslide (1) is tagged as no data: write it without the no-data tag",
        ),
        (
            tiff(
                np.eye(*SIZE, dtype=np.uint8),
                extratags=[(42112, 2, 0, '<G><Item sample="0" role="scale">2</Item></G>', True)],
            ),
            "GDAL's metadata tell a scale or offset: write it without",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_tiff(tmp_path, data, problem):
    check(replace_entry(tmp_path / "a.zip", data), f"{B}: {problem}")


def test_all_that_is_wrong_with_a_tiff(tmp_path):
    check(
        replace_entry(tmp_path / "a.zip", tiff(np.zeros((16, 16, 7), np.float32))),
        f"{B}: 16 pages, expected one",
        f"{B}: float32, expected uint8: save the mask with astype('uint8')",
        f"{B}: size 16 x 7, expected 32 x 24",
    )


def test_equal_problems_are_one_message(tmp_path):
    data = tiff(np.full(SIZE, 255, np.uint8))
    expected = {f"{i}.tif": SIZE for i in range(7)}
    path = make_zip(tmp_path / "a.zip", [(name, data) for name in expected])
    assert problems_of(path, expected) == ["0.tif, 1.tif, 2.tif, 3.tif and 3 more: values 0 and 255: divide by 255"]


def png():
    file = io.BytesIO()
    Image.new("L", SIZE[::-1]).save(file, "png")
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no TIFF",
        png(),
        GOOD[:6],
        GOOD[:100],
        GOOD[:-1],
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0" + b"\xff" * 400,
    ],
)
def test_not_a_tiff(tmp_path, data, caplog):
    (problem,) = problems_of(replace_entry(tmp_path / "a.zip", data), EXPECTED)
    assert problem.startswith(f"{B}: not readable as a TIFF (")
    assert caplog.records == []


def test_any_damage_to_a_tiff_is_a_message_and_no_traceback(tmp_path):
    rng = np.random.default_rng(0)
    good = tiff(np.eye(*SIZE, dtype=np.uint8), compression="zlib")
    for i in range(150):
        data = bytearray(good)
        for position in rng.integers(0, len(data), 4):
            data[position] = rng.integers(256)
        problems = verify_zip(replace_entry(tmp_path / f"{i}.zip", bytes(data)), EXPECTED)
        assert all(problem.startswith(f"{B}: ") for problem in problems)


def test_any_damage_to_a_zip_is_a_message_and_no_traceback(tmp_path):
    rng = np.random.default_rng(0)
    good = replace_entry(tmp_path / "good.zip", GOOD).read_bytes()
    path = tmp_path / "bad.zip"
    for _ in range(300):
        data = bytearray(good)
        for position in rng.integers(0, len(data), 3):
            data[position] = rng.integers(256)
        path.write_bytes(data)
        verify_zip(path, EXPECTED)
    for end in range(0, len(good), 7):
        path.write_bytes(good[:end])
        assert verify_zip(path, EXPECTED)


def test_tiff_that_is_a_bomb(tmp_path):
    data = bytearray(tiff(np.zeros(SIZE, np.uint8), tile=(16, 16), compression="zlib"))
    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        for code in (322, 323):  # tile width and length
            tag = tif.pages.first.tags[code]
            assert tag.dtype == 4 or tag.dtype == 3
            struct.pack_into("<H", data, tag.valueoffset, 65520)
    check(replace_entry(tmp_path / "a.zip", bytes(data)), f"{B}: TIFF tiles of 65520 x 65520 for 32 x 24 pixels")


@pytest.mark.parametrize("value", ["0", "255", "nan"])
def test_a_no_data_tag_that_no_landslide_has_is_good(tmp_path, value):
    data = tiff(np.eye(*SIZE, dtype=np.uint8), extratags=[(42113, 2, 0, value, True)])
    assert verify_zip(replace_entry(tmp_path / "a.zip", data), EXPECTED) == []


def test_rings_of_pages_do_not_hang(tmp_path):
    message = "not readable as a TIFF (its pages refer to one another in a ring)"
    for number, returns_to in ((1, 0), (120, 1), (120, 119)):
        assert verify_zip(replace_entry(tmp_path / "a.zip", ring(number, returns_to)), EXPECTED) == [f"{B}: {message}"]
    assert verify_zip(replace_entry(tmp_path / "a.zip", sub_ring()), EXPECTED) == [f"{B}: {message}"]
    check(
        replace_entry(tmp_path / "a.zip", empty_ring(120)),
        f"{B}: not readable as a TIFF (the chain of pages is broken: 0 tags in one page)",
    )


@pytest.mark.skipif(not CYCLE.is_file(), reason=f"the hostile zip is not at {CYCLE}")
def test_a_zip_that_once_hung():
    (problem,) = verify_zip(CYCLE, dict.fromkeys(entry_names(CYCLE), (64, 64)))
    assert problem.startswith("col00061_row00007.tif: not readable as a TIFF")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_blocks_that_are_absent(tmp_path):
    mask = np.ones((64, 64), np.uint8)
    mask[:32] = 0
    data = write_gdal(tmp_path / "sparse.tif", mask, blockysize=8, SPARSE_OK="TRUE").read_bytes()
    path = make_zip(tmp_path / "a.zip", [("sparse.tif", data)])
    found = verify_zip(path, {"sparse.tif": (64, 64)})
    assert found == ["sparse.tif: blocks are absent (sparse), which not every reader knows: write the mask whole"]


def test_zip_bomb_by_its_declared_size(tmp_path):
    (problem,) = problems_of(replace_entry(tmp_path / "a.zip", bytes(50_000_000)), EXPECTED)
    assert (
        problem
        == f"{B}: unpacks to 50000000 bytes, a mask of 32 x 24 takes about 768; it may be a zip bomb and was not read"
    )


def test_zip_bomb_that_lies_about_its_size(tmp_path):
    path = replace_entry(tmp_path / "a.zip", GOOD + bytes(50_000_000))
    size = struct.pack("<I", len(GOOD))
    patch_headers(path, B, 22, 24, size)
    patch_headers(path, B, 14, 16, struct.pack("<I", zlib.crc32(GOOD)))
    (problem,) = problems_of(path, EXPECTED)
    assert problem.startswith(f"{B}: unpacks to more than the {len(GOOD)} bytes it declares")


def test_small_lie_about_the_size(tmp_path):
    path = replace_entry(tmp_path / "a.zip", GOOD)
    patch_headers(path, B, 22, 24, struct.pack("<I", len(GOOD) - 1))
    check(path, f"{B}: damaged in the zip (declares {len(GOOD) - 1} bytes, holds {len(GOOD)}): write or copy it again")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unbounded_methods_are_not_read(tmp_path, method):
    problems = problems_of(make_zip(tmp_path / "a.zip", [(n, GOOD) for n in (A, B, C)], method), EXPECTED)
    assert problems == [f"{A}, {B}, {C}: compressed with zip method {method}, expected stored or deflated"]


def test_encrypted(tmp_path):
    path = patch_headers(replace_entry(tmp_path / "a.zip", GOOD), B, 6, 8, b"\x01")
    check(path, f"{B}: encrypted: zip the masks without a password")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_crc_damage(tmp_path, method):
    path = patch_headers(replace_entry(tmp_path / "a.zip", GOOD, method=method), B, 14, 16, b"\0\0\0\0")
    check(path, f"{B}: damaged in the zip (Bad CRC-32 for file '{B}'): write or copy it again")


def test_flipped_bit(tmp_path):
    path = replace_entry(tmp_path / "a.zip", GOOD, method=zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(GOOD, data.index(B.encode())) + len(GOOD) - 1] ^= 1
    path.write_bytes(data)
    check(path, f"{B}: damaged in the zip (Bad CRC-32 for file '{B}'): write or copy it again")


def test_truncated_zip(tmp_path):
    path = replace_entry(tmp_path / "a.zip", GOOD)
    path.write_bytes(path.read_bytes()[:-30])
    (problem,) = problems_of(path, EXPECTED)
    assert problem.startswith("truncated or damaged zip")


def test_not_a_zip(tmp_path):
    (tmp_path / "text.zip").write_text("no zip")
    (tmp_path / "empty.zip").write_text("")
    assert problems_of(tmp_path / "text.zip", EXPECTED) == ["not a zip file"]
    assert problems_of(tmp_path / "empty.zip", EXPECTED) == ["the file is empty"]
    assert problems_of(tmp_path / "none.zip", EXPECTED) == ["there is no such file"]
    assert problems_of(tmp_path, EXPECTED) == ["a folder, expected a zip file"]


def test_all_problems_are_listed(tmp_path):
    entries = [(f"x/{A}", GOOD), (B, tiff(np.full(SIZE, 255, np.uint8))), ("extra.tif", GOOD)]
    check(
        make_zip(tmp_path / "a.zip", entries),
        f"x/{A}: {FOLDER}",
        "extra.tif: not expected, there is no such test image",
        f"{C}: missing (1 of 3 masks)",
        f"{B}: values 0 and 255: divide by 255",
    )
