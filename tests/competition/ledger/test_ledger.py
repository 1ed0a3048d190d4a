"""The ledger and leaderboard scores, through functions and commands."""

import csv
import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import imported, marsls, snapshot, strict_json, succeed
from scipy.stats import rankdata

from competition.ledger.answers import correlations
from competition.ledger.ledger import LEDGER_COLUMNS, append_ledger, ledger_row
from competition.submission.write import write_submission
from marsls_keras.errors import InputError

COLUMNS = ",".join(LEDGER_COLUMNS)


def test_ledger(tmp_path):
    path = tmp_path / "submissions" / "ledger.csv"
    append_ledger(
        path, {"time": "2026-01-01T00:00:00", "zip": "a.zip", "runs": ["u", "v"], "expected_miou": 0.75, "views": None}
    )
    first = path.read_bytes()
    assert (
        first.splitlines()[0].decode()
        == "time,zip,sha256,runs,folds,views,threshold,expected_miou,low,high,images,tiles,phase,score"
    )
    append_ledger(path, {"zip": 'b, "final".zip', "tiles": 133})
    assert path.read_bytes().startswith(first)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    blank = dict.fromkeys(LEDGER_COLUMNS, "")
    assert rows[0] == blank | {"time": "2026-01-01T00:00:00", "zip": "a.zip", "runs": "u v", "expected_miou": "0.75"}
    assert rows[1].pop("time").endswith("+00:00")
    assert rows[1] == {k: v for k, v in blank.items() if k != "time"} | {"zip": 'b, "final".zip', "tiles": "133"}
    assert sorted(p.name for p in path.parent.iterdir()) == [".ledger.csv.lock", "ledger.csv"]


def raw(content):
    """Return the cells of a CSV file with any line ends and quotes; bytes that are not UTF-8 as surrogates."""
    return list(csv.reader(io.StringIO(content.decode("utf-8-sig", "surrogateescape"), newline="")))


def test_ledger_that_a_spreadsheet_has_saved(tmp_path):
    path = tmp_path / "ledger.csv"
    old = b"\xef\xbb\xbf" + ",".join((*LEDGER_COLUMNS, "notes")).encode() + b"\r\n2026,a.zip,,,,,,,,,,,1,0.7,caf\xe9"
    path.write_bytes(old)
    append_ledger(path, {"time": "2027", "zip": "b.zip"})
    new = path.read_bytes()
    assert new.startswith(b"\xef\xbb\xbftime,") and b"caf\xe9" in new
    assert raw(new) == [*raw(old), ["2027", "b.zip", *[""] * 13]]


def test_ledger_of_a_newer_version_and_lines_of_any_form(tmp_path):
    """Columns in another order, unknown and unnamed ones, cells of several lines, a truncated last line."""
    path = tmp_path / "ledger.csv"
    columns = ["score", *LEDGER_COLUMNS[:-1], "judge", "", ""]
    old = ",".join(columns).encode() + b'\n"0.5",2026,a.zip\n\n,,"b\r.zip",,,,,,,,,,,,me,x,y,beyond\r\n,2027,"c.zip'
    path.write_bytes(old)
    append_ledger(path, {"time": "2028", "zip": "d.zip", "score": 0.25})
    assert raw(path.read_bytes()) == [*raw(old), ["0.25", "2028", "d.zip", *[""] * 14]]
    path.write_bytes(old + b"x" * 200_000)
    with pytest.raises(InputError, match="ledger.csv: line 6 is no line of a ledger .field larger.*Mend it"):
        append_ledger(path, {"zip": "d.zip"})
    assert path.read_bytes() == old + b"x" * 200_000


def test_ledger_that_is_none(tmp_path):
    path = tmp_path / "ledger.csv"
    path.write_text("a,b\n")
    with pytest.raises(InputError, match="not a ledger"):
        append_ledger(path, {"zip": "b.zip"})
    assert path.read_text() == "a,b\n"
    with pytest.raises(ValueError, match="Received: miou"):
        append_ledger(tmp_path / "new.csv", {"miou": 1})


# ----------------------------------------------------------------------------------------------------------- ledger add


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)


MANIFEST = {
    **{"runs": {"u": {}, "v": {}}, "folds": [0, 1], "views": "d4", "threshold": 0.4, "images": "/test"},
    "expected": {"miou": 0.8, "interval": [0.75, 0.85]},
}


def submitted(path, seed=0):
    """Write a submission and its line, as `marsls submit` does."""
    path = Path(path)
    mask = np.random.default_rng(seed).integers(0, 2, (8, 8), dtype=np.uint8)
    write_submission([("x.tif", mask)], path, {"x.tif": (8, 8)}, MANIFEST)
    append_ledger(path.parent / "ledger.csv", ledger_row(json.loads(path.with_suffix(".json").read_text())))
    return path


def cells(path="submissions/ledger.csv"):
    with open(path, newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def test_an_answer_is_noted_in_the_line_of_its_zip():
    submitted("submissions/a.zip"), submitted("submissions/b.zip", 1), submitted("submissions/c.zip", 2)
    before = Path("submissions/ledger.csv").read_bytes().splitlines(keepends=True)
    result = succeed("ledger", "add", "submissions/b.zip", "--phase", 1, "--score", 0.7654)
    assert result.out == "submissions/ledger.csv: phase 1, score 0.7654, noted for b.zip.\nNext: marsls ledger\n"
    after = Path("submissions/ledger.csv").read_bytes().splitlines(keepends=True)
    assert after[2] == before[2].removesuffix(b",,\n") + b",1,0.7654\n"
    assert after[:2] + after[3:] == before[:2] + before[3:]


def test_the_other_phase_gets_a_line_of_its_own_and_a_second_answer_takes_the_place_of_the_first():
    submitted("submissions/a.zip")
    for phase, score in ((1, 0.7), (2, 0.6), (1, 0.71)):
        out = succeed("ledger", "add", "submissions/a.zip", "--phase", phase, "--score", score).out
    assert out == "submissions/ledger.csv: phase 1, score 0.71 (was 0.7), noted for a.zip.\nNext: marsls ledger\n"
    first, second = cells()
    assert (first["phase"], first["score"], second["phase"], second["score"]) == ("1", "0.71", "2", "0.6")
    changed = ("phase", "score")
    assert {k: v for k, v in first.items() if k not in changed} == {k: v for k, v in second.items() if k not in changed}
    assert (first["expected_miou"], first["runs"]) == ("0.8", "u v")


def test_the_bytes_count_and_not_the_name():
    submitted("submissions/a.zip")
    old = Path("submissions/a.zip").rename("renamed.zip")
    submitted("submissions/a.zip", 1)  # another zip of that name
    succeed("ledger", "add", old, "--phase", 1, "--score", 0.5)
    assert [row["score"] for row in cells()] == ["0.5", ""]
    assert "several zips of that name" in marsls("ledger", "add", "gone/a.zip", "--phase", 1, "--score", 0.5).err


def test_by_name_where_the_file_is_gone():
    submitted("submissions/a.zip").unlink()
    succeed("ledger", "add", "a.zip", "--phase", 2, "--score", 0.5)
    assert [(row["phase"], row["score"]) for row in cells()] == [("2", "0.5")]


def test_a_zip_from_elsewhere_gets_a_new_line():
    with zipfile.ZipFile("theirs.zip", "w") as archive:
        archive.writestr("x.tif", b"")
    out = succeed("ledger", "add", "theirs.zip", "--phase", 1, "--score", 0.4, "--name", "other team").out
    assert out == (
        "submissions/ledger.csv: phase 1, score 0.4, noted for other team, which was not in it yet.\n"
        "Next: marsls ledger\n"
    )
    found = strict_json(
        succeed("ledger", "add", "theirs.zip", "--phase", 2, "--score", 0.3, "--name", "other team", "--json").out
    )
    assert found == {
        **{"ledger": "submissions/ledger.csv", "phase": 2, "score": 0.3, "replaced": None, "new": False},
        "zip": "other team",
    }
    digest = hashlib.sha256(Path("theirs.zip").read_bytes()).hexdigest()
    assert [(row["zip"], row["sha256"], row["phase"], row["score"], row["expected_miou"]) for row in cells()] == [
        ("other team", digest, "1", "0.4", ""),
        ("other team", digest, "2", "0.3", ""),
    ]
    message = marsls("ledger", "add", "theirs.zip", "--phase", 2, "--score", 0.3, "--name", "mine").err
    assert "theirs.zip is in submissions/ledger.csv already, as other team" in message


@pytest.mark.parametrize("same", [True, False])
def test_a_zip_whose_line_was_lost_is_noted_from_its_manifest(same):
    path = submitted("submissions/a.zip")
    Path("submissions/ledger.csv").unlink()  # killed between zip and ledger
    if not same:
        manifest = path.with_suffix(".json")
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"sha256": "00"}))
    succeed("ledger", "add", path, "--phase", 1, "--score", 0.4)
    (row,) = cells()
    assert row["zip"] == "a.zip" and row["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (row["expected_miou"], row["low"], row["high"]) == (("0.8", "0.75", "0.85") if same else ("", "", ""))


def test_the_ledger_beside_the_zip_or_another():
    submitted("elsewhere/a.zip")
    succeed("ledger", "add", "elsewhere/a.zip", "--phase", 1, "--score", 0.4)
    assert cells("elsewhere/ledger.csv")[0]["score"] == "0.4" and not Path("submissions").exists()
    succeed("ledger", "add", "elsewhere/a.zip", "--phase", 1, "--score", 0.3, "--ledger", "new.csv")
    assert (cells("elsewhere/ledger.csv")[0]["score"], cells("new.csv")[0]["score"]) == ("0.4", "0.3")


def test_the_cells_of_a_spreadsheet_stay():
    submitted("submissions/a.zip")
    digest = hashlib.sha256(Path("submissions/a.zip").read_bytes()).hexdigest()
    head = b"\xef\xbb\xbf" + f"{COLUMNS},notes\r\n".encode()
    other = b'"2026",b.zip,,,,,,,,,,,1,"0.7","two\r\nlines, caf\xe9"\r\n'
    last = b"2027,c.zip"
    ours = f'2026,a.zip,{digest},u,"0",d4,0.5,0.8,0.7,0.9,/i,1,,,'.encode()
    Path("submissions/ledger.csv").write_bytes(head + other + ours + b"caf\xe9,more\r\n\r\n" + last)
    succeed("ledger", "add", "submissions/a.zip", "--phase", 1, "--score", 0.75)
    expected = raw(head + other + ours.removesuffix(b",,,") + b",1,0.75,caf\xe9,more\r\n\r\n" + last)
    after = Path("submissions/ledger.csv").read_bytes()
    assert after.startswith(b"\xef\xbb\xbf") and raw(after) == expected
    succeed("ledger", "add", "submissions/a.zip", "--phase", 2, "--score", 0.5)
    after = raw(Path("submissions/ledger.csv").read_bytes())
    assert after[:-1] == expected and after[-1][:2] == ["2026", "a.zip"] and after[-1][-3:] == ["2", "0.5", "caf\udce9"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["a.zip", "--phase", 1, "--score", 86],
            "--score 86: expected the mIoU as a number from 0 to 1. Did you mean 0.86?",
        ),
        (["a.zip", "--phase", 1, "--score", 860], "--score 860: expected the mIoU as a number from 0 to 1.\n"),
        (["a.zip", "--phase", 1, "--score", "-0.1"], "--score -0.1: expected"),
        (["a.zip", "--phase", 1, "--score", "nan"], "--score nan: expected"),
        (["a.zip", "--phase", 3, "--score", 0.5], "--phase 3: there is no such phase. Expected 1 or 2."),
        (
            ["b.zip", "--phase", 1, "--score", 0.5],
            "There is no file b.zip, and no zip of that name in submissions/ledger.csv:\n  - a.zip",
        ),
        (
            ["folder.zip", "--phase", 1, "--score", 0.5],
            "folder.zip is not a zip file. Give the zip that was submitted.",
        ),
        (["text.zip", "--phase", 1, "--score", 0.5], "text.zip is not a zip file."),
        (
            ["a.zip", "--phase", 1, "--score", 0.5, "--ledger", "text.zip"],
            "text.zip is not a ledger of submissions: no column time",
        ),
        (["a.zip", "--phase", 1, "--score", 0.5, "--ledger", "folder.zip"], "folder.zip cannot be read as a ledger"),
    ],
)
def test_bad_answers_are_refused(arguments, message):
    submitted("submissions/a.zip")
    Path("folder.zip").mkdir()
    Path("text.zip").write_text("no zip\n")
    before = snapshot(".")
    result = marsls("ledger", "add", *arguments)
    assert (result.code, result.out) == (2, "") and message in result.err and "Traceback" not in result.err
    assert snapshot(".") == before


# ---------------------------------------------------------------------------------------------------------- ledger show


def ledger(*lines, path="submissions/ledger.csv"):
    """Write a ledger of (zip, expected, low, high, phase, score), as text."""
    for name, expected, low, high, phase, score in lines:
        row = {"time": "2026-01-02T03:04:05+00:00", "zip": name, "expected_miou": expected, "low": low, "high": high}
        append_ledger(path, row | {"phase": phase, "score": score})


FIVE = [
    ("a.zip", 0.70, 0.65, 0.75, "1", 0.60),
    ("b.zip", 0.72, 0.70, 0.74, "1", 0.73),
    ("c.zip", 0.80, 0.75, 0.85, "1", 0.71),
    ("d.zip", 0.81, "", "", "2", 0.50),
    ("e.zip", 0.82, 0.8, 0.9, "", ""),
    ("f.zip", "", "", "", "1", 0.33),
]


def test_expected_against_actual():
    ledger(*FIVE)
    shown = succeed("ledger").out
    assert succeed("ledger", "show").out == shown == succeed("ledger", "--ledger", "submissions/ledger.csv").out
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if ".zip" in line}
    assert rows == {
        "a.zip": ["2026-01-02", "1", "0.7000", "0.6500–0.7500", "0.6000", "-0.1000", "no"],
        "b.zip": ["2026-01-02", "1", "0.7200", "0.7000–0.7400", "0.7300", "+0.0100", "yes"],
        "c.zip": ["2026-01-02", "1", "0.8000", "0.7500–0.8500", "0.7100", "-0.0900", "no"],
        "d.zip": ["2026-01-02", "2", "0.8100", "–", "0.5000", "-0.3100", "–"],
        "e.zip": ["2026-01-02", "–", "0.8200", "0.8000–0.9000", "–", "–", "–"],
        "f.zip": ["2026-01-02", "1", "–", "–", "0.3300", "–", "–"],
    }
    expected, actual = np.array([0.7, 0.72, 0.8]), np.array([0.6, 0.73, 0.71])
    pearson, spearman = np.corrcoef(expected, actual)[0, 1], np.corrcoef(rankdata(expected), rankdata(actual))[0, 1]
    assert (
        f"phase 1, 3 zips: correlation of expected and actual {pearson:+.4f} (Pearson), {spearman:+.4f} (Spearman).\n"
        in shown
    )
    found = strict_json(succeed("ledger", "--json").out)
    assert found["ledger"] == "submissions/ledger.csv" and [line["zip"] for line in found["lines"]] == [
        line[0] for line in FIVE
    ]
    assert (
        found["lines"][3]["interval"] is None
        and found["lines"][1]["inside"] is True
        and found["lines"][4]["score"] is None
    )
    (one, all_phases) = found["correlations"]
    assert one == {"phase": "1", "lines": 3, "pearson": pytest.approx(pearson), "spearman": pytest.approx(spearman)}
    everything = np.corrcoef([*expected, 0.81], [*actual, 0.5])[0, 1]
    assert (all_phases["phase"], all_phases["lines"], all_phases["pearson"]) == ("all", 4, pytest.approx(everything))


def test_no_correlation_of_few_or_equal_figures():
    def line(expected, score):
        return {"phase": "1", "expected": expected, "score": score, "difference": score - expected}

    assert correlations([line(0.1, 0.2), line(0.3, 0.4)]) == []
    assert correlations([line(0.5, 0.2), line(0.5, 0.4), line(0.5, 0.3)]) == [
        {"phase": "1", "lines": 3, "pearson": None, "spearman": None},
    ]


def test_ledgers_that_cannot_be_shown():
    result = marsls("ledger")
    assert result.code == 2 and "There is no ledger submissions/ledger.csv. marsls submit writes one" in result.err
    ledger(("a.zip", 0.7, 0.6, 0.8, "1", "0,86"), ("b.zip", 1.7, 0.6, 0.8, "1", 0.5))
    result = marsls("ledger")
    assert (result.code, result.out) == (2, "")
    assert "\n  - a.zip: score '0,86'\n  - b.zip: expected_miou '1.7'" in result.err


def test_the_ledger_does_without_tensorflow():
    ledger(*FIVE)
    packages, result = imported("ledger", "show")
    assert result.code == 0 and "scipy" in packages
    assert not packages & {"tensorflow", "keras", "jax", "matplotlib"}
