"""Peak memory of a complete training."""

import runpy
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks" / "training_memory.py"


@pytest.mark.slow
def test_a_training_holds_at_most_four_times_its_images():
    measured = runpy.run_path(str(BENCHMARK))["slope"]((200, 600))
    assert 1 < measured["slope"] <= 4, measured  # below 1 the images would not be in memory at all
