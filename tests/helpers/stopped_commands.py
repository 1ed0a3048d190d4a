"""Commands in a process of their own that a signal stops while a training is under way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence

COMMANDS = """
import json, os, signal, sys
{before}
from marsls_keras.training import train_fold as fit
from marsls_keras.training.callbacks import progress

class ProgressDisplay(progress.ProgressDisplay):
    def on_train_batch_begin(self, batch, logs=None):
        global stop
        if stop and len(self.rows) == 1 and batch == 0:
            stop = False
            os.kill(os.getpid(), signal.SIGTERM)

fit.ProgressDisplay = ProgressDisplay
from competition.cli import main
codes = []
for command in json.loads(sys.argv[1]):
    stop = command[0] == "stop"
    print("\\n==", *command, file=sys.stderr)
    codes.append(main(command[stop:]))
print(json.dumps(codes))
"""


def run_commands(commands: Sequence[Sequence[str]], before: str = "", environment: dict[str, str] = {}) -> tuple:  # noqa: B006
    """Run commands of `marsls` one after the other in one process.

    A command that begins with "stop" gets SIGTERM while the first step of its second epoch is under way.

    Args:
        commands: The arguments of each command.
        before: Python that runs before the package is imported.
        environment: Variables besides those of this process.

    Returns:
        The exit codes, and what was written to stderr.
    """
    return run_code(COMMANDS.replace("{before}", before), json.dumps([list(c) for c in commands]), environment)


def run_code(code: str, argument: str, environment: dict[str, str]) -> tuple:
    """Run Python in a process of its own; return the JSON in the last line of its stdout, and its stderr."""
    done = subprocess.run(
        [sys.executable, "-c", code, argument], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr
