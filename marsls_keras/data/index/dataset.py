"""The index of a data folder: which tiles there are, which mask belongs to which image, and where each tile lies."""

from __future__ import annotations

import filecmp
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from marsls_keras.bands.releases import RELEASES
from marsls_keras.data.index.folder_layouts import LAYOUTS, TIFF, detect_layout
from marsls_keras.data.index.tile_ref import Problem, TileRef, grid_key, list_files, raster_keys
from marsls_keras.errors import InputError, listing
from marsls_keras.files import no_folder

_HELP = """
Expected folders: train/images and train/masks, the same for val, and test/images (or train_partition/… as MMLS v1 has them).
Landslide4Sense has TrainData/img and TrainData/mask, Bijie landslide/image, landslide/mask and non-landslide/image, Nepal those above.
To get MMLSv2, follow https://github.com/MAIN-Lab/MMLS_v2; challenge entrants download the tiles from the Mars-LS page on CodaBench.
To try without data: marsls synth data"""

_FOLDERS = {
    "mars": "train, val, test",
    "landslide4sense": "TrainData, ValidData, TestData",
    "bijie": "landslide/image, non-landslide/image",
    "nepal": "train, val, test",
}


def image_files(folder: str | Path) -> list[Path]:
    """Return the image tiles of a plain folder, or of its sub-folder `images`, `image` or `img`: its TIFF files, else HDF5, else PNG.

    Raises:
        InputError: If the folder is missing or empty, or two names would clash in the output (x.tif and x.tiff, or a.tif and A.tif).
    """
    folder = Path(folder)
    folder = next((folder / name for name in ("images", "image", "img") if (folder / name).is_dir()), folder)
    if not folder.is_dir():
        raise InputError(f"{no_folder(folder)} Give the folder that holds the image tiles.")
    files = list_files(folder, TIFF) or list_files(folder, (".h5",)) or list_files(folder, (".png",))
    if not files:
        raise InputError(f"{folder} holds no .tif, .h5 or .png file.")
    stems = Counter(file.stem.lower() for file in files)
    clashing = [file.name for file in files if stems[file.stem.lower()] > 1]
    if clashing:
        raise InputError(
            f"Names in {folder} clash: predictions are named after the image, so each needs a name of its own.{listing(clashing)}"
        )
    return files


@dataclass(frozen=True)
class Dataset:
    """A folder of tiles, in one of these layouts.

    Mars: `<split>/images/*.tif` with seven bands and `<split>/masks/*.tif` with {0, 1} or {0, 255}; the splits are train, val and test, or
    train_partition, validation_partition and test_partition. An image and its mask share their stem, or else their grid cell. A split
    without a folder `masks` is unlabelled. Names such as siteA_col00001_row00002.tif tell several pictures apart. MMLS v1 (306 + 256 tiles)
    is from the MarsLS-Net paper (WACV 2024), MMLSv2 (465 / 66 / 133 tiles and 276 isolated ones) from its own paper (2026); the challenge
    distributes the tiles of MMLSv2.

    Landslide4Sense (Ghorbanzadeh et al., "Landslide4Sense: Reference Benchmark Data and Deep Learning Models for Landslide Detection",
    IEEE TGRS 60, 2022): `TrainData/img/image_<n>.h5` with the dataset `img`, float64 128 x 128 x 14 (Sentinel-2 B1 to B12, then slope and
    height of ALOS PALSAR), and `TrainData/mask/mask_<n>.h5` with `mask`, uint8 128 x 128 of {0, 1}; the same in ValidData and TestData,
    whose masks came later and may be absent. Copies with images/train, annotations/train (validation, test) are read as well. 3,799 / 245
    / 800 tiles. RMAU-Net speaks of 3,844 in all and of 3,044 without the test tiles, which is 1,000 less than there are: its 80:20 split
    is one of the training and validation tiles together.

    Bijie (Ji et al., "Landslide detection from an open satellite imagery and digital elevation model dataset using attention boosted
    convolutional neural networks", Landslides 17, 2020): `landslide/image/*.png`, 770 RGB pictures, with a mask of the same name in
    `landslide/mask`, and `non-landslide/image/*.png`, 2,003 pictures whose masks are empty and not there. The folders `dem` are not read.
    There are no splits: all are training tiles (data.cv holdout divides them). The pictures differ in size; data.resize brings them to one.

    Nepal (Bragagnolo et al., "Convolutional neural networks applied to semantic segmentation of landslide scars", Catena 201, 2021;
    Zenodo 3675407): `<split>/images/*.tif`, RGB of Landsat 8 in eight bits, and `<split>/masks/*.png` of {0, 255}, of the same stem; the
    images may be PNG too, and the folders be called image or img, and mask, labels or label. 230 / 35 / 10 pictures for training,
    validation and test.

    A tile of the last three has no known neighbours: it is a raster, and a block, of its own.

    Attributes:
        root: The folder.
        tiles: All tiles, ordered by split and name.
        problems: What is wrong with the folder's structure.
    """

    root: Path
    tiles: tuple[TileRef, ...]
    problems: tuple[Problem, ...] = ()

    @classmethod
    def open(cls, root: str | Path, strict: bool = True, release: str = "auto", conflicts: str = "error") -> Dataset:
        """Index a data folder without reading pixels, but for those of tiles in one grid cell.

        Args:
            root: Folder that holds the dataset.
            strict: Raise if there are problems; otherwise they are listed in `problems`.
            release: The release it is of, which tells the layout; "auto" tells it by the names of the folders.
            conflicts: What is done with copies of a tile whose masks differ, as data.conflicts: "error", "union" or "ignore".

        Raises:
            InputError: If the folder is missing or holds no split, or, if strict, has any structural problem; all are listed.
        """
        root = Path(root)
        if not root.is_dir():
            raise InputError(f"{no_folder(root, 'data folder').removesuffix('.')} (set it with --data or MARSLS_DATA).{_HELP}")
        name = detect_layout(root) if release == "auto" else RELEASES[release].layout
        tiles, problems = LAYOUTS[name].index(root, conflicts) if name else ([], [])
        if not tiles and not problems:
            raise InputError(f"{root} holds none of the folders {_FOLDERS[name or 'mars']}.{_HELP}")
        if strict and problems:
            raise InputError(f"{root} has {len(problems)} problem(s):{listing([p.message for p in problems])}")
        return cls(root, tuple(tiles), tuple(problems))

    @classmethod
    def from_images(cls, folder: str | Path) -> Dataset:
        """Index a plain folder of image tiles, without masks, as the split "images".

        Raises:
            InputError: If the folder is missing or empty, or names clash.
        """
        files = image_files(folder)
        keys = raster_keys(f.stem for f in files)
        rasters = {f: f"images/{key}" if (key := keys.get(f.stem)) else "images" for f in files}
        return cls(files[0].parent, tuple(TileRef(f"images/{f.stem}", f, None, "images", rasters[f], grid_key(f.stem)) for f in files))

    def located_in(self, other: Dataset) -> Dataset:
        """Return this dataset with the rasters of another that its tiles were cut from, and the other's tiles of these after its own.

        Names alone do not prove it, since grids of different pictures meet. It is proven of a raster where at least one tile is, byte for
        byte, the other's of the same cell, and none is another one than the other's of its cell. Tiles of which that holds are not
        repeated. If it holds of no raster, this dataset is returned as it is.
        """
        tiles: list[TileRef] = list(self.tiles)
        around: list[TileRef] = []
        left = list(dict.fromkeys(tile.raster for tile in other.tiles))
        for name in dict.fromkeys(tile.raster for tile in self.tiles):
            own = {tile.cell: tile for tile in self.tiles if tile.raster == name and tile.cell is not None}
            for raster in left:
                there = {tile.cell: tile for tile in other.tiles if tile.raster == raster and tile.cell is not None}
                both = own.keys() & there.keys()
                if both and all(filecmp.cmp(own[cell].image, there[cell].image, shallow=False) for cell in both):
                    tiles = [replace(tile, raster=raster) if tile.raster == name else tile for tile in tiles]
                    around += [tile for cell, tile in there.items() if cell not in both]
                    left.remove(raster)
                    break
        return replace(self, tiles=(*tiles, *around)) if around or tiles != list(self.tiles) else self

    def split(self, *names: str) -> tuple[TileRef, ...]:
        """Return the tiles of the named splits.

        Raises:
            InputError: If one of them has no tile.
        """
        for name in names:
            if not any(tile.split == name for tile in self.tiles):
                there = sorted({tile.split for tile in self.tiles})
                raise InputError(f"{self.root} has no tile in the split {name!r}; it has {', '.join(there) or 'none at all'}.{_HELP}")
        return tuple(tile for tile in self.tiles if tile.split in names)
