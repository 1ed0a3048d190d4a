import base64
import io
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml
from matplotlib.image import imread
from scipy.ndimage import gaussian_filter
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score

from marsls_keras.config import Config
from marsls_keras.data.bands import BANDS
from marsls_keras.data.dataset import TileRef
from marsls_keras.report import FoldReport, RunReport, save_curves, write_report
from marsls_keras.report.contents import evaluate, threshold_band
from marsls_keras.report.page import render

N, SIZE = 12, 32
VOID = {"meta", "link", "img", "br", "hr", "input"}


def history(epochs, ema=True):
    rows = []
    for epoch in range(epochs):
        row = {"epoch": float(epoch), "loss": 1 / (epoch + 1), "miou": 0.6, "val_loss": 1.2 / (epoch + 1)}
        row |= {f"val_{name}": 0.5 + 0.004 * epoch for name in ("miou", "iou_fg", "iou_bg", "f1", "precision", "recall")}
        row |= {"miou_last": 0.4} | ({"miou_ema": 0.5, "ema": 1.0} if ema else {})
        rows.append(row | {"learning_rate": 1e-3, "seconds": 2.0, "tiles_per_second": 9.0})
    return rows


def scores(truth, prediction):
    y, p = truth.ravel(), prediction.ravel().astype(int)
    fg, bg = jaccard_score(y, p), jaccard_score(y, p, pos_label=0)
    return {"miou": (fg + bg) / 2, "iou_fg": fg, "iou_bg": bg, "f1": f1_score(y, p), "precision": 0.5, "recall": 0.5}


def make_run(name="default", seed=0, tuned=True, folds=(0, 1), **changes):
    rng = np.random.default_rng(seed)
    field = np.stack([gaussian_filter(rng.normal(size=(SIZE, SIZE)), 4) for _ in range(N)])
    masks = (field > 0).astype(np.uint8)
    noise = np.stack([gaussian_filter(rng.normal(size=(SIZE, SIZE)), 2) for _ in range(N)]) * np.linspace(0.1, 2, N)[:, None, None]
    probability = (1 / (1 + np.exp(-20 * (field + noise)))).astype(np.float32)
    held_out_by = np.arange(N) // 2 % 2
    refs = tuple(TileRef(f"train/t{i}", None, None, "train", "base", (7 + i // 4, i % 4)) for i in range(N))
    figures = {"scores": scores(masks, probability >= np.float32(0.45)), "interval": [0.61, 0.72]}
    decision = {
        "runs": [name],
        "folds": list(folds),
        "members": {},
        "views": "d4",
        "threshold": 0.45,
        "baseline": {"views": "identity", "threshold": 0.5, "scores": {**figures["scores"], "miou": 0.1234}, "interval": [0.1, 0.2]},
        "nested": {
            "scores": {**figures["scores"], "miou": 0.4321},
            "interval": [0.4, 0.5],
            "per_fold": [{"fold": fold, "views": "paper", "threshold": 0.46, "miou": 0.4444} for fold in folds],
        },
        "tuned": figures,
        "view_sets": {"identity": {"threshold": 0.5, "miou": 0.41}, "d4": {"threshold": 0.45, "miou": 0.4321}},
        "created": "2025-01-01T00:00:00+00:00",
    }
    metrics = {
        "best_epoch": 2,
        "best_weights": "ema",
        "weights_sha256": "ab" * 32,
        "scores": figures["scores"],
        "tiles": 6,
        "seconds": 61.0,
    }
    band = {"min": 0.0, "p1": 0.1, "mean": 0.5, "std": 0.2, "p99": 0.9, "max": 1.0}
    values = {
        "name": name,
        "config": yaml.safe_dump(Config().model_dump(mode="json")),
        "fingerprint": {
            **{"data_root": "/data", "release": "mmls_v1", "sha256": "cd" * 32, "tiles": {"train": N}, "size": [SIZE, SIZE]},
            **{"foreground_ratio": {"min": 0.1, "mean": 0.5, "max": 0.9}, "no_data_pixels": 4321, "bands": {b: band for b in BANDS}},
        },
        "folds": [FoldReport(k, history(3), {"fold": k, **metrics}, {"backend": "tensorflow", "packages": {"keras": "3"}}) for k in folds],
        "missing": [],
        "decision": decision if tuned else None,
        "refs": refs,
        "held_out_by": held_out_by,
        "blocks": [f"base/{i // 2}" for i in range(N)],
        "images": rng.random((N, SIZE, SIZE, 7), dtype=np.float32),
        "masks": masks,
        "probability": probability,
    }
    return RunReport(**{**values, **changes})


class Page(HTMLParser):
    """Collects tags and text, and checks that tags are balanced."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += " " + " ".join(data.split())

    def attributes(self, tag, name):
        return [attrs[name] for found, attrs in self.tags if found == tag]


def rows_of(text, table):
    """Return the cells of each body row of the n-th table with a given text in its head."""
    for head, body in re.findall(r"<thead>(.*?)</thead>\s*<tbody>(.*?)</tbody>", text, re.S):
        if table in head:
            rows = re.findall(r"<tr>(.*?)</tr>", body, re.S)
            return [
                [" ".join(re.sub("<[^>]*>", " ", cell).split()) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", r, re.S)] for r in rows
            ]
    raise AssertionError(f"no table {table}")


@pytest.fixture(scope="module")
def page():
    return render([make_run()])


def test_page_is_well_formed_and_self_contained(page):
    parsed = Page(page)
    assert not [tag for tag, _ in parsed.tags if tag in ("script", "iframe", "object")]
    for _, attributes in parsed.tags:
        for name in ("src", "href"):
            assert name not in attributes or attributes[name].startswith(("data:", "#"))
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in [a for tag, a in parsed.tags if tag == "meta"]
    assert "@media print" in style and "prefers-color-scheme" in style
    targets = {a["id"] for _, a in parsed.tags if "id" in a}
    assert all(link[1:] in targets for link in parsed.attributes("a", "href"))


def test_every_picture_is_a_png_with_alternative_text(page):
    images = [attributes for tag, attributes in Page(page).tags if tag == "img"]
    assert len(images) == 2 + 2 + 2 + 6 * 10  # charts, maps, folds, and six pictures of six worst and four best tiles
    for image in images:
        pixels = imread(io.BytesIO(base64.b64decode(image["src"].removeprefix("data:image/png;base64,"), validate=True)), format="png")
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
    assert table[0][1:5] == [str(run.held_out_by[worst]), str(7 + worst // 4), str(worst % 4), f"{run.masks[worst].mean():.1%}"]


def test_summary_quotes_the_nested_figure_and_the_baseline(page):
    text = Page(page).text
    assert "out-of-fold mIoU, nested 0.4321 95 %: 0.4000 – 0.5000" in text
    assert "baseline: one view, threshold 0.5 0.1234" in text
    assert rows_of(page, "gain over identity")[1] == ["d4", "0.45", "0.4321", "+0.0221", "used"]
    assert rows_of(page, "nested: views")[0] == [
        "0",
        "6",
        "3",
        "3",
        "averaged",
        *rows_of(page, "nested: views")[0][5:8],
        "0:01:01",
        "paper",
    ] + [
        "0.46",
        "0.4444",
    ]
    assert "4,321" in text and "mmls_v1" in text and "base_filters" not in text.split("Configuration")[0]
    assert "missing" not in text and "note" not in re.findall(r'<p class="(.*?)"', page)


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
    for field in (probability, np.where(left[:, None, None], run.probability, 0)):
        page = render([make_run(tuned=False, folds=(0,), missing=["fold 1 is missing: marsls train --fold 1"], probability=field)])
        text = Page(page).text
        assert "1 fold missing." in text and "fold 1 is missing: marsls train --fold 1" in text
        assert "6 of 12 tiles have no out-of-fold prediction" in text
        expected = scores(run.masks[left], run.probability[left] >= np.float32(0.5))
        assert rows_of(page, "scores over all pixels")[0][1] == f"{expected['miou']:.4f}"


def test_no_finished_fold():
    text = Page(render([make_run(tuned=False, folds=(), missing=["fold 0 is unfinished", "fold 1 is missing"])])).text
    assert "2 folds missing." in text and "No fold is finished" in text


def test_predictions_that_are_not_finite_are_said():
    probability = make_run().probability.copy()
    probability[3, 5, 5] = np.nan
    text = Page(render([make_run(probability=probability)])).text
    assert "1 of 12 tiles have no out-of-fold prediction" in text and "1 of them lie in finished folds" in text


def test_a_decision_on_other_predictions_is_said():
    assert "on other predictions" in Page(render([make_run(probability=make_run(seed=1).probability)])).text
    decision = make_run().decision
    assert "taken on folds 0, but finished are 0, 1" in Page(render([make_run(decision={**decision, "folds": [0]})])).text
    assert "not nested" in Page(render([make_run(decision={**decision, "nested": None})])).text
    worse = {**decision, "baseline": {**decision["baseline"], "scores": {**decision["baseline"]["scores"], "miou": 0.99}}}
    assert "Tuning did not help" in Page(render([make_run(decision=worse)])).text


def test_the_figures_of_an_ensemble_are_not_taken_for_those_of_a_run():
    run = make_run()
    page = render([make_run(decision={**run.decision, "runs": ["default", "other"]})])
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
    refs = tuple(TileRef(f"train/{evil}{r.id}", None, None, "train", f"{evil}{i % 2}", r.cell) for i, r in enumerate(make_run().refs))
    config = yaml.safe_dump({"model": {"name": evil}})
    run = make_run(name=evil, refs=refs, config=config, missing=[evil], fingerprint={"release": evil, "data_root": evil})
    page = render([run, make_run()])
    assert "<script" not in page
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
    assert "trained on different data" in render([first, data])
    assert "predictions for different tiles" in render([first, make_run("b", folds=(0,))])
    assert "into folds differently" in render([first, make_run("b", held_out_by=np.arange(N) % 2)])


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


def test_threshold_band_holds_the_curve():
    run = make_run()
    low, high = threshold_band(evaluate(run).histograms)
    value = scores(run.masks, run.probability >= np.float32(0.45))["miou"]
    assert low[450] < value < high[450] and high[450] - low[450] < 0.3
    assert (low <= high).all()


@pytest.mark.parametrize(("epochs", "ema"), [(1, True), (60, True), (60, False), (1, False), (0, True)])
def test_curves(tmp_path, epochs, ema):
    path = tmp_path / "fold_0" / "curves.png"
    save_curves(path, history(epochs, ema), "a $run$, fold 0")
    pixels = imread(path)
    assert 500 < pixels.shape[0] < 1500 and 500 < pixels.shape[1] < 1500
    assert [p.name for p in path.parent.iterdir()] == ["curves.png"]


def test_curves_of_a_training_that_gave_nan(tmp_path):
    rows = [row | {"val_miou": float("nan"), "loss": float("nan")} for row in history(3)]
    save_curves(tmp_path / "curves.png", rows, "diverged")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_needs_no_tensorflow_and_no_pyplot():
    code = "import sys, marsls_keras.report; print([m for m in ('tensorflow', 'keras', 'jax', 'matplotlib.pyplot') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
