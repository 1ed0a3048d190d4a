"""Elements of a decision, one file each; importing the package imports all files, and each registers its element."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from marsls_keras.inference.decision_elements.element import (
    ELEMENTS,
    Candidates,
    Card,
    Element,
    MaskStep,
    in_order,
    register,
    searched,
)

for _file in iter_modules(__path__):
    import_module(f"{__name__}.{_file.name}")

__all__ = ["ELEMENTS", "Candidates", "Card", "Element", "MaskStep", "in_order", "register", "searched"]
