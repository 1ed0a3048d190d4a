"""The configuration: defaults, YAML files, settings, and error messages that name the key."""

import ast
import math
import typing
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ValidationError

import marsls_keras
from marsls_keras.config import (
    Config,
    changed_keys,
    load_config,
    parse_config,
    read_config,
    recipe_folder,
    write_config,
)
from marsls_keras.errors import InputError

OTHER = {
    "model": {
        "name": "unet",
        "options": {"base_filters": 8, "dropout": 0.25, "blocks": [1, 2]},
        "pretrained": "hf:timm/x",
    },
    "data": {
        "release": "challenge",
        "bands": ["slope", "dem"],
        "resize": 64,
        "cache": "disk",
        "conflicts": "union",
        "pool": ["val"],
        "cv": "geographic",
        "folds": 3,
        "holdout": 0.35,
        "block_size": 4,
        "normalization": {"percentiles": None, "zscore": False},  # percentiles do not go together with windows
        "sampling": "windows",
        "window_sizes": [96, 64],
    },
    "augmentation": {
        "horizontal_flip": 0.1,
        "vertical_flip": 0.0,
        "rot90": 0.9,
        "affine": {"probability": 0.2, "shift": 0.3, "scale": [0.5, 1.5], "rotation": 90.0},
        "elastic": {"probability": 0.3, "amplitude": 1.5, "distance": 16.0},
        "crop": {"probability": 0.4, "area": [0.25, 0.75], "aspect": [0.5, 2.0]},
        "blur": {"probability": 0.5, "sigma": [0.5, 1.0]},
        "light": {"probability": 0.6, "brightness": 0.1, "contrast": 0.4},
        "noise": {"probability": 0.7, "deviation": 0.01},
        "channel_dropout": 0.8,
        "cutmix": 0.25,
        "mosaic": 1.0,
        "custom": {"keras.layers.Rescaling": {"scale": 2}},
    },
    "loss": {"dice": 0.125, "bce": 3.0, "focal": {"weight": 2.0, "gamma": 1.5}},
    "training": {
        "epochs": 7,
        "batch_size": 2,
        "accumulate": 4,
        "optimizer": "adam",
        "learning_rate": 1e-05,
        "schedule": {"name": "step", "every": 2, "factor": 0.5},
        "warmup_epochs": 0.5,
        "weight_decay": 0.0,
        "encoder_learning_rate": 1e-5,
        "layer_decay": 0.75,
        "clip_norm": 1.5,
        "ema_decay": 0.9,
        "ema_warmup": True,
        "swa_epochs": 3,
        "patience": 5,
        "precision": "mixed_bfloat16",
        "xla": "off",
        "deterministic": True,
        "l2_penalty": 0.25,
        "callbacks": {"keras.callbacks.EarlyStopping": {"patience": 3}},
        "seed": 11,
    },
    "inference": {"batch_size": 3, "views": "d4@64", "view_sets": ["d4", "paper"]},
    "plugins": ["json"],
}


def leaves(model: type[BaseModel], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the paths of all keys of a section."""
    found = []
    for name, field in model.model_fields.items():
        section = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        found += leaves(field.annotation, (*path, name)) if section else [(*path, name)]
    return found


def flat(value: dict, path: tuple[str, ...], keys: list[tuple[str, ...]]) -> dict:
    if path in keys:
        return {path: value}
    if "preset" in value:  # stands for the keys of its section that are not given
        given = flat({name: inner for name, inner in value.items() if name != "preset"}, path, keys)
        return {**{key: None for key in keys if key[: len(path)] == path}, **given}
    return {k: v for name, inner in value.items() for k, v in flat(inner, (*path, name), keys).items()}


def message(values: dict) -> str:
    with pytest.raises(InputError) as caught:
        parse_config(values, "test.yaml")
    assert "test.yaml" in str(caught.value) and caught.value.exit_code == 2
    return str(caught.value)


def test_all_bands_may_be_one_word_or_part_of_a_list():
    assert (
        Config.model_validate({"data": {"bands": "all"}})
        == Config()
        == Config.model_validate({"data": {"bands": ["all"]}})
    )
    assert load_config("unet", ["data.bands=[dem, all]"])[1].data.bands == ("dem", "all")


def test_the_recipe_unet_spells_out_every_default():
    name, config = load_config("unet")
    assert name == "unet" and config.model_copy(update={"model": Config().model}) == Config()
    assert config.model.name == Config().model.name
    keys = leaves(Config)
    assert set(flat(yaml.safe_load((recipe_folder() / "unet.yaml").read_text()), (), keys)) == set(keys)
    # The one option that the recipe spells out is the builder's default.
    from marsls_keras.models.registry import known_options

    assert config.model.options.items() <= known_options("unet").items()


def test_the_other_values_are_no_defaults():
    # What the round trip below relies on: each key of OTHER differs from its default.
    keys = [key for key in leaves(Config) if key != ("model", "name")]
    default, other = (
        flat(c.model_dump(mode="json"), (), keys + [("model", "name")]) for c in (Config(), parse_config(OTHER, "x"))
    )
    assert [key for key in keys if default[key] == other[key]] == [("data", "normalization", "percentiles")]


def test_yaml_round_trip_keeps_every_value(tmp_path):
    config = parse_config(OTHER, "x")
    write_config(tmp_path / "config.yaml", config)
    again = read_config(tmp_path / "config.yaml")
    assert again == config and again.model_dump(mode="json") == OTHER
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == OTHER
    assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]  # no temporary file stays
    stretched = parse_config({"data": {"normalization": {"percentiles": [0.5, 99.5]}}}, "x")
    write_config(tmp_path / "config.yaml", stretched)
    assert read_config(tmp_path / "config.yaml") == stretched and stretched.data.normalization.percentiles == (
        0.5,
        99.5,
    )


def test_missing_keys_and_an_empty_file_have_defaults(tmp_path):
    (tmp_path / "short.yaml").write_text("training: {epochs: 9}\n")
    (tmp_path / "empty.yml").write_text("# nothing\n")
    name, config = load_config(str(tmp_path / "short.yaml"))
    assert name == "short" and config.training.epochs == 9
    assert config.model_copy(update={"training": Config().training}) == Config()
    assert load_config(str(tmp_path / "empty.yml")) == ("empty", Config())


def test_a_small_number_may_be_written_without_a_point(tmp_path):
    # PyYAML reads 1e-3 as text, since YAML 1.1 wants a point.
    (tmp_path / "a.yaml").write_text("training: {learning_rate: 3e-4}\nmodel: {options: {dropout: 1e-1}}\n")
    _, config = load_config(str(tmp_path / "a.yaml"), ["training.weight_decay=5E-6"])
    assert (config.training.learning_rate, config.training.weight_decay) == (0.0003, 5e-6)
    assert config.model.options["dropout"] == 0.1
    assert parse_config({"training": {"learning_rate": "1e-3"}}, "x").training.learning_rate == 0.001
    assert load_config("unet", ["model.options.size=2e1x"])[1].model.options["size"] == "2e1x"


@pytest.mark.parametrize(
    "values,expected",
    [
        ({"trainig": {}}, "unknown key trainig, did you mean training?"),
        ({"training": {"keep_each": False}}, "unknown key training.keep_each: it was removed, since"),
        ({"training": {"epoch": 3}}, "unknown key training.epoch, did you mean epochs?"),
        ({"model": {"option": {}}}, "unknown key model.option, did you mean options?"),
        ({"data": {"normalisation": {}}}, "unknown key data.normalisation, did you mean normalization?"),
        (
            {"data": {"normalization": {"percentile": None}}},
            "unknown key data.normalization.percentile, did you mean percentiles?",
        ),
        ({"augmentation": {"rot_90": 1}}, "unknown key augmentation.rot_90, did you mean rot90?"),
        ({"augmentation": {"preset": "strong", "afine": {}}}, "unknown key augmentation.afine, did you mean affine?"),
        (
            {"augmentation": {"light": {"brigthness": 1}}},
            "unknown key augmentation.light.brigthness, did you mean brightness?",
        ),
        (
            {"training": {"schedule": {"name": "step", "evry": 3}}},
            "unknown key training.schedule.step.evry, did you mean every?",
        ),
        (
            {"training": {"schedule": {"name": "cosine", "every": 3}}},
            "unknown key training.schedule.cosine.every; known here: name",
        ),
        ({"inference": {"sets": []}}, "unknown key inference.sets"),
        (
            {"augmentation": {"zzz": 1}},
            "unknown key augmentation.zzz; known here: horizontal_flip, vertical_flip, rot90",
        ),
    ],
)
def test_an_unknown_key_is_an_error_with_a_suggestion(values, expected):
    assert expected in message(values)


@pytest.mark.parametrize(
    "key,value,expected",
    [
        ("training.epochs", 0, "greater than or equal to 1"),
        ("training.epochs", 2.5, "valid integer"),
        ("training.epochs", "many", "valid integer"),
        ("training.batch_size", -1, "greater than or equal to 1"),
        ("training.learning_rate", 0, "greater than 0"),
        ("training.learning_rate", math.nan, "finite"),
        ("training.learning_rate", math.inf, "finite"),
        ("training.weight_decay", -1e-4, "greater than or equal to 0"),
        ("training.weight_decay", math.inf, "finite"),
        ("training.ema_decay", 1.0, "less than 1"),
        ("training.ema_decay", 0, "greater than 0"),
        ("training.precision", "float16", "'mixed_bfloat16'"),
        ("training.xla", "maybe", "'auto'"),
        ("training.deterministic", "perhaps", "boolean"),
        ("training.seed", -1, "greater than or equal to 0"),
        ("training.seed", 2**31, "less than 2147483648"),
        ("training.epochs", None, "valid integer"),
        ("training", 5, "dictionary"),
        ("model.options", [1], "dictionary"),
        ("model.name", 3, "string"),
        ("data.release", "mmls", "'mmls_v2'"),
        ("data.bands", ["red", "red"], "different ones of red, green"),
        ("data.bands", ["infrared"], "red, green, blue"),
        ("data.bands", [], "one or more"),
        ("data.pool", ["train", "train"], "once each"),
        ("data.pool", [], "one or both"),
        ("data.folds", 1, "greater than or equal to 2"),
        ("data.block_size", 0, "greater than or equal to 1"),
        ("data.holdout", 1.0, "less than 1"),
        ("data.resize", 8, "greater than or equal to 16"),
        ("data.normalization.percentiles", [99, 1], "low < high"),
        ("data.normalization.percentiles", [0, 101], "low < high"),
        ("augmentation.rot90", 1.01, "less than or equal to 1"),
        ("augmentation.horizontal_flip", -0.1, "greater than or equal to 0"),
        ("augmentation", {"preset": "srtong"}, "no preset 'srtong'; known: none, flips, dual_swin, rmau_net, strong"),
        ("augmentation", {"preset": None}, "no preset None"),
        ("augmentation", {"preset": ["none"]}, "no preset ['none']"),
        ("augmentation", "strong", "such as {preset: strong}"),
        ("augmentation", ["strong"], "dictionary"),
        ("augmentation.affine", 0.5, "dictionary"),
        ("augmentation.affine.probability", 2, "less than or equal to 1"),
        ("augmentation.affine.scale", [1.1, 0.9], "the lower one first"),
        ("augmentation.affine.scale", [0, 1], "greater than 0"),
        ("augmentation.affine.scale", 1.1, "tuple"),
        ("augmentation.affine.shift", 1, "less than 1"),
        ("augmentation.affine.rotation", 181, "less than or equal to 180"),
        ("augmentation.elastic", {"amplitude": 9}, "amplitude (9) must be at most a quarter of distance (32)"),
        ("augmentation.elastic.distance", 3, "greater than or equal to 4"),
        ("augmentation.crop.area", [0.5, 1.5], "less than or equal to 1"),
        ("augmentation.crop.aspect", [2, 1], "the lower one first"),
        ("augmentation.blur.sigma", [1, 9], "less than or equal to 8"),
        ("augmentation.light.contrast", 1, "less than 1"),
        ("augmentation.light.brightness", -0.1, "greater than or equal to 0"),
        ("augmentation.noise.deviation", 0, "greater than 0"),
        ("augmentation.cutmix", "often", "valid number"),
        ("data.sampling", "window", "'tiles' or 'windows'"),
        ("data.window_sizes", [], "one or more different sizes"),
        ("data.window_sizes", [64, 64], "one or more different sizes"),
        ("data.window_sizes", [8], "greater than or equal to 16"),
        ("training.schedule", {"name": "linear"}, "'constant', 'cosine', 'step', 'exponential'"),
        ("training.schedule", {"every": 3}, "'name'"),
        ("training.schedule", "step", "dictionary"),
        ("training.schedule", {"name": "step", "every": 0}, "greater than or equal to 1"),
        ("training.schedule", {"name": "step", "factor": 1}, "less than 1"),
        ("training.schedule", {"name": "exponential", "rate": 0}, "greater than 0"),
        ("training.accumulate", 0, "greater than or equal to 1"),
        ("training.clip_norm", 0, "greater than 0"),
        ("training.layer_decay", 1.5, "less than or equal to 1"),
        ("training.swa_epochs", -1, "greater than or equal to 0"),
        ("training.patience", 0, "greater than or equal to 1"),
        ("training.optimizer", "sgd", "'adam' or 'adamw'"),
        ("loss", {"bce": -1, "dice": 2}, "weights of 0 or more"),
        ("loss", {"focal": {"weight": 0}}, "do not sum to 0"),
        ("loss", {"focal": {"weight": "much", "gamma": 2}}, "weights of 0 or more"),
        ("loss.focal", [1], "dictionary"),
        ("loss", {"bce": 0}, "do not sum to 0"),
        ("loss", {}, "do not sum to 0"),
        ("loss.bce", math.nan, "finite"),
        ("loss.bce", math.inf, "finite"),
        ("loss.bce", "much", "valid number"),
        ("inference.batch_size", 0, "greater than or equal to 1"),
        ("inference.view_sets", ["d8"], "identity, flips, paper, rotations, d4"),
        ("inference.view_sets", [], "one or more"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_key(key, value, expected):
    values = value
    for part in reversed(key.split(".")):
        values = {part: values}
    text = message(values)
    assert f"- {key}: " in text or f"- {key}." in text, text
    assert expected in text


def test_windows_of_tiles_that_are_stretched_one_by_one_are_refused():
    text = message({"data": {"sampling": "windows", "normalization": {"percentiles": [1, 99]}}})
    assert "sampling windows does not go together with normalization.percentiles" in text and "null" in text


@pytest.mark.parametrize(
    "training,expected",
    [
        ({"swa_epochs": 61}, "swa_epochs (61) must not be more than epochs (60)"),
        ({"optimizer": "adam"}, "adam has no weight decay: set weight_decay to 0 instead of 0.0001"),
        ({"ema_decay": None, "ema_warmup": True}, "ema_warmup needs an ema_decay"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(training, expected):
    assert expected in message({"training": training})


def test_every_error_of_a_file_is_told_at_once():
    text = message(
        {
            "training": {"epochs": 0, "sed": 1},
            "data": {"folds": "x"},
            "losses": {},
            "augmentation": {"blur": 1, "crop": {"are": 1}},
        }
    )
    keys = ("training.epochs", "training.sed", "data.folds", "losses", "augmentation.blur", "augmentation.crop.are")
    assert all(key in text for key in keys)


def test_no_key_can_be_assigned():
    config = Config()
    for section, key in [
        (config, "model"),
        (config.training, "epochs"),
        (config.data.normalization, "zscore"),
        (config.model, "name"),
    ]:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, key, getattr(section, key))


def test_two_configurations_share_no_defaults():
    first, second = Config(), Config()
    first.loss["bce"] = 9.0
    first.model.options["depth"] = 1
    assert second.loss == {"bce": 0.5, "dice": 0.5} and Config().model.options == {}


def test_equal_configurations_have_no_differences():
    assert changed_keys(parse_config(OTHER, "x"), parse_config(OTHER, "y")) == []
    assert changed_keys(parse_config({"loss": {"bce": 1}}, "x"), Config()) == [
        "loss.bce: 1.0 → 0.5",
        "loss.dice: absent → 0.5",
    ]


@pytest.mark.parametrize(
    "content,expected",
    [
        (b"- a\n- b\n", "must hold keys and values, found list"),
        (b"text", "must hold keys and values, found str"),
        (b"training: {epochs: 3\n", "cannot be read"),
        (b"training: \xff\xfe", "cannot be read"),
        (b"1: 2\n", "1: Keys should be strings"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, content, expected):
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(InputError, match=expected) as caught:
        load_config(str(tmp_path / "bad.yaml"))
    assert "bad.yaml" in str(caught.value)


def read_attributes(path: Path) -> set[tuple[str, str]]:
    """Return the attributes a file reads as (owner, name): ("training", "epochs") for run.config.training.epochs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    # In a file that imports a section's class, `config` (or `self.config`) is that section.
    imported = {
        alias.name.lower()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "marsls_keras.config"
        for alias in node.names
    }
    pairs = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            pairs |= {(name, node.attr) for name in (imported if owner == "config" else {owner})} | {
                (owner.removeprefix("_"), node.attr)
            }
        if isinstance(node, ast.MatchClass):  # case Step(every=every)
            pairs |= {(getattr(node.cls, "id", "").lower(), key) for key in node.kwd_attrs}
    return pairs


def kinds(model: type[BaseModel]) -> list[type[BaseModel]]:
    """Return the alternative sections of all keys of a section, such as the kinds of schedule."""
    fields = [field.annotation for field in model.model_fields.values()]
    below = [
        kind for field in fields if isinstance(field, type) and issubclass(field, BaseModel) for kind in kinds(field)
    ]
    return below + [
        kind
        for field in fields
        for kind in typing.get_args(field)
        if isinstance(kind, type) and issubclass(kind, BaseModel)
    ]


def test_every_key_is_read_somewhere():
    library = Path(marsls_keras.__file__).parent
    sources = [
        path
        for package in (library, library.parent / "competition")
        for path in package.rglob("*.py")
        if path.parent.name != "config"
    ]
    read = set().union(*(read_attributes(path) for path in sources))
    wanted = [(key[-2] if len(key) > 1 else "config", key[-1]) for key in leaves(Config)]
    of_kinds = [(kind.__name__.lower(), key) for kind in kinds(Config) for key in kind.model_fields if key != "name"]
    assert ("step", "every") in of_kinds and ("blur", "sigma") in wanted
    assert [".".join(pair) for pair in wanted + of_kinds if pair not in read] == []
