"""HDF5 files of Landslide4Sense: one tile or one mask to a file, in the dataset `img` or `mask`."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from marsls_keras.data.bands import SENTINEL
from marsls_keras.data.tiff import MAX_BYTES, shape_only
from marsls_keras.errors import InputError


def read_image(path: Path, bands: int | None, pixels: bool = True) -> tuple[np.ndarray, tuple]:
    """Return the dataset `img` as (H, W, bands), of the file's type, and no tags; args as in `marsls_keras.data.tiff.read_image`.

    Raises:
        InputError: If the file is missing, truncated, no HDF5 or without that dataset, or it has another shape.
    """
    number = len(SENTINEL) if bands is None else bands
    array = _load(path, "img", pixels)
    if array.ndim != 3 or array.shape[2] != number:
        raise InputError(f"{path}: expected img of H x W x {number} bands, found {_size(array)}. Is this an image tile?")
    return array, ()


def read_mask(path: Path) -> np.ndarray:
    """Return the dataset `mask`, (H, W) of the file's type.

    Raises:
        InputError: If the file is missing, truncated, no HDF5 or without that dataset, or it has another shape.
    """
    array = _load(path, "mask", pixels=True)
    if array.ndim != 2:
        raise InputError(f"{path}: expected mask of H x W, found {_size(array)}. Is this a mask?")
    return array


def _load(path: Path, key: str, pixels: bool) -> np.ndarray:
    """Return a dataset of numbers; without `pixels` an array of its shape alone."""
    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file.")
    try:
        with h5py.File(path, "r") as file:
            found = file.get(key)
            if not isinstance(found, h5py.Dataset):
                there = ", ".join(file) or "nothing"
                raise InputError(f"{path}: expected a dataset {key}, found {there}. Is this a file of Landslide4Sense, image or mask?")
            if found.dtype.kind not in "fiub" or not 0 < found.nbytes <= MAX_BYTES:
                raise InputError(f"{path}: expected numbers in {key}, found {_size(found)} of {found.dtype}.")
            if not found.id.get_storage_size():  # h5py would read zeros
                raise InputError(f"{path}: {key} was never written. Download or copy the file again.")
            return found[()] if pixels else shape_only(found.shape, found.dtype)
    except InputError:
        raise
    except Exception as error:  # a damaged file makes the library raise nearly anything
        raise InputError(f"{path}: unreadable or truncated HDF5 ({error}). Download or copy the file again.") from error


def _size(array: np.ndarray | h5py.Dataset) -> str:
    return " x ".join(map(str, array.shape)) or "a single value"
