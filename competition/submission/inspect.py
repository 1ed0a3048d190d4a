"""Verify and summarise any submission zip, for `marsls submit --verify`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np

from competition.submission.verify import MAX_ZIP, open_zip, read_entry, verify_zip
from competition.submission.write import expected_names, images_of
from marsls_keras.errors import InputError
from marsls_keras.files import read_json, sha256
from marsls_keras.runs.names import run_folder
from marsls_keras.runs.run import Run

_OPTIONS = {"verify", "images", "release", "run", "runs", "as_json"}
"""The parameters of `marsls submit` that may be used with --verify."""


def refuse_other_options(given: Set[str]) -> None:
    """Raise an error if options are given that apply only when a zip is written.

    Args:
        given: Names of the parameters that were given on the command line.

    Raises:
        InputError: If one of them does not apply to --verify.

    Example:
        >>> refuse_other_options({"verify", "images"})
    """
    if senseless := sorted(f"--{name.replace('_', '-')}" for name in given - _OPTIONS):
        raise InputError(f"--verify writes nothing: leave out {', '.join(senseless)}.")


def expected_masks(images: Path | None, names: Sequence[str], runs: Path, release: str) -> dict[str, tuple[int, int]]:
    """Return file name -> (height, width) of the masks that a submission must contain.

    Args:
        images: Folder of the test images, or None for those of a run's data.
        names: The run, where no folder is given.
        runs: Folder of the runs.
        release: Release of the images, or "auto".

    Raises:
        InputError: If neither folder nor run is given, or both, or several runs; or if run or images cannot be used.

    Example:
        >>> expected_masks(Path("data/test/images"), [], Path("runs"), "auto")  # doctest: +SKIP
        {'patch_0_0.tif': (128, 128), 'patch_0_1.tif': (128, 128)}
    """
    if images is None and not names:
        raise InputError(
            "--verify needs the test images, whose names and sizes the masks must have: "
            "give --images DIR (or --run NAME)."
        )
    if len(names) + (images is not None) > 1:
        raise InputError(
            "--verify needs one set of test images: give --images DIR, or one --run NAME for those of its data."
        )
    return expected_names(images or images_of(Run.open(run_folder(runs, names[0]))), release)


def inspect_zip(path: Path, expected: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """Verify a submission and summarise its content.

    Args:
        path: The zip; nothing of it is extracted.
        expected: File name -> (height, width) of every test image.

    Returns:
        "zip"; "good"; "problems", all that are found; "tiles", how many masks are expected; "sha256", None if there is
        no such file or it is too large; "manifest", which is "agrees" if the manifest beside the zip is of these bytes,
        "differs" if it is of others, "damaged", or None where there is none; and of a good zip "foreground_ratio", the
        share of landslide over all pixels, and "empty", how many masks have none (else None).

    Example:
        >>> inspect_zip(Path("missing.zip"), {"x.tif": (128, 128)})["problems"]
        ['there is no such file']
    """
    problems = verify_zip(path, expected)
    digest = sha256(path) if path.is_file() and path.stat().st_size <= MAX_ZIP else None
    found: dict[str, Any] = {"foreground_ratio": None, "empty": None}
    if not problems:
        with open_zip(path) as archive:
            masks = [read_entry(archive, archive.getinfo(name), shape)[0] for name, shape in expected.items()]
        foreground = [0 if mask is None else int(np.count_nonzero(mask)) for mask in masks]
        pixels = sum(height * width for height, width in expected.values())
        found = {"foreground_ratio": sum(foreground) / pixels, "empty": foreground.count(0)}
    return {
        "zip": str(path),
        "good": not problems,
        "problems": problems,
        "tiles": len(expected),
        "sha256": digest,
        "manifest": _manifest(path.with_suffix(".json"), digest),
        **found,
    }


def _manifest(path: Path, digest: str | None) -> str | None:
    """Return whether the manifest beside a zip "agrees", "differs" or is "damaged"; None if there is none.

    A JSON file without SHA-256 is no manifest.
    """
    if digest is None or not path.is_file():
        return None
    try:
        manifest = read_json(path)
    except InputError:
        return "damaged"
    if not isinstance(manifest, dict) or "sha256" not in manifest:
        return None
    return "agrees" if manifest["sha256"] == digest else "differs"
