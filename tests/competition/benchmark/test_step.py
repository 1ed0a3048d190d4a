"""One job of a benchmark, on the run that all tests share."""

import numpy as np

from competition.benchmark.step import count
from marsls_keras.runs.run import Run
from marsls_keras.tuning.out_of_fold import collect, pool_tiles


def test_counts_are_those_of_the_masks_at_each_threshold_and_view_set(tiny_run, tmp_path):
    run = Run.open(tiny_run.copy(tmp_path) / tiny_run.name)
    found = count(run, 0, tiny_run.data, ["identity:0.5", "flips:0.4"])
    total = {field: sum(found["identity:0.5"][field]) for field in ("tp", "fp", "fn", "tn")}
    assert total == run.metrics(0)["counts"]
    seen = collect(
        [run], pool_tiles(run, tiny_run.data), ["identity", "horizontal_flip", "vertical_flip", "rot180"], [0]
    )
    views = [array.astype(np.float32) for array in seen.probabilities[run.name].values()]
    predicted = np.mean(views, axis=0) >= 0.4
    truth = seen.tiles.masks != 0
    np.testing.assert_array_equal(found["flips:0.4"]["tp"], (truth & predicted).sum(axis=(1, 2)))
    np.testing.assert_array_equal(found["flips:0.4"]["fp"], (~truth & predicted).sum(axis=(1, 2)))
    assert found["flips:0.4"]["block"] == seen.blocks.tolist()
