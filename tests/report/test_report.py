import base64
import io
import re

import numpy as np
import pytest
import yaml
from helpers.reports import N, Page, edited, make_run, rows_of, scores
from matplotlib.image import imread
from sklearn.metrics import confusion_matrix

from marsls_keras.data.index.dataset import TileRef
from marsls_keras.report import write_report
from marsls_keras.report.page import render
from marsls_keras.report.run_summary import evaluate, not_comparable, remarks


@pytest.fixture(scope="module")
def page():
    return render([make_run()])


def test_page_is_well_formed_and_self_contained(page):
    parsed = Page(page)
    assert not [tag for tag, _ in parsed.tags if tag in ("iframe", "object")]
    assert [attributes for tag, attributes in parsed.tags if tag == "script"] == [{}]  # that which zooms the map
    script = page[page.index("<script>") : page.index("</script>")]
    assert not re.search(r"https?:|fetch|XMLHttp|WebSocket|import|eval|innerHTML", script)
    for _, attributes in parsed.tags:
        for name in ("src", "href"):
            assert name not in attributes or attributes[name].startswith(("data:", "#"))
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in [
        a for tag, a in parsed.tags if tag == "meta"
    ]
    assert "@media print" in style and "prefers-color-scheme" in style
    targets = {a["id"] for _, a in parsed.tags if "id" in a}
    assert all(link[1:] in targets for link in parsed.attributes("a", "href"))


def test_every_picture_is_a_png_with_alternative_text(page):
    images = [attributes for tag, attributes in Page(page).tags if tag == "img"]
    assert len(images) == 2 + 2 + 2 + 6 * 10  # charts, maps, folds, and six pictures of six worst and four best tiles
    for image in images:
        pixels = imread(
            io.BytesIO(base64.b64decode(image["src"].removeprefix("data:image/png;base64,"), validate=True)),
            format="png",
        )
        assert pixels.shape[:2] == (int(image["height"]), int(image["width"]))
        assert np.ptp(pixels[..., :3]) > 0
        assert len(image["alt"]) > 10


def test_figures_are_those_of_the_arrays(page):
    run = make_run()
    prediction = (run.probability >= np.float32(0.45)).astype(int)
    expected = scores(run.masks, prediction)
    rows = {row[0]: row[1:] for row in rows_of(page, "scores over all pixels")}
    assert rows["tuned"][0] == f"{expected['miou']:.4f}"
    assert rows["tuned"][2:5] == [f"{expected[name]:.4f}" for name in ("iou_fg", "iou_bg", "f1")]
    assert rows["tuned, nested"][0] == "0.4321" and rows["baseline"][0] == "0.1234"
    (tn, fp), (fn, tp) = confusion_matrix(run.masks.ravel(), prediction.ravel())
    assert rows_of(page, "predicted landslide") == [
        ["true landslide", f"{tp:,} {tp / (tp + fn):.1%}", f"{fn:,} {fn / (tp + fn):.1%}"],
        ["true background", f"{fp:,} {fp / (fp + tn):.1%}", f"{tn:,} {tn / (fp + tn):.1%}"],
    ]


def test_tiles_are_ordered_by_their_miou(page):
    run = make_run()
    miou = np.array([scores(m, p >= np.float32(0.45))["miou"] for m, p in zip(run.masks, run.probability, strict=True)])
    order = [f"train/t{i}" for i in np.argsort(miou)]
    shown = re.findall(r"<figcaption><b>(.*?)</b> <span>mIoU (.*?)</span>", page)
    assert [name for name, _ in shown] == order[:6] + order[:-5:-1]
    assert shown[0][1] == f"{miou.min():.4f}" and shown[6][1] == f"{miou.max():.4f}"
    table = rows_of(page, "<th>tile</th>")
    assert [row[0] for row in table] == order
    worst = int(np.argmin(miou))
    assert table[0][1:5] == [
        str(run.held_out_by[worst]),
        str(7 + worst // 4),
        str(worst % 4),
        f"{run.masks[worst].mean():.1%}",
    ]


def test_summary_quotes_the_nested_figure_and_the_baseline(page):
    text = Page(page).text
    assert "out-of-fold mIoU, nested 0.4321 95 %: 0.4000 – 0.5000" in text
    assert "baseline: one view, threshold 0.5 0.1234" in text
    assert rows_of(page, "gain over identity")[1] == ["d4", "0.45", "0.4321", "+0.0221", "used"]
    fold = rows_of(page, "nested: views")[0]
    assert fold[:5] == ["0", "6", "3", "3", "averaged"] and fold[8:] == ["0:01:01", "paper", "0.46", "0.4444"]
    assert "4,321" in text and "mmls_v1" in text and "base_filters" not in text.split("Configuration")[0]
    assert "missing" not in text and "note" not in re.findall(r'<p class="(.*?)"', page)


def test_post_processing_and_what_each_element_gains():
    run = make_run()
    gains = {
        "gain": {"miou": 0.0123, "interval": [-0.001, 0.02]},
        "alone": {"miou": -0.004, "interval": [-0.01, 0.002]},
    }
    elements = [
        {"element": "threshold", "value": 0.45, **gains, "kept": True},
        {"element": "weights", "value": {"default": 0.7, "other": 0.3}, **gains, "kept": False},
        {"element": "min_area", "value": 24, **gains, "kept": True},
    ]
    predicted = run.predicted.copy()
    predicted[:, :5] = 0
    run = make_run(decision=edited(run.decision, elements=elements, min_area=24, max_hole=0), predicted=predicted)
    page = render([run])
    expected = scores(run.masks, predicted == 1)
    assert evaluate(run).scores["miou"] == pytest.approx(
        expected["miou"], abs=1e-12
    )  # of the masks, not of the threshold
    shown = ["+0.0123", "-0.0010 to +0.0200", "-0.0040", "-0.0100 to +0.0020"]
    assert rows_of(page, "<th>value</th>") == [
        ["threshold", "0.45", *shown, "kept"],
        ["weights of the runs", "default 0.7, other 0.3", *shown, "left out"],
        ["least area of a component, pixels", "24", *shown, "kept"],
    ]
    assert "least component 24 pixels" in Page(page).text and "filled holes" not in Page(page).text
    assert "value tried" not in render([make_run()])  # a decision of an earlier version


def test_without_a_decision():
    run = make_run(tuned=False)
    page = render([run])
    expected = scores(run.masks, run.probability >= np.float32(0.5))
    assert "not tuned" in Page(page).text
    assert f"out-of-fold mIoU, not tuned {expected['miou']:.4f}" in Page(page).text
    assert [row[:2] for row in rows_of(page, "scores over all pixels")] == [["not tuned", f"{expected['miou']:.4f}"]]
    assert rows_of(page, "scores over all pixels")[0][-2:] == ["0.5", "identity"]


def test_missing_folds_are_said_and_not_scored():
    run = make_run(tuned=False)
    probability = run.probability.copy()
    probability[run.held_out_by == 1] = np.nan
    left = run.held_out_by == 0
    page = render(
        [
            make_run(
                tuned=False, folds=(0,), missing=["fold 1 is missing: marsls train --fold 1"], probability=probability
            )
        ]
    )
    text = Page(page).text
    assert "1 fold missing." in text and "fold 1 is missing: marsls train --fold 1" in text
    assert "6 of 12 tiles have no out-of-fold prediction" in text
    expected = scores(run.masks[left], run.probability[left] >= np.float32(0.5))
    assert rows_of(page, "scores over all pixels")[0][1] == f"{expected['miou']:.4f}"
    zeros = make_run(tuned=False, folds=(0,), probability=np.where(left[:, None, None], run.probability, 0))
    assert evaluate(zeros).scores["miou"] == pytest.approx(expected["miou"], abs=1e-12)


def test_no_finished_fold():
    text = Page(render([make_run(tuned=False, folds=(), missing=["fold 0 is unfinished", "fold 1 is missing"])])).text
    assert "2 folds missing." in text and "No fold is finished" in text


def test_predictions_that_are_not_finite_are_said():
    probability = make_run().probability.copy()
    probability[3, 5, 5] = np.nan
    run = make_run(probability=probability)
    text = remarks(run, evaluate(run))[0]
    assert "1 of 12 tiles have no out-of-fold prediction" in text and "1 of them lie in finished folds" in text


def test_a_decision_on_other_predictions_is_said():
    def said(**changes):
        run = make_run(**changes)
        return " ".join(remarks(run, evaluate(run)))

    decision = make_run().decision
    baseline = decision.to_json()["baseline"]
    worse = edited(decision, baseline={**baseline, "scores": {**baseline["scores"], "miou": 0.99}})
    assert said() == ""
    assert "on other predictions" in said(probability=make_run(seed=1).probability)
    assert "taken on folds 0, but finished are 0, 1" in said(decision=edited(decision, folds=[0]))
    assert "not nested" in said(decision=edited(decision, nested=None))
    assert "Tuning did not help" in said(decision=worse)


def test_the_expected_figure_is_quoted_and_a_plain_decision_is_not_called_tuned():
    decision = make_run().decision
    nested, baseline = (decision.to_json()[part] for part in ("nested", "baseline"))
    gain = {"miou": 0.3087, "interval": [-0.01, 0.4]}
    text = Page(
        render(
            [make_run(decision=edited(decision, expected={k: nested[k] for k in ("scores", "interval")}, gain=gain))]
        )
    ).text
    assert "out-of-fold mIoU, nested 0.4321" in text
    assert (
        "Tuning changes mIoU by +0.3087 (nested, against the baseline on the same tiles; "
        "95 % interval -0.0100 to +0.4000)" in text
    )
    run = make_run()
    figures = {"scores": scores(run.masks, run.probability >= np.float32(0.5)), "interval": [0.6, 0.7]}
    plain = {
        "views": "identity",
        "threshold": 0.5,
        "expected": figures,
        "baseline": {**baseline, **figures},
        "tuned": figures,
    }
    page = render([make_run(decision=edited(decision, **plain, gain={"miou": -0.1, "interval": [-0.2, 0.0]}))])
    miou = f"{figures['scores']['miou']:.4f}"
    assert f"out-of-fold mIoU, baseline {miou} 95 %: 0.6000 – 0.7000" in Page(page).text
    assert "so one view and threshold 0.5 are kept" in Page(page).text and "baseline: one view" not in Page(page).text
    assert [row[:2] for row in rows_of(page, "scores over all pixels")] == [
        ["tuned, nested", "0.4321"],
        ["baseline, kept", miou],
    ]


def test_a_mean_of_logits_is_shown_and_is_no_plain_decision():
    changed = edited(make_run().decision, views="identity", threshold=0.5, averaging="logit")
    page = render([make_run(decision=changed)])
    assert (
        "what is averaged logit" in Page(page).text
        and "threshold 0.5 on the probability views identity averaged" in Page(page).text
    )
    assert [row[0] for row in rows_of(page, "scores over all pixels")] == ["tuned, nested", "tuned", "baseline"]


def test_the_figures_of_an_ensemble_are_not_taken_for_those_of_a_run():
    run = make_run()
    page = render([make_run(decision=edited(run.decision, runs=["default", "other"]))])
    own = f"{scores(run.masks, run.probability >= np.float32(0.45))['miou']:.4f}"
    assert f"out-of-fold mIoU, tuned as an ensemble {own}" in Page(page).text
    assert [(row[0], row[1]) for row in rows_of(page, "scores over all pixels")] == [
        ("ensemble, tuned, nested", "0.4321"),
        ("ensemble, tuned", own),
        ("this run alone", own),
        ("ensemble, baseline", "0.1234"),
    ]


def test_text_is_escaped():
    evil = "<script>alert('x')</script> $a_1$"
    refs = tuple(
        TileRef(f"train/{evil}{r.id}", None, None, "train", f"{evil}{i % 2}", r.cell)
        for i, r in enumerate(make_run().refs)
    )
    config = yaml.safe_dump({"model": {"name": evil}})
    run = make_run(
        name=evil, refs=refs, config=config, missing=[evil], fingerprint={"release": evil, "data_root": evil}
    )
    page = render([run, make_run()])
    assert page.count("<script") == 1 and '<script>\n"use strict"' in page
    assert Page(page).text.count(evil) > 10


def test_two_runs_are_compared(tmp_path):
    other = make_run("other", seed=1, tuned=False)
    path = tmp_path / "deep" / "report.html"
    write_report([make_run(), other], path)
    page = path.read_text(encoding="utf-8")
    rows = rows_of(page, "OOF mIoU")
    expected = scores(other.masks, other.probability >= np.float32(0.5))
    assert [row[0] for row in rows] == ["default", "other"]
    assert rows[0][1:4] == ["0.4321", "0.4000 – 0.5000", "nested"]
    assert rows[1][1] == f"{expected['miou']:.4f}" and rows[1][3] == "not tuned"
    assert rows[0][-3:] == ["unet", "0, 1", "0:02:02"]
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    assert "cannot be compared" not in page and "OOF mIoU" not in render([other])


def test_runs_that_cannot_be_compared_are_said():
    first = make_run()
    data = make_run("b", fingerprint={**first.fingerprint, "sha256": "other"})
    assert "trained on different data" in not_comparable([first, data])
    assert "predictions for different tiles" in not_comparable([first, make_run("b", folds=(0,))])
    assert "into folds differently" in not_comparable([first, make_run("b", held_out_by=np.arange(N) % 2)])
    assert "trained on different data" in render([first, data])


def test_names_that_tell_no_grid_cell():
    refs = tuple(TileRef(r.id, None, None, "train", "base", None) for r in make_run().refs)
    page = render([make_run(refs=refs)])
    assert "there is no map" in Page(page).text and "Map of the tiles" not in page


def test_several_rasters_and_tiles_that_always_train():
    refs = tuple(TileRef(r.id, None, None, "train", f"raster {i % 2}", r.cell) for i, r in enumerate(make_run().refs))
    held_out_by = np.where(np.arange(N) < 8, -1, 0)
    page = render([make_run(refs=refs, held_out_by=held_out_by, folds=(0,), tuned=False)])
    assert "8 of 12 tiles have no out-of-fold prediction" in Page(page).text and "Map of the tiles" in page


def test_an_empty_tile_and_a_constant_one():
    masks, images = make_run().masks.copy(), make_run().images.copy()
    masks[0], images[0] = 0, 0.5
    Page(render([make_run(masks=masks, images=images, tuned=False)]))


def test_refuses_no_run_and_fields_that_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match="at least one run"):
        write_report([], tmp_path / "x.html")
    with pytest.raises(ValueError, match="one of each per tile"):
        make_run(blocks=["a"])


def test_one_block_has_no_interval():
    run = make_run()
    nothing = {"miou": -0.00001, "interval": None}
    rows = [{"element": "threshold", "value": 0.5, "gain": nothing, "alone": nothing, "kept": False}]
    figures = {part: {**run.decision.to_json()[part], "interval": None} for part in ("baseline", "nested", "tuned")}
    expected = {
        "expected": figures["nested"],
        "gain": {"miou": 0.01, "interval": None},
        "elements": rows,
        "bias": "Biased.",
    }
    decision = edited(run.decision, **figures, **expected)
    page = render([make_run(blocks=["b"] * len(run.refs), decision=decision)])
    text = Page(page).text
    assert "No interval can be given: all tiles are of one block" in text and "-0.0000" not in text
    assert (
        "Tuning changes mIoU by +0.0100 (nested, against the baseline on the same tiles; no interval: one block)"
        in text
    )
    assert rows_of(page, "<th>value</th>") == [
        ["threshold", "0.5", *["+0.0000", "no interval: one block"] * 2, "left out"]
    ]


def test_geographic_folds_show_their_spread():
    run = make_run()
    config = yaml.safe_dump(yaml.safe_load(run.config) | {"data": {"cv": "geographic"}})
    assert "mIoU by region" not in Page(render([run])).text
    spread = evaluate(run).regions
    text = Page(render([make_run(config=config)])).text
    assert (
        f"mIoU by region: {spread['min']:.4f} to {spread['max']:.4f}, standard deviation {spread['std']:.4f}, of"
        in text
    )


def test_the_gap_between_a_new_region_and_a_published_one_is_said():
    run = make_run()
    geographic = yaml.safe_dump(yaml.safe_load(run.config) | {"data": {"cv": "geographic"}})
    blocks = Page(render([run])).text
    assert "The folds are no regions" in blocks and "neighbouring images" not in blocks
    assert "The folds are no regions" not in Page(render([make_run(config=geographic)])).text
    miou = evaluate(run).scores["miou"]
    among = {"scores": {**evaluate(run).scores, "miou": miou + 0.0123}, "interval": [0.5, 0.9]}
    page = render([make_run(config=geographic, among_neighbours=among)])
    text = Page(page).text
    assert (
        f"mIoU {miou:.4f}. With all neighbouring images, as in a published region, it is {miou + 0.0123:.4f} (+0.0123)"
        in text
    )
    (row,) = [row for row in rows_of(page, "scores over all pixels") if "windows see all neighbours" in row[0]]
    assert row[1] == f"{miou + 0.0123:.4f}" and "0.5000" in row[2]
