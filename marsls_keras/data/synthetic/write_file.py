"""Write files of synthetic tiles: TIFF, HDF5 and PNG."""

from __future__ import annotations

from pathlib import Path

import h5py
import imagecodecs
import numpy as np
import tifffile

from marsls_keras.datasets.release import SyntheticFile
from marsls_keras.files import atomic


def write_file(root: Path, file: SyntheticFile) -> None:
    """Write one file below a folder atomically; its extension decides the format.

    Raises:
        RunError: If the file cannot be written.
        ValueError: If the extension is not supported.

    Example:
        >>> write_file(Path("data"), SyntheticFile("train/masks/1.png", np.zeros((32, 32), np.uint8)))  # doctest: +SKIP
    """
    path = root / file.path
    if path.suffix not in (".tif", ".h5", ".png"):
        raise ValueError(f"Expected a file that ends in .tif, .h5 or .png. Received: {file.path}")
    with atomic(path) as temporary:
        if path.suffix == ".tif":
            tifffile.imwrite(temporary, file.array, **file.options)
        elif path.suffix == ".h5":
            with h5py.File(temporary, "w") as container:
                container.create_dataset(file.options["key"], data=file.array)
        else:
            temporary.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(file.array)))
