"""Output of a training: history.csv, log.txt, and the progress bar of a terminal."""

import csv
import io
import math
import re
from pathlib import Path

import keras
import numpy as np
import pytest

from marsls_keras.errors import RunError
from marsls_keras.runs.run import history_text, read_history
from marsls_keras.training.callbacks.history import HistoryLog
from marsls_keras.training.callbacks.progress import ProgressDisplay


def test_the_history_keeps_every_digit(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {
            "epoch": epoch,
            **{f"x{i}": float(v) for i, v in enumerate(rng.normal(size=5) * 10.0 ** rng.integers(-300, 300, 5))},
        }
        for epoch in range(20)
    ]
    rows.append({"epoch": 20, "x0": 0.1 + 0.2, "x1": 5e-324, "x2": math.inf, "x3": 1.7976931348623157e308, "x4": -0.0})
    path = tmp_path / "history.csv"
    path.write_text(history_text(rows), encoding="utf-8")
    assert read_history(path) == rows
    assert math.copysign(1, read_history(path)[-1]["x4"]) == -1
    with open(path, newline="") as file:  # and other CSV readers can read it
        table = list(csv.DictReader(file))
    assert [list(row) for row in table] == [["epoch", "x0", "x1", "x2", "x3", "x4"]] * 21
    assert [float(row["x3"]) for row in table] == [row["x3"] for row in rows]


def test_a_loss_that_is_no_number_is_kept_as_such(tmp_path):
    (tmp_path / "history.csv").write_text(history_text([{"epoch": 0, "loss": math.nan}, {"epoch": 1, "loss": 0.5}]))
    first, second = read_history(tmp_path / "history.csv")
    assert math.isnan(first["loss"]) and second == {"epoch": 1, "loss": 0.5}


def test_without_a_file_there_is_no_history(tmp_path):
    assert read_history(tmp_path / "history.csv") == []


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def train(folder: Path, rows: list, epochs: int, first: int = 0) -> ProgressDisplay:
    """Fit one weight with the callbacks under test, as `train_fold` arranges them, and stop the bar."""
    x = np.linspace(-1, 1, 12, dtype=np.float32)[:, None]
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([3, 6], [0.5, 0.25, 0.125])
    model.compile(
        optimizer=keras.optimizers.SGD(rate), loss="mse", metrics=[keras.metrics.MeanAbsoluteError(name="miou")]
    )
    model.optimizer.iterations.assign(3 * first)
    progress = ProgressDisplay("a [run] fold 0", epochs, folder / "log.txt")
    progress.follow(rows, 3, 4)
    scores = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: logs.update(val_loss=0.25, val_miou=0.5, ema=epoch % 2)
    )
    callbacks = [scores, HistoryLog(folder / "history.csv", rows, 12), progress]
    try:
        model.fit(x, 2 * x, batch_size=4, epochs=epochs, initial_epoch=first, verbose=0, callbacks=callbacks)
    finally:
        progress.bar.stop()
    return progress


LINE = (
    r"a \[run\] fold 0 · epoch +(\d+)/(\d+)  loss (\S+)  val loss (\S+)  mIoU (\S+?)( \(EMA\))?  "
    r"(\d+) tiles/s  (\d+:\d\d) left"
)


def test_history_and_log_have_a_line_per_epoch(tmp_path, capsys):
    rows = []
    train(tmp_path, rows, 3)
    assert read_history(tmp_path / "history.csv") == rows
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert [row["learning_rate"] for row in rows] == [0.5, 0.25, 0.125]
    assert list(rows[0]) == [
        "epoch",
        "loss",
        "miou",
        "val_loss",
        "val_miou",
        "ema",
        "learning_rate",
        "seconds",
        "tiles_per_second",
    ]
    assert rows[0]["loss"] > rows[1]["loss"] > rows[2]["loss"]
    # All twelve tiles were trained on within the epoch's seconds; a third of it is other work at most where nothing is
    # evaluated.
    assert all(0 < 12 / row["tiles_per_second"] <= row["seconds"] + 0.001 for row in rows)

    log = (tmp_path / "log.txt").read_text()
    assert capsys.readouterr().err == log
    found = [re.fullmatch(LINE, line).groups() for line in log.splitlines()]
    assert [
        (int(epoch), int(of), float(loss), float(val_loss), float(miou), ema)
        for epoch, of, loss, val_loss, miou, ema, _, _ in found
    ] == [(i + 1, 3, round(row["loss"], 4), 0.25, 0.5, " (EMA)" if i % 2 else None) for i, row in enumerate(rows)]
    assert [int(speed) for *_, speed, _ in found] == [round(row["tiles_per_second"]) for row in rows]
    assert found[-1][-1] == "0:00"


def test_a_resumed_training_adds_its_lines_to_those_that_are_there(tmp_path):
    rows = []
    train(tmp_path, rows, 1)
    rows = read_history(tmp_path / "history.csv")
    train(tmp_path, rows, 3, first=1)
    assert [row["epoch"] for row in read_history(tmp_path / "history.csv")] == [0, 1, 2]
    epochs = [re.fullmatch(LINE, line).group(1, 2) for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert epochs == [("1", "1"), ("2", "3"), ("3", "3")]


def test_time_left_is_told_from_the_epochs_of_this_process(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    rows = [{"epoch": 0}]
    progress = ProgressDisplay("run", 40, tmp_path / "log.txt")
    progress.follow(rows, 3, 4)
    progress.on_train_begin()
    for epoch, (seconds, left) in enumerate([(100, "1:03:20"), (100, "1:01:40"), (40, "0:48:00")], 1):
        now[0] += seconds
        rows.append({"loss": 1.0, "val_loss": 1.0, "val_miou": 0.5, "tiles_per_second": 1.0})
        progress.on_epoch_end(epoch, {})
        # Epochs left times the mean of those that were timed.
        expected = (39 - epoch) * (now[0] - 100) / epoch
        assert (tmp_path / "log.txt").read_text().splitlines()[-1].endswith(f"  {left.removeprefix('0:')} left")
        assert sum(int(part) * 60**i for i, part in enumerate(reversed(left.split(":")))) == pytest.approx(
            expected, abs=0.5
        )


def test_a_terminal_shows_a_bar_and_gets_its_cursor_back(tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("NO_COLOR", raising=False)
    train(tmp_path, [], 2)
    shown = terminal.getvalue()
    assert (
        "a [run] fold 0 · epoch 1/2" in shown
        and "3/3" in shown
        and re.search(r"loss \d\.\d{4} · mIoU \d\.\d{4} · \d+ tiles/s · \d+\.\d GiB", shown)
    )
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1 and shown.rindex("\x1b[?25h") > shown.rindex(
        "\x1b[?25l"
    )
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 2


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "log.txt").symlink_to("/dev/full")
    progress = ProgressDisplay("run", 1, tmp_path / "log.txt")
    with pytest.raises(RunError, match=re.escape(f"Could not write {tmp_path}/log.txt: No space left on device.")):
        progress.say("a line")


def test_the_log_of_a_whole_training(tiny_run):
    for result in tiny_run.results:
        folder = tiny_run.path / f"fold_{result['fold']}"
        first, *lines = (folder / "log.txt").read_text().splitlines()
        assert first.startswith("Training unet (1,957 parameters) on ") and f" {result['tiles']} held out" in first
        rows = read_history(folder / "history.csv")
        assert len(lines) == len(rows) == 2
        for row, line in zip(rows, lines, strict=True):
            assert (
                f"epoch   {row['epoch'] + 1:.0f}/2  loss {row['loss']:.4f}  "
                f"val loss {row['val_loss']:.4f}  mIoU {row['val_miou']:.4f}" in line
            )
            assert ("(EMA)" in line) == (row["miou_ema"] > row["miou_last"])
