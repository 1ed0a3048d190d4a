"""Folders of true masks."""

import tifffile


def truth(folder, masks):
    folder.mkdir(parents=True, exist_ok=True)
    for name, mask in masks.items():
        tifffile.imwrite(folder / name, mask, photometric="minisblack")
    return folder
