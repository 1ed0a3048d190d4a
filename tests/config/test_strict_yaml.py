"""Invalid YAML files: an error that names the file, within a second."""

import time

import pytest

from marsls_keras.config import load_config, load_recipe, read_config, recipe_folder, recipes
from marsls_keras.errors import InputError


def bomb(link: str) -> str:
    return "a: &a [x, x]\n" + "".join(
        f"{new}: &{new} {link % ', '.join([f'*{old}'] * 9)}\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )


CASES = {
    "a tag that does not fit": ("training: {epochs: !!int x}", "invalid literal"),
    "an empty number": ("training: {epochs: !!float ''}", "cannot be read"),
    "a date that there is not": ("training: {epochs: 2024-13-45}", "training.epochs: Input should be a valid integer"),
    "the same with its tag": ("training: {epochs: !!timestamp 2024-13-45}", "month must be in 1..12"),
    "5,000 digits": ("training: {epochs: " + "9" * 5000 + "}", "Exceeds the limit"),
    "5,000 hexadecimal digits": ("training: {epochs: 0x" + "f" * 5000 + "}", "more than 64 bits"),
    "base 60": ("training: {seed: " + ":".join(["59"] * 20_000) + "}", "more than 64 bits"),
    "a bomb of aliases": (bomb("[%s]"), "more than 10,000 values, aliases counted"),
    "a bomb of merges": (bomb("{<<: [%s]}").replace("[x, x]", "{x: 1}"), "more than 10,000 values, aliases counted"),
    "itself": ("model: {options: &a [*a]}", "an alias names what it stands in, in line 1"),
    "itself, merged": ("model: &a {<<: *a}", "an alias names what it stands in"),
    "many levels": ("a: " + "[" * 30_000, "nested more than 32 levels deep"),
    "many sections": ("{a: " * 5_000, "nested more than 32 levels deep"),
    "many lists": ("- " * 30_000, "nested more than 32 levels deep"),
    "NUL": ("training: \0", "cannot be read"),
    "an escaped NUL": ('model: {name: "\\0"}', "NUL character"),
    "half a surrogate pair": ('model: {name: "\\ud800"}', "half a surrogate pair"),
    "bytes": ("model: {options: {a: !!binary aGk=}}", "found a bytes"),
    "a set": ("model: {options: {a: !!set {x}}}", "found a set"),
    "a key twice": ("training: {epochs: 3}\ntraining: {seed: 1}", "the key training is there twice"),
    "a key twice within": ("training: {epochs: 3, epochs: 4}", "the key epochs is there twice"),
    "code": ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
    "a large file": ("# " + "x" * 70_000, "no configuration has more than 65,536"),
    "two documents": ("model: {}\n---\nmodel: {}", "expected a single document"),
}


@pytest.mark.parametrize("text,expected", CASES.values(), ids=list(CASES))
def test_it_is_refused_at_once(tmp_path, text, expected):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    for read in (lambda: read_config(path), lambda: load_config(str(path))):
        began = time.process_time()
        with pytest.raises(InputError) as error:
            read()
        assert time.process_time() - began < 1
        assert str(path) in str(error.value) and expected in str(error.value)


def test_binary_content(tmp_path):
    path = tmp_path / "bad.yaml"
    for content in (bytes(range(256)), b"\x89PNG\r\n\x1a\n", b"PK\3\4" + b"\0" * 100):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.yaml cannot be read"):
            read_config(path)


@pytest.mark.parametrize("value", ["!!int x", "&a [*a]", "2024-13-45", "9" * 5000, "[" * 1000, '"\\0"'])
def test_a_setting(value):
    with pytest.raises(InputError, match="epochs"):
        load_config("default", [f"training.epochs={value}"])


def test_anchors_that_help_a_writer_are_read(tmp_path):
    path = tmp_path / "good.yaml"
    path.write_text(
        "model: &m {options: {dropout: 1e-1}}\ndata: {folds: &n 3}\ntraining: {epochs: 7, warmup_epochs: *n}\n"
    )
    _, config = load_config(str(path))
    assert (config.model.options["dropout"], config.data.folds, config.training.warmup_epochs) == (0.1, 3, 3)


def test_every_recipe_is_read():
    assert recipes() and all(load_recipe(name)[0] for name in recipes()) and recipe_folder().is_dir()
