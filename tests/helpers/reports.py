"""A run made of synthetic arrays, and a parser of the report page that is independent of the template."""

import re
from html.parser import HTMLParser

import numpy as np
import yaml
from scipy.ndimage import gaussian_filter
from sklearn.metrics import f1_score, jaccard_score

from marsls_keras.bands.names import BANDS
from marsls_keras.config import Config
from marsls_keras.data.index.dataset import TileRef
from marsls_keras.inference.decision import Decision
from marsls_keras.report import FoldReport, RunReport

N, SIZE = 12, 32


def history(epochs, ema=True):
    rows = []
    for epoch in range(epochs):
        row = {"epoch": float(epoch), "loss": 1 / (epoch + 1), "miou": 0.6, "val_loss": 1.2 / (epoch + 1)}
        row |= {
            f"val_{name}": 0.5 + 0.004 * epoch for name in ("miou", "iou_fg", "iou_bg", "f1", "precision", "recall")
        }
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
    noise = (
        np.stack([gaussian_filter(rng.normal(size=(SIZE, SIZE)), 2) for _ in range(N)])
        * np.linspace(0.1, 2, N)[:, None, None]
    )
    probability = (1 / (1 + np.exp(-20 * (field + noise)))).astype(np.float32)
    held_out_by = np.arange(N) // 2 % 2
    refs = tuple(TileRef(f"train/t{i}", None, None, "train", "base", (7 + i // 4, i % 4)) for i in range(N))
    figures = {"scores": scores(masks, probability >= np.float32(0.45)), "interval": [0.61, 0.72]}
    decision = {
        "runs": [name],
        "folds": list(folds),
        "members": {name: {str(fold): "ab" * 32 for fold in folds}},
        "views": "d4",
        "threshold": 0.45,
        "baseline": {
            "views": "identity",
            "threshold": 0.5,
            "scores": {**figures["scores"], "miou": 0.1234},
            "interval": [0.1, 0.2],
        },
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
            **{
                "data_root": "/data",
                "release": "mmls_v1",
                "sha256": "cd" * 32,
                "tiles": {"train": N},
                "size": [SIZE, SIZE],
            },
            **{
                "foreground_ratio": {"min": 0.1, "mean": 0.5, "max": 0.9},
                "no_data_pixels": 4321,
                "bands": {b: band for b in BANDS},
            },
        },
        "folds": [
            FoldReport(k, history(3), {"fold": k, **metrics}, {"backend": "tensorflow", "packages": {"keras": "3"}})
            for k in folds
        ],
        "missing": [],
        "decision": Decision.from_json(decision) if tuned else None,
        "refs": refs,
        "held_out_by": held_out_by,
        "blocks": [f"base/{i // 2}" for i in range(N)],
        "bands": BANDS,
        "images": rng.random((N, SIZE, SIZE, 7), dtype=np.float32),
        "masks": masks,
        "probability": probability,
    }
    values = {**values, **changes}
    threshold = values["decision"].threshold if values["decision"] else 0.5
    return RunReport(**{"predicted": (values["probability"] >= np.float32(threshold)).astype(np.uint8), **values})


def edited(decision: Decision, **keys) -> Decision:
    """Return a decision with some keys of its decision.json changed; its members follow its runs and folds."""
    content = {**decision.to_json(), **keys}
    digests = {str(fold): "ab" * 32 for fold in content["folds"]}
    return Decision.from_json({**content, "members": dict.fromkeys(content["runs"], digests)})


VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Collects tags and text, and checks that tags are balanced."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert not self.open
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += " " + data

    def attributes(self, tag, name):
        return [attrs[name] for found, attrs in self.tags if found == tag]


def rows_of(text, table):
    """Return the cells of each body row of the n-th table with a given text in its head."""
    for head, body in re.findall(r"<thead>(.*?)</thead>\s*<tbody>(.*?)</tbody>", text, re.S):
        if table in head:
            rows = [
                re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.S) for row in re.findall(r"<tr>(.*?)</tr>", body, re.S)
            ]
            return [[" ".join(re.sub("<[^>]*>", " ", cell).split()) for cell in row] for row in rows]
    raise AssertionError(f"no table {table}")
