"""Run `marsls` in tests and parse its output."""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score

from competition.cli import main

TINY = [
    *("model={options: {base_filters: 2, depth: 1}}", "data.sampling=tiles", "training.encoder_learning_rate=null"),
    *("training.precision=float32", "training.epochs=1", "training.warmup_epochs=0", "inference.views=identity"),
    *("training.batch_size=4", "data.folds=2", "inference.view_sets=[identity, flips]"),
]


SETTINGS = [part for setting in TINY for part in ("--set", setting)]


FIELDS = ("miou", "iou_fg", "iou_bg", "f1", "precision", "recall")


class Result(NamedTuple):
    code: int
    out: str
    err: str


def marsls(*arguments):
    """Run `main` of the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return Result(code, out.getvalue(), err.getvalue())


def process(*arguments, program=("-m", "competition.cli"), timeout=120, **environment):
    """Run marsls in its own process, without the log level that the tests set."""
    inherited = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, *program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=inherited | environment)
    return Result(done.returncode, done.stdout, done.stderr)


def limited(*arguments, size=16_384):
    """Run marsls under a limit of file size, which fails like a full disk."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"
    code = f"{limit}; from competition.cli import main; raise SystemExit(main())"
    return process(*arguments, program=("-c", code), PYTHONDONTWRITEBYTECODE="1")


def succeed(*arguments):
    """Run a command that must succeed, and return its output."""
    result = marsls(*arguments)
    assert result.code == 0, result
    assert "Error" not in result.err, result
    return result


def strict_json(text):
    """Parse strict JSON: without NaN, and without other text around it."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def snapshot(folder):
    """Return all paths below a folder, with the digest of each file, and None for folders."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        for path in Path(folder).rglob("*")
    }


def scores(truth, predicted):
    """Compute the scores with scikit-learn."""
    y, p = (
        np.concatenate([np.ravel(part) for part in truth]),
        np.concatenate([np.ravel(part) for part in predicted]).astype(int),
    )
    fg, bg = jaccard_score(y, p), jaccard_score(y, p, pos_label=0)
    return dict(
        zip(FIELDS, ((fg + bg) / 2, fg, bg, f1_score(y, p), precision_score(y, p), recall_score(y, p)), strict=True)
    )


def numbers(text, row):
    """Return the numbers in the printed table row that begins with a text."""
    line = next(line for line in text.splitlines() if line.strip().startswith(row))
    return [float(number) for number in re.findall(r"[\d.]*\d", line.strip().removeprefix(row))]


def imported(*arguments):
    """Return the top-level packages that a command imports, and its result."""
    result = process(*arguments, program=("-X", "importtime", "-m", "competition.cli"))
    modules = re.findall(r"^import time: .*\| +([\w.]+)$", result.err, re.M)
    return {module.split(".")[0] for module in modules}, result
