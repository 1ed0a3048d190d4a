"""Import rules between folders, checked on the imports of every file: a folder imports only from lower ones."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = (
    ("lazy_imports", "errors", "counts", "layers", "suggestions", "temporary_files", "signals"),
    ("progress", "files", "metrics", "intervals", "view_sets", "bands", "plugins"),
    ("datasets", "json_records"),
    ("config",),
    ("runtime", "losses", "data"),
    ("backend", "models", "runs"),
    ("inference",),
    ("mapping",),
    ("report", "training", "tuning"),
    ("competition.processes", "competition.console", "competition.recipe_parts", "competition.templates"),
    ("competition.submission",),
    ("competition.scoring", "competition.search", "competition.ledger", "competition.bench"),
    ("competition.benchmark",),
    ("competition.commands",),
    ("competition.cli",),
)
"""Rooms (files and folders of `marsls_keras`, then `competition`), lowest first; imports lead to lower floors."""

Arrow = tuple[str, str, str]
"""Room that imports, room that is imported, and where: "file:line imports module"."""


def room_of(module: str) -> str | None:
    """Return the room of a module of the project, None for other modules and for the two packages themselves."""
    package, _, rest = module.partition(".")
    if not rest or package not in ("marsls_keras", "competition"):
        return None
    first = rest.split(".")[0]
    return first if package == "marsls_keras" else f"competition.{first}"


def imported(node: ast.AST) -> Iterator[str]:
    """Yield the modules that a statement imports; `from package import name` gives package.name."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert not node.level, "imports are absolute"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def arrows(root: Path, package: str) -> Iterator[Arrow]:
    """Yield the imports between rooms of a package, also inside functions and for type checkers."""
    for path in sorted((root / package).rglob("*.py")):
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        source = room_of(module.removesuffix(".__init__"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in imported(node):
                target = room_of(name)
                if source and target and target != source and not name.endswith(".__version__"):
                    yield source, target, f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)} imports {name}"


def upward(found: list[Arrow]) -> list[str]:
    """Return the arrows that do not lead to a lower floor."""
    floor = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
    return [where for source, target, where in found if floor[target] >= floor[source]]


@pytest.mark.parametrize("package", ["marsls_keras", "competition"])
def test_arrows_point_downwards_only(package: str) -> None:
    wrong = upward(list(arrows(ROOT, package)))
    assert not wrong, "these arrows do not lead to a lower floor:\n" + "\n".join(wrong)


def test_the_library_never_imports_the_competition() -> None:
    wrong = [where for _, target, where in arrows(ROOT, "marsls_keras") if target.startswith("competition")]
    assert not wrong, "\n".join(wrong)


def test_every_room_has_a_floor_and_every_floor_a_room() -> None:
    there = {
        room
        for package in ("marsls_keras", "competition")
        for path in (ROOT / package).iterdir()
        if (path / "__init__.py").exists() or (path.suffix == ".py" and not path.stem.startswith("__"))
        for room in [room_of(f"{package}.{path.stem}")]
    }
    assert there == {room for rooms in FLOORS for room in rooms}


def test_no_file_imports_itself_around_a_circle() -> None:
    """Also inside a room; only imports that run while a file is loaded count."""
    paths = (ROOT / "marsls_keras").rglob("*.py")
    files = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        body = ast.parse(path.read_text(encoding="utf-8")).body
        names = {name for node in body for name in imported(node)}
        graph[module] = {
            part for name in names if (part := name if name in files else name.rpartition(".")[0]) in files
        } - {module}
    while leaves := {module for module, targets in graph.items() if not targets}:
        graph = {module: targets - leaves for module, targets in graph.items() if module not in leaves}
    assert not graph, "a circle among: " + ", ".join(sorted(graph))


@pytest.mark.parametrize(
    "source",
    [
        "from marsls_keras.training import train_fold",
        "def f():\n    import marsls_keras.training.train_fold",
        "if TYPE_CHECKING:\n    from marsls_keras import training",
    ],
)
def test_an_upward_arrow_is_found_wherever_it_is(tmp_path: Path, source: str) -> None:
    (tmp_path / "marsls_keras" / "data").mkdir(parents=True)
    (tmp_path / "marsls_keras" / "data" / "some.py").write_text(source)
    (wrong,) = upward(list(arrows(tmp_path, "marsls_keras")))
    assert (
        wrong.startswith(f"marsls_keras/data/some.py:{source.count(chr(10)) + 1} imports marsls_keras")
        and "training" in wrong
    )
