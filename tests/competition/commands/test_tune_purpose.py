"""Decisions for a new region and for tiles among labelled ones: candidates, scores, and where each is used."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.out_of_fold import made_up, out_of_fold

from competition.cli import main
from marsls_keras.config import parse_config
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.inference.decision import Decision
from marsls_keras.inference.decision_files import decision_of, decision_path, plain_decision, read_decision
from marsls_keras.inference.inputs import purpose_of
from marsls_keras.inference.purpose import Purpose
from marsls_keras.runs.run import Run
from marsls_keras.tuning import nested_search

REGION, PUBLISHED = Purpose.REGION, Purpose.PUBLISHED


def decide(*args, **kwargs) -> dict:
    return nested_search.decide(*args, **kwargs).to_json()


def regions(gains: list[float], tiles: int = 8, size: int = 16):
    """Return predictions with best threshold 0.4 instead of 0.5; the pixels gained by it are given for each region."""
    rng = np.random.default_rng(0)
    masks, values, folds = [], [], []
    for fold, share in enumerate(gains):
        for _ in range(tiles):
            mask = rng.random((size, size)) < 0.4
            probability = np.where(mask, 0.8, 0.2)
            lost = rng.random(mask.shape) < abs(share)
            probability[lost] = np.where(mask == (share > 0), 0.45, probability)[lost]
            masks.append(mask.astype(np.uint8))
            values.append(probability)
            folds.append(fold)
    return replace(out_of_fold(np.stack(masks), {"identity": np.stack(values)}, folds), geographic=True)


def test_a_threshold_for_a_region_needs_regions_that_agree():
    everywhere = decide(regions([0.20, 0.21, 0.19, 0.20, 0.22]), ["identity"], purpose=REGION)
    assert everywhere["for"] == REGION and everywhere["threshold"] <= 0.45
    # Over blocks the gain of one region is certain; from region to region it is not.
    one = regions([0.5, 0.0, 0.0, 0.0, 0.0])
    assert decide(one, ["identity"], purpose=PUBLISHED)["elements"][0]["alone"]["interval"][0] > 0
    chosen = decide(one, ["identity"], purpose=REGION)
    assert chosen["threshold"] == 0.5 and chosen["elements"][0]["alone"]["interval"][0] < 0


def test_folds_that_are_no_regions_leave_threshold_and_sizes_alone():
    oof = made_up(7)
    assert [row["element"] for row in decide(oof, ["flips"], purpose=REGION)["elements"]] == ["views", "averaging"]
    assert [row["element"] for row in decide(oof, ["flips"])["elements"]] == [
        "threshold",
        "views",
        "averaging",
        "min_area",
        "max_hole",
    ]


def test_the_plain_decision_has_the_views_of_the_recipe():
    oof = made_up(36, folds=2)
    decision = decide(oof, ["identity", "flips"], view_set="flips", purpose=REGION)
    assert decision["baseline"]["views"] == "flips" and list(decision["view_sets"]) == ["identity", "flips"]
    expected = decide(oof, ["flips"])["view_sets"]["flips"]
    assert decision["view_sets"]["flips"] == expected


def run_of(path: Path, **inference) -> Run:
    return Run(path, parse_config({"inference": inference}, "x"), None, {})  # type: ignore[arg-type]


def test_an_untuned_run_has_the_views_of_its_configuration(tmp_path):
    assert plain_decision([run_of(tmp_path / "a", views="flips@256")]).view_set == "flips@256"
    assert plain_decision([run_of(tmp_path / "a")]) == Decision()


def test_each_purpose_has_its_file_and_the_other_one_stands_in(tiny_run, tmp_path, capsys, caplog):
    runs = tiny_run.copy(tmp_path / "runs")
    run = Run.open(runs / tiny_run.name)
    assert main(["tune", "--run", run.name, "--runs", str(runs), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["for"] == REGION
    assert read_decision([run], [0, 1], PUBLISHED).purpose is REGION is read_decision([run], [0, 1]).purpose
    caplog.clear()
    assert decision_of([run], [0, 1], PUBLISHED).purpose is REGION and decision_of([run], [0, 1]).purpose is REGION
    assert caplog.messages == [
        f"The decision is one for a new region. marsls tune --run {run.name} --for published makes one for tiles among "
        "labelled neighbours."
    ]
    with pytest.raises(ValueError, match="'nowhere' is not a valid Purpose"):
        read_decision([run], [0, 1], "nowhere")
    assert main(["tune", "--run", run.name, "--runs", str(runs), "--for", "published"]) == 0
    assert (read_decision([run], [0, 1], PUBLISHED).purpose, read_decision([run], [0, 1]).purpose) == (
        PUBLISHED,
        REGION,
    )
    assert decision_path([run], REGION).name == "decision_region.json" and decision_path([run]).name == "decision.json"
    # Earlier versions wrote no "for".
    decision_path([run], REGION).unlink()
    written = json.loads(decision_path([run]).read_text())
    for isolated, purpose in ((False, PUBLISHED), (True, REGION)):
        old = {key: value for key, value in written.items() if key not in ("for", "sha256")} | {"isolated": isolated}
        decision_path([run]).write_text(json.dumps(old))
        decision = read_decision([run], [0, 1])
        assert decision.purpose is purpose and decision.to_json() == old | {"for": purpose}


def test_images_among_labelled_tiles_and_images_of_another_region(tiny_run, tmp_path, caplog):
    run = Run.open(tiny_run.path)
    test = Dataset.from_images(tiny_run.data / "val" / "images")
    assert purpose_of(test, run) == PUBLISHED and caplog.messages == []
    isolated = Dataset.from_images(tiny_run.data / "test" / "images")  # far to the east in the same picture
    assert purpose_of(isolated, run) == REGION and "outside the pictures" in caplog.messages[-1]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for i, tile in enumerate(test.tiles):
        shutil.copy(tile.image, elsewhere / f"col{900 + i:05d}_row00900.tif")
    far = Dataset.from_images(elsewhere)
    caplog.clear()
    assert purpose_of(far, run) == REGION
    assert caplog.messages and "outside the pictures of the labelled tiles" in caplog.messages[0]
    # The same names prove nothing where the pixels are others.
    other = tmp_path / "other"
    other.mkdir()
    for one, another in zip(test.tiles, reversed(test.tiles), strict=True):
        shutil.copy(one.image, other / another.image.name)
    swapped = Dataset.from_images(other)
    assert purpose_of(swapped, run) == REGION


def test_submit_takes_the_decision_of_where_its_images_lie(tiny_run, tmp_path, capsys, monkeypatch):
    runs = tiny_run.copy(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    run = Run.open(runs / tiny_run.name)
    for purpose, threshold in ((REGION, 0.4), (PUBLISHED, 0.6)):
        assert main(["tune", "--run", run.name, "--runs", str(runs), "--for", purpose]) == 0
        path = decision_path([run], purpose)
        edited = {key: value for key, value in json.loads(path.read_text()).items() if key != "sha256"}
        path.write_text(json.dumps({**edited, "threshold": threshold}))
    for images, threshold in ((tiny_run.data / "val", 0.6), (tiny_run.data / "test", 0.4)):
        capsys.readouterr()
        assert (
            main(
                [
                    "submit",
                    "--run",
                    run.name,
                    "--runs",
                    str(runs),
                    "--images",
                    str(images),
                    "--out",
                    f"{images.name}.zip",
                ]
            )
            == 0
        )
        assert ("outside the pictures" in capsys.readouterr().err) == (threshold == 0.4)
        assert json.loads(Path(f"{images.name}.json").read_text())["threshold"] == threshold


@pytest.mark.slow
def test_evaluate_shows_what_neighbours_are_worth(tiny_run, tmp_path, capsys):
    runs = tmp_path / "runs"
    settings = ["--set", "data.cv=geographic", "--set", "inference.views=identity@64"]
    named = ["--run", "geo", "--runs", str(runs)]
    assert main(["train", "--config", str(tiny_run.recipe), "--data", str(tiny_run.data), *named, *settings]) == 0
    capsys.readouterr()
    assert main(["evaluate", "geo", "--runs", str(runs), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["isolated"] and result["regions"] and result["views"] == "identity@64"
    assert abs(result["among_neighbours"]["scores"]["miou"] - result["scores"]["miou"]) > 1e-6
    assert main(["evaluate", "geo", "--runs", str(runs), "--for", "published", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scores"] == result["among_neighbours"]["scores"]
    assert main(["evaluate", "geo", "--runs", str(runs), "--folds", "0"]) == 0
    one_region = capsys.readouterr().out
    assert "There is one region only" in one_region and "no regions" not in one_region
    assert main(["report", "geo", "--runs", str(runs)]) == 0
    page = (runs / "geo" / "report.html").read_text()
    alone, among = result["scores"]["miou"], result["among_neighbours"]["scores"]["miou"]
    assert f"as a new one is: mIoU {alone:.4f}." in page and f"it is {among:.4f} ({among - alone:+.4f})." in page
    assert "windows see all neighbours" in page and "folds are no regions" not in page
