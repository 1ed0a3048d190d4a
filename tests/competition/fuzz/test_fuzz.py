"""Damaged files give the right tile, a plausible one if no checksum covers it, or an error with the file's name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fuzz_flavours import BANDS, COLOURS, FLAVOURS, LABELS, NAMES, SENTINEL, SIDES
from fuzz_mutations import damaged

from competition.submission.verify import verify_zip
from marsls_keras.data.formats.tile import read_mask, read_tile

HERE = Path(__file__).parent
STALL = 60.0
"""Seconds without an answer after which a file counts as hanging; far above the limit, as the machine may be busy."""

REGRESSIONS = (
    ("h5 image: scale-offset, attributes", 2005),  # killed the process, as did the next two
    ("h5 image: chunks, checksums", 4090),
    ("h5 image: chunks, checksums", 4101),
    ("png mask: gray", 2017),  # another height, as in the next four
    ("png mask: alpha", 4048),
    ("tif image: big endian, LZW", 2012),
    ("tif image: pages of rows", 4067),
    ("tif image: pages of rows", 4103),
    ("tif mask: plain", 4064),  # hung, as did the next
    ("tif mask: plain", 4080),
)
"""Flavour and seed of files that failed in the past."""


def judge(jobs: Sequence[tuple[str, int]], folder: Path, script: Path = HERE / "fuzz_worker.py") -> list[str]:
    """Return the failures, each with flavour and seed.

    Files are read in another process, which is restarted after a crash.
    """
    failed, left = [], list(jobs)
    while left:
        (folder / "jobs").write_text("".join(f"{seed}\t{flavour}\n" for flavour, seed in left))
        command = [sys.executable, str(script), str(folder), str(folder / "jobs")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as process:
            assert process.stdout is not None and process.stderr is not None
            done = 0
            while True:
                timer = threading.Timer(STALL, process.kill)
                timer.start()
                line = process.stdout.readline()
                timer.cancel()
                if not line:
                    break
                flavour, seed = left[done]
                done += 1
                if problem := json.loads(line):
                    failed.append(f"{flavour!r}, {seed}: {problem}")
            end = process.stderr.read().splitlines()[-1:]
        if done < len(left):
            flavour, seed = left[done]
            failed.append(f"{flavour!r}, {seed}: the process ended by {process.returncode} {end}")
        left = left[done + 1 :]
    return failed


def jobs(number: int, first: int = 0) -> list[tuple[str, int]]:
    """Return the given number of files, equally many of each flavour."""
    names = list(FLAVOURS)
    return sorted((names[i % len(names)], first + i // len(names)) for i in range(number))


def test_five_hundred_damaged_files(tmp_path: Path) -> None:
    assert judge(jobs(500), tmp_path) == []


@pytest.mark.slow
def test_ten_thousand_damaged_files(tmp_path: Path) -> None:
    assert judge(jobs(10_000, first=1000), tmp_path) == []


def test_what_once_failed(tmp_path: Path) -> None:
    assert judge(REGRESSIONS, tmp_path) == []


@pytest.mark.parametrize("name", FLAVOURS)
def test_undamaged_files_are_read(tmp_path: Path, name: str) -> None:
    flavour = FLAVOURS[name]
    path = tmp_path / flavour.name
    path.write_bytes(flavour.make())
    if flavour.read == "image":
        tile = read_tile(path)
        expected = (
            COLOURS / 255 if "RGB" in name else {"tif": BANDS, "png": COLOURS / 255, "h5": SENTINEL}[path.suffix[1:]]
        )
        if not any(word in name for word in ("RGB, tRNS", "palette", "scale")):
            np.testing.assert_allclose(tile.image[tile.valid], expected[tile.valid], rtol=1e-6)
        assert tile.image.shape == expected.shape
        assert tile.valid.all() == (not any(word in name for word in ("no-data", "tRNS", "alpha", "absent", "scale")))
    elif flavour.read == "mask":
        mask = read_mask(path)
        np.testing.assert_array_equal(mask, LABELS[:, : mask.shape[1]])
    else:
        assert verify_zip(path, dict.fromkeys(NAMES, SIDES)) == []


def test_damage_is_the_same_for_a_seed_and_other_for_others() -> None:
    for name, flavour in FLAVOURS.items():
        some = [damaged(name, seed)[0] for seed in range(8)]
        assert some == [damaged(name, seed)[0] for seed in range(8)]
        assert len({*some, flavour.make()}) >= 7, name


def test_what_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that answers, that says what is wrong, that crashes and that hangs."""
    script = tmp_path / "worker.py"
    script.write_text(
        "import os, sys, time\n"
        "for line in open(sys.argv[2]):\n"
        "    seed = int(line.split('\\t')[0])\n"
        "    os.abort() if seed == 2 else time.sleep(99) if seed == 3 else "
        "print('\"bad\"' if seed == 1 else 'null', flush=True)\n"
    )
    monkeypatch.setattr("test_fuzz.STALL", 1.0)
    assert judge([("a", seed) for seed in range(5)], tmp_path, script) == [
        "'a', 1: bad",
        "'a', 2: the process ended by -6 []",
        "'a', 3: the process ended by -9 []",
    ]
