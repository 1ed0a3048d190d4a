"""The folder that `marsls predict` writes to: none that is read as data, and cleaned of nothing but what predict has written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from marsls_keras.datasets import layouts
from marsls_keras.errors import InputError
from marsls_keras.files import read_json, sha256, write_json

MANIFEST = "prediction.json"
"""File in the folder that lists the rasters written there, each with its SHA-256, or null while it may not be whole."""

_KINDS = ("probability", "mask", "variance", "entropy")
_RASTERS = (".tif", ".tiff", ".png", ".h5")
_IMAGES = ("images", "image", "img")


def require_free(out: Path, images: Path, overwrite: bool) -> list[Path]:
    """Refuse a folder where rasters would be taken for data, or mixed with others; return the rasters that have to go first.

    Args:
        out: Folder to write to; it need not exist.
        images: Folder that images are read from.
        overwrite: Whether rasters that an earlier predict has written there may go.

    Raises:
        InputError: If it is a file, a folder of the images or of a data set, or holds rasters; which, is named.

    Example:
        >>> require_free(Path("a/new/folder"), Path("data/test/images"), overwrite=False)
        []
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file. Give a folder to write to.")
    place, source = out.resolve(), images.resolve()
    own = [source, *(source / name for name in _IMAGES)]
    if place in own or any(folder in place.parents for folder in own[1:]):
        raise InputError(
            f"--out {out}: images are read from there, and results would be taken for them. Choose another folder."
        )
    if root := _dataset(place):
        raise InputError(
            f"--out {out} belongs to the data set in {root}, and results would be taken for its masks. "
            "Choose another folder."
        )
    there = list(_rasters(out))
    if not there:
        return []
    written = _written(out)
    for file in there:
        digest = written.get(file.relative_to(out).as_posix(), "")
        if digest == "":
            raise InputError(
                f"--out {out} holds {file}, which no earlier predict wrote; results would be mixed with it. "
                "Choose another folder."
            )
        if digest is not None and digest != sha256(file):
            raise InputError(
                f"--out {out} holds {file}, which was changed since predict wrote it. Move it away, "
                "or choose another folder."
            )
    if not overwrite:
        raise InputError(
            f"--out {out} holds {len(there)} rasters of an earlier predict, such as {there[0]}, "
            "with which the new ones would be mixed. "
            "Choose another folder, or have them removed first with --overwrite."
        )
    return there


def begin(out: Path, old: Iterable[Path], new: Iterable[Path]) -> None:
    """Remove the rasters that `require_free` gave, and note in the manifest which will be written, whole or not.

    Example:
        >>> begin(out, old=[], new=[out / "mask" / "a.tif"])  # doctest: +SKIP
    """
    for file in old:
        file.unlink()
    write_json(out / MANIFEST, {"rasters": {file.relative_to(out).as_posix(): None for file in new}})


def finish(out: Path, files: Iterable[Path]) -> None:
    """Note in the manifest what was written.

    Example:
        >>> finish(out, [out / "mask" / "a.tif"])  # doctest: +SKIP
    """
    write_json(out / MANIFEST, {"rasters": {file.relative_to(out).as_posix(): sha256(file) for file in files}})


def _rasters(out: Path) -> Iterator[Path]:
    """Yield the rasters in a folder and in those of its folders that predict writes to."""
    for folder in (out, *(out / kind for kind in _KINDS)):
        if folder.is_dir():
            yield from sorted(
                p
                for p in folder.iterdir()
                if p.suffix.lower() in _RASTERS and not p.name.startswith(".") and p.is_file()
            )


def _written(out: Path) -> dict[str, str | None]:
    """Return what the manifest lists."""
    if not (out / MANIFEST).exists():
        return {}
    manifest = read_json(out / MANIFEST)
    rasters = manifest.get("rasters") if isinstance(manifest, dict) else None
    if not isinstance(rasters, dict) or not all(value is None or isinstance(value, str) for value in rasters.values()):
        raise InputError(
            f"{out / MANIFEST} is damaged: expected rasters and their SHA-256. Choose another folder for --out."
        )
    return rasters


def _dataset(place: Path) -> Path | None:
    """Return the data set of which a folder is the root, or a split, or in a split."""
    for root in (place, *place.parents):
        for layout in layouts():
            parts = [part for part in layout.parts(root) if part.images.is_dir()] if root.is_dir() else []
            folders = {folder for part in parts for folder in (part.folder, part.images, part.masks)}
            if parts and (place == root or folders & {place, *place.parents}):
                return root
    return None
