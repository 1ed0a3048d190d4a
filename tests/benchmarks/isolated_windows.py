"""What windows across tile borders gain where they see the held-out region alone, and where they see its neighbours too.

    python tests/benchmarks/isolated_windows.py RUN [WINDOW]

RUN is the folder of a run whose folds are finished; those of `data.cv=geographic` are regions. Threshold 0.5, nothing is tuned; intervals
are paired and from drawing blocks.
"""

import sys
from pathlib import Path

import numpy as np

from competition.oof import collect, pool_tiles
from marsls_keras.counts import bootstrap, confusion, interval
from marsls_keras.inference.predict import load_member
from marsls_keras.inference.stitched import predict_tiles
from marsls_keras.inference.views import views_of
from marsls_keras.training.run_dir import Run


def main(folder, window):
    run, name = Run.open(Path(folder)), f"identity@{window}"
    views = views_of(name)
    oof = collect([run], pool_tiles(run), ["identity", *views])
    alone = np.zeros(oof.tiles.masks.shape, np.float32)
    for fold in sorted(set(oof.folds.tolist())):
        rows = np.flatnonzero(oof.folds == fold)
        (seen,) = predict_tiles(load_member(run, fold), oof.tiles.subset(rows), np.arange(len(rows)), views)
        alone[rows] = seen.probability
    predictions = {"single tiles": oof.probability("identity"), "region alone": alone, "with neighbours": oof.probability(name)}
    counts = {what: confusion(oof.tiles.masks, p >= np.float32(0.5), axis=(1, 2)) for what, p in predictions.items()}
    before = None
    for what, found in counts.items():
        line = f"{what}: mIoU {found.pooled().scores()['miou']:.4f}"
        if before is not None:
            gain = found.pooled().scores()["miou"] - before.pooled().scores()["miou"]
            low, high = interval(bootstrap(found, oof.blocks) - bootstrap(before, oof.blocks))
            line += f", {gain:+.4f} ({low:+.4f} to {high:+.4f}) over the line before"
        print(line)
        before = found


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 256)
