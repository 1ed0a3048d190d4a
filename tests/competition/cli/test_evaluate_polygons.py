"""`marsls evaluate --polygons`: a map against true polygons."""

import json
from pathlib import Path

from helpers.cli import marsls
from helpers.inventories import TRUTH, write_map, write_truth


def test_the_command_prints_tables_and_json(tmp_path: Path) -> None:
    mapped, truth = write_map(tmp_path / "map"), write_truth(tmp_path / "truth.gpkg", TRUTH)
    shown = marsls("evaluate", mapped, "--polygons", truth)
    assert shown.code == 0
    assert "Detection rate 66.7 % (touched), 33.3 % (half covered)" in shown.out
    assert "2 true landslides lie beyond the mapped ground" in shown.out
    told = marsls("evaluate", mapped, "--polygons", truth, "--json")
    assert told.code == 0 and json.loads(told.out)["true"] == 3
    missing = marsls("evaluate", mapped, "--polygons", truth, "--layer", "none")
    assert missing.code == 2 and "no layer none" in missing.err and "truth" in missing.err


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "truth.gpkg", TRUTH)
    nothing = marsls("evaluate", tmp_path, "--polygons", truth)
    assert nothing.code == 2 and "There is no" in nothing.err and "marsls map writes" in nothing.err
    layer = marsls("evaluate", "default", "--layer", "truth")
    assert layer.code == 2 and "--layer names a layer of --polygons" in layer.err
