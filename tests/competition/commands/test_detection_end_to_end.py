"""Detection of tiles with landslide from training to evaluation, with the real commands."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from competition.cli import main
from marsls_keras.runs.run import Run

RECIPE = """\
model:
  name: rmau_net
  options:
    {filters: 2, poolings: 1, block: double_conv, attention: none, heads: [64, 128], tile_size: 32, detection: true}
data: {folds: 2}
loss: {focal: 0.5, iou: 0.5}
training: {epochs: 1, batch_size: 4, warmup_epochs: 0, ema_decay: null}
inference: {batch_size: 4, view_sets: [identity, flips]}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a folder with recipe, data with landslide in half of the tiles, and a run with its first fold trained."""
    root = tmp_path_factory.mktemp("detection")
    rng = np.random.default_rng(0)
    for split, rows in (("train", range(0, 8)), ("test", range(10, 13))):
        for row in rows:
            for col in (0, 1):
                image, mask = rng.uniform(0.2, 0.6, (32, 32, 7)).astype(np.float32), np.zeros((32, 32), np.uint8)
                if (row + col) % 2:
                    mask[8:20, 4:24] = 1
                    image[mask == 1, 4] += 0.4
                for kind, array in (("images", image), ("masks", mask)):
                    path = root / "data" / split / kind / f"col{col:05d}_row{row:05d}.tif"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    tifffile.imwrite(path, array, photometric="minisblack", metadata=None)
    (root / "d.yaml").write_text(RECIPE)
    assert main(train(root, "--fold", "0")) == 0
    return root


def train(root: Path, *options: str, data: str = "data", runs: str = "runs") -> list[str]:
    return ["train", "--config", str(root / "d.yaml"), "--data", str(root / data), "--runs", str(root / runs), *options]


def truth(root: Path, ids) -> np.ndarray:
    """Return which tiles have landslide, from their files."""
    places = [str(place).split("/") for place in ids]
    return np.array([tifffile.imread(root / "data" / split / "masks" / f"{name}.tif").any() for split, name in places])


def by_scikit_learn(true: np.ndarray, said: np.ndarray) -> dict[str, float]:
    return {
        "f1": f1_score(true, said, zero_division=0),
        "accuracy": accuracy_score(true, said),
        "precision": precision_score(true, said, zero_division=0),
        "recall": recall_score(true, said, zero_division=0),
    }


def test_a_fold_keeps_the_probabilities_and_their_scores(trained):
    folder = trained / "runs" / "d" / "fold_0"
    with np.load(folder / "oof.npz") as oof:
        ids, landslide, masks = oof["ids"], oof["landslide_identity"], oof["view_identity"]
    assert landslide.shape == (len(ids),) and masks.shape == (len(ids), 32, 32) and landslide.std() > 0
    found = json.loads((folder / "metrics.json").read_text())["detection"]
    true, said = truth(trained, ids), landslide >= 0.5
    assert 0 < true.sum() < len(true)
    assert found["scores"] == pytest.approx(by_scikit_learn(true, said)) and found["threshold"] == 0.5
    assert found["counts"] == {
        "tp": sum(true & said),
        "fp": sum(~true & said),
        "fn": sum(true & ~said),
        "tn": sum(~true & ~said),
    }


def test_evaluate_reports_it_with_the_views_of_the_decision(trained, capsys):
    runs = ["--runs", str(trained / "runs"), "--folds", "0"]
    members = {"d": Run.open(trained / "runs" / "d").digest([0])}
    decision = {"runs": ["d"], "folds": [0], "members": members, "views": "flips", "threshold": 0.4}
    (trained / "runs" / "d" / "decision.json").write_text(json.dumps(decision))
    try:
        assert main(["evaluate", "d", "--json", *runs]) == 0
        result = json.loads(capsys.readouterr().out)
        with np.load(trained / "runs" / "d" / "fold_0" / "oof.npz") as oof:
            each = [oof[f"landslide_{view}"] for view in ("identity", "horizontal_flip", "vertical_flip", "rot180")]
            ids = oof["ids"]
        mean = np.mean(each, axis=0)
        assert [tile["tile"] for tile in result["per_tile"]] == ids.tolist()
        assert [tile["landslide"] for tile in result["per_tile"]] == pytest.approx(mean.tolist(), abs=1e-6)
        assert result["detection"]["scores"] == pytest.approx(by_scikit_learn(truth(trained, ids), mean >= 0.5))
        assert main(["evaluate", "d", *runs]) == 0
        shown = capsys.readouterr().out
    finally:
        (trained / "runs" / "d" / "decision.json").unlink()
    counts = result["detection"]["counts"]
    table = shown[shown.index("Tiles with landslide, threshold 0.5") :].splitlines()
    assert table[2].split() == ["F1", "accuracy", "precision", "recall"]
    assert f"{counts['tp'] + counts['tn']} of {len(ids)} right" in table[4]
    assert [float(cell) for cell in table[4].split()[-4:]] == pytest.approx(
        list(result["detection"]["scores"].values()), abs=1e-4
    )


def test_other_splits_are_detected_by_the_ensemble_and_masks_are_predicted_as_ever(trained, capsys):
    runs = ["--runs", str(trained / "runs"), "--folds", "0"]
    assert main(["evaluate", "d", "--split", "test", "--json", *runs]) == 0
    result = json.loads(capsys.readouterr().out)
    said = np.array([tile["landslide"] >= 0.5 for tile in result["per_tile"]])
    assert result["tiles"] == 6
    assert result["detection"]["scores"] == pytest.approx(
        by_scikit_learn(truth(trained, [t["tile"] for t in result["per_tile"]]), said)
    )
    out = trained / "out"
    assert main(["predict", "d", "--images", str(trained / "data" / "test" / "images"), "--out", str(out), *runs]) == 0
    probability = tifffile.imread(sorted((out / "probability").glob("*.tif"))[0])
    assert probability.shape == (32, 32) and 0 <= probability.min() < probability.max() <= 1


def test_a_view_that_lost_its_detection_is_predicted_again(trained, capsys):
    path = trained / "runs" / "d" / "fold_0" / "oof.npz"
    with np.load(path) as oof:
        whole = {name: oof[name] for name in oof.files}
    np.savez(path, **{name: values for name, values in whole.items() if not name.startswith("landslide")})
    assert main(["evaluate", "d", "--json", "--runs", str(trained / "runs"), "--folds", "0"]) == 0
    assert [tile["landslide"] for tile in json.loads(capsys.readouterr().out)["per_tile"]] == pytest.approx(
        whole["landslide_identity"].tolist(), abs=1e-6
    )
    with np.load(path) as oof:
        assert oof["landslide_identity"] == pytest.approx(whole["landslide_identity"], abs=1e-6)


@pytest.mark.parametrize("value,word", [(1, "all"), (0, "none")])
def test_tiles_that_are_all_alike_are_refused_before_there_is_a_run(trained, capsys, value, word):
    data = trained / word
    for path in (trained / "data" / "train").rglob("*.tif"):
        array = tifffile.imread(path)
        if path.parent.name == "masks":
            array[:4] = value
            array[4:] *= value
        copy = data / path.relative_to(trained / "data")
        copy.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(copy, array, photometric="minisblack", metadata=None)
    assert main(train(trained, "--fold", "0", data=word, runs="refused")) == 2
    message = f"needs training tiles with and without landslide, but {word} of the 8 of fold 0 have some. "
    message += "Add tiles of the other kind"
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert not (trained / "refused").exists()


def test_detection_is_refused_where_there_is_no_mask_or_no_head(trained, capsys):
    assert main(train(trained, "--set", "data.pool=[val]", runs="other")) == 2
    assert "val" in capsys.readouterr().err
    (trained / "unet.yaml").write_text("model: {name: unet, options: {detection: true}}\n")
    assert (
        main(
            [
                "train",
                "--config",
                str(trained / "unet.yaml"),
                "--data",
                str(trained / "data"),
                "--runs",
                str(trained / "other"),
            ]
        )
        == 2
    )
    assert "unet has no option detection. It has: base_filters" in capsys.readouterr().err
    for path in list((trained / "data" / "train" / "masks").glob("*.tif"))[:1]:
        content = path.read_bytes()
        path.unlink()
        try:
            assert main(train(trained, runs="other")) == 2
        finally:
            path.write_bytes(content)
    assert not (trained / "other").exists()
