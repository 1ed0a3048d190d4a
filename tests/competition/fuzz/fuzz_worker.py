"""Process that reads damaged files, and prints a line of JSON for each: what was wrong with the result, or null.

Arguments: a folder, and a file of lines "seed TAB flavour".
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
from fuzz_flavours import FLAVOURS, NAMES, SIDES, Flavour
from fuzz_mutations import damaged

from competition.submission.verify import read_entry, verify_zip
from marsls_keras.data.formats.tile import Tile, read_mask, read_tile
from marsls_keras.errors import InputError

SECONDS, MEMORY = 5.0, 1 << 30


def read(flavour: Flavour, path: Path) -> Tile | np.ndarray | list[np.ndarray | None]:
    """Return the content of a file; a zip must hold three masks."""
    if flavour.read == "image":
        return read_tile(path)
    if flavour.read == "mask":
        return read_mask(path)
    expected = dict.fromkeys(NAMES, SIDES)
    if problems := verify_zip(path, expected):
        raise InputError(f"{path}: {problems}")
    with zipfile.ZipFile(path) as archive:
        return [read_entry(archive, archive.getinfo(name), SIDES)[0] for name in NAMES]


def fits(name: str, shape: tuple[int, ...], good: tuple[int, ...]) -> bool:
    """Return whether a shape is plausible: an edited side that ends in the same padded blocks cannot be detected."""
    padded = any(word in name for word in ("tiled", "chunks", "gzip", "newest", "scale-offset"))
    return shape == good or (padded and shape[2:] == good[2:] and max(shape[:2]) <= 32)


def wrong(name: str, found: object, good: object, exact: bool) -> str | None:
    """Return why the content of a damaged file is neither that of the undamaged one nor, unless `exact`, plausible."""
    if isinstance(found, Tile) and isinstance(good, Tile):
        same = (
            found.image.shape == good.image.shape
            and np.array_equal(found.image, good.image)
            and np.array_equal(found.valid, good.valid)
        )
        if same:
            return None
        if exact:
            return "a tile of other values"
        image, valid = found.image, found.valid
        if not fits(name, image.shape, good.image.shape) or valid.shape != image.shape[:2]:
            return f"a tile of {image.shape} instead of {good.image.shape}"
        if image.dtype != np.float32 or valid.dtype != bool or not np.isfinite(image).all():
            return "a tile that is none"
        return None
    pairs = (
        list(zip(found, good, strict=True)) if isinstance(found, list) and isinstance(good, list) else [(found, good)]
    )
    for mask, other in pairs:
        if exact and not np.array_equal(mask, other):
            return "a mask of other values"
        if not fits(name, mask.shape, other.shape) or mask.dtype != np.uint8 or mask.max() > 1:
            return f"a mask of {mask.shape}, {mask.dtype}"
    return None


def judge(name: str, seed: int, folder: Path) -> str | None:
    """Read a damaged file and return what was wrong with the result, or None."""
    flavour = FLAVOURS[name]
    path = folder / flavour.name
    path.write_bytes(flavour.make())
    try:
        good = read(flavour, path)
    except InputError as error:
        return f"undamaged: {error}"
    data, mended = damaged(name, seed)
    path.write_bytes(data)
    start = time.process_time()
    try:
        found = read(flavour, path)
        # PNG and zip have checksums over all that they hold.
        problem = wrong(name, found, good, exact=not mended and flavour.name.endswith((".png", ".zip")))
    except InputError as error:
        problem = None if str(path) in str(error) else f"an error that does not name the file: {error}"
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    if (seconds := time.process_time() - start) > SECONDS:
        problem = f"{seconds:.1f} seconds"
    # Of this process since it was started: what resource tells of it begins with what its parent held.
    own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    peak = max(int(own.split()[1]), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * 1024
    return f"{peak >> 20} MiB" if peak > MEMORY else problem


def main() -> None:
    """Read and judge every file of the list."""
    warnings.simplefilter("ignore")
    for line in Path(sys.argv[2]).read_text().splitlines():
        seed, name = line.split("\t")
        print(json.dumps(judge(name, int(seed), Path(sys.argv[1]))), flush=True)


if __name__ == "__main__":
    main()
