"""Rotated and mirrored copies of tiles."""

from pathlib import Path

import numpy as np
import tifffile

TURNS = [lambda x, k=k, m=m: np.rot90(x[:, ::-1] if m else x, k) for k in range(4) for m in (False, True)]


def turned_copy(root: Path, source: str, target: str, turn: int = 3) -> None:
    for kind in ("images", "masks"):
        array = tifffile.imread(root / "train" / kind / source)
        path = root / target.split("/")[0] / kind / target.split("/")[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        planar = {"planarconfig": "contig"} if kind == "images" else {}
        tifffile.imwrite(
            path, np.ascontiguousarray(TURNS[turn](array)), photometric="minisblack", metadata=None, **planar
        )
