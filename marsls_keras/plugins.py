"""Load plug-ins: Python files or modules of users that add networks, losses, augmentations, datasets and callbacks.

A plug-in is named by the path of a `.py` file, by the name of a module in the working folder or of an installed one, or
by an entry point of the group `marsls.plugins`. Its code runs once per process, when a configuration that names it is
read. What it registers can be used by name from then on; any other object of it by "module:object" or "module.object".
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from marsls_keras.errors import InputError, listing
from marsls_keras.suggestions import did_you_mean

GROUP = "marsls.plugins"
"""Group of the entry points by which an installed package offers plug-ins."""

_LOADED: dict[str, ModuleType] = {}
"""Modules of the plug-ins of this process, by the name that configurations record."""

_QUALIFIED = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)[.:]([A-Za-z_]\w*)")
"""Name of an object in a module: the module, and the object."""


def load_plugin(name: str) -> str:
    """Import a plug-in, unless this process has done so already.

    Args:
        name: Path of a `.py` file; name of a module in the working folder or of an installed one; or name of an entry
            point.

    Returns:
        The name to record: the absolute path of a file, else `name`.

    Raises:
        InputError: If there is no such plug-in, another file of the same name is loaded, or its code fails.

    Example:
        >>> Path("mine.py").write_text("def twice(x): return 2 * x") and None
        >>> Path(load_plugin("mine")).name
        'mine.py'
        >>> find_object("mine.twice")(21)
        42
    """
    file = _file_of(name)
    record = str(file.resolve()) if file else name
    if record not in _LOADED:
        _LOADED[record] = _run_file(file.resolve()) if file else _import(name)
    return record


def with_plugins(values: Mapping[str, Any]) -> dict[str, Any]:
    """Load the plug-ins of a configuration: those under `plugins`, and the modules of objects named elsewhere.

    Args:
        values: The configuration as it was read.

    Returns:
        The configuration; `plugins` holds the name to record of each plug-in.

    Raises:
        InputError: As `load_plugin`.

    Example:
        >>> Path("own_net.py").write_text("def build(bands): ...") and None
        >>> with_plugins({"model": {"name": "own_net:build"}})["plugins"] == [str(Path("own_net.py").resolve())]
        True
    """
    named = values.get("plugins") or []
    if not isinstance(named, list | tuple) or not all(isinstance(name, str) and name for name in named):
        return dict(values)  # the schema says what is wrong with it
    records = list(dict.fromkeys(load_plugin(name) for name in named))
    for name in _objects(values):
        if (match := _QUALIFIED.fullmatch(name)) and _module_of(match[1], records) is None and not _of_keras(match[1]):
            records.append(load_plugin(match[1]))
    return {**values, "plugins": records} if records else dict(values)


def find_object(name: str) -> Any | None:
    """Return the object "module:object" or "module.object" of a loaded plug-in or of Keras; None without a module.

    Raises:
        InputError: If the module has no such object; the nearest name is told.

    Example:
        >>> find_object("keras.callbacks.TerminateOnNaN").__name__
        'TerminateOnNaN'
        >>> find_object("bce") is None
        True
    """
    match = _QUALIFIED.fullmatch(name)
    if match is None:
        return None
    module = importlib.import_module(match[1]) if _of_keras(match[1]) else _module_of(match[1], _LOADED)
    if module is None:
        return None
    if not hasattr(module, match[2]):
        public = [known for known in vars(module) if not known.startswith("_")]
        where = getattr(module, "__file__", match[1])
        raise InputError(f"{where} has no {match[2]!r}, which {name} asks for.{did_you_mean(match[2], public)}")
    return getattr(module, match[2])


def construct(name: str, options: Mapping[str, Any], key: str) -> Any:
    """Return the result of calling an object of a plug-in with options.

    Args:
        name: The object, "module.object".
        options: Keyword arguments.
        key: Key of the configuration that names it, for error messages.

    Raises:
        InputError: If there is no such object, or it refuses the options.

    Example:
        >>> construct("keras.callbacks.EarlyStopping", {"patience": 3}, "training.callbacks").patience
        3
    """
    found = find_object(name)
    if found is None:
        raise InputError(
            f"{key}: there is no {name!r}. Give an object of a plug-in or of Keras, such as mymodule.MyClass."
        )
    try:
        return found(**options)
    except (TypeError, ValueError) as error:
        raise InputError(f"{key}.{name}: {error}") from None


def digests(records: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of the file of each plug-in, by its recorded name, without running it.

    Plug-ins without a Python file, or whose file is missing, are left out.

    Example:
        >>> Path("one.py").write_text("x = 1") and None
        >>> digests(["one.py", "nowhere.py"])["one.py"][:8]
        '8ff436de'
    """
    files = {record: _source_of(record) for record in records}
    return {record: hashlib.sha256(file.read_bytes()).hexdigest() for record, file in files.items() if file}


def require_unchanged(recorded: Mapping[str, str], where: Path) -> None:
    """Check, before they run, that plug-ins are the files that a run was trained with.

    A missing file is left to `load_plugin`, which names it.

    Args:
        recorded: SHA-256 by name, from `digests`.
        where: The record, for error messages.

    Raises:
        InputError: If a file is another one now.

    Example:
        >>> Path("two.py").write_text("x = 2") and None
        >>> require_unchanged(digests(["two.py"]), Path("plugins.json"))
    """
    changed = [name for name, digest in digests(recorded).items() if digest != recorded[name]]
    if changed:
        raise InputError(
            f"Plug-ins have changed since {where.parent} was trained with them:{listing(changed)}\n"
            f"Restore them (SHA-256 in {where}), or train again under another name with --run."
        )


def _objects(values: Mapping[str, Any]) -> list[str]:
    """Return the names of a configuration that may be objects of plug-ins, well-formed or not."""
    sections = {key: part for key, part in values.items() if isinstance(part, dict)}
    names = [sections.get("model", {}).get("name"), *sections.get("loss", {})]
    for section, key in (("augmentation", "custom"), ("training", "callbacks")):
        inner = sections.get(section, {}).get(key)
        names += inner if isinstance(inner, dict) else []
    return [name for name in names if isinstance(name, str)]


def _of_keras(module: str) -> bool:
    return module.partition(".")[0] == "keras"


def _module_of(name: str, records: Iterable[str]) -> ModuleType | None:
    """Return the module of a name among loaded plug-ins."""
    return next((module for record in records if (module := _LOADED.get(record)) and module.__name__ == name), None)


def _file_of(name: str) -> Path | None:
    """Return the file of a plug-in that is named by its path or lies in the working folder; None for other names.

    Raises:
        InputError: If it is a path, and there is no such file.
    """
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise InputError(f"There is no plug-in {name}: expected the path of a Python file.")
        return Path(name)
    beside = Path(f"{name}.py")
    return beside if name.isidentifier() and beside.is_file() else None


def _run_file(file: Path) -> ModuleType:
    """Import a file as the module of its stem."""
    name = file.stem
    if not name.isidentifier():
        raise InputError(f"Plug-in {file}: expected a file name of letters, digits and _, such as mine.py.")
    if (there := sys.modules.get(name)) is not None and getattr(there, "__file__", None) != str(file):
        raise InputError(
            f"Plug-in {file}: there is a module {name} already ({getattr(there, '__file__', 'of Python')}). "
            "Give the file another name."
        )
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs, as an import does: dataclasses and pickling look there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _failed(str(file), error) from error
    return module


def _source_of(record: str) -> Path | None:
    """Return the Python file of a plug-in; of a module in a package, this imports the package."""
    if record.endswith(".py"):
        return Path(record) if Path(record).is_file() else None
    try:
        spec = importlib.util.find_spec(_target(record))
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _target(name: str) -> str:
    """Return the module that an entry point or a module name stands for."""
    return next((entry.module for entry in entry_points(group=GROUP, name=name)), name)


def _import(name: str) -> ModuleType:
    """Import an installed module, or the module of an entry point."""
    target = _target(name)
    try:
        return importlib.import_module(target)
    except ModuleNotFoundError as error:
        if error.name is not None and (target == error.name or target.startswith(f"{error.name}.")):
            raise InputError(
                f"There is no plug-in {name!r}: neither {name}.py in {Path.cwd()}, nor an installed module, nor an "
                f"entry point of {GROUP}.{did_you_mean(name, entry_points(group=GROUP).names)}"
            ) from None
        raise _failed(name, error) from error
    except Exception as error:
        raise _failed(name, error) from error


def _failed(name: str, error: Exception) -> InputError:
    """Return the error of a plug-in whose code fails, with the line."""
    if isinstance(error, InputError):
        return error
    frames = traceback.extract_tb(error.__traceback__)
    line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else None
    place = frames[-1].filename if frames and not isinstance(error, SyntaxError) else name
    return InputError(f"Plug-in {name} cannot be imported: {type(error).__name__}: {error} (line {line} of {place})")
