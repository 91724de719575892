"""The package as a whole: the order of imports, and what a user has to install."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import murakit

PACKAGE = Path(murakit.__file__).parent
CONTRIBUTING = PACKAGE.parent / "CONTRIBUTING.md"


def imports_of(path):
    """Modules of murakit that a module imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found |= {node.module} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("murakit"):
            found.add(node.module.partition(".")[2])
    return found


def order_of_rooms():
    table = re.findall(r"^\| (`.+?) \|", CONTRIBUTING.read_text(), flags=re.MULTILINE)
    return [name for row in table for name in re.findall(r"`(\w+)`", row)]


def test_nothing_imports_against_the_order_of_the_rooms():
    order = order_of_rooms()
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert modules == set(order)
    for module in modules:
        for imported in imports_of(PACKAGE / f"{module}.py"):
            assert order.index(imported) < order.index(module), f"{module} imports {imported}"


def test_modules_stay_short():
    lengths = {path.name: len(path.read_text().splitlines()) for path in PACKAGE.glob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 450} == {}


def test_importing_the_library_loads_nothing_slow_that_is_not_needed_yet():
    script = (
        "import sys, murakit; print([m for m in ('torchvision', 'optuna', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_the_version_is_the_changelogs():
    changelog = (PACKAGE.parent / "CHANGELOG.md").read_text()
    assert f"## {murakit.__version__}" in changelog
