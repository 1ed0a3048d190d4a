"""`evaluate --align` against members that are fitted, averaged and scored by hand."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from helpers.cli import marsls, scores, strict_json, succeed
from scipy.special import expit, logit

from marsls_keras.inference.align import align
from marsls_keras.inference.member import load_member, predict_views
from marsls_keras.runs.run import Run
from marsls_keras.tuning.out_of_fold import pool_tiles
from marsls_keras.view_sets import VIEW_SETS

DECISION = {"runs": ["tiny"], "folds": [0, 1], "views": "flips", "averaging": "logit", "threshold": 0.46}


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory) -> Run:
    """Return a run with a decision that nobody would take by default, so that it shows whether it is followed."""
    runs = tmp_path_factory.mktemp("aligned")
    shutil.copytree(tiny_run.path, runs / "tiny")
    (runs / "tiny" / "decision.json").write_text(json.dumps({**DECISION, "members": {"tiny": Run.open(runs / "tiny").digest([0, 1])}}))
    return Run.open(runs / "tiny")


def caches(run: Run) -> list[str]:
    return [hashlib.sha256((run.fold_path(fold) / "oof.npz").read_bytes()).hexdigest() for fold in (0, 1)]


@pytest.mark.parametrize(
    ("split", "how", "number"), [("oof", "batchnorm", 20), pytest.param("val", "statistics", 4, marks=pytest.mark.slow)]
)
def test_scores_are_those_of_the_fitted_members(run, split, how, number):
    before = caches(run)
    common = ["evaluate", "tiny", "--runs", run.path.parent, "--split", split]
    found = strict_json(succeed(*common, "--align", how, "--json").out)
    assert caches(run) == before

    pool = pool_tiles(run)
    held_by = np.array([tile["fold"] for tile in run.splits.tiles])
    chosen = [i for i, ref in enumerate(pool.refs) if split == "oof" or ref.split == split]
    masks = {how: np.zeros(pool.masks.shape, bool) for how in ("plain", how)}
    for fold in (0, 1):
        index = [i for i in chosen if held_by[i] == fold]
        member = load_member(run, fold)
        for fitted in masks:  # plain comes first, since a network that is fitted is changed
            if fitted != "plain":
                member = align(member, pool.subset(index if split == "oof" else chosen), how)
            each = [seen.probability.astype(np.float64) for seen in predict_views(member, pool.images[index], VIEW_SETS["flips"])]
            masks[fitted][index] = expit(logit(np.clip(each, 2**-11, 1 - 2**-11)).mean(0)) >= 0.46
    assert found["scores"] == pytest.approx(scores(pool.masks[chosen], masks[how][chosen]), abs=1e-3)
    per_tile = {tile["tile"]: tile["iou_bg"] for tile in found["per_tile"]}
    fitted, plain = ({pool.refs[i].id: scores([pool.masks[i]], [masks[kind][i]])["iou_bg"] for i in chosen} for kind in (how, "plain"))
    # Half precision moves a pixel over the threshold here and there, but the alignment many.
    assert per_tile == pytest.approx(fitted, abs=1e-2) and per_tile != pytest.approx(plain, abs=5e-2)
    alignment = found["alignment"]
    assert (alignment["method"], alignment["tiles"]) == (how, number) and found["tiles"] == number == len(chosen)
    assert ("that its fold held out" in alignment["note"]) == (split == "oof")


@pytest.mark.parametrize(
    ("options", "title"),
    [
        (["--folds", 0], "tiles of oof, views flips, threshold 0.46, aligned to what each fold held out (statistics, transductive)"),
        (["--split", "val"], "tiles of val, views flips, threshold 0.46, aligned to them (statistics, transductive)"),
    ],
)
def test_the_title_says_so(run, options, title):
    shown = succeed("evaluate", "tiny", "--runs", run.path.parent, "--align", "statistics", *options).out
    assert title in " ".join(shown.split())


def test_other_ways_are_refused(run):
    result = marsls("evaluate", "tiny", "--runs", run.path.parent, "--align", "mean")
    assert result.code == 2 and "mean" in result.err and "batchnorm" in result.err
