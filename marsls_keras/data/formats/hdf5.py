"""Read HDF5 files of one tile or one mask.

The release gives the name of the dataset, such as `img` and `mask` in Landslide4Sense.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from marsls_keras.data.formats.contents import Contents
from marsls_keras.data.formats.decoder_process import Crash, Decoder
from marsls_keras.data.formats.limits import MAX_VALUES
from marsls_keras.data.formats.tiff import shape_only
from marsls_keras.errors import InputError

_decoder = Decoder(Path(__file__).with_name("hdf5_decoder.py"))


def read_image(path: Path, expected: Sequence[Contents], pixels: bool = True) -> tuple[np.ndarray, tuple]:
    """Return an image's dataset as (H, W, bands) and no tags.

    Args are as in `marsls_keras.data.formats.tiff.read_image`. The array has the type stored in the file; or float32
    if values are no-data or were never written (they become NaN), or if the dataset has a scale or an offset, which is
    applied.

    Raises:
        InputError: If the file is missing, damaged or no HDF5, or the dataset is missing, has another shape or is
            stored in other files.

    Example:
        >>> array, tags = read_image(Path("TrainData/img/image_1.h5"), [Contents(14)])  # doctest: +SKIP
        >>> array.shape, tags  # doctest: +SKIP
        ((128, 128, 14), ())
    """
    key, array, missing, scaling = _load(path, [contents.key for contents in expected], pixels)
    numbers = [contents.bands for contents in expected if contents.key == key]
    if array.ndim != 3 or array.shape[2] not in numbers:
        wanted = " or ".join(map(str, dict.fromkeys(numbers)))
        raise InputError(
            f"{path}: expected {key} of H x W x {wanted} bands, found {_size(array)}. Is this an image tile?"
        )
    if pixels and scaling is not None:
        scale, offset = scaling
        array = (array * scale + offset).astype(np.float32)
    if missing.any():
        array = np.where(missing, np.float32(np.nan), array.astype(np.float32))
    return array, ()


def read_mask(path: Path, keys: Sequence[str]) -> np.ndarray:
    """Return a mask's dataset (H, W), of the type stored in the file; `keys` are its possible names.

    Raises:
        InputError: If the file is missing, damaged or no HDF5, or the dataset is missing, has another shape, a scale or
            an offset, or pixels without data.

    Example:
        >>> read_mask(Path("TrainData/mask/mask_1.h5"), ["mask"]).dtype  # doctest: +SKIP
        dtype('uint8')
    """
    key, array, missing, scaling = _load(path, keys, pixels=True)
    if array.ndim != 2:
        raise InputError(f"{path}: expected {key} of H x W, found {_size(array)}. Is this a mask?")
    if scaling is not None:
        raise InputError(
            f"{path}: {key} has a scale_factor or add_offset, so its values are no classes. "
            "Write it as 0 and 1 without."
        )
    if missing.any():
        raise InputError(
            f"{path}: {np.count_nonzero(missing)} pixels of {key} have no data (its fill value, or never written). "
            "Write 0 where there is no landslide and 1 where there is."
        )
    return array


def _load(
    path: Path, keys: Sequence[str], pixels: bool
) -> tuple[str, np.ndarray, np.ndarray, tuple[float, float] | None]:
    """Read a numeric dataset.

    Args:
        path: HDF5 file.
        keys: Possible names of the dataset.
        pixels: Whether to read values; if not, the arrays have a shape but no values.

    Returns:
        The dataset's name, its values, a bool array of no-data, and scale and offset (None for 1 and 0).
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist or is not a file.")
    try:
        reply, data = _decoder.ask(
            path=str(path.absolute()), keys=list(dict.fromkeys(keys)), most=MAX_VALUES, pixels=pixels
        )
    except Crash as crash:
        reply = {"damage": f"the HDF5 library failed on it: {crash}"}
    if "damage" in reply:
        raise InputError(f"{path}: unreadable or truncated HDF5 ({reply['damage']}). Download or copy the file again.")
    if "refused" in reply:
        raise InputError(f"{path}: {reply['refused']}")
    key, shape, dtype = reply["key"], tuple(reply["shape"]), np.dtype(reply["dtype"])
    scaling, none = _attributes(path, key, reply["attributes"])
    if not pixels:
        return key, shape_only(shape, dtype), shape_only(shape, bool), scaling
    number = int(np.prod(shape))
    array = data[: number * dtype.itemsize].view(dtype).reshape(shape)
    missing = np.zeros(shape, bool) if not reply["gaps"] else ~data[number * dtype.itemsize :].view(bool).reshape(shape)
    # Many programs set a fill value of 0, which may be data; any other fill value marks no-data.
    for value in [*none, *([reply["fill"]] if reply["fill"] else [])]:
        # In float data the value was rounded to the file's type, so it is compared in that type.
        missing |= array == np.float64(value).astype(dtype if dtype.kind == "f" else float)
    return key, array, missing, scaling


def _attributes(path: Path, key: str, attributes: dict[str, Any]) -> tuple[tuple[float, float] | None, list[float]]:
    """Return scale and offset of a dataset and its no-data values, from its attributes (named as in netCDF).

    The first item is None if they change nothing.
    """
    known = {
        name: attributes[name]
        for name in ("_FillValue", "missing_value", "scale_factor", "add_offset")
        if name in attributes
    }
    for name, value in known.items():
        alone = name not in ("scale_factor", "add_offset") or len(value) == 1
        if not isinstance(value, list) or not alone or (name == "scale_factor" and not value[0]):
            raise InputError(
                f"{path}: the attribute {name} of {key} is {value}, expected a number. Correct or remove it."
            )
    scale, offset = known.get("scale_factor", [1.0])[0], known.get("add_offset", [0.0])[0]
    none = [value for name in ("_FillValue", "missing_value") for value in known.get(name, [])]
    if not np.isfinite([scale, offset]).all():
        raise InputError(
            f"{path}: scale_factor {scale} and add_offset {offset} of {key} are no finite numbers. "
            "Correct or remove them."
        )
    return (None if (scale, offset) == (1, 0) else (scale, offset)), none


def _size(array: np.ndarray) -> str:
    return " x ".join(map(str, array.shape)) or "a single value"
