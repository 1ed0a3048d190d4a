"""The examples in docstrings are what the code does."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("bands", "datasets", "losses", "data")


@pytest.mark.parametrize("package", PACKAGES)
def test_examples_hold(package: str) -> None:
    attempted = 0
    for path in sorted((ROOT / "marsls_keras" / package).rglob("*.py")):
        module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
        result = doctest.testmod(module)
        assert not result.failed, path
        attempted += result.attempted
    assert attempted > 5
