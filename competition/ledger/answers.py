"""Write leaderboard scores into the ledger, and compare them with the expected scores."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from competition.ledger.ledger import Ledger, ledger_row
from competition.submission.manifest_record import ManifestRecord
from marsls_keras.errors import InputError, listing
from marsls_keras.files import read_json, sha256
from marsls_keras.json_records import require_record

LEDGER = Path("submissions/ledger.csv")
"""Default path of the ledger."""

PHASES = (1, 2)
"""The phases of the Mars-LS challenge: tiles of the labelled region, then isolated ones."""

_ENOUGH = 3  # the correlation of two lines is always -1 or 1


def record(
    zip_file: Path, phase: int, score: float, name: str | None = None, ledger: Path | None = None
) -> dict[str, Any]:
    """Write a leaderboard score into the ledger, in the line of its zip.

    The line is found by the SHA-256 of the zip; where the file is gone, or the line has none, by its name, if only one
    zip has it. A second answer, of the other phase, gets a line of its own; a second one of the same phase takes the
    place of the first, since the same bytes have one score. A zip that is not in the ledger gets a new line, filled
    from its manifest if one lies beside it.

    Args:
        zip_file: The zip, or, where it is gone, its name in the ledger.
        phase: One of `PHASES`.
        score: The mIoU, in [0, 1].
        name: What to call a zip that is not in the ledger; the file's name by default.
        ledger: The CSV file; the one beside the zip by default, or `LEDGER` where there is none.

    Returns:
        "ledger"; "zip", its name there; "phase"; "score"; "replaced", the score that the phase had before, as text, or
        None; and "new", whether the zip was not in the ledger.

    Raises:
        InputError: If phase or score are impossible, the zip is neither a file nor in the ledger, its name is not
            unique there, or `name` is given for a zip that has another one.
        RunError: If the ledger cannot be written.

    Example:
        >>> zipfile.ZipFile("default.zip", "w").close()
        >>> record(Path("default.zip"), phase=1, score=0.86, ledger=Path("ledger.csv"))["new"]
        True
    """
    if phase not in PHASES:
        raise InputError(f"--phase {phase}: there is no such phase. Expected {' or '.join(map(str, PHASES))}.")
    if not 0 <= score <= 1:  # also true for NaN
        hint = f" Did you mean {score / 100:g}?" if 1 < score <= 100 else ""
        raise InputError(f"--score {score:g}: expected the mIoU as a number from 0 to 1.{hint}")
    beside = zip_file.parent / LEDGER.name
    path = ledger or (beside if beside.exists() else LEDGER)
    digest = _digest(zip_file)
    # Errors come before the lock and its folder are created.
    _lines_of(zip_file, digest, Ledger.read(path).rows(), path)
    with Ledger.locked(path) as locked:
        return _note(locked, zip_file, digest, {"phase": phase, "score": score}, name)


def answers(ledger: Path) -> list[dict[str, Any]]:
    """Return the lines of a ledger with parsed scores, in its order.

    Returns:
        For each line that names a zip "time", "zip", "sha256", "phase" (text), "score" and "expected" (None where
        empty), "interval" (None unless it has both ends), "difference" (score minus expected) and "inside" (whether the
        score is within the interval), None where either is missing.

    Raises:
        InputError: If the file is missing or is no ledger, or cells that have to be numbers from 0 to 1 are not; all
            are listed.

    Example:
        >>> from competition.ledger.ledger import append_ledger
        >>> row = {"zip": "a.zip", "expected_miou": 0.8, "low": 0.7, "high": 0.9, "phase": 1, "score": 0.82}
        >>> append_ledger("ledger.csv", row)
        >>> answers(Path("ledger.csv"))[0]["inside"]
        True
    """
    if not ledger.exists():
        raise InputError(f"There is no ledger {ledger}. marsls submit writes one; name another with --ledger.")
    found, problems = [], []
    for row in Ledger.read(ledger).rows():
        if not (row["zip"] or row["sha256"]):
            continue
        numbers: dict[str, float | None] = {}
        for column in ("score", "expected_miou", "low", "high"):
            try:
                numbers[column] = _share(row[column])
            except ValueError:
                problems.append(f"{row['zip']}: {column} {row[column]!r}")
        if len(numbers) < 4:
            continue
        score, expected, low, high = numbers.values()
        interval = None if low is None or high is None else (low, high)
        found.append(
            {
                **{key: row[key] for key in ("time", "zip", "sha256")},
                "phase": row["phase"].strip(),
                **{"score": score, "expected": expected, "interval": interval},
                "difference": None if score is None or expected is None else score - expected,
                "inside": None if score is None or interval is None else interval[0] <= score <= interval[1],
            }
        )
    if problems:
        raise InputError(
            f"{ledger} has cells that are no numbers from 0 to 1; mend them in a text editor:{listing(problems)}"
        )
    return found


def correlations(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the correlations of expected and actual scores, for each phase, and over all if there are several.

    Phases have different tiles, so a correlation over all of them also reflects that one is harder.

    Args:
        lines: What `answers` returned.

    Returns:
        "phase" (or "all"), "lines", "pearson" and "spearman", for each that has at least three lines with both figures;
        the coefficients are None where one of the figures is always the same.

    Example:
        >>> pairs = [(0.80, 0.78), (0.82, 0.81), (0.85, 0.82)]
        >>> lines = [{"phase": "1", "expected": a, "score": b, "difference": b - a} for a, b in pairs]
        >>> round(correlations(lines)[0]["pearson"], 2), round(correlations(lines)[0]["spearman"], 2)
        (0.92, 1.0)
    """
    from scipy.stats import pearsonr, spearmanr  # imported late: it takes a second, which an error should not wait for

    both = [line for line in lines if line["difference"] is not None]
    phases = sorted({line["phase"] for line in both})
    groups = {phase: [line for line in both if line["phase"] == phase] for phase in phases} | (
        {"all": both} if len(phases) > 1 else {}
    )
    found = []
    for phase, group in groups.items():
        if len(group) < _ENOUGH:
            continue
        expected, actual = (np.array([line[key] for line in group]) for key in ("expected", "score"))
        vary = np.ptp(expected) > 0 and np.ptp(actual) > 0
        pearson, spearman = (
            float(test(expected, actual).statistic) if vary else None for test in (pearsonr, spearmanr)
        )
        found.append({"phase": phase, "lines": len(group), "pearson": pearson, "spearman": spearman})
    return found


def _note(
    ledger: Ledger, zip_file: Path, digest: str | None, answer: dict[str, Any], name: str | None
) -> dict[str, Any]:
    """Write a leaderboard score into a ledger that is locked; see `record`."""
    rows = ledger.rows()
    found = _lines_of(zip_file, digest, rows, ledger.path)
    result = {"ledger": str(ledger.path), **answer, "replaced": None, "new": not found}
    if not found:
        row = _new_row(zip_file, digest, name)
        ledger.append(row | answer)
        return {**result, "zip": row["zip"]}
    known = rows[found[-1]]["zip"]
    if name not in (None, known):
        raise InputError(f"--name {name}: {zip_file} is in {ledger.path} already, as {known}. Leave out --name.")
    same = [line for line in found if rows[line]["phase"].strip() == str(answer["phase"])]
    free = [line for line in found if not rows[line]["phase"].strip() and not rows[line]["score"].strip()]
    if same:
        result["replaced"] = rows[same[-1]]["score"] or None
        ledger.fill(same[-1], answer)
    elif free:
        ledger.fill(free[-1], answer)
    else:
        ledger.append(rows[found[-1]] | answer)
    return {**result, "zip": known}


def _digest(zip_file: Path) -> str | None:
    """Return the SHA-256 of a zip, or None if there is no such file."""
    if not zip_file.exists():
        return None
    if not zip_file.is_file() or not zipfile.is_zipfile(zip_file):
        raise InputError(f"{zip_file} is not a zip file. Give the zip that was submitted.")
    return sha256(zip_file)


def _lines_of(zip_file: Path, digest: str | None, rows: list[dict[str, str]], ledger: Path) -> list[int]:
    """Return the positions of a zip's lines in the ledger; empty for an existing file that is not in it."""
    if digest and (found := [i for i, row in enumerate(rows) if row["sha256"].strip() == digest]):
        return found
    named = [i for i, row in enumerate(rows) if row["zip"] == zip_file.name and not (digest and row["sha256"].strip())]
    if not named and digest is None:
        names = list(dict.fromkeys(row["zip"] for row in rows if row["zip"]))
        raise InputError(
            f"There is no file {zip_file}, and no zip of that name in {ledger}{f':{listing(names)}' if names else '.'}"
        )
    if len({rows[i]["sha256"].strip() for i in named}) > 1:
        raise InputError(
            f"There is no file {zip_file}, and {ledger} has several zips of that name. "
            "Give the path of the file itself."
        )
    return named


def _new_row(zip_file: Path, digest: str | None, name: str | None) -> dict[str, Any]:
    """Return a new line for a zip, filled from its manifest if there is one."""
    path = zip_file.with_suffix(".json")
    manifest = read_json(path) if path.is_file() else None
    known = {}
    if isinstance(manifest, dict) and manifest.get("sha256") == digest:
        require_record(manifest, ManifestRecord, path)
        known = ledger_row(manifest)
    return known | {"zip": name or zip_file.name, "sha256": digest}


def _share(text: str) -> float | None:
    """Parse a number from 0 to 1; None for an empty cell.

    Raises:
        ValueError: If it is no such number.
    """
    if not text.strip():
        return None
    value = float(text)
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise ValueError(text)
    return value
