"""Out-of-fold predictions of a trained run: each tile is predicted once, by the fold that held it out, and cached."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from scipy.special import expit, logit

from marsls_keras.errors import InputError
from marsls_keras.files import sha256
from marsls_keras.inference.member import load_member, predict_views
from marsls_keras.runs.run import Run
from marsls_keras.tuning.out_of_fold import OutOfFold, collect, pool_tiles
from marsls_keras.view_sets import VIEW_SETS

HALF = 0.0005  # what float16 may lose


@pytest.fixture(scope="module")
def runs(tiny_run, tmp_path_factory):
    """Return a folder with a copy of the run, so that its cache may fill."""
    return tiny_run.copy(tmp_path_factory.mktemp("oof"))


@pytest.fixture(scope="module")
def run(tiny_run, runs) -> Run:
    return Run.open(runs / tiny_run.name)


@pytest.fixture(scope="module")
def tiles(run):
    return pool_tiles(run)


@pytest.fixture(scope="module")
def members(run) -> list:
    return [load_member(run, fold) for fold in (0, 1)]


@pytest.fixture
def fresh(tiny_run, tmp_path) -> Run:
    return Run.open(tiny_run.copy(tmp_path) / tiny_run.name)


def edit(path, change) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def exchange_weights(run: Run) -> None:
    """Exchange the weights of both folds, with valid records, so that their predictions change."""
    folders = [run.fold_path(fold) for fold in (0, 1)]
    weights = [(folder / "best.weights.h5").read_bytes() for folder in folders]
    for folder, other in zip(folders, weights[::-1], strict=True):
        (folder / "best.weights.h5").write_bytes(other)
        edit(
            folder / "metrics.json",
            lambda metrics, folder=folder: metrics.update(weights_sha256=sha256(folder / "best.weights.h5")),
        )


def test_the_pool_is_read_in_the_order_of_the_splits(tiny_run, run, tiles):
    assert [ref.id for ref in tiles.refs] == [tile["id"] for tile in run.splits.tiles]
    assert sorted({ref.split for ref in tiles.refs}) == ["train", "val"] and len(tiles) == 20
    for i, ref in enumerate(tiles.refs):
        split, stem = ref.id.split("/")
        assert np.array_equal(tiles.images[i], tifffile.imread(tiny_run.data / split / "images" / f"{stem}.tif"))
        assert np.array_equal(tiles.masks[i], tifffile.imread(tiny_run.data / split / "masks" / f"{stem}.tif"))


def test_every_tile_is_predicted_once_by_the_fold_that_held_it_out(run, tiles, members):
    oof = collect([run], tiles, ["identity", "rot90", "transpose"])
    assert [ref.id for ref in oof.tiles.refs] == [tile["id"] for tile in run.splits.tiles]
    assert oof.folds.tolist() == [tile["fold"] for tile in run.splits.tiles] and set(oof.folds.tolist()) == {0, 1}
    assert oof.blocks.tolist() == [tile["block"] for tile in run.splits.tiles]
    assert list(oof.probabilities) == ["tiny"] and list(oof.probabilities["tiny"]) == ["identity", "rot90", "transpose"]
    assert oof.members == {"tiny": {str(fold): sha256(run.fold_path(fold) / "best.weights.h5") for fold in (0, 1)}}
    for fold in (0, 1):
        held_out = np.flatnonzero(oof.folds == fold)
        own, other = (
            list(predict_views(members[k], tiles.images[held_out], list(oof.probabilities["tiny"])))
            for k in (fold, 1 - fold)
        )
        for found, expected, wrong in zip(oof.probabilities["tiny"].values(), own, other, strict=True):
            assert found.dtype == np.float16
            assert np.abs(found[held_out] - expected.probability).max() < HALF
            assert np.abs(found[held_out] - wrong.probability).max() > 0.01


def test_views_are_computed_once(fresh, tiles, caplog):
    first = collect([fresh], tiles, ["identity"])
    assert caplog.messages == []  # training has left these
    views = ["identity", "horizontal_flip", "rot270"]
    second = collect([fresh], tiles, views)
    assert caplog.messages == [
        f"Predicting {n} tiles of fold {fold} of run tiny in 2 view(s) …"
        for fold, n in enumerate(np.bincount(first.folds))
    ]
    kept = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in fresh.path.rglob("*") if path.is_file()}
    caplog.clear()
    third = collect([fresh], tiles, views)
    assert (
        caplog.messages == []
        and {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in fresh.path.rglob("*") if path.is_file()}
        == kept
    )
    for view in views:
        assert np.array_equal(second.probabilities["tiny"][view], third.probabilities["tiny"][view])
    assert np.array_equal(first.probabilities["tiny"]["identity"], third.probabilities["tiny"]["identity"])
    assert np.abs(third.probabilities["tiny"]["identity"] - third.probabilities["tiny"]["rot270"]).max() > 0.01


@pytest.mark.parametrize("damage", ["cut", "missing", "other tiles"])
def test_what_cannot_be_used_is_predicted_again(fresh, tiles, damage, caplog):
    path = fresh.fold_path(1) / "oof.npz"
    before = collect([fresh], tiles, ["identity"]).probabilities["tiny"]["identity"]
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "missing":
        path.unlink()
    else:
        shutil.copy(fresh.fold_path(0) / "oof.npz", path)
    caplog.clear()
    assert np.array_equal(collect([fresh], tiles, ["identity"]).probabilities["tiny"]["identity"], before)
    assert len(caplog.messages) == 1 and "of fold 1 of run tiny in 1 view(s)" in caplog.messages[0]


def test_predictions_of_earlier_weights_are_not_taken_for_those_of_new_ones(fresh, tiles, members, caplog):
    before = collect([fresh], tiles, ["identity"])
    exchange_weights(fresh)
    caplog.clear()
    after = collect([fresh], tiles, ["identity"])
    assert len(caplog.messages) == 2 and after.members != before.members
    for fold in (0, 1):
        index = np.flatnonzero(after.folds == fold)
        exchanged = replace(members[1 - fold], normalizer=members[fold].normalizer)
        (expected,) = predict_views(exchanged, tiles.images[index], ["identity"])
        assert np.abs(after.probabilities["tiny"]["identity"][index] - expected.probability).max() < HALF
        assert (
            np.abs(
                after.probabilities["tiny"]["identity"][index] - before.probabilities["tiny"]["identity"][index]
            ).max()
            > 0.01
        )


def test_some_folds_only(fresh, tiles):
    everything = collect([fresh], tiles, ["identity"])
    shutil.rmtree(fresh.fold_path(1))
    with pytest.raises(
        InputError,
        match="Run tiny is not complete:\n  - fold 1 is missing: .*\nTo use only what is there, say so: --folds 0",
    ):
        collect([fresh], tiles, ["identity"])
    part, index = collect([fresh], tiles, ["identity"], [0]), np.flatnonzero(everything.folds == 0)
    assert 0 < len(index) < 20 and part.folds.tolist() == [0] * len(index)
    assert [ref.id for ref in part.tiles.refs] == [everything.tiles.refs[i].id for i in index]
    assert (
        np.array_equal(part.tiles.masks, everything.tiles.masks[index])
        and part.blocks.tolist() == everything.blocks[index].tolist()
    )
    assert np.array_equal(part.probabilities["tiny"]["identity"], everything.probabilities["tiny"]["identity"][index])
    assert list(part.members["tiny"]) == ["0"]


def test_several_runs_are_kept_apart_and_averaged_on_demand(fresh, tiles):
    shutil.copytree(fresh.path, fresh.path.with_name("other"))
    other = Run.open(fresh.path.with_name("other"))
    exchange_weights(other)
    one, two, both = (collect(runs, tiles, ["identity", "rot180"]) for runs in ([fresh], [other], [fresh, other]))
    assert (
        list(both.members) == ["tiny", "other"]
        and both.members["other"] == two.members["other"] != both.members["tiny"]
    )
    for view in ("identity", "rot180"):
        assert np.array_equal(both.probabilities["tiny"][view], one.probabilities["tiny"][view])
        assert np.array_equal(both.probabilities["other"][view], two.probabilities["other"][view])
    first, second = (
        one.probabilities["tiny"]["identity"].astype(np.float64),
        two.probabilities["other"]["identity"].astype(np.float64),
    )
    assert np.abs(first - second).max() > 0.01
    assert np.abs(both.probability("identity") - (first + second) / 2).max() < 1e-6
    assert np.abs(both.probability("identity", {"tiny": 0.3, "other": 0.7}) - (0.3 * first + 0.7 * second)).max() < 1e-6
    assert np.array_equal(both.probability("identity", {"tiny": 0, "other": 1}), second.astype(np.float32))
    logits = [logit(np.clip(each, 2**-11, 1 - 2**-11)) for each in (first, second)]  # half precision has no more
    assert np.abs(both.probability("identity", averaging="logit") - expit(sum(logits) / 2)).max() < 1e-5


def test_runs_with_other_folds_are_refused(fresh, tiles):
    shutil.copytree(fresh.path, fresh.path.with_name("other"))

    def move(splits):
        splits["tiles"][3]["fold"] = 1 - splits["tiles"][3]["fold"]

    edit(fresh.path.with_name("other") / "splits.json", move)
    other = Run.open(fresh.path.with_name("other"))
    with pytest.raises(
        InputError, match="Runs tiny and other have different folds or tiles, so their predictions cannot be averaged"
    ):
        collect([fresh, other], tiles, ["identity"])


def test_the_mean_over_a_set_of_views(tiles):
    rng = np.random.default_rng(0)
    views = {name: rng.random((20, 32, 32), dtype=np.float32) for name in VIEW_SETS["d4"]}
    oof = OutOfFold(
        tiles, np.zeros(20, int), np.arange(20), {"one": {k: v.astype(np.float16) for k, v in views.items()}}, {}
    )
    for name, members in ((name, VIEW_SETS[name]) for name in ("identity", "flips", "paper", "rotations", "d4")):
        each = np.stack([oof.probabilities["one"][view].astype(np.float64) for view in members])
        assert oof.probability(name).dtype == np.float32 and np.abs(oof.probability(name) - each.mean(0)).max() < 1e-6
        # Half precision has no value closer to 1 than about 0.0005, so logits are bounded.
        expected = expit(logit(np.clip(each, 2**-11, 1 - 2**-11)).mean(0))
        assert np.abs(oof.probability(name, averaging="logit") - expected).max() < 1e-5
    assert np.array_equal(
        oof.probabilities["one"]["identity"], views["identity"].astype(np.float16)
    )  # not summed in place


def test_data_that_were_moved_are_asked_for(tiny_run, fresh, tiles, tmp_path):
    gone = tmp_path / "gone"
    edit(fresh.path / "fingerprint.json", lambda value: value.update(data_root=str(gone)))
    moved = Run.open(fresh.path)
    with pytest.raises(
        InputError, match=f"The data of run tiny are no longer in {gone}. Say where they are with --data"
    ):
        pool_tiles(moved)
    found = pool_tiles(moved, tiny_run.data)
    assert found.hashes == tiles.hashes and np.array_equal(found.images, tiles.images)


@pytest.fixture
def data(tiny_run, tmp_path):
    """Return a copy of the data folder."""
    shutil.copytree(tiny_run.data, tmp_path / "data")
    return tmp_path / "data"


def first(data, kind: str, split: str = "train"):
    return sorted((data / split / kind).iterdir())[0]


def test_a_changed_pixel_is_seen(run, data, write_image):
    path = first(data, "images")
    image = tifffile.imread(path)
    image[17, 3, 5] = np.nextafter(image[17, 3, 5], np.float32(1))
    write_image(path, image)
    with pytest.raises(
        InputError,
        match=f"The data in {data} are not those that run tiny was trained on: pixels or masks of some tiles",
    ):
        pool_tiles(run, data)


def test_a_changed_mask_is_seen(run, data, write_mask):
    path = first(data, "masks", "val")
    mask = tifffile.imread(path)
    mask[0, 0] ^= 1
    write_mask(path, mask)
    with pytest.raises(
        InputError, match="are not those that run tiny was trained on: pixels or masks of some tiles have changed"
    ):
        pool_tiles(run, data)


def test_a_missing_tile_is_named(run, data):
    stem = first(data, "images", "val").stem
    for kind in ("images", "masks"):
        first(data, kind, "val").unlink()
    with pytest.raises(InputError, match=f"run tiny was trained on: 1 tiles are missing, such as val/{stem}"):
        pool_tiles(run, data)


def test_other_files_of_the_same_pixels_and_further_tiles_are_no_change(run, tiles, data, write_image, write_mask):
    path = first(data, "images")
    before, image = path.read_bytes(), tifffile.imread(path)
    write_image(path, image)  # without the GeoTIFF tags
    assert path.read_bytes() != before
    write_image(data / "train" / "images" / "col00900_row00900.tif", image[::-1])
    write_mask(data / "train" / "masks" / "col00900_row00900.tif", np.zeros((32, 32)))
    found = pool_tiles(run, data)
    assert found.hashes == tiles.hashes and [ref.id for ref in found.refs] == [ref.id for ref in tiles.refs]
