"""Writing a submission, and its file names."""

import hashlib
import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers.killing import KILLER
from helpers.zips import EXPECTED, SIZE, A, B, C
from PIL import Image

from competition.submission.verify import verify_zip
from competition.submission.write import expected_names, write_submission
from marsls_keras.errors import InputError, RunError

ROOT = Path(__file__).parents[3]


def random_masks(seed=0, names=(C, A, B)):
    rng = np.random.default_rng(seed)
    return [(name, rng.integers(0, 2, SIZE, dtype=np.uint8)) for name in names]


# -------------------------------------------------------------------------------------------------------------- writing


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
            # Another reader sees the same.
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), mask)


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_the_zip_reads_with_gdal(tmp_path):
    import rasterio

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


# Writes the masks of a seed in the order that a set has, which differs from process to process; an earlier zip may be
# there.
WRITER = """
import sys
import numpy as np
from competition.submission.write import write_submission
path, seed, *names = sys.argv[1:]
rng = np.random.default_rng(int(seed))
masks = {name: rng.integers(0, 2, (32, 24), dtype=np.uint8) for name in names}
expected = {name: (32, 24) for name in set(names)}
write_submission([(name, masks[name]) for name in set(names)], path, expected, {"seed": seed})
"""


def test_same_masks_same_bytes_in_two_processes(tmp_path):
    names = [f"col{i:05d}_row00000.tif" for i in range(12)]
    for path, seed in (("a.zip", "1"), ("b.zip", "2")):
        command = [sys.executable, "-c", WRITER, str(tmp_path / path), "0", *names]
        subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"PYTHONHASHSEED": seed})
    digests = [json.loads((tmp_path / f"{name}.json").read_text())["sha256"] for name in "ab"]
    assert digests[0] == digests[1] == hashlib.sha256((tmp_path / "a.zip").read_bytes()).hexdigest()
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.mark.parametrize(
    ("event", "pattern", "times"),
    [
        ("open", r"\.run\.zip$", 1),  # before the first byte
        ("open", r"\.run\.zip$", 2),  # written, not yet verified
        ("open", r"\.run\.json$", 1),  # before the manifest
        ("os.rename", r"\.run\.json$", 1),  # before the manifest takes its place
    ],
)
def test_a_kill_leaves_the_earlier_zip_as_it_was(tmp_path, event, pattern, times):
    path = write_submission(random_masks(1), tmp_path / "run.zip", EXPECTED, {"seed": "1"})
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    killed(path, event, pattern, times)
    assert {p.name: p.read_bytes() for p in tmp_path.glob("[!.]*")} == before


@pytest.mark.parametrize("earlier", [True, False])
def test_a_kill_between_manifest_and_zip_is_told_by_the_digest_and_mended_by_the_same_command(tmp_path, earlier):
    path = tmp_path / "run.zip"
    if earlier:
        write_submission(random_masks(1), path, EXPECTED, {"seed": "1"})
    before = path.read_bytes() if earlier else None
    killed(path, "os.rename", r"\.run\.zip$", 1)
    assert (path.read_bytes() if path.exists() else None) == before
    manifest = json.loads((tmp_path / "run.json").read_text())
    assert manifest["seed"] == "0" and manifest["sha256"] != hashlib.sha256(before or b"").hexdigest()
    subprocess.run([sys.executable, "-c", WRITER, str(path), "0", *EXPECTED], cwd=ROOT, check=True)
    assert verify_zip(path, EXPECTED) == []
    assert manifest["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def killed(path, event, pattern, times):
    """Write a submission in a process that is killed at a given file operation."""
    command = [sys.executable, "-c", KILLER + WRITER, event, pattern, str(times), str(path), "0", *EXPECTED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


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
        write_submission(
            [], tmp_path / "run.zip", {"../a.tif": SIZE, "a\\b.tif": SIZE, "a.png": SIZE, "ok.TIF": SIZE}, {}
        )
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
        from competition.submission.write import write_submission
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


# ---------------------------------------------------------------------------------------------------------------- names


def write_image(path, shape=(32, 24, 7), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(
        path, np.zeros(shape, np.float32), **{"photometric": "minisblack", "planarconfig": "contig", **options}
    )


def test_names_and_sizes(tmp_path):
    write_image(tmp_path / B)
    write_image(tmp_path / A, (7, 40, 32), planarconfig="separate")
    # 128 pages of 128 x 7, as in mmls_v1.
    write_image(tmp_path / "Image_patch_28_51.tiff", (128, 128, 7), planarconfig=None)
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
