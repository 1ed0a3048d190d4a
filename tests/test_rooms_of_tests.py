"""The library is tested without the commands: only tests/competition imports them."""

import ast
from pathlib import Path

TESTS = Path(__file__).parent
HELPERS = TESTS / "helpers"


def imported(path: Path) -> set[str]:
    """Return the modules that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_only_the_tests_of_the_commands_import_them():
    of_commands = {
        f"helpers.{path.stem}"
        for path in HELPERS.glob("*.py")
        if any(m.startswith("competition") for m in imported(path))
    }
    assert "helpers.cli" in of_commands
    wrong = {}
    for path in TESTS.rglob("*.py"):
        if path.relative_to(TESTS).parts[0] not in ("competition", "benchmarks", "helpers"):
            modules = {m for m in imported(path) if m.split(".")[0] == "competition" or m in of_commands}
            wrong |= {str(path.relative_to(TESTS)): modules} if modules else {}
    assert wrong == {}
