import csv
import dataclasses
import zipfile

import numpy as np
import pytest
import tifffile
from helpers.cli import marsls, succeed
from helpers.truth import truth
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score, precision_score, recall_score

from competition.scoring import match_names, score
from competition.submission.write import write_submission
from marsls_keras.counts import SCORES
from marsls_keras.errors import InputError

A, B, C = "col00051_row00028.tif", "col00052_row00028.tif", "col00053_row00028.tif"


def submission(path, masks):
    return write_submission(masks.items(), path, {name: mask.shape for name, mask in masks.items()}, {})


def random_masks(seed, ratio, names=(A, B, C)):
    rng = np.random.default_rng(seed)
    return {name: (rng.random((32, 24)) < ratio).astype(np.uint8) for name in names}


@pytest.mark.parametrize(("true_ratio", "ratio"), [(0.3, 0.4), (0.01, 0.5), (0.9, 0.05)])
def test_score_against_scikit_learn(tmp_path, true_ratio, ratio):
    true, predicted = random_masks(0, true_ratio), random_masks(1, ratio)
    result = score(submission(tmp_path / "a.zip", predicted), truth(tmp_path / "masks", true))

    def expected(names):
        y, p = (np.concatenate([masks[name].ravel() for name in names]) for masks in (true, predicted))
        fg, bg = jaccard_score(y, p), jaccard_score(y, p, pos_label=0)
        values = ((fg + bg) / 2, fg, bg, f1_score(y, p), precision_score(y, p), recall_score(y, p))
        return dict(zip(SCORES, values, strict=True))

    assert result.scores == pytest.approx(expected((A, B, C)))
    assert sorted(tile["name"] for tile in result.tiles) == [A, B, C]
    for tile in result.tiles:
        assert {key: tile[key] for key in SCORES} == pytest.approx(expected([tile["name"]]))
    assert [tile["miou"] for tile in result.tiles] == sorted(tile["miou"] for tile in result.tiles)
    for key in ("tp", "fp", "fn", "tn"):
        assert getattr(result.counts, key) == sum(tile[key] for tile in result.tiles)


def test_score_by_hand(tmp_path):
    true = {A: np.array([[1, 1, 0, 0]], np.uint8), B: np.array([[0, 0, 0, 0]], np.uint8)}
    predicted = {A: np.array([[1, 0, 1, 0]], np.uint8), B: np.array([[0, 0, 0, 1]], np.uint8)}
    result = score(submission(tmp_path / "a.zip", predicted), truth(tmp_path / "masks", true))
    assert dataclasses.astuple(result.counts) == (1, 2, 1, 4)
    assert result.scores == pytest.approx(
        {
            "miou": (1 / 4 + 4 / 7) / 2,
            "iou_fg": 1 / 4,
            "iou_bg": 4 / 7,
            "f1": 2 / 5,
            "precision": 1 / 3,
            "recall": 1 / 2,
        }
    )
    assert [tile["name"] for tile in result.tiles] == [A, B]  # 1/3 before (0 + 3/4) / 2
    assert (result.tiles[1]["iou_fg"], result.tiles[1]["iou_bg"], result.tiles[1]["fp"]) == (0, 0.75, 1)


@pytest.mark.parametrize("value", [0, 1])
def test_empty_and_full_masks(tmp_path, value):
    masks = {A: np.full((4, 4), value, np.uint8)}
    result = score(submission(tmp_path / "a.zip", masks), truth(tmp_path / "masks", masks))
    assert result.scores == dict.fromkeys(SCORES, 1.0)
    result = score(submission(tmp_path / "b.zip", {A: 1 - masks[A]}), tmp_path / "masks")
    assert result.scores == dict.fromkeys(SCORES, 0.0)


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 1), (np.uint8, 255), (np.float32, 1), (np.float32, 255)])
def test_forms_of_the_true_masks(tmp_path, dtype, top):
    true, predicted = random_masks(0, 0.3), random_masks(1, 0.3)
    folder = truth(tmp_path / "plain" / "masks", true)
    other = truth(tmp_path / "other" / "masks", {name: mask.astype(dtype) * dtype(top) for name, mask in true.items()})
    zip_path = submission(tmp_path / "a.zip", predicted)
    assert score(zip_path, other.parent) == score(zip_path, folder)  # the sub-folder masks, or the folder itself


def test_names_of_mmls_v1(tmp_path):
    true, predicted = random_masks(0, 0.3), random_masks(1, 0.3)
    plain = score(submission(tmp_path / "a.zip", predicted), truth(tmp_path / "a", true))
    cells = {A: "7_3", B: "7_13", C: "70_3"}
    for image, mask in (("Image_patch", "Mask_patch"), ("ImageT_patch", "MaskT_patch")):
        zip_path = submission(
            tmp_path / f"{image}.zip", {f"{image}_{cells[name]}.tif": m for name, m in predicted.items()}
        )
        result = score(zip_path, truth(tmp_path / mask, {f"{mask}_{cells[name]}.tif": m for name, m in true.items()}))
        assert result.counts == plain.counts
        assert {tile["name"] for tile in result.tiles} == {f"{image}_{cell}.tif" for cell in cells.values()}


@pytest.mark.parametrize(
    ("entries", "masks", "pairs"),
    [
        (["a.tif"], ["a.tif"], {"a.tif": "a.tif"}),
        (["a.tif"], ["b.tif"], {}),
        (["a.tif"], ["a.tiff"], {"a.tif": "a.tiff"}),
        (["a.tif"], ["a.tif", "a.tiff"], {"a.tif": "a.tif"}),
        ([A], ["Mask_patch_28_51.tif"], {A: "Mask_patch_28_51.tif"}),
        (["Image_patch_1_2.tif"], ["Mask_patch_2_1.tif"], {}),
        (["ImageT_patch_1_2.tif"], ["Mask_patch_1_2.tif"], {}),
        (
            ["ImageT_patch_1_2.tif", "Image_patch_1_2.tif"],
            ["Mask_patch_1_2.tif", "MaskT_patch_1_2.tif"],
            {"ImageT_patch_1_2.tif": "MaskT_patch_1_2.tif", "Image_patch_1_2.tif": "Mask_patch_1_2.tif"},
        ),
        ([A], ["Mask_patch_28_51.tif", "MaskT_patch_28_51.tif"], {}),  # either may be meant
        ([A, "Image_patch_28_51.tif"], ["Mask_patch_28_51.tif"], {}),
    ],
)
def test_matching(entries, masks, pairs):
    assert match_names(entries, masks) == pairs


def test_missing_and_extra_are_all_listed(tmp_path):
    true = random_masks(0, 0.3, (A, B, "col00001_row00001.tif"))
    zip_path = submission(tmp_path / "a.zip", random_masks(1, 0.3, (A, C, "extra.tif")))
    with pytest.raises(InputError) as caught:
        score(zip_path, truth(tmp_path / "masks", true))
    assert f"\n  - {C}, extra.tif: not expected" in str(caught.value)
    assert f"\n  - col00001_row00001.tif, {B}: missing (2 of 3 masks)" in str(caught.value)
    assert str(zip_path) in str(caught.value)


def test_a_nested_zip_is_not_reported_as_missing(tmp_path):
    good = submission(tmp_path / "a.zip", random_masks(0, 0.3, ("Image_patch_7_3.tif", "Image_patch_7_4.tif")))
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(tmp_path / "b.zip", "w") as target:
        for name in source.namelist():
            target.writestr(f"run/{name}", source.read(name))
            target.writestr(f"__MACOSX/._{name}", b"")
    folder = truth(tmp_path / "masks", random_masks(0, 0.3, ("Mask_patch_7_3.tif", "Mask_patch_7_4.tif")))
    with pytest.raises(InputError, match="run/Image_patch_7_3.tif, run/Image_patch_7_4.tif: in a folder") as caught:
        score(tmp_path / "b.zip", folder)
    assert (
        "missing" not in str(caught.value)
        and "not expected" not in str(caught.value)
        and "file manager" in str(caught.value)
    )


def test_problems_of_the_zip(tmp_path):
    folder = truth(tmp_path / "masks", random_masks(0, 0.3))
    with pytest.raises(InputError, match="size 4 x 4, expected 32 x 24"):
        score(submission(tmp_path / "a.zip", {name: np.zeros((4, 4), np.uint8) for name in (A, B, C)}), folder)
    (tmp_path / "b.zip").write_bytes(b"text")
    with pytest.raises(InputError, match="not a zip file"):
        score(tmp_path / "b.zip", folder)
    with pytest.raises(InputError, match="there is no such file"):
        score(tmp_path / "c.zip", folder)


def test_problems_of_the_masks(tmp_path):
    zip_path = submission(tmp_path / "a.zip", random_masks(1, 0.3))
    with pytest.raises(InputError, match="There is no folder"):
        score(zip_path, tmp_path / "none")
    with pytest.raises(InputError, match=r"holds no \.tif file"):
        score(zip_path, truth(tmp_path / "empty", {}))
    folder = truth(tmp_path / "masks", random_masks(0, 0.3))
    tifffile.imwrite(folder / A, np.full((32, 24), 7, np.uint8))
    (folder / B).write_bytes(b"no TIFF")
    with pytest.raises(InputError) as caught:
        score(zip_path, folder)
    assert A in str(caught.value) and B in str(caught.value) and C not in str(caught.value)


def test_the_table_of_all_tiles(tmp_path):
    true, predicted = random_masks(0, 0.3), random_masks(1, 0.3)
    zip_path, folder = submission(tmp_path / "a.zip", predicted), truth(tmp_path / "masks", true)
    result = succeed("score", zip_path, "--masks", folder, "--csv", tmp_path / "new" / "tiles.csv")
    with open(tmp_path / "new" / "tiles.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == sorted((A, B, C), key=lambda name: miou(true[name], predicted[name]))
    for row in rows:
        y, p = true[row["name"]].ravel(), predicted[row["name"]].ravel()
        ((tn, fp), (fn, tp)) = confusion_matrix(y, p)
        assert [int(row[key]) for key in ("tp", "fp", "fn", "tn")] == [tp, fp, fn, tn]
        found = {key: float(row[key]) for key in SCORES}
        expected = (
            miou(y, p),
            jaccard_score(y, p),
            jaccard_score(y, p, pos_label=0),
            f1_score(y, p),
            precision_score(y, p),
        )
        assert found == pytest.approx(dict(zip(SCORES, (*expected, recall_score(y, p)), strict=True)))
    assert result.out == succeed("score", zip_path, "--masks", folder).out  # the rest stays as it is


def miou(y, p):
    return (jaccard_score(y.ravel(), p.ravel()) + jaccard_score(y.ravel(), p.ravel(), pos_label=0)) / 2


def test_a_table_that_cannot_be_written(tmp_path):
    masks = random_masks(0, 0.3)
    (tmp_path / "folder").mkdir()
    arguments = [
        "score",
        submission(tmp_path / "a.zip", masks),
        "--masks",
        truth(tmp_path / "masks", masks),
        "--csv",
        tmp_path / "folder",
    ]
    result = marsls(*arguments)
    assert (result.code, result.out) == (1, "") and f"Could not write {tmp_path / 'folder'}" in result.err
