"""Hostile zips: `marsls submit --verify` ends with an error, within five seconds and a gigabyte."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers.zips import GOOD, A, B, C, make_zip, replace_entry, tiff

SIDE = (32, 24)


def directory(path: Path, number: int, name: bytes) -> Path:
    """Write a zip of one header and a directory of many entries, in the form for more than 65,535."""
    entry = (
        struct.pack("<4s4B4H3L5H2L", b"PK\1\2", 20, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, len(name), 0, 0, 0, 0, 0, 0) + name
    )
    start, size = 30, len(entry) * number
    with path.open("wb") as file:
        file.write(b"PK\3\4" + bytes(26) + entry * number)
        file.write(struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, number, number, size, start))
        file.write(struct.pack("<4sLQL", b"PK\6\7", 0, start + size, 1))
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))
    return path


def overlapping(path: Path) -> Path:
    """Write a zip all of whose entries are the same ten megabytes of zeros."""
    replace_entry(path, bytes(10 << 20), A)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        first, start = archive.getinfo(A), archive.start_dir
    entry = data[start : start + 46 + len(A)]
    entries = [entry[:46] + name.encode() for name in (A, B, C)]
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 3, 3, sum(map(len, entries)), first.compress_size + 100, 0)
    path.write_bytes(data[: first.compress_size + 100] + b"".join(entries) + end)
    return path


def sparse(path: Path) -> Path:
    """Write a valid zip after a hole of five gigabytes in a sparse file."""
    good = replace_entry(path, GOOD).read_bytes()
    with path.open("wb") as file:
        file.truncate(5 << 30)
        file.seek(0, os.SEEK_END)
        file.write(good)
    return path


def lying_directory(path: Path) -> Path:
    """Write a zip that declares a directory of four gigabytes."""
    data = bytearray(replace_entry(path, GOOD).read_bytes())
    struct.pack_into("<L", data, len(data) - 10, 0xFFFFFFF0)
    path.write_bytes(data)
    return path


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


HOSTILE = {
    "a million entries": (
        lambda p: directory(p, 1_000_000, b"x.tif"),
        "a directory of 51000000 bytes, 8388608 at most",
    ),
    "many entries of one name": (lambda p: directory(p, 80_000, B.encode()), "in the zip more than once"),
    "many entries that lead outside": (lambda p: directory(p, 25_000, b"../" + b"x" * 250), "path traversal"),
    "overlapping entries": (overlapping, "zip bomb"),
    "gigabytes of nothing": (sparse, "5368709"),
    "a directory of four gigabytes": (lying_directory, "truncated or damaged zip"),
    "a pipe": (pipe, "a device or a pipe"),
    "a deep path": (lambda p: make_zip(p, [("x/" * 20_000 + A, GOOD)]), "in a folder"),
    "a bomb": (lambda p: replace_entry(p, bytes(200 << 20)), "zip bomb"),
    "a comment full of ends": (
        lambda p: p.write_bytes(replace_entry(p, GOOD).read_bytes() + b"PK\5\6" * 16_000) and p,
        "truncated or damaged zip",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of all of them and of three test images."""
    root = tmp_path_factory.mktemp("hostile")
    (root / "images").mkdir()
    for name in (A, B, C):
        tifffile.imwrite(
            root / "images" / name,
            np.full((*SIDE, 7), 0.5, np.float32),
            photometric="minisblack",
            planarconfig="contig",
        )
    for name, (make, _) in HOSTILE.items():
        make(root / f"{name}.zip")
    return root


SCRIPT = """
import json, pathlib, sys, time
from competition.submission.inspect import expected_masks, inspect_zip
root = pathlib.Path(sys.argv[1])
expected = expected_masks(root / "images", [], root, "auto")
for path in sorted(root.glob("*.zip")):
    start = time.process_time()
    found = inspect_zip(path, expected)
    seconds = time.process_time() - start
    peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
    print(json.dumps([path.stem, found["good"], found["problems"], seconds, peak]), flush=True)
"""


def test_hostile_zips_end_with_an_error_in_time_and_in_bounds(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)], capture_output=True, text=True, timeout=120, check=True
    )
    found = {name: rest for name, *rest in map(json.loads, done.stdout.splitlines())}
    assert set(found) == set(HOSTILE)
    for name, (good, problems, seconds, peak) in found.items():
        assert not good and any(HOSTILE[name][1] in problem for problem in problems), (name, problems)
        assert seconds < 5 and peak < 1 << 20, (name, seconds, peak)
        assert max(map(len, problems)) < 1000, name


def test_the_command_says_so(folder: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "competition.cli",
        "submit",
        "--verify",
        str(folder / "a million entries.zip"),
        "--images",
    ]
    done = subprocess.run([*command, str(folder / "images")], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "a directory of 51000000 bytes" in done.stdout.replace("\n", " "), done


def test_tens_of_megabytes_of_honest_masks_are_read(tmp_path: Path) -> None:
    from competition.submission.verify import verify_zip

    shape = (3500, 3000)
    mask = np.random.default_rng(0).integers(0, 2, shape, np.uint8)
    assert verify_zip(make_zip(tmp_path / "a.zip", [(A, tiff(mask))], zipfile.ZIP_STORED), {A: shape}) == []
