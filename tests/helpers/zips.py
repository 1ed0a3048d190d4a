"""Valid and damaged zips, made without the package's own code."""

import io
import struct
import zipfile

import numpy as np
import tifffile

A, B, C = "col00051_row00028.tif", "col00052_row00028.tif", "col00053_row00028.tif"
SIZE = (32, 24)
EXPECTED = {A: SIZE, B: SIZE, C: SIZE}


def tiff(array, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, array, **{"photometric": "minisblack", **options})
    return file.getvalue()


GOOD = tiff(np.eye(*SIZE, dtype=np.uint8))


def make_zip(path, entries, method=zipfile.ZIP_DEFLATED):
    """Write a zip from (name or ZipInfo, bytes) pairs."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


def replace_entry(path, data, name=B, method=zipfile.ZIP_DEFLATED):
    """Write a zip with one entry replaced."""
    return make_zip(path, [(n, data if n == name else GOOD) for n in (A, B, C)], method)


def with_mode(name, mode):
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def patch_headers(path, name, local, central, value):
    """Overwrite bytes of an entry's local and central header."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo(name).header_offset
        directory = archive.start_dir
    while data[directory + 46 : directory + 46 + len(name)] != name.encode():
        directory += 46 + sum(struct.unpack_from("<3H", data, directory + 28))
    data[start + local : start + local + len(value)] = value
    data[directory + central : directory + central + len(value)] = value
    path.write_bytes(data)
    return path
