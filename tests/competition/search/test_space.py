"""The search space: parsing, errors, and configurations from draws."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from competition.search.space import Space
from marsls_keras.config import (
    Config,
    Recipe,
    changed_keys,
    load_config,
    load_recipe,
    read_config,
    recipes,
    write_config,
)
from marsls_keras.errors import InputError


def space(keys, *settings):
    return Space.of(load_recipe("unet", [*settings, f"search={keys}"])[1])


def refused(keys, *settings):
    with pytest.raises(InputError) as caught:
        space(keys, *settings)
    assert caught.value.exit_code == 2
    return str(caught.value)


def drawn(made, number=50):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    trials = [study.ask() for _ in range(number)]
    return [made.draw(trial) for trial in trials], trials


def test_lists_and_ranges_become_the_distributions_of_optuna():
    made = space(
        "{training.learning_rate: {low: 1e-4, high: 1e-2, log: true},"
        " training.ema_decay: [null, 0.9], training.xla: [on, off],"
        " model.options.base_filters: {type: int, low: 8, high: 32, step: 8},"
        " augmentation.light.brightness: {low: 0, high: 0.5},"
        " loss: [{bce: 1}, {focal: {weight: 0.5, gamma: 2}, dice: 0.5}]}",
    )
    chosen, trials = drawn(made)
    assert trials[0].distributions == {
        "training.learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
        "training.ema_decay": CategoricalDistribution((None, 0.9)),
        "training.xla": CategoricalDistribution((True, False)),  # as YAML reads it, and the configuration takes it
        "model.options.base_filters": IntDistribution(8, 32, step=8),
        "augmentation.light.brightness": FloatDistribution(0, 0.5),
        "loss": CategoricalDistribution(("{bce: 1}", "{focal: {weight: 0.5, gamma: 2}, dice: 0.5}")),
    }
    assert {values["model.options.base_filters"] for values in chosen} == {8, 16, 24, 32}
    for values, trial in zip(chosen, trials, strict=True):
        config = made.configuration(values)
        assert config.training.learning_rate == trial.params["training.learning_rate"]
        assert config.model.options["base_filters"] == trial.params["model.options.base_filters"]
        assert config.augmentation.light.brightness == trial.params["augmentation.light.brightness"]
        assert config.loss in ({"bce": 1}, {"focal": {"weight": 0.5, "gamma": 2}, "dice": 0.5})
        assert made.chosen(trial.params) == values  # from the study back to the configuration
        changed = {line.split(":")[0] for line in changed_keys(load_config("unet")[1], config)}
        assert all(any(key.startswith(prefix) for prefix in made.keys) for key in changed)


def test_sections_come_before_what_is_in_them_in_whatever_order_they_are_written():
    made = space(
        "{loss.focal.gamma: {low: 1, high: 3}, augmentation.cutmix: [0.5],"
        " augmentation.preset: [none, strong], loss: [{focal: 1}]}"
    )
    assert list(made.keys) == ["loss", "augmentation.preset", "augmentation.cutmix", "loss.focal.gamma"]
    config = made.configuration(
        {"loss": {"focal": 1}, "augmentation.preset": "none", "augmentation.cutmix": 0.5, "loss.focal.gamma": 1.5}
    )
    assert config.loss == {"focal": {"weight": 1, "gamma": 1.5}}  # the weight stays
    assert (config.augmentation.cutmix, config.augmentation.rot90, config.augmentation.mosaic) == (0.5, 0, 0)


def test_a_parameter_of_a_loss_is_drawn_only_where_the_loss_is():
    made = space("{loss: [{bce: 1}, {tversky: 0.5, dice: 0.5}], loss.tversky.alpha: {low: 0.1, high: 0.9}}")
    chosen, _ = drawn(made)
    assert {("loss.tversky.alpha" in values, "tversky" in values["loss"]) for values in chosen} == {
        (True, True),
        (False, False),
    }
    assert made.configuration({"loss": {"bce": 1}}).loss == {"bce": 1}


def test_the_weight_of_a_term_may_be_searched_by_itself():
    made = space("{loss.dice: {low: 0.1, high: 1}}")
    assert made.configuration({"loss.dice": 0.25}).loss == {"bce": 0.5, "dice": 0.25}


@pytest.mark.parametrize(
    "keys,expected",
    [
        ("[1]", "search: expected keys of the configuration"),
        ("{training.learning_rate: 0.1}", "training.learning_rate: expected a list of values, or a range"),
        ("{training.learning_rate: []}", "training.learning_rate: expected a list"),
        ("{training.learning_rate: [0.1, 0.1]}", "training.learning_rate: the same value is listed twice"),
        ("{training.learning_rate: {low: 1}}", "training.learning_rate: high: Field required"),
        ("{training.learning_rate: {low: 2, high: 1}}", "training.learning_rate: low (2) must be less than high (1)"),
        (
            "{training.learning_rate: {low: 0, high: 1, log: true}}",
            "training.learning_rate: low must be above 0 where log is true",
        ),
        ("{training.learning_rate: {low: 1, high: 2, log: true, step: 1}}", "log and step do not go together"),
        (
            "{training.learning_rate: {low: 1, high: 2, logarithmic: true}}",
            "training.learning_rate: logarithmic: Extra inputs",
        ),
        (
            "{training.batch_size: {type: int, low: 1.5, high: 4}}",
            "training.batch_size: low, high and step must be whole numbers",
        ),
        ("{training.batch_size: {type: int, low: 1, high: 4, step: 2}}", "step (2) must lead from low (1) to high (4)"),
        (
            "{training.batch_size: {low: 1, high: 4, step: 0}}",
            "training.batch_size: step: Input should be greater than 0",
        ),
        ("{3: [1, 2]}", "search.3.[key]: Input should be a valid string"),
        ("{training.learning_rat: [0.1]}", "training.learning_rat: Configuration with {training.learning_rat: 0.1}"),
        ("{training.learning_rat: [0.1]}", "did you mean learning_rate?"),
        ("{training..epochs: [1]}", "'training..epochs': expected a key"),
        (
            "{training.learning_rate: {low: -0.1, high: 1}}",
            "training.learning_rate: Input should be greater than 0. Received: -0.1",
        ),
        (
            "{augmentation.cutmix: {low: 0, high: 1.5}}",
            "augmentation.cutmix: Input should be less than or equal to 1. Received: 1.5",
        ),
        ("{training.batch_size: {low: 2, high: 4.5}}", "training.batch_size: Input should be a valid integer"),
        ("{loss: [{bce: 1}, {bec: 1}]}", "search: loss: loss: unknown bec"),
        (
            "{loss.focal.gamma: {low: 1, high: 2}}",
            "loss.focal.gamma: neither the recipe's loss nor one of the search has the term focal",
        ),
        (
            "{loss: [{focal: 1}], loss.focal.gamma: {low: -1, high: 2}}",
            "loss.focal.gamma: Input should be greater than or equal to 0",
        ),
        ("{model.name: [unet, net]}", "net"),
        ("{model.options.filters: [8]}", "unet has no option filters"),
        ("{augmentation.preset: [flips, wild]}", "there is no preset 'wild'"),
        ("{data.folds: [2, 5]}", "data.folds cannot be searched: trials are compared on the same tiles"),
        ("{training.seed: [1, 2]}", "training.seed cannot be searched"),
        ("{training.epochs: [1, 2]}", "training.epochs cannot be searched: trials are compared on the same epochs"),
        ("{inference.view_sets: [[d4]]}", "inference.view_sets cannot be searched"),
    ],
)
def test_what_cannot_be_searched_is_refused_and_the_key_named(keys, expected):
    assert expected in refused(keys)


def test_values_that_do_not_go_together_are_refused():
    keys = "{training.ema_decay: [0.9, null], training.ema_warmup: [false, true]}"
    message = refused(keys)
    assert "not all of its values go together" in message and "ema_warmup needs an ema_decay" in message
    assert "training.ema_decay: null, training.ema_warmup: true" in message


def test_the_search_is_no_part_of_a_run_and_of_what_makes_two_differ(tmp_path):
    name, recipe = load_recipe("default", ["search={training.learning_rate: [0.1, 0.2]}"])
    _, config = load_config("default", ["search={training.learning_rate: [0.1, 0.2]}"])
    assert type(config) is Config and config == recipe.config == load_config("default")[1] and name == "default"
    write_config(tmp_path / "config.yaml", config)
    assert "search" not in (tmp_path / "config.yaml").read_text() and read_config(tmp_path / "config.yaml") == config
    with pytest.raises(InputError, match="did you mean search"):
        load_config("default", ["searsh={}"])
    with pytest.raises(InputError, match="training.learning_rate: low"):  # also by a command that does not search
        load_config("default", ["search={training.learning_rate: {low: 2, high: 1}}"])


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_has_a_space_without_saying_so(name):
    recipe = load_recipe(name)[1]
    made = Space.of(recipe)
    own = recipe.config
    assert {"training.learning_rate", "loss", "augmentation"} <= set(made.keys)
    low, high = made.keys["training.learning_rate"].ends
    assert low < own.training.learning_rate < high
    # The recipe's own loss and augmentation are among those that are tried, and mean what they mean.
    first = {"loss": made.keys["loss"][0], "augmentation": made.keys["augmentation"][0]}
    assert made.configuration(first) == own
    assert len(made.keys["loss"]) > 3 and len(made.keys["augmentation"]) > 2


def test_weight_decay_is_not_searched_where_there_is_none():
    assert "training.weight_decay" in Space.of(Recipe()).keys
    assert "training.weight_decay" not in Space.of(Recipe(training={"optimizer": "adam", "weight_decay": 0})).keys
