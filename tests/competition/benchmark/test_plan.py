"""The plan of a benchmark: its jobs, what rows share, and epochs that are scaled."""

from pathlib import Path

import pytest

from competition.benchmark.plan import Plan, require_bands, shortened, training_key
from competition.benchmark.request import BenchmarkRequest, plan_of
from marsls_keras.config import load_config
from marsls_keras.config.tables import load_table
from marsls_keras.errors import InputError


def plan(name, rows=None, changes=None, **options):
    table = load_table(name)
    chosen = table.rows if rows is None else table.rows[:rows]
    return Plan(table, chosen, changes or {}, "mmls_v1", **options)


def test_rows_that_differ_in_prediction_only_are_trained_once():
    found = plan("rmau-9", folds=(0, 1), seeds=2)
    jobs = found.jobs()
    assert len(jobs) == 2 * 2 * 2  # folds, seeds, blocks and regions, for nine thresholds
    assert len(jobs[0].predictions) == 8  # None and 0.5 are the same
    assert {job.config.training.seed for job in jobs} == {0, 1}
    assert {job.config.data.cv for job in jobs} == {"blocks", "geographic"}
    assert len(found.speeds()) == 1


def test_rows_that_are_trained_differently_have_jobs_and_runs_of_their_own():
    jobs = plan("marslsnet-3", rows=3, folds=(0,)).jobs()
    assert len(jobs) == len({job.key for job in jobs}) == len({job.run for job in jobs}) == 6
    assert [job.words.partition(",")[0] for job in jobs[:3]] == ["MarsLS-Net (S-3)"] * 2 + ["MarsLS-Net (S-4)"]


def test_a_key_changes_with_all_that_training_depends_on_and_nothing_else():
    base = plan("marslsnet-3", rows=1, folds=(0,)).jobs()[0].key
    for changes, same in (
        ({"training.learning_rate": 0.01}, False),
        ({"data.bands": ["red"]}, False),
        ({"inference.batch_size": 2}, True),
    ):
        assert (plan("marslsnet-3", rows=1, changes=changes, folds=(0,)).jobs()[0].key == base) is same
    assert plan("marslsnet-3", rows=1, folds=(0,), epochs=3).jobs()[0].key != base
    assert plan("marslsnet-3", rows=1, folds=(0,), epochs=100).jobs()[0].key == base  # as many as the recipe has


def test_epochs_shorten_the_schedule_in_proportion():
    table = load_table("mmlsv2-2")
    short = shortened(table.configuration(table.rows[0], "mmls_v2"), 10).training
    assert (short.epochs, short.schedule.every) == (10, 3)
    assert shortened(table.configuration(table.rows[0], "mmls_v2"), 1).training.schedule.every == 1
    mars = shortened(load_config("mars_ls_net")[1], 20).training
    # The learning rate falls as far over 20 epochs as over 100.
    assert mars.schedule.rate * 20 == pytest.approx(0.01 * 100)
    dual = load_config("dual_swin", ["training.swa_epochs=10"])[1]
    short = shortened(dual, 5).training
    assert (short.warmup_epochs, short.swa_epochs) == (pytest.approx(0.3), 1)
    assert training_key(shortened(dual, 50)) == training_key(dual)


def test_the_table_says_how_it_is_less_than_the_recipe():
    said = plan("mmlsv2-4", folds=(0,), epochs=2, changes={"training.batch_size": 16}).notes()
    assert "Epochs of every row: 2, where the recipe has 100" in said[0] and "not the figures of a full" in said[0]
    assert said[1:] == ["Only fold 0 of 5 was trained.", "Changed in every row: training.batch_size=16."]
    assert plan("mmlsv2-4").notes() == []


def test_bands_that_the_data_lack():
    require_bands(["all", "ndvi"], "landslide4sense")
    with pytest.raises(InputError, match="mmls_v1 have no nir, which ndvi needs"):
        require_bands(["all", "ndvi"], "mmls_v1")
    with pytest.raises(InputError, match="Row MarsLS-Net .S-3.: data.bands: tiles of mmls_v1 have no swir1"):
        plan("marslsnet-3", rows=1, changes={"data.bands": ["swir1"]}).require()


def test_a_missing_package_is_named_with_the_networks_that_work_without(monkeypatch):
    from marsls_keras.models import catalogue

    monkeypatch.setattr(catalogue, "find_spec", lambda name: None)
    request = BenchmarkRequest(
        Path("data"), Path("runs"), models=["segmenter"], settings=["model.options.encoder=resnet_v2_18"]
    )
    with pytest.raises(InputError, match=r"needs the package keras-cv(?s:.*)These networks work without: .*unet"):
        plan_of(request)


def ask(**asked):
    return plan_of(BenchmarkRequest(Path("data"), Path("runs"), **asked))


@pytest.mark.parametrize(
    "asked,message",
    [
        ({}, "--table NAME, one of dualswin-3"),
        ({"table": "mmlsv2-2", "models": ["unet"]}, "--table and --models: give one of them"),
        ({"table": "mmlsv2-2", "recipe": "best"}, "--config best: a table has a recipe of its own, unet"),
        ({"models": ["unet", "unett"]}, "Did you mean unet?"),
        ({"models": ["unet", "unet"]}, "unet is given twice"),
        ({"models": ["unet", ""]}, "--models: a name is missing"),
        ({"table": "marslsnet-3", "rows": ["S-3"]}, "--rows S-3: there is no such row"),
        ({"models": ["unet"], "folds": [7]}, "--folds 7"),
        ({"models": ["unet"], "epochs": 3, "budget": 9.0}, "give one of them"),
        ({"models": ["unet"], "settings": ["data.cv=areas"]}, "--set data.cv"),
        ({"models": ["unet"], "settings": ["training.lr=1"]}, "did you mean learning_rate"),
        ({"models": ["unet"], "name": "a/b"}, "--name a/b: expected a plain name"),
    ],
)
def test_wrong_requests(asked, message):
    with pytest.raises(InputError, match=message):
        ask(**asked)


def test_a_right_request():
    name, found = ask(table="marslsnet-3", rows=["MarsLS-Net (S-4)"], folds=[1, 0, 1], settings=["training.seed=7"])
    assert name == "marslsnet-3" and found.folds == (0, 1)
    assert [job.config.training.seed for job in found.jobs()] == [7] * 4
    assert ask(models=["unet"])[0] == "models"
