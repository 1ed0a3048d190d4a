"""Selection of the best weight set, on networks with known scores; early stopping; saved states."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.pointwise import (
    ABOVE,
    BAD,
    BELOW,
    FAIR,
    GOOD,
    IMAGES,
    MASKS,
    PERFECT,
    averages,
    epoch,
    files,
    keeper,
    miou,
    own,
    pointwise,
    saved,
    tiny_fit,
    training,
    training_batches,
)
from keras import layers

from marsls_keras.counts import confusion
from marsls_keras.data.pipeline.batches import evaluation_batches
from marsls_keras.metrics import SegmentationCounts
from marsls_keras.training.callbacks.best_checkpoint import BestCheckpoint


def test_the_scores_that_the_tests_rely_on():
    assert miou(PERFECT) == 1 > miou(GOOD) > miou(ABOVE) > miou(FAIR) > 0.5 > miou(BAD) == 0 and 0.5 < miou(BELOW) < 1


@pytest.mark.parametrize(
    "last,average,kept,winner",
    [
        (FAIR, GOOD, GOOD, "ema"),
        (GOOD, FAIR, GOOD, "last"),
        (PERFECT, BAD, PERFECT, "last"),
        (PERFECT, (1.0, 0.0), PERFECT, "last"),  # equal scores: the last weights
    ],
)
def test_the_better_of_weights_and_average_is_kept(tmp_path, last, average, kept, winner):
    keep = keeper(tmp_path, training(ema_decay=0.9))
    logs = epoch(keep, 4, last, average)
    assert [v.numpy().ravel()[0] for v in averages(keep.model)] == pytest.approx(average)
    (file,) = files(tmp_path)
    assert keep.best == {"epoch": 4, "miou": pytest.approx(miou(kept)), "weights": winner, "file": file}
    assert file.startswith("best-00004-") and file.endswith(".weights.h5") and saved(keep) == pytest.approx(kept)

    scores = confusion(MASKS, np.float32(kept[0]) * IMAGES[..., 0] + np.float32(kept[1]) >= 0).scores()
    assert {name: logs[f"val_{name}"] for name in scores} == pytest.approx(scores)
    assert (logs["miou_last"], logs["miou_ema"], logs["ema"]) == pytest.approx(
        (miou(last), miou(average), float(winner == "ema"))
    )
    assert logs["loss"] == 0.3 and set(logs) == {
        "loss",
        "val_loss",
        "miou_last",
        "miou_ema",
        "ema",
        *(f"val_{name}" for name in scores),
    }


def test_the_loss_is_that_of_the_weights_that_were_chosen(tmp_path):
    keep = keeper(tmp_path, training(ema_decay=0.9))
    keep.batches = evaluation_batches(IMAGES, MASKS, batch_size=3)
    logs = epoch(keep, 0, FAIR, GOOD)
    logits = GOOD[0] * IMAGES[..., 0].astype(np.float64) + GOOD[1]
    assert logs["val_loss"] == pytest.approx(np.mean(np.log1p(np.exp(-np.where(MASKS, 1, -1) * logits))), rel=1e-5)


def test_only_a_better_epoch_replaces_the_best(tmp_path):
    keep = keeper(tmp_path, training(ema_decay=0.9))
    history = []
    for number, (last, average) in enumerate(
        [(BAD, FAIR), (FAIR, BAD), (GOOD, FAIR), (BAD, FAIR), ((3.0, 0.6), GOOD), (PERFECT, GOOD)]
    ):
        epoch(keep, number, last, average)
        history.append((keep.best["epoch"], keep.best["weights"], saved(keep)))
    assert miou((3.0, 0.6)) == miou(GOOD)  # equal to the best so far, by last and by average: the earlier one stays
    assert history == [
        (0, "ema", pytest.approx(FAIR)),
        (0, "ema", pytest.approx(FAIR)),
        (2, "last", pytest.approx(GOOD)),
        (2, "last", pytest.approx(GOOD)),
        (2, "last", pytest.approx(GOOD)),
        (5, "last", pytest.approx(PERFECT)),
    ]


def test_without_averages_the_last_weights_are_kept(tmp_path):
    keep = keeper(tmp_path, training())
    logs = epoch(keep, 0, GOOD)
    assert (keep.best["weights"], saved(keep)) == ("last", pytest.approx(GOOD))
    assert logs["miou_last"] == logs["val_miou"] == pytest.approx(miou(GOOD))
    assert not {"miou_ema", "ema", "miou_swa", "swa"} & set(logs)


NAN = (math.nan, math.nan)


def test_weights_that_are_no_numbers_are_not_kept_though_they_have_a_score(tmp_path):
    keep = keeper(tmp_path, training(ema_decay=0.9))
    epoch(keep, 0, BAD, BAD)
    logs = epoch(keep, 1, NAN, NAN)
    assert logs["val_miou"] > miou(BAD)  # all background, which would win
    assert keep.best["epoch"] == 0 and saved(keep) == pytest.approx(BAD) and keep.waited == 1


def test_an_average_that_is_no_number_does_not_win_over_bad_weights(tmp_path):
    keep = keeper(tmp_path, training(ema_decay=0.9))
    logs = epoch(keep, 0, BAD, NAN)
    assert logs["miou_ema"] > logs["miou_last"] == logs["val_miou"] == 0 and logs["ema"] == 0
    assert keep.best["weights"] == "last" and saved(keep) == pytest.approx(BAD)


def content(folder: Path, kept: dict) -> tuple[float, float]:
    model = pointwise()
    model.load_weights(folder / kept["file"])
    return own(model)


def test_nothing_but_the_best_is_kept(tmp_path):
    keep = keeper(tmp_path, training(epochs=6, ema_decay=0.9, swa_epochs=2))
    path = [(BAD, FAIR), (GOOD, NAN), (FAIR, ABOVE), (PERFECT, BAD), (ABOVE, GOOD), (BELOW, (3.0, 0.6))]
    means = {4: ABOVE, 5: (1.0, 0.0)}
    best = 0, -1.0, "", (0.0, 0.0)
    for number, (last, average) in enumerate(path):
        epoch(keep, number, last, average)
        for name, weights in {
            "last": last,
            "ema": average,
            **({"swa": means[number]} if number in means else {}),
        }.items():
            if not math.isnan(weights[0]) and miou(weights) > best[1]:
                best = number, miou(weights), name, weights
        assert (keep.best["epoch"], keep.best["miou"], keep.best["weights"]) == (
            best[0],
            pytest.approx(best[1]),
            best[2],
        )
        assert content(tmp_path, keep.best) == pytest.approx(best[3], abs=1e-6)
        keep.tidy()
    keep.tidy()
    assert files(tmp_path) == [keep.best["file"]]


def test_the_mean_of_the_last_epochs_competes(tmp_path):
    keep = keeper(tmp_path, training(epochs=5, swa_epochs=3))
    first = epoch(keep, 1, FAIR)
    assert math.isnan(first["miou_swa"]) and first["swa"] == 0
    rows = [epoch(keep, number, last) for number, last in ((2, ABOVE), (3, BELOW), (4, GOOD))]
    means = [ABOVE, (1.0, 0.0), (1.0, 0.2 / 3)]
    assert [row["miou_swa"] for row in rows] == pytest.approx([miou(mean) for mean in means])
    assert [row["swa"] for row in rows] == [0, 1, 1] and [row["val_miou"] for row in rows[1:]] == [
        row["miou_swa"] for row in rows[1:]
    ]
    assert (keep.best["epoch"], keep.best["weights"], saved(keep)) == (3, "swa", pytest.approx((1, 0), abs=1e-6))
    assert [list(row) for row in rows] == [
        list(first)
    ] * 3  # history.csv has the columns of the first epoch, in that order


def test_the_mean_is_evaluated_with_statistics_of_its_own(tmp_path):
    inputs = keras.Input((None, None, 1))
    normalise, point = layers.BatchNormalization(name="normalise"), layers.Conv2D(1, 1, name="point")
    model = keras.Model(inputs, point(normalise(inputs)))
    keep = keeper(tmp_path, training(epochs=2, swa_epochs=1), model)
    normalise.moving_mean.assign([0.9])  # most pixels would be predicted as background
    point.kernel.assign(np.ones((1, 1, 1, 1)))
    logs = {}
    keep.on_epoch_end(1, logs)
    assert logs["miou_last"] < 0.6 < 0.9 < logs["miou_swa"] and logs["swa"] == 1
    assert normalise.moving_mean.numpy() == pytest.approx([0.9])
    keras.saving.load_weights(model, tmp_path / keep.best["file"], objects_to_skip=[model.optimizer])
    expected = [batch[0].numpy().mean() for batch in training_batches(2).dataset(2).take(2)]
    assert normalise.moving_mean.numpy() == pytest.approx([np.mean(expected)], rel=1e-5, abs=1e-6)


def test_a_mean_needs_training_batches(tmp_path):
    with pytest.raises(ValueError, match="swa_epochs needs training batches"):
        BestCheckpoint(None, SegmentationCounts(), tmp_path, training(swa_epochs=1))


def test_a_file_stays_until_two_states_do_without_it(tmp_path):
    keep = keeper(tmp_path, training())
    names = []
    for number, last in enumerate((BAD, FAIR, GOOD, FAIR, BAD)):
        epoch(keep, number, last)
        assert {*names[-2:], keep.best["file"]} <= set(
            files(tmp_path)
        )  # until the state is saved, that before refers to its own
        names.append(keep.best["file"])
        keep.tidy()
        assert set(files(tmp_path)) == {*names[-2:]}
    assert len(set(names)) == 3 and files(tmp_path) == [names[2]]


def test_equal_weights_have_equal_files_and_others_never_replace_them(tmp_path):
    keep = keeper(tmp_path, training())
    epoch(keep, 3, GOOD)
    first = keep.best["file"]
    keep.best = {"epoch": -1, "miou": -1.0, "weights": None, "file": None}  # rolled back, epoch is repeated
    epoch(keep, 3, GOOD)
    assert keep.best["file"] == first
    epoch(keep, 3, PERFECT)
    assert files(tmp_path) == sorted([first, keep.best["file"]])


def test_training_stops_after_so_many_epochs_without_a_better_one(tmp_path):
    keep = keeper(tmp_path, training(patience=2))
    waited = []
    for number, last in enumerate((FAIR, BAD, GOOD, FAIR, GOOD)):
        assert not keep.stopped and not keep.model.stop_training
        epoch(keep, number, last)
        waited.append(keep.waited)
    assert waited == [0, 1, 0, 1, 2] and keep.stopped and keep.model.stop_training


def test_without_patience_training_goes_on(tmp_path):
    keep = keeper(tmp_path, training())
    for number in range(6):
        epoch(keep, number, BAD)
    assert keep.waited == 5 and not keep.stopped and not keep.model.stop_training


def test_a_restored_callback_goes_on_as_if_nothing_had_been(tmp_path):
    config = training(epochs=6, swa_epochs=4, patience=2)
    path = [GOOD, BAD, ABOVE, BELOW, BAD, BAD]
    whole = keeper(tmp_path / "whole", config)
    rows = [epoch(whole, number, last) for number, last in enumerate(path)]
    for stop in (1, 4):
        folder = tmp_path / str(stop)
        before, after = keeper(folder, config), keeper(folder, config)
        for number in range(stop):
            epoch(before, number, path[number])
            before.tidy()
        arrays = before.arrays()
        after.restore(json.loads(json.dumps(before.state())), {name: arrays[name] for name in reversed(arrays)})
        assert after.best == before.best and after.stopped == before.stopped
        for number in range(stop, 6):
            assert epoch(after, number, path[number]) == pytest.approx(rows[number], nan_ok=True)
            after.tidy()
        assert after.best == whole.best and after.waited == whole.waited and after.stopped == whole.stopped
        assert files(folder) == [whole.best["file"]]


def test_with_more_epochs_the_mean_begins_anew(tmp_path):
    before = keeper(tmp_path, training(epochs=3, swa_epochs=2))
    for number in range(3):
        epoch(before, number, BAD)
    after = keeper(tmp_path, training(epochs=5, swa_epochs=2))
    after.restore(before.state(), before.arrays())
    assert epoch(after, 3, ABOVE)["miou_swa"] == pytest.approx(miou(ABOVE))
    assert epoch(after, 4, BELOW)["miou_swa"] == 1


def test_fit_ends_where_patience_does(tmp_path):
    config = training(epochs=9, patience=3, learning_rate=1e-9, weight_decay=0)
    keep = keeper(tmp_path, config)
    history = keep.model.fit(
        evaluation_batches(IMAGES, MASKS, batch_size=2), epochs=9, verbose=0, shuffle=False, callbacks=[keep]
    )
    assert len(history.history["loss"]) == 4 and keep.best["epoch"] == 0 and keep.waited == 3


def close(found, expected) -> bool:
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(close(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(close, found, expected))
    return found == (
        pytest.approx(expected, rel=1e-4, abs=1e-4, nan_ok=True) if isinstance(expected, float) else expected
    )


def test_training_goes_on_undisturbed(tmp_path):
    keras.backend.clear_session()
    alone = tiny_fit(tmp_path / "a", dropout=0.5, watched=False)
    keras.backend.clear_session()
    watched = tiny_fit(tmp_path / "b", dropout=0.5)
    assert watched["ends"] == alone["ends"] and watched["history"]["loss"] == alone["history"]["loss"]
    history = watched["history"]
    assert [math.isnan(value) for value in history["miou_swa"]] == [True, True, False, False]
    sets = (
        history["miou_last"],
        history["miou_ema"],
        [0 if math.isnan(value) else value for value in history["miou_swa"]],
    )
    assert history["val_miou"] == [max(values) for values in zip(*sets, strict=True)]
    assert np.array(watched["arrays"][0]) == pytest.approx(np.sum([end[0] for end in watched["ends"][2:]], 0), rel=1e-6)


CODE = """
import json, sys
from pathlib import Path
from helpers.pointwise import failing_fit, tiny_fit
print(json.dumps({**tiny_fit(Path(sys.argv[1])), "error": failing_fit()}))
"""


@pytest.mark.slow
def test_jax_gives_the_same(tmp_path):
    options = {
        "env": {**os.environ, "KERAS_BACKEND": "jax"},
        "cwd": Path(__file__).parents[2],
        "capture_output": True,
        "text": True,
    }
    result = subprocess.run([sys.executable, "-c", CODE, tmp_path / "jax"], **options)
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads(result.stdout.splitlines()[-1])
    assert found.pop("error") == "RuntimeError: out of memory"  # and not one about what fit does after it
    keras.backend.clear_session()
    expected = tiny_fit(tmp_path / "tensorflow")
    for side in (found, expected):
        side["state"]["best"].pop("file")  # its name has a hash of all digits
    assert close(found, expected)
