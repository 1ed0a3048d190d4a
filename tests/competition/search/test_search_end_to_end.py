"""`marsls search`, the real command: trials, recorded failures, resuming, a truncated journal, the recipe."""

import json
import re
import shutil

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from competition.cli import main
from marsls_keras.config import load_config
from marsls_keras.data.synthetic.mars import write_dataset

RECIPE = """
model: {name: unet, options: {base_filters: 2, depth: 1}}
data: {folds: 2, block_size: 1}
training: {epochs: 1, batch_size: 4, warmup_epochs: 0, ema_decay: null}
search:
  training.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}
  loss: [{bce: 1}, {dice: 1}]
"""


def search(root, *more: str) -> int:
    return main(
        [
            "search",
            "--config",
            str(root / "tiny.yaml"),
            "--data",
            str(root / "data"),
            "--runs",
            str(root / "runs"),
            *more,
        ]
    )


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    root = tmp_path_factory.mktemp("search")
    (root / "tiny.yaml").write_text(RECIPE)
    write_dataset(root / "data", "mmls_v2", train=8, val=2, test=2, size=32)
    assert search(root, "--trials", "1", "--json") == 0
    return root


def study_of(root) -> optuna.Study:
    backend = JournalFileBackend(str(root / "runs" / "tiny" / "search" / "journal.log"))
    (summary,) = optuna.get_all_study_summaries(JournalStorage(backend))
    return optuna.load_study(study_name=summary.study_name, storage=JournalStorage(backend))


def test_the_best_trial_is_a_recipe_of_its_own(searched):
    (trial,) = study_of(searched).trials
    _, best = load_config(str(searched / "runs" / "tiny" / "search" / "best.yaml"))
    assert trial.state.name == "COMPLETE" and 0 < trial.value < 1
    assert (
        1e-4 <= best.training.learning_rate <= 1e-2
        and best.training.learning_rate == trial.params["training.learning_rate"]
    )
    assert list(best.loss) in (["bce"], ["dice"]) and best.model.options == {"base_filters": 2, "depth": 1}
    metrics = list((searched / "runs" / "tiny" / "search").rglob("metrics.json"))
    assert json.loads(metrics[0].read_text())["scores"]["miou"] == pytest.approx(trial.value, abs=1e-9)


@pytest.mark.slow
def test_a_study_goes_on_where_it_stopped_also_with_a_torn_journal(searched, tmp_path, capsys):
    root = tmp_path / "copy"
    shutil.copytree(searched, root)
    journal = root / "runs" / "tiny" / "search" / "journal.log"
    with open(journal, "ab") as file:
        file.write(b'{"op_code": 4, "worker')  # as a process leaves it that is killed while it writes
    assert search(root, "--trials", "2") == 0
    shown = capsys.readouterr()
    assert (
        "had a torn end: the last 22 bytes were cut off" in shown.err
        and len(list(journal.parent.glob("*damaged*"))) == 1
    )
    assert re.search(r"Next: marsls train --config \S+best.yaml", shown.out)
    assert [trial.number for trial in study_of(root).trials] == [0, 1]
    assert search(root, "--trials", "2") == 0  # nothing is left to do
    assert len(study_of(root).trials) == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "search={training.epoch: [1, 2]}"], "training.epoch"),
        (["--set", "search={training.learning_rate: {low: 1, high: 0.1}}"], "low (1) must be less than high (0.1)"),
        (["--views", "d4"], "--views"),
        (["--run", "a", "--run", "b"], "a search belongs to one run"),
        (["--fold", "7"], "There is no fold 7"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_starts(searched, tmp_path, capsys, more, message):
    before = sorted(searched.rglob("*"))
    assert search(searched, *more) == 2
    assert message in capsys.readouterr().err
    assert sorted(searched.rglob("*")) == before


def test_options_of_the_search_are_refused_by_the_decision(capsys):
    assert main(["tune", "--epochs", "3"]) == 2
    assert "--epochs. It is an option of marsls train, search" in capsys.readouterr().err
