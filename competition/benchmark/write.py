"""Write a benchmark's table as Markdown, CSV and HTML, and format it for the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from competition.benchmark.plan import PARTITIONS
from competition.console import LABELS, text_table
from marsls_keras.config.tables import Published, ResultTable
from marsls_keras.counts import SCORES
from marsls_keras.files import write_text
from marsls_keras.report.benchmark_page import Point, TextTable, write_page
from marsls_keras.report.number_text import change, duration, signed

_TITLES = {
    "blocks": "Held out in blocks: next to tiles that were trained on",
    "regions": "Regions held out: ground of which nothing was trained on",
}
_COSTS = (
    "Latency: median of 100 predictions of one tile after a warm-up, all views of the row. Tiles/s: in batches. "
    "FLOPs: of one tile, convolutions and matrix products, two for a multiplication with addition. Memory: peak of the "
    "process that trained a fold, with the tiles that it holds."
)
_SCORES = (
    "Scores are pooled over all held-out pixels, folds and seeds. Intervals (95 %) leave out one block of neighbouring "
    "tiles at a time; those of differences are paired by block. ± is the standard deviation over seeds."
)


def sections(table: ResultTable, rows: Sequence[dict[str, Any]], intervals: bool = True) -> list[TextTable]:
    """Return the tables of a benchmark as text: scores in blocks and in regions, costs, and the published figures.

    Args:
        table: The table.
        rows: From `competition.benchmark.comparison.compare`.
        intervals: Whether every score has its interval, or only the mIoU.

    Example:
        >>> from marsls_keras.config.tables import load_table
        >>> sections(load_table("dualswin-9"), [])[0].columns[:2]
        ['', 'mIoU']
    """
    made = [_scores(_TITLES[part], part, rows, intervals) for part in PARTITIONS]
    made.append(_costs(rows))
    if published := _published(table, rows):
        made.append(published)
    return made


def _scores(title: str, part: str, rows: Sequence[dict[str, Any]], intervals: bool) -> TextTable:
    first = next((row["name"] for row in rows if not row["not_offered"]), "the first row")
    seeds = any(row[part] and row[part]["seeds"] for row in rows)
    columns = ["", *(LABELS[name] for name in SCORES), "published mIoU", f"over {first}", "trainings"]
    if seeds:
        columns.insert(2, "mean ± over seeds")
    cells = []
    for row in rows:
        found = row[part]
        published = "–" if "miou" not in row["published"] else _number(row["published"]["miou"])
        if found is None:
            why = row["not_offered"] and f"not offered: {row['not_offered']}"
            line = [f"– {why or '; '.join(row['failed'])}".strip(), *["–"] * (len(columns) - 5)]
            cells.append([row["name"], *line, published, "–", f"0 of {row['asked']}" if row["asked"] else "–"])
            continue
        line = []
        for name in SCORES:
            ends = found["intervals"][name] if intervals or name == "miou" else None
            between = f" ({ends[0]:.4f}–{ends[1]:.4f})" if ends else ""
            line.append(f"{found['scores'][name]:.4f}{between}")
        if seeds:
            spread = found["seeds"]
            line.insert(1, f"{spread['mean']:.4f} ± {spread['deviation']:.4f}" if spread else "–")
        gain = found["difference"]
        over = "–" if gain is None else f"{signed(gain['miou'])} ({change(gain['interval'])})"
        cells.append([row["name"], *line, published, over, f"{found['trainings']} of {row['asked']}"])
    return TextTable(title, columns, cells, _SCORES)


def _costs(rows: Sequence[dict[str, Any]]) -> TextTable:
    columns = ["", "parameters", "GFLOPs", "training of a fold", "training tiles/s"]
    columns += ["latency, ms", "tiles/s", "peak memory, GiB"]
    cells = []
    for row in rows:
        speed, trained = row["speed"] or {}, row["blocks"] or row["regions"] or {}
        memory = trained.get("memory") or {}
        cells.append(
            [
                row["name"],
                "–" if not speed else f"{speed['parameters']:,}",
                "–" if not speed or speed["flops"] is None else f"{speed['flops'] / 1e9:.2f}",
                duration(trained.get("seconds")),
                "–" if not speed else f"{speed['training_tiles_per_second']:.1f}",
                "–" if not speed else f"{1000 * speed['latency']:.1f}",
                "–" if not speed else f"{speed['tiles_per_second']:.1f}",
                ", ".join(f"{place} {value:.2f}" for place, value in memory.items()) or "–",
            ]
        )
    devices = ", ".join(dict.fromkeys(row["speed"]["device"] for row in rows if row["speed"]))
    return TextTable(f"Cost{f', on {devices}' if devices else ''}", columns, cells, _COSTS)


def _published(table: ResultTable, rows: Sequence[dict[str, Any]]) -> TextTable | None:
    """Return the table of published figures, with the columns that the paper has; None without any."""
    labels = {
        **LABELS,
        "deviation": "± mIoU",
        "parameters": "parameters",
        "latency": "latency, ms",
        "training": "training, h",
    }
    keys = [key for key in labels if any(key in row["published"] for row in rows)]
    if not keys:
        return None
    cells = [
        [row["name"], *(_cell(key, row["published"][key]) if key in row["published"] else "–" for key in keys)]
        for row in rows
    ]
    on = f"On {table.judged}." if table.judged else ""
    return TextTable(f"Published: {table.source}", ["", *(labels[key] for key in keys)], cells, on)


def _cell(key: str, value: float) -> str:
    if key == "parameters":
        return f"{value:,.0f}"
    return f"{1000 * value:.0f}" if key == "latency" else _number(value)


def _number(value: float) -> str:
    return f"{value:.4g}"


def _row_notes(rows: Sequence[dict[str, Any]]) -> list[str]:
    found = [f"{row['name']}: {row['note']}" for row in rows if row["note"]]
    return found + [f"{row['name']} failed: {'; '.join(row['failed'])}" for row in rows if row["failed"]]


def tables(table: ResultTable, rows: Sequence[dict[str, Any]], notes: Sequence[str]) -> list[str | Table]:
    """Return a benchmark's table for the terminal: scores, costs and notes.

    Example:
        >>> from marsls_keras.config.tables import load_table
        >>> tables(load_table("dualswin-9"), [], ["A note."])[-1]
        'A note.'
    """
    made: list[str | Table] = []
    for part in sections(table, rows, intervals=False):
        made.append(text_table(part.title, part.columns, part.rows, numbers=part.columns[1:]))
    return [*made, *_row_notes(rows), *notes]


def write_table(folder: Path, table: ResultTable, rows: Sequence[dict[str, Any]], notes: Sequence[str]) -> list[Path]:
    """Write table.md, table.csv and table.html into a folder, atomically, and return their paths.

    Raises:
        RunError: If one cannot be written.

    Example:
        >>> from marsls_keras.config.tables import load_table
        >>> [path.name for path in write_table(Path("."), load_table("dualswin-9"), [], [])]
        ['table.md', 'table.csv', 'table.html']
    """
    said = [*notes, *_row_notes(rows)]
    files = [folder / f"table.{ending}" for ending in ("md", "csv", "html")]
    write_text(files[0], _markdown(table, rows, said))
    write_text(files[1], _csv(rows))
    write_page(files[2], table.title, table.source, sections(table, rows), said, points(rows))
    return files


def points(rows: Sequence[dict[str, Any]]) -> list[Point]:
    """Return the points of the chart of accuracy against latency, of rows that have both.

    Example:
        >>> points([])
        []
    """
    return [
        Point(row["name"], part, row["speed"]["latency"], row[part]["scores"]["miou"], row[part]["intervals"]["miou"])
        for part in PARTITIONS
        for row in rows
        if row[part] and row["speed"]
    ]


def _markdown(table: ResultTable, rows: Sequence[dict[str, Any]], notes: Sequence[str]) -> str:
    lines = [f"# {table.title}", "", f"{table.source}.", ""]
    lines += [f"- {note}" for note in notes]
    for part in sections(table, rows):
        lines += ["", f"## {part.title}", "", _line(part.columns), _line(["---", *["---:"] * (len(part.columns) - 1)])]
        lines += [_line(row) for row in part.rows]
        lines += ["", part.note] if part.note else []
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    """Return one line for each row and way to hold out, with all digits; an empty cell where there is no figure."""
    speeds = ("parameters", "flops", "latency", "tiles_per_second", "training_tiles_per_second", "device")
    published = tuple(Published.model_fields)
    columns = ["row", "held_out", "views", "threshold", "trainings", "asked"]
    columns += [f"{name}{end}" for name in SCORES for end in ("", "_low", "_high")]
    columns += ["seeds_mean", "seeds_deviation", "difference", "difference_low", "difference_high"]
    columns += ["training_seconds", "memory_host", "memory_device", *speeds]
    columns += [f"published_{name}" for name in published] + ["not_offered", "failed"]
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        for part in PARTITIONS:
            line: dict[str, Any] = {"row": row["name"], "held_out": part, "asked": row["asked"], "views": row["views"]}
            line |= {"threshold": row["threshold"], "not_offered": row["not_offered"]}
            line |= {"failed": "; ".join(row["failed"])}
            line |= {f"published_{name}": row["published"].get(name) for name in published}
            line |= {name: (row["speed"] or {}).get(name) for name in speeds}
            if found := row[part]:
                for name in SCORES:
                    low, high = found["intervals"][name] or (None, None)
                    line |= {name: found["scores"][name], f"{name}_low": low, f"{name}_high": high}
                spread, gain = found["seeds"] or {}, found["difference"] or {}
                low, high = gain.get("interval") or (None, None)
                line |= {"seeds_mean": spread.get("mean"), "seeds_deviation": spread.get("deviation")}
                line |= {"difference": gain.get("miou"), "difference_low": low, "difference_high": high}
                line |= {"training_seconds": found["seconds"], "trainings": found["trainings"]}
                line |= {f"memory_{place}": value for place, value in found["memory"].items()}
            writer.writerow(line)
    return out.getvalue()
