"""Scores, differences and epochs of a benchmark, from results that are written by hand."""

import csv
import json
import re
import zlib

import numpy as np
import pytest

from competition.benchmark.comparison import compare, epochs_within
from competition.benchmark.plan import Plan
from competition.benchmark.write import tables, write_table
from competition.console import show
from marsls_keras.config.tables import ResultTable, TableRow
from marsls_keras.counts import Counts
from marsls_keras.intervals import difference_interval, score_interval

ROWS = (
    TableRow(name="first", settings={"model.options.depth": 1}, published={"miou": 0.5, "latency": 0.005}),
    TableRow(name="second", settings={"model.options.depth": 2}, note="As it is.", published={"miou": 0.6}),
    TableRow(name="flipped", settings={"model.options.depth": 2}, views="flips", threshold=0.4),
    TableRow(name="never | ever", not_offered="no code"),
)
TABLE = ResultTable(title="Depths", source="By hand", data="mmls_v2", judged="two tiles", recipe="unet", rows=ROWS)
SPEED = {
    "parameters": 1000,
    "flops": 2_000_000,
    "latency": 0.01,
    "inference": {"tiles_per_second": 50.0},
    "training": {"first_step_seconds": 5.0},
    "training_with_data": {"tiles_per_second": 10.0},
    "environment": {"devices": ["CPU"]},
}


def plan(**options):
    return Plan(TABLE, ROWS, {"data.folds": 2}, "mmls_v2", **options)


def result(seed, tiles=6):
    rng = np.random.default_rng(seed)
    columns = {name: rng.integers(1, 100, tiles).tolist() for name in ("tp", "fp", "fn", "tn")}
    return {"block": [f"b{i // 2}" for i in range(tiles)], **columns}


def results(made, rows=ROWS[:3]):
    found = {made.speed(row).key: SPEED for row in rows}
    for job in made.jobs():
        predictions = {name: result(zlib.crc32(f"{job.words} {name}".encode())) for name in job.predictions}
        found[job.key] = {"tiles": predictions, "seconds": 8.0 + job.fold, "memory": {"host": 1.0 + job.fold}}
    return found


def counts(made, found, row, name, partition="blocks"):
    """Return the counts of a row over all its folds and seeds, and the blocks, put together once more."""
    parts = [
        found[made.job(row, partition, seed, fold).key]["tiles"][name] for seed in range(made.seeds) for fold in (0, 1)
    ]
    fields = [np.concatenate([part[field] for part in parts]) for field in ("tp", "fp", "fn", "tn")]
    return Counts(*fields), np.concatenate([part["block"] for part in parts])


def test_scores_and_differences_are_of_the_pooled_counts():
    made = plan(seeds=2)
    found = results(made)
    rows = compare(made, found, {})
    first, blocks = counts(made, found, ROWS[0], "identity:0.5")
    second, _ = counts(made, found, ROWS[1], "identity:0.5")
    tp, fp, fn, tn = (int(np.sum(getattr(second, field))) for field in ("tp", "fp", "fn", "tn"))
    scores = rows[1]["blocks"]["scores"]
    assert scores["miou"] == pytest.approx((tp / (tp + fp + fn) + tn / (tn + fp + fn)) / 2)
    assert scores["precision"] == pytest.approx(tp / (tp + fp)) and scores["recall"] == pytest.approx(tp / (tp + fn))
    assert rows[1]["blocks"]["intervals"]["f1"] == score_interval(second, blocks, "f1")
    assert rows[0]["blocks"]["difference"] is None
    gain = rows[1]["blocks"]["difference"]
    assert gain["miou"] == pytest.approx(scores["miou"] - rows[0]["blocks"]["scores"]["miou"])
    assert gain["interval"] == difference_interval(second, first, blocks) and gain["trainings"] == 4
    half = len(blocks) // 2
    each = [
        Counts(*(getattr(second, field)[part] for field in ("tp", "fp", "fn", "tn"))).pooled().scores()["miou"]
        for part in (slice(None, half), slice(half, None))
    ]
    assert rows[1]["blocks"]["seeds"] == {
        "mean": pytest.approx(np.mean(each)),
        "deviation": pytest.approx(np.std(each, ddof=1)),
    }
    assert rows[1]["blocks"]["seconds"] == 8.5 and rows[1]["blocks"]["memory"] == {"host": 2.0}


def test_a_difference_is_over_the_trainings_that_both_rows_have():
    made = plan()
    found = results(made)
    del found[made.job(ROWS[0], "blocks", 0, 1).key]
    gain = compare(made, found, {})[1]["blocks"]["difference"]
    parts = [found[made.job(row, "blocks", 0, 0).key]["tiles"]["identity:0.5"] for row in ROWS[:2]]
    first, second = (Counts(*(np.array(part[f]) for f in ("tp", "fp", "fn", "tn"))).pooled().scores() for part in parts)
    assert gain["trainings"] == 1 and gain["miou"] == pytest.approx(second["miou"] - first["miou"])


def test_rows_share_a_training_and_views_cost_what_they_cost():
    made = plan()
    rows = compare(made, results(made), {})
    assert rows[1]["blocks"]["scores"] != rows[2]["blocks"]["scores"]
    assert rows[1]["speed"]["latency"] == 0.01 and rows[2]["speed"]["latency"] == pytest.approx(0.04)
    assert rows[2]["speed"]["tiles_per_second"] == 12.5 and rows[2]["speed"]["flops"] == 8_000_000
    assert rows[3]["blocks"] is rows[3]["speed"] is None and rows[3]["asked"] == 0


def test_failed_and_missing_trainings_are_told():
    made = plan()
    rows = compare(made, {}, {made.job(ROWS[0], "regions", 0, 1).key: "exit code 1: it diverged"})
    assert rows[0]["failed"] == ["exit code 1: it diverged"] and rows[1]["failed"] == []
    assert rows[0]["blocks"] is None and rows[0]["asked"] == 2


def test_a_budget_gives_the_epochs_of_all_rows():
    made = plan()
    found = results(made)
    # Two trainings of each fold, for two networks: 40 tiles, half of them trained on at 10 and half predicted at 50/s.
    epoch = 8 * (20 / 10 + 20 / 50)
    fixed = 8 * (15 + 5)
    epochs, expected = epochs_within(made, found, 40, (fixed + 7.5 * epoch) / 60)
    assert epochs == 7 and expected == pytest.approx((fixed + 7 * epoch) / 60)
    assert epochs_within(made, found, 40, 0.1)[0] == 1
    assert epochs_within(made, found, 40, 1e6)[0] == made.full["first"].training.epochs


def test_the_files_hold_the_same_figures(tmp_path, capsys):
    made = plan(seeds=2)
    rows = compare(made, results(made), {})
    notes = ["Only for this <test>."]
    files = write_table(tmp_path, TABLE, rows, notes)
    markdown, page = files[0].read_text(), files[2].read_text()
    miou, (low, high) = rows[1]["regions"]["scores"]["miou"], rows[1]["regions"]["intervals"]["miou"]
    cell = f"{miou:.4f} ({low:.4f}–{high:.4f})"
    assert cell in markdown and cell in page and r"never \| ever" in markdown and "not offered: no code" in page
    assert "Only for this <test>." in markdown and "Only for this &lt;test&gt;." in page
    assert not re.search(r"(?:src|href)=\"(?!data:)", page) and "data:image/png;base64," in page
    with open(files[1], encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["row"] for line in lines] == [row.name for row in ROWS for _ in range(2)]
    second = next(line for line in lines if (line["row"], line["held_out"]) == ("second", "regions"))
    assert float(second["miou"]) == miou and float(second["published_miou"]) == 0.6
    assert float(second["difference"]) == rows[1]["regions"]["difference"]["miou"] and second["published_f1"] == ""
    show(*tables(TABLE, rows, notes))
    out = capsys.readouterr().out
    assert f"{miou:.4f}" in out and "Regions held out" in out and "second: As it is." in out and notes[0] in out
    json.dumps(rows)
