"""HDF5 files: no-data and scale attributes, data stored in other files, and files that crash the library."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from marsls_keras.data.formats import hdf5
from marsls_keras.data.formats.contents import Contents
from marsls_keras.data.formats.tile import read_mask, read_shape, read_tile
from marsls_keras.errors import InputError

SHAPE = (16, 24, 14)
VALUES = np.random.default_rng(0).random(SHAPE).astype(np.float32) + 1
LABELS = (VALUES[..., 0] > 1.5).astype(np.uint8)


def write(path: Path, array: np.ndarray = VALUES, key: str = "img", attributes: dict | None = None, **options) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset(key, data=array, **options).attrs.update(attributes or {})
    return path


def killer(path: Path) -> Path:
    """Write a file whose chunk is shorter than its checksum, so that HDF5 reads far before the chunk's start."""
    with h5py.File(path, "w") as file:
        file.create_dataset("img", SHAPE, "f4", chunks=SHAPE, fletcher32=True).id.write_direct_chunk((0, 0, 0), b"ab")
    return path


def children() -> set[int]:
    """Return the decoder processes of this process; a zombie has no arguments."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            mine = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1]) == os.getpid()
            arguments = (folder / "cmdline").read_bytes()
        except OSError:  # it ended
            continue
        if mine and (b"hdf5_decoder" in arguments or not arguments):
            found.add(int(folder.name))
    return found


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


# No data


def test_chunks_never_written_have_no_data(tmp_path: Path) -> None:
    path = tmp_path / "image_1.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("img", SHAPE, "f8", chunks=(8, 8, 14), compression="gzip")
        data[:, :16] = VALUES[:, :16]
    tile = read_tile(path)
    expected = np.ones(SHAPE[:2], bool)
    expected[:, 16:] = False
    np.testing.assert_array_equal(tile.valid, expected)
    np.testing.assert_array_equal(tile.image[:, :16], VALUES[:, :16])
    np.testing.assert_array_equal(tile.image[:, 16:], VALUES[:, 15:16].repeat(8, 1))  # nearest valid pixel


def test_a_zero_that_was_written_is_a_value(tmp_path: Path) -> None:
    values = np.where(np.arange(24)[:, None] < 5, 0, VALUES)
    tile = read_tile(write(tmp_path / "image_1.h5", values, chunks=(8, 8, 14), fillvalue=0))
    assert tile.valid.all()
    np.testing.assert_array_equal(tile.image, values)


@pytest.mark.parametrize(
    "options",
    [
        {"fillvalue": -9999.0},
        {"attributes": {"_FillValue": np.float64(-9999)}},
        {"attributes": {"missing_value": np.array([1e20, -9999])}},
        {"attributes": {"_FillValue": np.float32(-9999), "scale_factor": 1.0, "add_offset": 0.0}},
    ],
    ids=["fill value", "_FillValue", "missing_value", "scale of 1"],
)
def test_the_value_that_means_no_data(tmp_path: Path, options: dict) -> None:
    values = VALUES.copy()
    values[3, 5, 7] = -9999
    tile = read_tile(write(tmp_path / "image_1.h5", values, **options))
    assert np.argwhere(~tile.valid).tolist() == [[3, 5]]
    assert tile.image[3, 5, 7] in (VALUES[3, 4, 7], VALUES[3, 6, 7], VALUES[2, 5, 7], VALUES[4, 5, 7])


def test_the_value_that_means_no_data_is_compared_as_it_is_stored(tmp_path: Path) -> None:
    values = VALUES.copy()
    values[3, 5, 7] = 0.1  # as float32, which differs from 0.1 as float64
    assert np.argwhere(~read_tile(write(tmp_path / "a.h5", values, attributes={"_FillValue": 0.1})).valid).tolist() == [
        [3, 5]
    ]
    whole = np.full(SHAPE, 241, np.uint8)  # -9999 cast to uint8 would be 241
    assert read_tile(write(tmp_path / "b.h5", whole, attributes={"_FillValue": -9999.0})).valid.all()


def test_scale_and_offset_are_applied(tmp_path: Path) -> None:
    stored = np.round(VALUES * 1000).astype(np.int16)
    stored[0, 0, 0] = -1
    path = write(
        tmp_path / "image_1.h5",
        stored,
        attributes={"scale_factor": 0.001, "add_offset": 5.0, "_FillValue": np.int16(-1)},
    )
    tile = read_tile(path)
    assert np.argwhere(~tile.valid).tolist() == [[0, 0]]
    np.testing.assert_allclose(tile.image[1:], VALUES[1:] + 5, atol=6e-4)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"scale_factor": "0.001"}, "the attribute scale_factor of img is object, expected a number"),
        ({"scale_factor": 0.0}, "the attribute scale_factor of img is"),
        ({"add_offset": [1.0, 2.0]}, "the attribute add_offset of img is"),
        ({"add_offset": np.nan}, "add_offset nan of img are no finite numbers"),
        ({"_FillValue": "none"}, "the attribute _FillValue of img is"),
    ],
)
def test_attributes_that_cannot_be_followed_are_refused(tmp_path: Path, attributes: dict, message: str) -> None:
    path = write(tmp_path / "image_1.h5", attributes=attributes)
    with pytest.raises(InputError, match=message) as error:
        read_tile(path)
    assert str(path) in str(error.value)


def test_other_attributes_are_nothing(tmp_path: Path) -> None:
    np.testing.assert_array_equal(
        read_tile(write(tmp_path / "a.h5", attributes={"units": "m", "fill": -1})).image, VALUES
    )


def test_masks_with_pixels_without_data_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mask_1.h5"
    np.testing.assert_array_equal(read_mask(write(path, LABELS, "mask", fillvalue=0)), LABELS)
    np.testing.assert_array_equal(read_mask(write(path, LABELS, "mask", {"_FillValue": np.uint8(255)})), LABELS)
    labels = LABELS * np.uint8(255)
    for options in ({"fillvalue": 255}, {"attributes": {"_FillValue": 255.0}}):
        with pytest.raises(InputError, match=rf"mask_1\.h5: {LABELS.sum()} pixels of mask have no data"):
            read_mask(write(path, labels, "mask", **options))
    with pytest.raises(InputError, match="mask has a scale_factor"):
        read_mask(write(path, LABELS, "mask", {"scale_factor": 255.0}))
    with h5py.File(path, "w") as file:
        file.create_dataset("mask", SHAPE[:2], "u1", chunks=(8, 8))[:8] = 1
    with pytest.raises(InputError, match=r"192 pixels of mask have no data .*never written"):
        read_mask(path)


def test_a_shape_that_was_edited_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "mask_1.h5"
    for options in ({}, {"chunks": (8, 8), "compression": "gzip"}):
        made = bytearray(write(path, LABELS, "mask", **options).read_bytes())
        place = made.index(np.array(SHAPE[:2], "<u8").tobytes())  # first the shape, then the largest shape
        made[place + 8] = 12
        path.write_bytes(made)
        with pytest.raises(InputError, match=r"mask_1\.h5: unreadable or truncated HDF5"):
            read_mask(path)


# Data stored in other files


def test_data_in_other_files_are_refused(tmp_path: Path) -> None:
    other, path = write(tmp_path / "other.h5"), tmp_path / "image_1.h5"
    with h5py.File(path, "w") as file:
        file["img"] = h5py.ExternalLink(str(other), "img")
    with pytest.raises(InputError, match=r"image_1\.h5: img is a link to img"):
        read_tile(path)
    layout = h5py.VirtualLayout(SHAPE, "f4")
    layout[:] = h5py.VirtualSource(str(other), "img", SHAPE)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("img", layout)
    with pytest.raises(InputError, match=r"image_1\.h5: img is kept in other files"):
        read_tile(path)
    VALUES.tofile(tmp_path / "raw")
    with h5py.File(path, "w") as file:
        file.create_dataset("img", SHAPE, "f4", external=[(str(tmp_path / "raw"), 0, VALUES.nbytes)])
    with pytest.raises(InputError, match=r"image_1\.h5: img is kept in other files"):
        read_tile(path)


def test_more_values_than_a_tile_has_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "image_1.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("img", (4096, 4096, 14), "f8", chunks=(64, 64, 14), compression="gzip")[:64, :64] = 1
    for read in (read_tile, read_shape):
        with pytest.raises(InputError, match=r"image_1\.h5: img of 4096 x 4096 x 14 is larger than a tile"):
            read(path)


# Files that crash the library


def test_a_file_that_kills_the_library_is_named_and_the_next_is_read(tmp_path: Path) -> None:
    good, bad = write(tmp_path / "good.h5"), killer(tmp_path / "bad.h5")
    # Whether the file crashes HDF5 depends on the version of the library.
    alone = subprocess.run(
        [sys.executable, "-c", f"import h5py; h5py.File({str(bad)!r})['img'][()]"], capture_output=True, check=False
    )
    assert alone.returncode < 0
    for _ in range(2):
        np.testing.assert_array_equal(read_tile(good).image, VALUES)
        with pytest.raises(
            InputError, match=r"bad\.h5: unreadable or truncated HDF5 \(the HDF5 library failed on it: signal \d+\)"
        ):
            read_tile(bad)
    assert len(children()) <= 1  # no zombie


def test_the_real_file_that_killed_us() -> None:
    path = Path(__file__).resolve().parents[3].parent / "shared" / "cases" / "hostile" / "crash.h5"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with pytest.raises(InputError, match=r"crash\.h5: unreadable or truncated HDF5"):
        read_tile(path)


def test_a_decoder_that_died_between_two_files_is_replaced(tmp_path: Path) -> None:
    path = write(tmp_path / "image_1.h5")
    read_tile(path)
    (before,) = children()
    os.kill(before, signal.SIGKILL)
    np.testing.assert_array_equal(read_tile(path).image, VALUES)
    (after,) = children()
    assert after != before


def test_a_decoder_that_cannot_begin_is_not_the_files_fault(tmp_path: Path) -> None:
    (tmp_path / "h5py.py").write_text("raise ImportError")
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from marsls_keras.data.formats.tile import read_tile
read_tile({str(write(tmp_path / "image_1.h5"))!r})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "RunError: The process that reads HDF5 ended with exit code 1" in done.stderr


def test_a_file_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "image_1.h5")
    read_tile(path)
    (decoder,) = children()
    monkeypatch.setattr("marsls_keras.data.formats.decoder_process.WALL_SECONDS", 0.3)
    os.kill(decoder, signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(InputError, match=r"image_1\.h5: .*it took too long"):
        read_tile(path)
    assert time.monotonic() - start < 10 and not children()


def test_threads_and_forks_share_without_mixing(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"image_{i}.h5", VALUES + i) for i in range(4)]
    wrong: list[int] = []

    def check(number: int) -> None:
        for _ in range(5):
            if not np.array_equal(hdf5.read_image(paths[number], [Contents(14)])[0], VALUES + number):
                wrong.append(number)

    check(0)
    threads = [threading.Thread(target=check, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    script = f"""
import os, sys
from marsls_keras.data.formats.tile import read_tile
first = read_tile({str(paths[0])!r}).image.sum()
if not (pid := os.fork()):
    os._exit(0 if read_tile({str(paths[0])!r}).image.sum() == first else 1)
assert read_tile({str(paths[0])!r}).image.sum() == first
assert os.waitpid(pid, 0)[1] == 0
assert "tensorflow" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_decoder_ends_with_the_program(tmp_path: Path) -> None:
    path = write(tmp_path / "image_1.h5")
    script = f"""
import os, signal
from marsls_keras.data.formats import hdf5
from marsls_keras.data.formats.contents import Contents
hdf5.read_image(__import__("pathlib").Path({str(path)!r}), [Contents(14)])
print(hdf5._decoder._process.pid, flush=True)
"""
    for end in ("", "os.kill(os.getpid(), signal.SIGKILL)"):
        done = subprocess.run([sys.executable, "-c", script + end], capture_output=True, text=True, check=False)
        pid = int(done.stdout)
        for _ in range(100):
            if ended(pid):
                break
            time.sleep(0.05)
        else:
            pytest.fail(f"the decoder outlives its program after {end or 'a regular end'}")
