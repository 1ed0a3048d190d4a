"""Write the template of a plug-in: a commented file, its test, and a recipe that uses it."""

from __future__ import annotations

import keyword
import sys
from importlib import resources
from pathlib import Path
from string import Template

from marsls_keras.errors import InputError
from marsls_keras.files import write_text

TEMPLATES = {
    "network": {"{}.py": "network", "test_{}.py": "network_test", "{}.yaml": "network_recipe"},
    "loss": {"{}.py": "loss", "test_{}.py": "loss_test", "{}.yaml": "loss_recipe"},
    "dataset": {"{}.py": "dataset", "test_{}.py": "dataset_test"},
}
"""Files of each kind of plug-in, with `{}` for its name, and their templates."""


def write_plugin(kind: str, name: str, folder: Path) -> list[Path]:
    """Write a plug-in that works as it is, to be changed.

    Args:
        kind: One of `TEMPLATES`.
        name: Its name, a Python name in lower case.
        folder: Where the files go; made if it does not exist.

    Returns:
        The files: the plug-in first, then its test, and a recipe where there is one.

    Raises:
        InputError: If the name is not one of a module, is taken by another module, or a file exists.

    Example:
        >>> [path.name for path in write_plugin("loss", "my_focal", Path())]
        ['my_focal.py', 'test_my_focal.py', 'my_focal.yaml']
    """
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower():
        raise InputError(f"{name!r} is no name of a module: expected lower-case letters, digits and _, such as my_net.")
    if name in sys.stdlib_module_names or name in ("keras", "tensorflow", "numpy", "marsls_keras", "competition"):
        raise InputError(f"There is a module {name} already, which the file would hide. Choose another name.")
    texts = {folder / file.format(name): template for file, template in TEMPLATES[kind].items()}
    if there := [str(path) for path in texts if path.exists()]:
        raise InputError(f"{', '.join(there)} exists already. Choose another name, or move it away.")
    folder.mkdir(parents=True, exist_ok=True)
    templates = resources.files("competition.templates")
    for path, template in texts.items():
        write_text(path, Template((templates / f"{template}.txt").read_text(encoding="utf-8")).substitute(name=name))
    return list(texts)
