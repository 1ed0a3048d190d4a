"""Recipes by name and by path, with settings applied."""

import pytest

from marsls_keras.config import changed_keys, load_config, read_config, recipes, write_config
from marsls_keras.errors import InputError


def test_the_default_recipe_is_a_pretrained_encoder_on_windows():
    _, config = load_config("default")
    assert (config.model.name, config.model.options["encoder"], config.model.pretrained) == (
        "segmenter",
        "efficientnet_lite0",
        "auto",
    )
    assert (config.data.sampling, config.data.window_sizes) == ("windows", (256,))
    assert config.training.encoder_learning_rate == 3e-4 and config.training.precision == "auto"


@pytest.mark.parametrize("recipe", recipes())
@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_every_recipe_takes_a_few_epochs_with_a_warm_up_that_ends_within_them(recipe, epochs):
    training = load_config(recipe, [f"training.epochs={epochs}"])[1].training
    asked = training.warmup_epochs
    assert training.epochs == epochs and training.warmup == (asked if asked < epochs else epochs / 4)


def test_settings_change_single_keys():
    _, config = load_config(
        "unet",
        [
            "training.epochs=30",
            "training.ema_decay=null",
            "model.options.depth=3",
            "data.bands=[red, dem]",
            "data.normalization.percentiles=[1, 99]",
            "loss={bce: 1}",
            "loss.dice=0.25",
            " data.cv = official",
        ],
    )
    assert changed_keys(load_config("unet")[1], config) == [
        "data.bands: ['all'] → ['red', 'dem']",
        "data.cv: blocks → official",
        "data.normalization.percentiles: None → [1.0, 99.0]",
        "loss.bce: 0.5 → 1.0",
        "loss.dice: 0.5 → 0.25",
        "model.options.depth: absent → 3",
        "training.ema_decay: 0.99 → None",
        "training.epochs: 60 → 30",
    ]


@pytest.mark.parametrize(
    "settings,expected",
    [
        (["training.schedule.name=constant"], {"name": "constant"}),
        (["training.schedule.name=step"], {"name": "step", "every": 20, "factor": 0.1}),
        (["training.schedule.name=step", "training.schedule.every=5"], {"name": "step", "every": 5, "factor": 0.1}),
        (["training.schedule={name: exponential, rate: 0.05}"], {"name": "exponential", "rate": 0.05}),
        # Another kind has none of the keys of the one before.
        (
            ["training.schedule={name: step, every: 3}", "training.schedule.name=exponential"],
            {"name": "exponential", "rate": 0.01},
        ),
    ],
)
def test_schedules_by_setting(settings, expected, tmp_path):
    config = load_config("unet", settings)[1]
    assert config.training.schedule.model_dump() == expected
    write_config(tmp_path / "config.yaml", config)
    assert read_config(tmp_path / "config.yaml") == config


def test_loss_terms_with_parameters_by_setting():
    _, config = load_config(
        "unet", ["loss.focal={weight: 0.5, gamma: 3}", "loss.dice.smooth=0", "loss.focal.gamma=1.5"]
    )
    assert config.loss == {"bce": 0.5, "dice": {"smooth": 0}, "focal": {"weight": 0.5, "gamma": 1.5}}
    assert changed_keys(load_config("unet")[1], config) == [
        "loss.dice: 0.5 → absent",
        "loss.dice.smooth: absent → 0",
        "loss.focal.gamma: absent → 1.5",
        "loss.focal.weight: absent → 0.5",
    ]


def test_a_later_setting_wins_and_a_value_may_hold_an_equals_sign():
    _, config = load_config("unet", ["training.epochs=30", "training.epochs=31", "model.options.a=b=c"])
    assert config.training.epochs == 31 and config.model.options["a"] == "b=c"


@pytest.mark.parametrize("setting", ["training.epochs", "=3", ".epochs=3", "training.=3", "training..epochs=3", ""])
def test_a_setting_of_another_form_is_refused(setting):
    with pytest.raises(InputError, match="expected section.key=value"):
        load_config("unet", [setting])


def test_a_setting_with_a_damaged_value_or_an_unknown_key_is_refused():
    with pytest.raises(InputError, match="no valid YAML"):
        load_config("unet", ["data.bands=[red"])
    with pytest.raises(InputError, match="training.epoch, did you mean epochs"):
        load_config("unet", ["training.epoch=3"])
    with pytest.raises(InputError, match="- training.epochs: "):
        load_config("unet", ["training.epochs.x=3"])


def test_every_recipe_is_valid():
    assert "default" in recipes()
    for name in recipes():
        load_config(name)


def test_an_unknown_recipe_or_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no configuration 'defualt'(?s:.*)- default"):
        load_config("defualt")
    with pytest.raises(InputError, match="no configuration file .*none.yaml"):
        load_config(str(tmp_path / "none.yaml"))
    with pytest.raises(InputError, match="none.yaml"):
        read_config(tmp_path / "none.yaml")


@pytest.mark.parametrize("word", ["on", "off", "auto"])
def test_a_bare_switch_in_yaml_is_the_word_and_not_a_truth_value(word, tmp_path):
    assert load_config("unet", [f"training.xla={word}"])[1].training.xla == word
    path = tmp_path / "mine.yaml"
    path.write_text(f"training: {{xla: {word}}}\n")
    assert load_config(str(path))[1].training.xla == word
    write_config(path, load_config(str(path))[1])
    assert read_config(path).training.xla == word


def test_the_fast_recipe_has_six_hundred_steps_of_four_windows():
    _, config = load_config("fast")
    tiles, side = 306 * 2 // 3, 128  # MMLS v1, of which a third is held out
    assert (config.data.cv, config.data.folds, config.data.window_sizes) == ("geographic", 3, (192,))
    assert config.training.batch_size * side**2 == 4 * 192**2
    assert config.training.epochs * (tiles // config.training.batch_size) == pytest.approx(600, abs=30)
    assert config.model == load_config("default")[1].model


def test_the_best_recipe_begins_with_weights_of_the_hub():
    _, config = load_config("best")
    assert config.model.pretrained == "hf:nvidia/mit-b2" and config.model.options["encoder"] == "mit_b2"
    assert config.data.window_sizes == (256,) and config.data.folds == 5
    assert config.training.learning_rate == pytest.approx(10 * config.training.encoder_learning_rate)
