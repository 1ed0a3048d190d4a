"""Process that computes shards of a map: python -m marsls_keras.mapping.worker OUT RUNS RASTER.

Each line of stdin asks for a shard: its number, and that of the next one or "-". Each line of stdout is a JSON list:
["windows", n] for windows that were predicted, ["done"] for a finished shard, ["failed", class, message] for an error
that another attempt would meet again. The end of stdin, as when the parent process ends, ends the process.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from marsls_keras.errors import MarslsError
from marsls_keras.mapping.shards import ShardComputer


def main(out: str, runs: str, raster: str) -> int:
    """Answer requests until stdin ends, and return the exit code.

    Args:
        out: Folder of the map.
        runs: Folder of the runs.
        raster: The raster.

    Example:
        >>> main("valles", "runs", "valles.tif")  # doctest: +SKIP
        0
    """
    # Libraries print to stdout, too: what they print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(*content: Any) -> None:
        print(json.dumps(content), file=answers, flush=True)

    try:
        computer = ShardComputer.open(Path(out), Path(runs), raster)
        for line in sys.stdin:
            number, following = line.split()
            ahead = None if following == "-" else int(following)
            computer.compute(int(number), ahead, lambda windows: answer("windows", windows))
            answer("done")
    except MarslsError as error:
        answer("failed", type(error).__name__, str(error))
        return error.exit_code
    except BrokenPipeError:  # the parent process has ended
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
