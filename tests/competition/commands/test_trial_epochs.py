"""A number of epochs that a run was begun with on trial is not used for further folds unless it is given again."""

import shlex

from competition.cli import main
from marsls_keras.config import read_config


def test_a_plain_train_after_a_trial_refuses_and_its_commands_work(tiny_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begin = ["train", "--config", str(tiny_run.recipe), "--data", str(tiny_run.data), "--run", "mine"]
    assert main([*begin, "--fold", "0", "--epochs", "1"]) == 0
    said = capsys.readouterr()
    assert "warm-up" not in said.err  # half an epoch, as the recipe has it
    assert said.out.splitlines()[-1] == "Next: marsls train --run mine --epochs 1"  # the first of the commands below
    assert main(["train", "--run", "mine"]) == 2
    said = capsys.readouterr().err
    assert f"Run mine was begun with 1 epochs; its recipe {tiny_run.recipe} has 2." in said
    commands = [shlex.split(line.partition(": marsls ")[2]) for line in said.splitlines() if ": marsls " in line]
    assert commands == [
        ["train", "--run", "mine", "--epochs", "1"],
        ["train", "--run", "mine", "--resume", "--epochs", "2"],
        ["train", "--config", str(tiny_run.recipe), "--run", "mine-2"],
    ]
    assert main(["train", "--run", "mine", "--fold", "0"]) == 2  # it is finished, and that is what is said
    assert "Fold 0 of run mine is finished." in capsys.readouterr().err
    assert main([*commands[1], "--fold", "1"]) == 0
    assert "--epochs" not in capsys.readouterr().out  # the recipe's number now
    assert read_config(tmp_path / "runs" / "mine" / "config.yaml").training.epochs == 2
    assert main(["train", "--run", "mine", "--fold", "1"]) == 2
    assert "is finished" in capsys.readouterr().err


def test_a_warm_up_that_is_longer_than_the_training_shrinks_and_it_is_said(tiny_run, tmp_path, capsys):
    begin = [
        "train",
        "--config",
        str(tiny_run.recipe),
        "--data",
        str(tiny_run.data),
        "--runs",
        str(tmp_path),
        "--fold",
        "0",
    ]
    assert main([*begin, "--epochs", "1", "--set", "training.warmup_epochs=3"]) == 0
    assert "warm-up 0.25 epochs instead of 3" in capsys.readouterr().err
