"""The command `marsls score`: parse the arguments, call the function, print its result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from competition.cli.column_notes import notes
from competition.cli.options import AsJson, next_line


def score(
    zip_file: Annotated[Path, Argument(metavar="ZIP", help="The zip of a submission.")],
    masks: Annotated[Path, Option(help="Folder of the true masks.")],
    worst: Annotated[int, Option(min=0, help="Number of tiles with the lowest scores to list.")] = 0,
    csv: Annotated[
        Path | None,
        Option(help="Also write the scores and pixel counts of every tile to this CSV file, the lowest scores first."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score a submission as CodaBench does, and compare the score with the one expected in its manifest.

    Example:
        ```sh
        marsls score submissions/default.zip --masks data/val/masks
        ```
    """
    from competition.console import score_table, show, show_json
    from competition.scoring import score as score_zip
    from competition.scoring import write_tiles
    from competition.submission.expectation import expectation, expectation_lines

    result = score_zip(zip_file, masks)
    if csv is not None:
        write_tiles(csv, result.tiles)
    expected = expectation(zip_file, result.scores["miou"])
    if as_json:
        found = {"zip": str(zip_file), "tiles": len(result.tiles), "scores": result.scores, "expected": expected}
        show_json({**found, "per_tile": result.tiles})
        return
    show(score_table(f"{zip_file}: {len(result.tiles)} tiles", [("pooled", result.scores, None)]))
    if expected:
        show(*expectation_lines(expected, result.scores["miou"]))
    if worst:
        show(score_table("Worst tiles", [(tile["name"], tile, None) for tile in result.tiles[:worst]]))
    show(notes("miou"))
    show(next_line("ledger", "add", str(zip_file), ("--phase", "PHASE"), ("--score", "SCORE")) + "   # once uploaded")
