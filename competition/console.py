"""Print results of commands on stdout, as tables, text or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from marsls_keras.counts import IMAGE_SCORES, NO_INTERVAL, SCORES

if TYPE_CHECKING:
    from marsls_keras.inference.decision_record import ElementGain

_PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}  # names may hold [brackets] or :colons:
_FILE_WIDTH = 140  # width of tables in a file or a pipe
_PROBLEMS = 30  # number of problems of a data folder that are shown; --json has all

LABELS = {
    "miou": "mIoU",
    "iou_fg": "IoU_fg",
    "iou_bg": "IoU_bg",
    "f1": "F1",
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
}
"""Display name of each score."""


def show(*parts: Any) -> None:
    """Print text and tables on stdout; text is not wrapped, so that it can be searched and copied.

    Example:
        >>> show("mIoU 0.75")
        mIoU 0.75
    """
    console = Console(**_PLAIN)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str))


def show_json(value: Any) -> None:
    """Print a value as JSON on stdout, in ASCII, which any encoding can represent.

    Example:
        >>> show_json({"miou": 0.75})
        {
          "miou": 0.75
        }
    """
    print(json.dumps(value, indent=2))


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Table:
    """Return a table whose first column is text and whose other columns are numbers.

    Example:
        >>> table("Folds", ["", "mIoU"], [["fold 0", 0.75]]).row_count
        1
    """
    made = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE)
    for i, column in enumerate(columns):
        made.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        made.add_row(*(f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row))
    return made


def text_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[str] = ()) -> Table:
    """Return a table of text, whose columns are aligned to the left, except those of numbers.

    Example:
        >>> text_table("Recipes", ["name", "purpose"], [["unet", "the baseline"]]).row_count
        1
    """
    made = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE)
    for column in columns:
        made.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def score_table(title: str, rows: Iterable[tuple[str, dict[str, float], Iterable[float] | None]]) -> Table:
    """Return a table of scores, one row per (name, scores, 95 % interval of the mIoU or None).

    Example:
        >>> from marsls_keras.counts import Counts
        >>> score_table("Folds", [("fold 0", Counts(8, 1, 1, 90).scores(), (0.7, 0.8))]).row_count
        1
    """
    rows = list(rows)
    bounded = any(interval for *_, interval in rows)
    columns = ["", "mIoU", *(["95 % interval"] if bounded else []), *(LABELS[score] for score in SCORES[1:])]
    cells = []
    for name, scores, interval in rows:
        ends = ["–".join(f"{end:.4f}" for end in interval or ())] if bounded else []
        cells.append([name, scores["miou"], *ends, *(scores[score] for score in SCORES[1:])])
    return table(title, columns, cells)


def area_table(title: str, classes: Iterable[dict[str, Any]]) -> Table:
    """Return a table of true and found landslides by class of area, as `evaluate_polygons` counts them.

    Example:
        >>> row = {"km2": [1.0, 10.0], "true": 4, "touched": 4, "half": 3, "found": 5, "false": 1, "half_false": 2}
        >>> area_table("Landslides", [row]).row_count  # and one row for all
        2
    """
    names = ("true", "touched", "half", "found", "false", "half_false")
    rows = [(f"{row['km2'][0]:g} to {row['km2'][1]:g}", *(row[name] for name in names)) for row in classes]
    whole = ("all", *(sum(row[i + 1] for row in rows) for i in range(len(names))))
    heads = ["area, km²", "true", "touched", "half covered", "found", "false alarms", "half false"]
    return table(title, heads, [*rows, whole])


def landslide_lines(result: dict[str, Any]) -> str:
    """Return shares, outlines and remarks of `evaluate_polygons` as lines of text.

    Example:
        >>> result = {"touched": 0.8, "half": 0.5, "false": 0.1, "half_false": None, "boundary_m": None}
        >>> print(landslide_lines({**result, "outside": 0, "repaired": 2, "reprojected": None}))
        Detection rate 80.0 % (touched), 50.0 % (half covered). False alarms 10.0 % (touch none), – (half false).
        2 invalid polygons of the truth were repaired.
    """

    def share(name: str) -> str:
        return "–" if result[name] is None else f"{result[name]:.1%}".replace("%", " %")

    lines = [
        f"Detection rate {share('touched')} (touched), {share('half')} (half covered). "
        f"False alarms {share('false')} (touch none), {share('half_false')} (half false)."
    ]
    if edge := result["boundary_m"]:
        lines.append(
            f"Mean distance of outlines: {edge['median']:.0f} m (median of {edge['landslides']} landslides), "
            f"90 % below {edge['p90']:.0f} m."
        )
    if result["outside"]:
        lines.append(f"{result['outside']} true landslides lie beyond the mapped ground and do not count.")
    if result["repaired"]:
        lines.append(f"{result['repaired']} invalid polygons of the truth were repaired.")
    if result["reprojected"]:
        lines.append(f"The truth was reprojected from {result['reprojected']}.")
    return "\n".join(lines)


def bounds(interval: Iterable[float] | None) -> str:
    """Return a 95 % interval of a score as text.

    Example:
        >>> bounds((0.7, 0.8))
        '0.7000–0.8000'
    """
    return NO_INTERVAL if interval is None else "–".join(f"{end:.4f}" for end in interval)


def regions_line(regions: dict[str, Any] | None) -> str:
    """Return the result of `marsls_keras.intervals.region_spread` as text.

    Example:
        >>> regions_line({"min": 0.6, "max": 0.8, "std": 0.1, "scores": [0.6, 0.8]})
        'mIoU by region: 0.6000 to 0.8000, standard deviation 0.1000, of 2 regions.'
    """
    if regions is None:
        return "There is one region only, so nothing tells how the mIoU differs between regions."
    low, high, deviation = (f"{regions[key]:.4f}" for key in ("min", "max", "std"))
    return f"mIoU by region: {low} to {high}, standard deviation {deviation}, of {len(regions['scores'])} regions."


def detection_table(title: str, found: dict[str, Any]) -> Table:
    """Return a table of image-level detection scores, from `marsls_keras.counts.detection`.

    Example:
        >>> scores = {"f1": 0.86, "accuracy": 0.88, "precision": 0.75, "recall": 1.0}
        >>> found = {"counts": {"tp": 3, "fp": 1, "fn": 0, "tn": 4}, "scores": scores}
        >>> detection_table("Tiles with landslide", found).row_count
        1
    """
    counts = found["counts"]
    right, number = counts["tp"] + counts["tn"], sum(counts.values())
    return table(
        title,
        ["", *(LABELS[score] for score in IMAGE_SCORES)],
        [[f"{right} of {number} right", *found["scores"].values()]],
    )


def elements_table(title: str, elements: Iterable[ElementGain]) -> Table:
    """Return a table of the gain in mIoU of each element of a decision.

    Example:
        >>> from marsls_keras.inference.decision_record import ElementGain, Gain
        >>> gain = Gain(miou=0.01, interval=[0.002, 0.018])
        >>> row = ElementGain(element="threshold", value=0.45, gain=gain, alone=gain, kept=True)
        >>> elements_table("Elements", [row]).row_count
        1
    """
    cells = []
    for row in elements:
        gains = [
            (signed(gain.miou), " to ".join(map(signed, gain.interval or ())) or "–") for gain in (row.gain, row.alone)
        ]
        cells.append([row.element, row.cell, *gains[0], *gains[1], "kept" if row.kept else "left out"])
    return table(title, ["", "value", "gain in mIoU", "95 % interval", "gain alone", "95 % interval", ""], cells)


def signed(value: float) -> str:
    """Return a difference of scores as text with its sign; a value that is rounded to zero has a plus.

    Example:
        >>> signed(0.0123), signed(-0.00001)
        ('+0.0123', '+0.0000')
    """
    return f"{value:+z.4f}"


def show_check(result: dict[str, Any]) -> None:
    """Print the result of `check_data`.

    Example:
        >>> from competition.commands.check import check_data
        >>> show_check(check_data(Path("data")))  # doctest: +SKIP
    """
    show(
        f"{result['root']}: {result['release'] or 'no readable tile'}"
        + (f", {result['size'][0]} x {result['size'][1]} pixels" if result["size"] else "")
    )
    rows = []
    for name, split in result["splits"].items():
        ratio = split["foreground"]
        spread = f"{ratio['min']:.2%} / {ratio['mean']:.2%} / {ratio['max']:.2%}" if ratio else "no masks"
        rows.append(
            [name, split["tiles"], split["labelled"], spread, f"{split['neighbours']:.1f}", split["no_data_pixels"]]
        )
    columns = ["split", "tiles", "with mask", "landslide min / mean / max", "neighbours", "no-data pixels"]
    show(table("Splits", columns, rows))
    for name, split in result["splits"].items():
        stats = split["bands"]
        show(
            table(
                f"Bands of {name}",
                ["band", *next(iter(stats.values()))],
                [[band, *values.values()] for band, values in stats.items()],
            )
        )
    if result["shift"]:
        pairs = list(result["shift"])
        bands = result["shift"][pairs[0]]
        rows = [
            [
                band,
                *(
                    cell
                    for pair in pairs
                    for cell in (result["shift"][pair][band], _signed(result["difference"][pair][band]))
                ),
            ]
            for band in bands
        ]
        columns = ["band", *(text for pair in pairs for text in (pair, "mean, in std"))]
        show(table("Shift (Kolmogorov-Smirnov: 0 alike, 1 disjoint)", columns, rows))
        for pair, number in result["touching"].items():
            first, second = pair.split("-")
            show(
                f"{number} of {result['splits'][second]['tiles']} tiles of {second} "
                f"share a border with a tile of {first}."
            )
    if result["slope"]:
        best = sorted(result["slope"], key=lambda band: (band != "slope", -result["slope"][band]))[:2]
        show(
            "Correlation with the gradient of dem: "
            + ", next ".join(f"{band} {result['slope'][band]:.2f}" for band in best)
            + "."
        )
    problems = result["problems"]
    for problem in problems[:_PROBLEMS]:
        show(f"{problem['severity']}: {problem['kind']}: {problem['message']}")
    if len(problems) > _PROBLEMS:
        show(f"… and {len(problems) - _PROBLEMS} more (--json lists all)")
    errors = sum(problem["severity"] == "error" for problem in problems)
    show(f"{errors} error(s), {len(problems) - errors} warning(s).")


def show_inspection(found: dict[str, Any]) -> None:
    """Print the result of `inspect_zip`.

    Example:
        >>> from pathlib import Path
        >>> from competition.submission.inspect import inspect_zip
        >>> show_inspection(inspect_zip(Path("missing.zip"), {"x.tif": (128, 128)}))
        missing.zip is not fit for CodaBench, 1 problem(s):
          - there is no such file
    """
    path = found["zip"]
    if found["good"]:
        empty = f", {found['empty']} of them without any" if found["empty"] else ""
        show(f"{path} is good: {found['tiles']} masks, {found['foreground_ratio']:.1%} landslide{empty}.")
    else:
        problems = found["problems"]
        show(
            f"{path} is not fit for CodaBench, {len(problems)} problem(s):", *(f"  - {problem}" for problem in problems)
        )
    if found["sha256"]:
        show(f"SHA-256 {found['sha256']}")
    said = {
        "agrees": "The manifest beside it is of these bytes.",
        "differs": "The manifest beside it is of other bytes: one of the two was replaced since.",
        "damaged": "The manifest beside it is damaged.",
    }
    if found["manifest"]:
        show(said[found["manifest"]])


def _signed(value: float | None) -> str:
    return "constant" if value is None else f"{value:+z.2f}"
