"""Results on stdout, progress on stderr, names unchanged, and messages of TensorFlow only after a failure."""

import json
import logging
import os
import sys

import pytest

from competition.cli.messages import messages_on_stderr
from competition.console import elements_table, score_table, show, show_check, show_json, table
from marsls_keras.backend import quiet_stderr
from marsls_keras.counts import SCORES
from marsls_keras.inference.decision_record import ElementGain, Gain

ODD = "runs/[bold]a[/bold] :smile: [/]"  # brackets and colons that mean something to rich, but not to us


def test_text_is_shown_as_it_is(capsys):
    line = f"{ODD} " + "word " * 60 + "end"
    show(line, ODD)
    with messages_on_stderr():
        logging.getLogger("marsls_keras.some.module").info(line)
    out, err = capsys.readouterr()
    assert out == f"{line}\n{ODD}\n"  # not wrapped, nothing taken for markup or an emoji
    assert err == f"{line}\n"


def test_no_colours_in_a_pipe(capsys):
    show("3 tiles in 0.5 s, 'a.zip', https://example.org")
    show(table("Title", ["name", "number"], [["a", 1]]))
    assert "\x1b" not in capsys.readouterr().out


def test_table(capsys):
    show(table(f"Title {ODD}", ["name", ODD, "share"], [[ODD, 3, 0.123456], ["b", "1,946,097", 1.0]]))
    out = capsys.readouterr().out
    title, _, head, _, first, second, *_ = out.splitlines()
    assert title.rstrip() == f"Title {ODD}"
    assert ODD in head and head.split()[0] == "name"
    assert first.strip().startswith(ODD) and first.split()[-2:] == ["3", "0.1235"]
    assert second.split() == ["b", "1,946,097", "1.0000"]


def test_a_wide_table_is_whole_in_a_file(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    show(table("Title", [f"column {i}" for i in range(10)], [[f"value-{i}" for i in range(10)]]))
    out = capsys.readouterr().out
    assert all(f"value-{i}" in out and f"column {i}" in out for i in range(10))
    assert len({line for line in out.splitlines() if "value-" in line}) == 1


def scores(start):
    return {name: start + i / 100 for i, name in enumerate(SCORES)}


def test_scores_with_and_without_interval(capsys):
    show(score_table("Scores", [("a", scores(0.1), None), ("b", scores(0.2), None)]))
    out = capsys.readouterr().out
    assert "95 % interval" not in out
    assert [line.split() for line in out.splitlines() if line.strip().startswith(("a ", "b "))] == [
        ["a", "0.1000", "0.1100", "0.1200", "0.1300", "0.1400", "0.1500"],
        ["b", "0.2000", "0.2100", "0.2200", "0.2300", "0.2400", "0.2500"],
    ]
    head = next(line for line in out.splitlines() if "mIoU" in line)
    assert head.split() == ["mIoU", "IoU_fg", "IoU_bg", "F1", "precision", "recall"]

    show(score_table("Scores", iter([("a", scores(0.1), [0.05, 0.25]), ("b", scores(0.2), None)])))
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip().startswith(("a ", "b "))}
    assert rows["a"][:3] == ["0.1000", "0.0500–0.2500", "0.1100"]
    assert rows["b"][:2] == ["0.2000", "0.2100"]


def test_json_is_for_machines(capsys):
    value = {"path": "Übung/[red]\udcff.zip", "scores": [0.1, None]}
    show_json(value)
    out = capsys.readouterr().out
    assert out.isascii() and json.loads(out) == value


def problem(i, severity):
    return {"kind": "no-data", "message": f"tile {i} {ODD}", "severity": severity}


def test_problems_are_cut_but_counted(capsys):
    nothing = {"root": "data", "release": None, "size": None, "splits": {}, "shift": {}, "touching": {}, "slope": None}
    show_check(
        nothing | {"problems": [problem(i, "error") for i in range(3)] + [problem(i, "warning") for i in range(3, 35)]}
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "data: no readable tile"
    assert f"error: no-data: tile 2 {ODD}" in lines and f"warning: no-data: tile 29 {ODD}" in lines
    assert not any("tile 30" in line for line in lines)
    assert lines[-2:] == ["… and 5 more (--json lists all)", "3 error(s), 32 warning(s)."]


def test_chatter_is_held_back(capfd):
    with quiet_stderr(loud=False):
        os.write(2, b"chatter of native code\n")
        print("and of Python", file=sys.__stderr__, flush=True)
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_chatter_is_shown_if_the_block_fails(capfd):
    with pytest.raises(ImportError, match="no such backend"), quiet_stderr(loud=False):
        os.write(2, b"the reason\n")
        raise ImportError("no such backend")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "the reason\nafter\n"


def test_chatter_is_shown_on_demand(capfd):
    with quiet_stderr(loud=True):
        os.write(2, b"chatter\n")
    assert capfd.readouterr().err == "chatter\n"


def test_messages_of_modules_go_to_stderr_once_and_only_while_a_command_runs(capsys, caplog):
    library, commands = (
        logging.getLogger("marsls_keras.training.train_fold"),
        logging.getLogger("competition.commands.train"),
    )
    with messages_on_stderr():
        library.info("50 % of [bold] tiles")
        commands.warning("Warning: nothing")
        logging.getLogger("others").warning("chatter")
        with messages_on_stderr():  # a command within a command
            commands.info("within")
    assert capsys.readouterr().err == "50 % of [bold] tiles\nWarning: nothing\nwithin\n"
    assert caplog.messages == ["chatter"]
    library.info("after")
    assert capsys.readouterr().err == "" and caplog.messages == ["chatter", "after"]


def test_no_figure_is_a_negative_zero(capsys):
    tiny, nothing = Gain(miou=-0.00001, interval=[-0.00004, -0.0]), Gain(miou=0.01, interval=None)
    show(
        elements_table("Elements", [ElementGain(element="threshold", value=0.5, gain=tiny, alone=nothing, kept=False)])
    )
    out = capsys.readouterr().out
    assert ["threshold", "0.5"] in [line.split()[:2] for line in out.splitlines()]
    assert "-0.0000" not in out and out.count("+0.0000") == 3 and "+0.0100" in out and "–" in out
