"""Write a submission zip for CodaBench, with deterministic bytes, and verify it."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from competition.submission.verify import grouped, printable, size_text, value_problem, verify_zip
from marsls_keras.data.formats.tile import read_shape
from marsls_keras.data.index.dataset import Dataset, image_files
from marsls_keras.errors import InputError, RunError, listing
from marsls_keras.files import atomic, sha256, write_json
from marsls_keras.progress import tracked
from marsls_keras.runs.run import Run


def expected_names(images: str | Path, release: str = "auto") -> dict[str, tuple[int, int]]:
    """Return file name -> (height, width) of the test images in a folder or its sub-folder `images`.

    Only the headers are read.

    Raises:
        InputError: If the folder is missing or empty, names clash, or images cannot be read; all of these are listed.

    Example:
        >>> expected_names("data/test")  # doctest: +SKIP
        {'patch_0_0.tif': (128, 128), 'patch_0_1.tif': (128, 128)}
    """
    sizes, problems = {}, []
    for file in tracked("Reading headers", list(image_files(images))):
        try:
            sizes[file.name] = read_shape(file, release)[:2]
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError(f"{len(problems)} of the test images in {images} cannot be used:{listing(problems)}")
    return sizes


def images_of(run: Run) -> Path:
    """Return the folder of test images in a run's data.

    Raises:
        InputError: If the data are no longer there, or have no test images.

    Example:
        >>> images_of(Run.open("runs/default"))  # doctest: +SKIP
        PosixPath('data/test/images')
    """
    if not run.data_root.is_dir():
        raise InputError(
            f"The data of run {run.name} are no longer in {run.data_root}. "
            "Give the folder of test images with --images."
        )
    test = [
        tile
        for tile in Dataset.open(run.data_root, strict=False, release=run.config.data.release).tiles
        if tile.split == "test"
    ]
    if not test:
        raise InputError(
            f"The data of run {run.name} in {run.data_root} have no test images. Give their folder with --images."
        )
    return test[0].image.parent


def images_there(run: Run) -> bool:
    """Return whether the data of a run have test images.

    Example:
        >>> images_there(Run.open("runs/default"))  # doctest: +SKIP
        True
    """
    try:
        images_of(run)
    except InputError:
        return False
    return True


def write_submission(
    masks: Iterable[tuple[str, np.ndarray]],
    path: str | Path,
    expected: Mapping[str, tuple[int, int]],
    manifest: dict[str, Any],
) -> Path:
    """Write masks as a flat zip of uncompressed TIFFs, with a manifest `<stem>.json` beside it, and verify it.

    Equal masks give equal bytes (with the same zlib). An earlier zip is kept until the new one is complete and
    verified, also if the process is killed. The manifest is replaced right before the zip. If the process is killed
    between the two, the manifest is not that of the zip, which `inspect_zip` finds by the SHA-256.

    Args:
        masks: (file name, uint8 (H, W) of {0, 1}), in any order; consumed one by one and kept as bits, so a generator
            may compute them.
        path: Where to write, `….zip`.
        expected: File name -> (height, width) of every test image.
        manifest: Content of the manifest (runs, decision); zip, sha256, tiles, foreground_ratio and created are
            added.

    Returns:
        The path of the zip.

    Raises:
        InputError: If the path is no file name ending in .zip, or masks are missing, extra, double or malformed; all
            are listed.
        RunError: If the zip cannot be written, or does not pass its verification.

    Example:
        >>> mask = np.zeros((128, 128), np.uint8)
        >>> write_submission([("x.tif", mask)], "empty.zip", {"x.tif": (128, 128)}, {"threshold": 0.5})
        PosixPath('empty.zip')
    """
    path = Path(path)
    _check_place(path, expected)  # before the masks, which may take an hour to compute
    packed, problems, foreground = _collect(masks, expected)
    if problems:
        raise InputError(
            f"{path} was not written, the masks are not those that the test images ask for:{listing(problems)}"
        )
    with atomic(path) as temporary:
        with zipfile.ZipFile(temporary, "w") as archive:
            for name in sorted(packed):
                height, width = expected[name]
                mask = np.unpackbits(packed[name], count=height * width).reshape(height, width)
                info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
                info.create_system = 3  # Unix on every system, so that the bytes are the same
                info.external_attr = (stat.S_IFREG | 0o644) << 16
                archive.writestr(info, _encode(mask), zipfile.ZIP_DEFLATED, 9)
        problems = verify_zip(temporary, expected)
        if problems:
            raise RunError(
                f"{path} was not written: what reached the disk is not what was meant. "
                f"Check the disk.{listing(problems)}"
            )
        with open(temporary, "rb+") as file:
            # The manifest is replaced first, so nothing may be left by which the zip could fail.
            os.fsync(file.fileno())
        pixels = sum(height * width for height, width in expected.values())
        added = {
            "zip": path.name,
            "sha256": sha256(temporary),
            "tiles": len(packed),
            "foreground_ratio": foreground / pixels,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(path.with_suffix(".json"), manifest | added)
    return path


def _check_place(path: Path, expected: Mapping[str, tuple[int, int]]) -> None:
    """Raise an error if the path or the names of masks are invalid, before anything is computed."""
    if path.suffix.lower() != ".zip" or path.is_dir():
        raise InputError(
            f"{path}: expected the name of a file ending in .zip{', found a folder' if path.is_dir() else ''}."
        )
    if not expected:
        raise InputError(f"{path} was not written: there is no test image to submit a mask for.")
    if unfit := [
        printable(name)
        for name in expected
        if Path(name).name != name or "\\" in name or not name.lower().endswith((".tif", ".tiff"))
    ]:
        raise InputError(f"{path} was not written: these names are not plain names of TIFF files:{listing(unfit)}")
    # The folder is created with the zip, so that a failed submission leaves nothing behind.
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise RunError(f"{there} is not a folder that can be written to. Choose another place.")


def _collect(
    masks: Iterable[tuple[str, np.ndarray]], expected: Mapping[str, tuple[int, int]]
) -> tuple[dict[str, np.ndarray], list[str], int]:
    """Return the masks as bits by name, uint8 (ceil(H * W / 8),), the problems, and the number of foreground pixels."""
    packed: dict[str, np.ndarray] = {}
    wrong: dict[str, list[str]] = defaultdict(list)
    seen = Counter[str]()
    foreground = 0
    for name, mask in masks:
        seen[name] += 1
        if name not in expected:
            wrong["not the name of a test image"].append(name)
        elif seen[name] == 2:
            wrong["given more than once"].append(name)
        elif mask.dtype != np.uint8:
            wrong[f"{mask.dtype}, expected uint8"].append(name)
        elif mask.shape != tuple(expected[name]):
            wrong[f"size {size_text(mask.shape)}, expected {size_text(expected[name])}"].append(name)
        elif problem := value_problem(mask):
            wrong[problem].append(name)
        else:
            packed[name] = np.packbits(mask)
            foreground += int(np.count_nonzero(mask))
    if missing := sorted(set(expected) - set(seen)):
        wrong["no mask"] += missing
    return packed, grouped(wrong), foreground


def _encode(mask: np.ndarray) -> bytes:
    """Encode a mask (H, W) as an uncompressed TIFF without tags for software, date or description."""
    file = io.BytesIO()
    tifffile.imwrite(
        file, mask, byteorder="<", photometric="minisblack", rowsperstrip=mask.shape[0], software=False, metadata=None
    )
    return file.getvalue()
