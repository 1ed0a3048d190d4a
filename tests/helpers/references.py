"""Load stored reference outputs of PyTorch, and the scripts that computed them."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

REFERENCES = Path(__file__).resolve().parents[1] / "references"


def script(name: str) -> ModuleType:
    """Import a script of tests/references, with the inputs and weights of the stored references."""
    if str(REFERENCES) not in sys.path:  # scripts import each other
        sys.path.append(str(REFERENCES))
    spec = importlib.util.spec_from_file_location(name, REFERENCES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
