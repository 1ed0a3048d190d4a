"""Examples in docstrings are run, and public functions and classes of the folders in DONE have one.

An example is a doctest under `Example:`. It knows the names of its own module, `np` and `keras`, and runs in an empty
folder. A line that needs a trained run, real tiles, a GPU or a server ends in `# doctest: +SKIP`.
"""

import ast
import doctest
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("marsls_keras", "competition")

# Folders and files where each public function and class must have an example.
DONE = [
    "competition",
    "marsls_keras/backend.py",
    "marsls_keras/bands",
    "marsls_keras/config",
    "marsls_keras/counts.py",
    "marsls_keras/data",
    "marsls_keras/datasets",
    "marsls_keras/errors.py",
    "marsls_keras/files.py",
    "marsls_keras/inference",
    "marsls_keras/intervals.py",
    "marsls_keras/json_records.py",
    "marsls_keras/layers",
    "marsls_keras/lazy_imports.py",
    "marsls_keras/losses",
    "marsls_keras/mapping",
    "marsls_keras/metrics.py",
    "marsls_keras/models",
    "marsls_keras/plugins.py",
    "marsls_keras/progress.py",
    "marsls_keras/report",
    "marsls_keras/runs",
    "marsls_keras/runtime.py",
    "marsls_keras/signals.py",
    "marsls_keras/suggestions.py",
    "marsls_keras/temporary_files.py",
    "marsls_keras/training",
    "marsls_keras/tuning",
    "marsls_keras/view_sets.py",
]


def sources(*places: str) -> list[Path]:
    """Return the Python files at places, which are folders or files."""
    found = []
    for place in places:
        path = ROOT / place
        found += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return found


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def registered() -> list[dict[str, Any]]:
    """Return the registries that examples enter names in."""
    from marsls_keras.models import networks, registry
    from marsls_keras.models.decoders import DECODERS
    from marsls_keras.models.encoders import ENCODERS

    return [registry._ENTRIES, ENCODERS, DECODERS, *networks.REGISTERED.values()]


def run_examples(module: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Run the examples of a module, those of each docstring in a new folder; return their number and the failures."""
    import keras
    import numpy as np

    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    found = doctest.DocTestFinder().find(module, extraglobs={"np": np, "keras": keras})
    registries = [(entries, dict(entries)) for entries in registered()]
    try:
        for number, test in enumerate(found):
            place = folder / str(number)
            place.mkdir()
            monkeypatch.chdir(place)
            runner.run(test, out=report.append)
    finally:  # what examples of `register` entered is taken out again
        for entries, before in registries:
            entries.clear()
            entries.update(before)
    return sum(len(test.examples) for test in found), "".join(report)


def public_without_example(path: Path) -> list[str]:
    """Return the public top-level functions and classes of a file whose docstring has no example."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [node for node in ast.parse(path.read_text()).body if isinstance(node, kinds) and node.name[0] != "_"]
    return [node.name for node in public if not has_example(ast.get_docstring(node) or "")]


def has_example(docstring: str) -> bool:
    _, heading, body = docstring.partition("\nExample:\n")
    return bool(heading) and (">>> " in body or "```sh" in body)


@pytest.mark.parametrize("module_name", [dotted(path) for path in sources(*PACKAGES) if ">>> " in path.read_text()])
def test_examples_run(module_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number, report = run_examples(importlib.import_module(module_name), tmp_path, monkeypatch)
    assert number, "no example was found: is it in a docstring?"
    assert not report, report


@pytest.mark.parametrize("path", sources(*DONE), ids=dotted)
def test_public_names_have_an_example(path: Path) -> None:
    assert public_without_example(path) == []


def test_a_wrong_example_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("wrong", "Add.\n\nExample:\n    >>> 1 + 1\n    3\n    >>> never()  # doctest: +SKIP\n")
    number, report = run_examples(module, tmp_path, monkeypatch)
    assert number == 2 and "Expected:\n    3\nGot:\n    2\n" in report and "never" not in report


def test_a_missing_example_is_seen(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text(
        'def shown():\n    """Do.\n\n    Example:\n        >>> 1\n        1\n    """\n\n\nclass Bare:\n    """Do."""\n'
    )
    assert public_without_example(source) == ["Bare"]
