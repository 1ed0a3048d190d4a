"""The reference of keys: the committed page equals the generated one, and agrees with the models."""

import re
import subprocess
import sys
import typing

import pytest
import yaml

from marsls_keras.config import Config, Recipe, load_config, parse_config, recipe_folder, recipes, set_key
from marsls_keras.config.reference import reference
from marsls_keras.config.search import Range
from marsls_keras.config.section import Section
from marsls_keras.errors import InputError

PAGE = recipe_folder() / "KEYS.md"


def sections(model: type[Section]) -> set[type[Section]]:
    """Return a section and all sections nested in it."""
    found = {model}
    for field in model.model_fields.values():
        for kind in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, Section) and kind not in found:
                found |= sections(kind)
    return found


def rows() -> dict[str, list[str]]:
    """Return the table cells of each key on the committed page."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if re.match(r"\| (\*\*)?`[a-z]+\.", line)]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    return {row[0].strip(" *`"): [cell.strip() for cell in row[1:]] for row in cells}


def test_the_committed_page_is_what_the_command_writes(tmp_path):
    path = tmp_path / "KEYS.md"
    subprocess.run([sys.executable, "-m", "marsls_keras.config.reference", str(path)], check=True)
    assert path.read_bytes() == PAGE.read_bytes(), "write it anew: python -m marsls_keras.config.reference"
    assert path.read_text(encoding="utf-8") == reference()


def test_every_key_has_a_description_of_whole_sentences():
    found = sections(Recipe) | {Range}
    assert (
        len(found) == 18
    )  # a recipe, 5 sections, normalization, 6 of augmentation, 4 schedules, a range: none is overlooked
    bare = [
        f"{section.__name__}.{name}"
        for section in found
        for name, field in section.model_fields.items()
        if not (field.description or "").endswith(".")
    ]
    assert bare == []


def test_every_key_of_a_configuration_has_a_row():
    def leaves(values: dict, prefix: str) -> list[str]:
        return [
            key
            for name, value in values.items()
            for key in (leaves(value, f"{prefix}{name}.") if isinstance(value, dict) and value else [prefix + name])
        ]

    values = Config().model_dump(mode="json")
    del values["loss"], values["plugins"]  # pages of their own
    assert set(leaves(values, "")) <= set(rows())


def test_the_defaults_of_the_page_make_the_default_configuration():
    values: dict = {}
    for key, (_, default, _) in rows().items():
        kind = key.startswith(("search.", "training.schedule.")) or key == "augmentation.preset"
        if default and not kind:
            set_key(values, key.split("."), yaml.safe_load(default.strip("`")))
    assert len(values["training"]) == len(Config().training.model_dump())
    assert parse_config(values, "of the page") == Config()


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("training.epochs", "whole number ≥ 1"),
        ("training.ema_decay", "number > 0, < 1 or `null`"),
        ("training.optimizer", "`adam` \\| `adamw`"),
        ("training.deterministic", "`true` \\| `false`"),
        ("training.seed", "whole number ≥ 0, < 2147483648"),
        ("training.encoder_learning_rate", "number > 0 or `null`"),
        ("training.schedule", "section"),
        ("training.schedule.name", "`constant` \\| `cosine` \\| `step` \\| `exponential`"),
        ("training.schedule.factor", "number > 0, < 1"),
        ("model.pretrained", "text or `null`"),
        ("model.options", "section"),
        ("data.pool", "list of `train` \\| `val`"),
        ("data.window_sizes", "list of whole numbers ≥ 16"),
        ("data.normalization", "section"),
        ("data.normalization.percentiles", "two numbers or `null`"),
        ("augmentation.preset", "`none` \\| `flips` \\| `dual_swin` \\| `rmau_net` \\| `strong`"),
        ("augmentation.cutmix", "number from 0 to 1"),
        ("augmentation.crop.area", "two numbers > 0, ≤ 1"),
        ("inference.view_sets", "list of text"),
        ("search.KEY.type", "`float` \\| `int`"),
        ("search.KEY.low", "number"),
    ],
)
def test_a_row_says_which_values_a_key_takes(key, values):
    assert rows()[key][0] == values


def test_the_choices_of_the_page_are_accepted_and_others_are_not():
    for key, (values, _, _) in rows().items():
        names = re.findall("`([^`]*)`", values) if re.fullmatch(r"`\w+`( \\\| `\w+`)+", values) else []
        if names and not key.startswith("search."):
            for name in names:
                load_config("unet", [f"{key}={name}"] + ["training.weight_decay=0"] * (name == "adam"))
            with pytest.raises(InputError, match=f"- {key.removesuffix('.preset').removesuffix('.name')}\\b.*zzz"):
                load_config("unet", [f"{key}=zzz"])


def test_presets_are_shown_with_probability_and_changed_strength():
    page = PAGE.read_text(encoding="utf-8")
    assert "| change | `none` | `flips` | `dual_swin` | `rmau_net` | `strong` |" in page
    assert "| `affine` | 0 | 0 | 0.5 | 0 | 0.5 (shift 0.1, scale [0.8, 1.25], rotation 45.0) |" in page
    assert "| `cutmix` | 0 | 0 | 0 | 0.5 | 0.2 |" in page


@pytest.mark.parametrize("recipe", recipes())
def test_the_first_line_of_a_recipe_says_purpose_time_and_score(recipe):
    first = (recipe_folder() / f"{recipe}.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert re.fullmatch(r"# [A-Z].+\. Time: .+\. Score: .+\.", first), first
