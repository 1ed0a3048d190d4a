"""Check and clean the output folder of `marsls predict`.

A folder that is read as data is refused, and only files that predict has written are removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from marsls_keras.datasets import layouts
from marsls_keras.errors import InputError
from marsls_keras.files import read_json, sha256, write_json

MANIFEST = "prediction.json"
"""Name of the file that lists the rasters in the folder, each with its SHA-256, or null while it may be incomplete."""

_KINDS = ("probability", "mask", "variance", "entropy")
_RASTERS = (".tif", ".tiff", ".png", ".h5")
_IMAGES = ("images", "image", "img")


def require_free(out: Path, images: Path, overwrite: bool) -> list[Path]:
    """Return the rasters of an earlier predict that must be removed from an output folder first.

    A folder is refused if new rasters would be taken for data there, or mixed with others.

    Args:
        out: Folder to write to; it need not exist.
        images: Folder that images are read from.
        overwrite: Whether rasters that an earlier predict has written there may go.

    Raises:
        InputError: If `out` is a file, a folder of the images or of a data set, or holds rasters; one of them is named.

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
                f"--out {out} holds {file}, which was changed since predict wrote it. "
                "Move it away, or choose another folder."
            )
    if not overwrite:
        raise InputError(
            f"--out {out} holds {len(there)} rasters of an earlier predict, such as {there[0]}, "
            "with which the new ones would be mixed. Choose another folder, "
            "or have them removed first with --overwrite."
        )
    return there


def begin(out: Path, old: Iterable[Path], new: Iterable[Path]) -> None:
    """Remove the rasters that `require_free` returned, and list in the manifest those that will be written.

    They are listed with null, since they may be incomplete until `finish`.

    Example:
        >>> begin(Path("out"), old=[], new=[Path("out/mask/a.tif")])
        >>> read_json(Path("out/prediction.json"))
        {'rasters': {'mask/a.tif': None}}
    """
    for file in old:
        file.unlink()
    write_json(out / MANIFEST, {"rasters": {file.relative_to(out).as_posix(): None for file in new}})


def finish(out: Path, files: Iterable[Path]) -> None:
    """List the rasters that were written in the manifest, with their SHA-256.

    Example:
        >>> finish(Path("out"), [])
        >>> read_json(Path("out/prediction.json"))
        {'rasters': {}}
    """
    write_json(out / MANIFEST, {"rasters": {file.relative_to(out).as_posix(): sha256(file) for file in files}})


def _rasters(out: Path) -> Iterator[Path]:
    """Yield the rasters in a folder and in the sub-folders that predict writes to."""
    for folder in (out, *(out / kind for kind in _KINDS)):
        if folder.is_dir():
            yield from sorted(
                p
                for p in folder.iterdir()
                if p.suffix.lower() in _RASTERS and not p.name.startswith(".") and p.is_file()
            )


def _written(out: Path) -> dict[str, str | None]:
    """Return the rasters that the manifest lists, with their SHA-256 or None."""
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
    """Return the root of the data set that a folder belongs to, as its root, as a split or within one; None if none."""
    for root in (place, *place.parents):
        for layout in layouts():
            parts = [part for part in layout.parts(root) if part.images.is_dir()] if root.is_dir() else []
            folders = {folder for part in parts for folder in (part.folder, part.images, part.masks)}
            if parts and (place == root or folders & {place, *place.parents}):
                return root
    return None
