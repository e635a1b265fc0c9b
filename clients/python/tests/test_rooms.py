"""The library stands alone: it imports nothing of the service, and little else."""

import ast
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
ALLOWED = {"aiohttp", "msgspec", "ringwheel"}


def imported(path: Path) -> set[str]:
    """The packages that a module names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add(str(node.module).partition(".")[0])
    return names


def test_what_it_depends_on() -> None:
    found = {path.name: imported(path) - sys.stdlib_module_names - ALLOWED for path in SOURCE.rglob("*.py")}
    assert len(found) > 10
    assert {name: names for name, names in found.items() if names} == {"testing.py": {"pytest"}}
