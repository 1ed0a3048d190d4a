"""Score a submission zip against the true masks with the metrics of CodaBench."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from competition.submission.verify import entry_names, read_entry, verify_zip
from marsls_keras.counts import SCORES, Counts, confusion
from marsls_keras.data.formats.tile import read_mask
from marsls_keras.datasets import grid_key
from marsls_keras.datasets.layout import TIFF, list_files
from marsls_keras.errors import InputError, listing
from marsls_keras.files import no_folder, write_text
from marsls_keras.progress import tracked


@dataclass(frozen=True)
class Score:
    """Scores of a submission, pooled over all pixels and per tile.

    Attributes:
        counts: Counts pooled over all pixels of all tiles.
        scores: The scores of these counts; `miou` is the ranking one.
        tiles: Per tile its name, its scores and its counts (tp, fp, fn, tn), the worst mIoU first.

    Example:
        >>> Score(Counts(8, 1, 1, 90), Counts(8, 1, 1, 90).scores(), []).scores["iou_fg"]
        0.8
    """

    counts: Counts
    scores: dict[str, float]
    tiles: list[dict[str, Any]]


def score(zip_path: str | Path, masks: str | Path) -> Score:
    """Score a submission against the true masks.

    Args:
        zip_path: The submission.
        masks: Folder of the true masks (or its sub-folder `masks`): {0, 1} or {0, 255}, of any numeric type.

    Raises:
        InputError: If the folder is missing or empty, or masks or zip have problems (an entry without mask, a mask
            without entry, anything that `verify_zip` finds); all are listed.

    Example:
        >>> score("submissions/default.zip", "data/val/masks").scores["miou"]  # doctest: +SKIP
        0.813
    """
    zip_path, folder = Path(zip_path), Path(masks)
    truth = _read_masks(folder / "masks" if (folder / "masks").is_dir() else folder)
    # By file name alone: verify_zip refuses entries in folders, which should not be reported as missing as well.
    entries = [re.split(r"[/\\]", name)[-1] for name in entry_names(zip_path)]
    pairs = match_names(
        [name for name in entries if name.lower().endswith((".tif", ".tiff")) and not name.startswith(".")], truth
    )
    expected = {entry: truth[name].shape for entry, name in pairs.items()}
    expected |= {name: truth[name].shape for name in set(truth) - set(pairs.values())}
    problems = verify_zip(zip_path, expected)
    tiles, counts = [], Counts(0, 0, 0, 0)
    if not problems:
        with zipfile.ZipFile(zip_path) as archive:
            for entry, name in tracked("Scoring", pairs.items()):
                predicted, problems = read_entry(archive, archive.getinfo(entry), truth[name].shape)
                if predicted is None:  # only if the file has changed since it was verified
                    break
                tile = confusion(truth[name], predicted)
                counts += tile
                tiles.append(
                    {"name": entry, **tile.scores(), "tp": tile.tp, "fp": tile.fp, "fn": tile.fn, "tn": tile.tn}
                )
    if problems:
        raise InputError(f"{zip_path} cannot be scored against {folder}:{listing(problems)}")
    return Score(counts, counts.scores(), sorted(tiles, key=lambda tile: (tile["miou"], tile["name"])))


def write_tiles(path: str | Path, tiles: Iterable[dict[str, Any]]) -> None:
    """Write the scores and counts of tiles to a CSV file, one line per tile, at full precision.

    Raises:
        RunError: If the file cannot be written.

    Example:
        >>> counts = Counts(8, 1, 1, 90)
        >>> write_tiles("tiles.csv", [{"name": "x.tif", **counts.scores(), "tp": 8, "fp": 1, "fn": 1, "tn": 90}])
        >>> Path("tiles.csv").read_text().splitlines()[0]
        'name,miou,...,tp,fp,fn,tn'
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, ("name", *SCORES, "tp", "fp", "fn", "tn"), lineterminator="\n")
    writer.writeheader()
    writer.writerows(tiles)
    write_text(path, text.getvalue())


def match_names(entries: Iterable[str], masks: Iterable[str]) -> dict[str, str]:
    """Return the true mask of each entry of a zip, by name.

    Names without a counterpart, or with several, are left out.

    Equal names are matched first, then equal stems (x.tif and x.tiff), then equal grid cells (Image_patch_7_3.tif and
    Mask_patch_7_3.tif), but never across rasters (ImageT_patch_7_3.tif is of the test raster).

    Example:
        >>> match_names(["Image_patch_7_3.tif", "other.tif"], ["Mask_patch_7_3.tif"])
        {'Image_patch_7_3.tif': 'Mask_patch_7_3.tif'}
    """
    entries, masks = list(dict.fromkeys(entries)), list(masks)
    pairs = {name: name for name in set(entries) & set(masks)}
    for key in (lambda name: Path(name).stem, lambda name: grid_key(Path(name).stem)):
        alike = defaultdict[Any, tuple[list[str], list[str]]](lambda: ([], []))
        used = set(pairs.values())
        for side, names in enumerate(([e for e in entries if e not in pairs], [m for m in masks if m not in used])):
            for name in names:
                if (value := key(name)) is not None:
                    alike[value][side].append(name)
        for ours, theirs in alike.values():
            for entry in ours:
                fitting = [mask for mask in theirs if _same_raster(entry, mask)]
                if len(fitting) == 1 and sum(_same_raster(other, fitting[0]) for other in ours) == 1:
                    pairs[entry] = fitting[0]
    return pairs


def _same_raster(entry: str, mask: str) -> bool:
    """Return False if the names are of different rasters (Image_, Mask_ or ImageT_, MaskT_), else True."""
    found = [re.match(r"(?:Image|Mask)(T?)_", name) for name in (entry, mask)]
    return len({match[1] for match in found if match}) < 2


def _read_masks(folder: Path) -> dict[str, np.ndarray]:
    """Read the masks of a folder and return them by file name, each uint8 (H, W) of {0, 1}.

    Raises:
        InputError: If the folder is missing or empty, or any mask cannot be used; all are listed.
    """
    if not folder.is_dir():
        raise InputError(f"{no_folder(folder)} Give the folder that holds the true masks.")
    masks, problems = {}, []
    for file in tracked("Reading masks", list(list_files(folder, TIFF))):
        try:
            masks[file.name] = read_mask(file)
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError(f"{len(problems)} of the true masks in {folder} cannot be used:{listing(problems)}")
    if not masks:
        raise InputError(f"{folder} holds no .tif file, expected the true masks.")
    return masks
