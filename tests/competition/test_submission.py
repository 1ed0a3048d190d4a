import csv
import hashlib
import io
import json
import re
import stat
import struct
import subprocess
import sys
import textwrap
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from competition.ledger import LEDGER_COLUMNS, append_ledger
from competition.submission import expected_names, write_submission
from competition.verification import verify_zip
from marsls_keras.errors import InputError, RunError

ROOT = Path(__file__).parents[2]
A, B, C = "col00051_row00028.tif", "col00052_row00028.tif", "col00053_row00028.tif"
SIZE = (32, 24)
EXPECTED = {A: SIZE, B: SIZE, C: SIZE}


def random_masks(seed=0, names=(C, A, B)):
    rng = np.random.default_rng(seed)
    return [(name, rng.integers(0, 2, SIZE, dtype=np.uint8)) for name in names]


def tiff(array, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, array, **{"photometric": "minisblack", **options})
    return file.getvalue()


GOOD = tiff(np.eye(*SIZE, dtype=np.uint8))


def make_zip(path, entries, method=zipfile.ZIP_DEFLATED):
    """Write a zip from (name or ZipInfo, bytes) pairs."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


def replace_entry(path, data, name=B, method=zipfile.ZIP_DEFLATED):
    """Write a zip whose entries are good but one."""
    return make_zip(path, [(n, data if n == name else GOOD) for n in (A, B, C)], method)


def with_mode(name, mode):
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def patch_headers(path, name, local, central, value):
    """Overwrite bytes of an entry's local and central header."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo(name).header_offset
        directory = archive.start_dir
    while data[directory + 46 : directory + 46 + len(name)] != name.encode():
        directory += 46 + sum(struct.unpack_from("<3H", data, directory + 28))
    data[start + local : start + local + len(value)] = value
    data[directory + central : directory + central + len(value)] = value
    path.write_bytes(data)
    return path


# ---------------------------------------------------------------------------------------------------------------- writing


def test_the_zip_holds_what_was_given(tmp_path):
    given = random_masks()
    path = write_submission(given, tmp_path / "new" / "run.zip", EXPECTED, {"runs": ["a"]})
    assert path == tmp_path / "new" / "run.zip"
    assert verify_zip(path, EXPECTED) == []
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [A, B, C]
        for name, mask in given:
            info = archive.getinfo(name)
            assert info.compress_type == zipfile.ZIP_DEFLATED
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert info.external_attr >> 16 == stat.S_IFREG | 0o644
            data = archive.read(name)
            with tifffile.TiffFile(io.BytesIO(data)) as tif:
                assert len(tif.pages) == 1
                assert tif.pages.first.compression == 1
                assert not {"Software", "DateTime", "ImageDescription"} & {tag.name for tag in tif.pages.first.tags}
                assert tif.pages.first.dtype == np.uint8
                np.testing.assert_array_equal(tif.pages.first.asarray(), mask)
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), mask)  # another reader sees the same


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_the_zip_reads_with_gdal(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    given = random_masks()
    path = write_submission(given, tmp_path / "run.zip", EXPECTED, {})
    zipfile.ZipFile(path).extractall(tmp_path / "out")
    for name, mask in given:
        with rasterio.open(tmp_path / "out" / name) as source:
            assert (source.count, source.dtypes) == (1, ("uint8",))
            np.testing.assert_array_equal(source.read(1), mask)


def test_the_manifest(tmp_path):
    given = random_masks()
    path = write_submission(given, tmp_path / "run.v2.zip", EXPECTED, {"runs": ["a", "b"], "tiles": "overridden"})
    manifest = json.loads((tmp_path / "run.v2.json").read_text())
    created = manifest.pop("created")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", created)
    assert manifest == {
        "runs": ["a", "b"],
        "zip": "run.v2.zip",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "tiles": 3,
        "foreground_ratio": pytest.approx(np.mean([mask for _, mask in given])),
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run.v2.json", "run.v2.zip"]


def test_same_masks_same_bytes(tmp_path):
    given = random_masks()
    first = write_submission(given, tmp_path / "a.zip", EXPECTED, {"x": 1}).read_bytes()
    turned = dict(reversed(EXPECTED.items()))
    second = write_submission(iter(given[::-1]), tmp_path / "b.zip", turned, {"x": 2}).read_bytes()
    assert first == second
    assert first != write_submission(random_masks(1), tmp_path / "c.zip", EXPECTED, {}).read_bytes()


def test_tiles_of_several_sizes(tmp_path):
    expected = {A: (1, 3), B: (7, 5), C: (3, 1)}
    masks = [(name, np.ones(size, np.uint8)) for name, size in expected.items()]
    path = write_submission(masks, tmp_path / "run.zip", expected, {})
    assert verify_zip(path, expected) == []
    assert json.loads(path.with_suffix(".json").read_text())["foreground_ratio"] == 1


def test_all_bad_masks_are_listed_at_once(tmp_path):
    names = [f"t{i}.tif" for i in range(9)]
    masks = [
        ("t0.tif", np.full(SIZE, 255, np.uint8)),
        ("t1.tif", np.zeros(SIZE, np.float32)),
        ("t2.tif", np.zeros((24, 32), np.uint8)),
        ("t3.tif", np.zeros((*SIZE, 1), np.uint8)),
        ("t4.tif", np.zeros(SIZE, np.uint8)),
        ("t4.tif", np.zeros(SIZE, np.uint8)),
        ("t5.tif", np.full(SIZE, 2, np.uint8)),
        ("other.tif", np.zeros(SIZE, np.uint8)),
    ]
    with pytest.raises(InputError) as caught:
        write_submission(masks, tmp_path / "run.zip", dict.fromkeys(names, SIZE), {})
    for line in (
        "t0.tif: values 0 and 255: divide by 255",
        "t1.tif: float32, expected uint8",
        "t2.tif: size 24 x 32, expected 32 x 24",
        "t3.tif: size 32 x 24 x 1, expected 32 x 24",
        "t4.tif: given more than once",
        "t5.tif: values 2: expected 0 (background) and 1 (landslide) only",
        "other.tif: not the name of a test image",
        "t6.tif, t7.tif, t8.tif: no mask",
    ):
        assert f"\n  - {line}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["run", "run.tar", "folder.zip"])
def test_the_path_is_checked_before_the_masks_are_computed(tmp_path, name):
    (tmp_path / "folder.zip").mkdir()
    with pytest.raises(InputError, match=r"expected the name of a file ending in \.zip"):
        write_submission(fail_after([]), tmp_path / name, EXPECTED, {})


def test_a_file_in_the_way_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file is not a folder that can be written to"):
        write_submission(fail_after([]), tmp_path / "file" / "run.zip", EXPECTED, {})


def test_expected_must_be_plain_names(tmp_path):
    with pytest.raises(InputError, match="no test image"):
        write_submission([], tmp_path / "run.zip", {}, {})
    with pytest.raises(InputError) as caught:
        write_submission([], tmp_path / "run.zip", {"../a.tif": SIZE, "a\\b.tif": SIZE, "a.png": SIZE, "ok.TIF": SIZE}, {})
    assert "../a.tif" in str(caught.value) and "a.png" in str(caught.value) and "ok.TIF" not in str(caught.value)


def fail_after(masks):
    yield from masks
    raise ZeroDivisionError("in the middle")


def test_an_earlier_zip_survives_failing_masks(tmp_path):
    path = write_submission(random_masks(), tmp_path / "run.zip", EXPECTED, {"n": 1})
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(ZeroDivisionError):
        write_submission(fail_after(random_masks(1)[:2]), path, EXPECTED, {"n": 2})
    with pytest.raises(InputError):
        write_submission(random_masks(1)[:2], path, EXPECTED, {"n": 2})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_an_earlier_zip_survives_a_manifest_that_cannot_be_written(tmp_path):
    path = write_submission(random_masks(), tmp_path / "run.zip", EXPECTED, {"n": 1})
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(TypeError):
        write_submission(random_masks(1), path, EXPECTED, {"n": {1, 2}})  # a set is no JSON
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("limit", [0, 1000, 5000])
def test_an_earlier_zip_survives_a_full_disk(tmp_path, limit):
    pytest.importorskip("resource")
    path = write_submission(random_masks(), tmp_path / "run.zip", EXPECTED, {})
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    code = textwrap.dedent(f"""
        import resource
        import numpy as np
        from competition.submission import write_submission
        from marsls_keras.errors import RunError
        rng = np.random.default_rng(7)
        masks = [(f"{{i}}.tif", rng.integers(0, 2, (128, 128), dtype=np.uint8)) for i in range(8)]
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        try:
            write_submission(masks, {str(path)!r}, {{name: (128, 128) for name, _ in masks}}, {{}})
        except RunError as error:
            print(error)
        """)
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert f"Could not write {path}" in result.stdout
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


# -------------------------------------------------------------------------------------------------------------- verifying


def test_a_good_zip(tmp_path):
    assert verify_zip(make_zip(tmp_path / "a.zip", [(n, GOOD) for n in (B, A, C)]), EXPECTED) == []


@pytest.mark.parametrize(
    "options", [{"compression": "lzw"}, {"compression": "zlib"}, {"tile": (16, 16)}, {"byteorder": ">"}, {"bigtiff": True}]
)
def test_any_lossless_tiff_and_stored_entries_are_good(tmp_path, options):
    data = tiff(np.eye(*SIZE, dtype=np.uint8), **options)
    assert verify_zip(replace_entry(tmp_path / "a.zip", data, method=zipfile.ZIP_STORED), EXPECTED) == []


def check(path, *messages):
    assert verify_zip(path, EXPECTED) == list(messages)


FOLDER = "in a folder: zip the masks themselves, not the folder that holds them"
JUNK = "left by the file manager: remove it, or make the zip with marsls submit"
OUTSIDE = "leads outside the folder it is unpacked in (path traversal)"


def test_nested(tmp_path):
    entries = [(with_mode("masks/", stat.S_IFDIR | 0o755), b"")] + [(f"masks/{n}", GOOD) for n in (A, B)]
    check(make_zip(tmp_path / "a.zip", entries), f"masks/, masks/{A}, masks/{B}: {FOLDER}", f"{C}: missing (1 of 3 masks)")


def test_nested_by_windows(tmp_path):
    check(make_zip(tmp_path / "a.zip", [(f"masks\\{n}", GOOD) for n in (A, B, C)]), f"masks\\{A}, masks\\{B}, masks\\{C}: {FOLDER}")


def test_missing_and_extra(tmp_path):
    check(
        make_zip(tmp_path / "a.zip", [(A, GOOD), (B.upper(), GOOD), ("readme.txt", b"")]),
        f"{B.upper()}, readme.txt: not expected, there is no such test image",
        f"{B}, {C}: missing (2 of 3 masks)",
    )


def test_many_missing_are_not_all_named(tmp_path):
    expected = {f"{i:03}.tif": SIZE for i in range(276)}
    path = make_zip(tmp_path / "a.zip", [])
    assert verify_zip(path, expected) == ["000.tif, 001.tif, 002.tif, 003.tif and 272 more: missing (276 of 276 masks)"]


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
    assert verify_zip(path, expected) == ["0.tif, 1.tif, 2.tif, 3.tif and 3 more: values 0 and 255: divide by 255"]


def png():
    file = io.BytesIO()
    Image.new("L", SIZE[::-1]).save(file, "png")
    return file.getvalue()


@pytest.mark.parametrize(
    "data", [b"", b"no TIFF", png(), GOOD[:6], GOOD[:100], GOOD[:-1], b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0" + b"\xff" * 400]
)
def test_not_a_tiff(tmp_path, data, caplog):
    (problem,) = verify_zip(replace_entry(tmp_path / "a.zip", data), EXPECTED)
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


def test_zip_bomb_by_its_declared_size(tmp_path):
    (problem,) = verify_zip(replace_entry(tmp_path / "a.zip", bytes(50_000_000)), EXPECTED)
    assert problem == f"{B}: unpacks to 50000000 bytes, a mask of 32 x 24 takes about 768; it may be a zip bomb and was not read"


def test_zip_bomb_that_lies_about_its_size(tmp_path):
    path = replace_entry(tmp_path / "a.zip", GOOD + bytes(50_000_000))
    size = struct.pack("<I", len(GOOD))
    patch_headers(path, B, 22, 24, size)
    patch_headers(path, B, 14, 16, struct.pack("<I", zlib.crc32(GOOD)))
    (problem,) = verify_zip(path, EXPECTED)
    assert problem.startswith(f"{B}: unpacks to more than the {len(GOOD)} bytes it declares")


def test_small_lie_about_the_size(tmp_path):
    path = replace_entry(tmp_path / "a.zip", GOOD)
    patch_headers(path, B, 22, 24, struct.pack("<I", len(GOOD) - 1))
    check(path, f"{B}: damaged in the zip (declares {len(GOOD) - 1} bytes, holds {len(GOOD)}): write or copy it again")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unbounded_methods_are_not_read(tmp_path, method):
    problems = verify_zip(make_zip(tmp_path / "a.zip", [(n, GOOD) for n in (A, B, C)], method), EXPECTED)
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
    (problem,) = verify_zip(path, EXPECTED)
    assert problem.startswith("truncated or damaged zip")


def test_not_a_zip(tmp_path):
    (tmp_path / "text.zip").write_text("no zip")
    (tmp_path / "empty.zip").write_text("")
    assert verify_zip(tmp_path / "text.zip", EXPECTED) == ["not a zip file"]
    assert verify_zip(tmp_path / "empty.zip", EXPECTED) == ["the file is empty"]
    assert verify_zip(tmp_path / "none.zip", EXPECTED) == ["there is no such file"]
    assert verify_zip(tmp_path, EXPECTED) == ["a folder, expected a zip file"]


def test_all_problems_are_listed(tmp_path):
    entries = [(f"x/{A}", GOOD), (B, tiff(np.full(SIZE, 255, np.uint8))), ("extra.tif", GOOD)]
    check(
        make_zip(tmp_path / "a.zip", entries),
        f"x/{A}: {FOLDER}",
        "extra.tif: not expected, there is no such test image",
        f"{C}: missing (1 of 3 masks)",
        f"{B}: values 0 and 255: divide by 255",
    )


# ------------------------------------------------------------------------------------------------------------------ names


def write_image(path, shape=(32, 24, 7), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.zeros(shape, np.float32), **{"photometric": "minisblack", "planarconfig": "contig", **options})


def test_names_and_sizes(tmp_path):
    write_image(tmp_path / B)
    write_image(tmp_path / A, (7, 40, 32), planarconfig="separate")
    write_image(tmp_path / "Image_patch_28_51.tiff", (128, 128, 7), planarconfig=None)  # 128 pages of 128 x 7, as in mmls_v1
    (tmp_path / "notes.txt").write_text("")
    assert expected_names(tmp_path) == {B: (32, 24), A: (40, 32), "Image_patch_28_51.tiff": (128, 128)}


def test_names_from_the_sub_folder_images(tmp_path):
    write_image(tmp_path / "images" / A)
    write_image(tmp_path / "masks" / B)
    assert expected_names(tmp_path) == {A: (32, 24)}


def test_names_missing_or_empty(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        expected_names(tmp_path / "none")
    with pytest.raises(InputError, match="holds no .tif"):
        expected_names(tmp_path)


@pytest.mark.parametrize("names", [("x.tif", "x.tiff"), ("x.tif", "X.tif")])
def test_names_that_clash(tmp_path, names):
    for name in (*names, "y.tif"):
        write_image(tmp_path / name)
    if len(list(tmp_path.iterdir())) < 3:
        pytest.skip("this file system does not tell cases apart")
    with pytest.raises(InputError) as caught:
        expected_names(tmp_path)
    assert all(name in str(caught.value) for name in names) and "y.tif" not in str(caught.value)


def test_all_unreadable_images_are_listed(tmp_path):
    write_image(tmp_path / A)
    (tmp_path / B).write_bytes(b"no TIFF")
    write_image(tmp_path / C, (32, 24, 3))
    with pytest.raises(InputError) as caught:
        expected_names(tmp_path)
    assert B in str(caught.value) and C in str(caught.value) and A not in str(caught.value)


# ----------------------------------------------------------------------------------------------------------------- ledger


def test_ledger(tmp_path):
    path = tmp_path / "submissions" / "ledger.csv"
    append_ledger(path, {"time": "2026-01-01T00:00:00", "zip": "a.zip", "runs": ["u", "v"], "expected_miou": 0.75, "views": None})
    first = path.read_bytes()
    assert first.splitlines()[0].decode() == "time,zip,sha256,runs,folds,views,threshold,expected_miou,low,high,images,tiles,phase,score"
    append_ledger(path, {"zip": 'b, "final".zip', "tiles": 133})
    assert path.read_bytes().startswith(first)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    blank = dict.fromkeys(LEDGER_COLUMNS, "")
    assert rows[0] == blank | {"time": "2026-01-01T00:00:00", "zip": "a.zip", "runs": "u v", "expected_miou": "0.75"}
    assert rows[1].pop("time").endswith("+00:00")
    assert rows[1] == {k: v for k, v in blank.items() if k != "time"} | {"zip": 'b, "final".zip', "tiles": "133"}
    assert [p.name for p in path.parent.iterdir()] == ["ledger.csv"]


def test_ledger_that_a_spreadsheet_has_saved(tmp_path):
    path = tmp_path / "ledger.csv"
    old = b"\xef\xbb\xbf" + ",".join((*LEDGER_COLUMNS, "notes")).encode() + b"\r\n2026,a.zip,,,,,,,,,,,1,0.7,caf\xe9"
    path.write_bytes(old)
    append_ledger(path, {"time": "2027", "zip": "b.zip"})
    assert path.read_bytes() == old + b"\n2027,b.zip,,,,,,,,,,,,,\n"


def test_ledger_that_is_none(tmp_path):
    path = tmp_path / "ledger.csv"
    path.write_text("a,b\n")
    with pytest.raises(InputError, match="not a ledger"):
        append_ledger(path, {"zip": "b.zip"})
    assert path.read_text() == "a,b\n"
    with pytest.raises(ValueError, match="Received: miou"):
        append_ledger(tmp_path / "new.csv", {"miou": 1})
