"""Script of the child process that opens HDF5 files; a damaged or malicious file can crash it, but not its parent.

`marsls_keras.data.formats.decoder_process` starts it as a script. It imports nothing from this package, so that it
starts quickly. A request is one line of JSON with the arguments of `read`. The reply is one line of JSON, whose field
"bytes" says how many bytes follow: the values of the dataset and, if some of its chunks were never written, one byte a
value that says whether it was.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from typing import Any

import h5py
import numpy as np

SECONDS, MEMORY = 4, 1 << 30
"""CPU seconds allowed per file, and memory in bytes that the process may use for data."""


def main() -> None:
    """Answer requests from standard input until it is closed.

    Example:
        >>> main()  # in a process of its own  # doctest: +SKIP
    """
    # Ctrl-C stops the parent; its end closes standard input, which ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Standard output is redirected, so that text printed by libraries does not mix with the replies.
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    for stream in (0, 1):
        os.dup2(os.open(os.devnull, os.O_RDWR), stream)
    limit = _limits()
    for line in requests:
        limit()
        try:
            reply, parts = read(**json.loads(line))
        except MemoryError:
            reply, parts = {"damage": "it needs more memory than a tile takes"}, []
        except Exception as error:  # a damaged file makes the library raise nearly anything
            reply, parts = {"damage": " ".join(str(error).split())[:300] or type(error).__name__}, []
        replies.write(json.dumps({**reply, "bytes": sum(part.nbytes for part in parts)}).encode() + b"\n")
        for part in parts:
            if part.size:
                replies.write(part.data.cast("B"))
        replies.flush()
        del reply, parts


def _limits() -> Any:
    """Limit the memory of this process, where the system can, and return a function that limits its CPU time.

    The function is called before each file and grants it `SECONDS`.
    """
    try:
        import resource
    except ImportError:  # Windows: only the parent's limit on the time applies
        return lambda: None
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # On Linux the data segment: address space is mostly only reserved.
    kind = resource.RLIMIT_DATA if sys.platform == "linux" else resource.RLIMIT_AS
    hard = resource.getrlimit(kind)[1]
    if hard == resource.RLIM_INFINITY or hard > MEMORY:
        try:
            resource.setrlimit(kind, (MEMORY, hard))
        except (ValueError, OSError):  # macOS refuses a limit below what is already reserved
            pass
    ceiling = resource.getrlimit(resource.RLIMIT_CPU)[1]

    def limit() -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        soft = int(used.ru_utime + used.ru_stime) + 1 + SECONDS  # in whole seconds, so up to one second more
        resource.setrlimit(
            resource.RLIMIT_CPU, (soft if ceiling == resource.RLIM_INFINITY else min(soft, ceiling), ceiling)
        )

    return limit


def read(path: str, keys: list[str], most: int, pixels: bool) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Return a description of a dataset, to be sent as JSON, and its values.

    Args:
        path: HDF5 file.
        keys: Possible names of the dataset in the root group; the first one found is read.
        most: Largest number of values allowed.
        pixels: Whether to read the values.

    Returns:
        {"refused": reason}; or "key" (the name found), "shape", "dtype", "fill" (the user-defined fill value, or None),
        "attributes" (numeric ones as lists, others as text) and "gaps": whether a second array follows the values,
        which says for each value whether it was written.

    Example:
        >>> reply, parts = read("TrainData/img/image_1.h5", ["img"], 1 << 24, pixels=False)  # doctest: +SKIP
        >>> reply["shape"]  # doctest: +SKIP
        (128, 128, 14)
    """
    with h5py.File(path, "r") as file:
        key = next((key for key in keys if key in file.keys()), keys[0])
        link = file.get(key, getlink=True) if key in file.keys() else None
        if isinstance(link, h5py.ExternalLink | h5py.SoftLink):
            return {
                "refused": f"{key} is a link to {link.path}: expected the data themselves. Copy them into the file"
            }, []
        found = file[key] if link is not None else None
        if not isinstance(found, h5py.Dataset):
            there = ", ".join(itertools.islice(file, 10)) or "nothing"
            wanted = " or ".join(keys)
            return {"refused": f"expected a dataset {wanted}, found {there}. Is this an image tile, or a mask?"}, []
        if found.is_virtual or found.external:
            return {
                "refused": f"{key} is kept in other files: expected the data themselves. Copy them into the file"
            }, []
        size = " x ".join(map(str, found.shape or ())) or "a single value"
        if found.shape is None or found.dtype.kind not in "fiub" or found.dtype.itemsize > 8 or found.size == 0:
            return {"refused": f"expected numbers in {key}, found {size} of {found.dtype}."}, []
        if found.size > most:
            return {
                "refused": f"{key} of {size} is larger than a tile: {most:,} values at most. Cut it into tiles."
            }, []
        if not found.id.get_storage_size():  # h5py would read zeros
            return {"refused": f"{key} was never written. Download or copy the file again."}, []
        creation = found.id.get_create_plist()
        fill = found.fillvalue if creation.fill_value_defined() == h5py.h5d.FILL_VALUE_USER_DEFINED else None
        reply = {
            "key": key,
            "shape": found.shape,
            "dtype": found.dtype.newbyteorder("=").str,
            "fill": None if fill is None else float(fill),
            "attributes": {str(name): _attribute(found, name) for name in itertools.islice(found.attrs, 100)},
            "gaps": False,
        }
        if not pixels:
            return reply, []
        written = _written(found)
        values = found[()].astype(found.dtype.newbyteorder("="), copy=False)
        return {**reply, "gaps": written is not None}, [values] if written is None else [values, written]


def _attribute(found: h5py.Dataset, name: str) -> Any:
    """Return the numbers of an attribute as a list; of other attributes, the name of their type."""
    kind = found.attrs.get_id(name)
    if kind.dtype.kind not in "fiub" or kind.get_storage_size() > 4096:
        return str(kind.dtype)
    return np.atleast_1d(found.attrs[name]).astype(float).ravel().tolist()


def _written(found: h5py.Dataset) -> np.ndarray | None:
    """Return a bool array of the dataset's shape, False in chunks missing from the file; None if no chunk is missing.

    Raises:
        ValueError: If the size of the stored data does not match the shape.
    """
    if found.chunks is None:
        if (stored := found.id.get_storage_size()) != found.nbytes:
            raise ValueError(f"{stored} bytes of data instead of {found.nbytes}")
        return None
    number = found.id.get_num_chunks()
    if number == np.prod([-(-side // chunk) for side, chunk in zip(found.shape, found.chunks, strict=True)]):
        return None
    written = np.zeros(found.shape, bool)
    for i in range(number):
        start = found.id.get_chunk_info(i).chunk_offset
        if any(first >= side for first, side in zip(start, found.shape, strict=True)):
            raise ValueError(f"data beyond {' x '.join(map(str, found.shape))}")
        written[tuple(slice(first, first + side) for first, side in zip(start, found.chunks, strict=True))] = True
    return written


if __name__ == "__main__":
    main()
