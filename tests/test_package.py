"""The package as a whole: which room may import which, and what a user has to install."""

import ast
import re
import shutil
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import murakit

PACKAGE = Path(murakit.__file__).parent
CONTRIBUTING = PACKAGE.parent / "CONTRIBUTING.md"
# A folder with more modules than this can no longer be taken in at a glance.
MOST_MODULES = 16
# They hand on names of rooms, and are no rooms themselves.
AT_THE_TOP = {"__init__", "__main__", "augmentation", "store"}


def order_of_rooms():
    """The rooms as CONTRIBUTING.md lists them, lowest first."""
    table = CONTRIBUTING.read_text().partition("## The house")[2].partition("###")[0]
    return re.findall(r"^\| `(\w+)/?` \|", table, flags=re.MULTILINE)


def imports_of(path, package):
    """Yield the files of the package that a file imports, at its top or inside a function."""
    here = path.relative_to(package).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - node.level + 1]
            target = package.joinpath(*base, *(node.module or "").split("."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "murakit":
            target = package.joinpath(*node.module.split(".")[1:])
        else:
            continue
        for alias in node.names:
            for found in (target / alias.name, target):
                if (file := found.with_suffix(".py")).exists() or (file := found / "__init__.py").exists():
                    yield file
                    break


def room_of(path, package):
    parts = path.relative_to(package).parts
    return parts[0] if len(parts) > 1 else ""


def back_imports(package, order):
    """Imports of a room that stands above the importing one, and circles inside a room."""
    wrong, graph = [], {}
    files = {path: set(imports_of(path, package)) for path in sorted(package.rglob("*.py"))}
    for path, imported in files.items():
        room = room_of(path, package)
        for target in imported:
            other = room_of(target, package)
            if room and other != room:
                graph.setdefault(room, set()).add(other)
                if not other or order.index(other) > order.index(room):
                    wrong.append(f"{path.relative_to(package)} imports {target.relative_to(package)}")
    try:
        list(TopologicalSorter({path: found - {path} for path, found in files.items()}).static_order())
    except CycleError as error:
        wrong.append("circle: " + " -> ".join(str(file.relative_to(package)) for file in error.args[1]))
    drawn = [f"{room} <- {', '.join(sorted(graph.get(room, [])))}" for room in order]
    return wrong, "\n".join(drawn)


def test_no_room_imports_one_that_stands_on_it_and_there_is_no_circle():
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms == set(order_of_rooms())
    wrong, graph = back_imports(PACKAGE, order_of_rooms())
    assert not wrong, "\n".join([*wrong, "", "The rooms, and what each imports:", graph])


def test_a_back_import_and_a_circle_are_noticed(tmp_path):
    copy = tmp_path / "murakit"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / "io" / "_images.py").open("a") as file:
        file.write("\n\ndef late():\n    from ..datasets._paths import as_paths\n\n    return as_paths\n")
    with (copy / "io" / "_filesystem.py").open("a") as file:
        file.write("\n\ndef later():\n    from ._images import read_image\n\n    return read_image\n")
    wrong, graph = back_imports(copy, order_of_rooms())
    assert any(line.startswith("io/_images.py imports datasets/_paths.py") for line in wrong)
    assert any(line.startswith("circle: ") for line in wrong)
    assert "training <- " in graph


def test_a_folder_can_be_taken_in_at_a_glance():
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    counts = {str(folder.relative_to(PACKAGE)): len(list(folder.glob("*.py"))) for folder in folders}
    assert {name: count for name, count in counts.items() if count > MOST_MODULES} == {}
    assert {path.stem for path in PACKAGE.glob("*.py")} <= AT_THE_TOP


# Of named tuples and of IPython's protocol: public, whatever they begin with.
PUBLIC = {"_replace", "_fields", "_asdict", "_repr_html_"}


def private_names_of_others():
    """Names with an underscore that murakit imports, asks of objects or overrides, and does not define itself."""
    trees = [ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.id for node in nodes if isinstance(node, ast.Name)}
    own |= {
        node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    own |= {
        target.attr
        for tree in trees
        for target in ast.walk(tree)
        if isinstance(target, ast.Attribute)
        and isinstance(target.value, ast.Name)
        and target.value.id == "self"
    }
    found = {node.attr for node in nodes if isinstance(node, ast.Attribute)} - own
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found |= {node.module} if "._" in node.module else {alias.name for alias in node.names}
    names = {name for name in found if name.startswith("_") or "._" in name}
    return {name for name in names if not name.startswith("__")} - PUBLIC


def test_private_names_of_other_packages_are_few_and_listed():
    text = CONTRIBUTING.read_text().partition("### Private names of other packages")[2].partition("\n## ")[0]
    listed = {
        name
        for row in re.findall(r"^\| (`.+?) \|", text, flags=re.MULTILINE)
        for name in re.findall(r"`([\w.]+)`", row)
    }
    assert private_names_of_others() <= listed
    assert 0 < len(listed) < 12


def test_tests_lie_in_the_rooms_that_they_test():
    tests = PACKAGE.parent / "tests"
    folders = {path.parent.name for path in tests.glob("*/test_*.py")}
    assert folders <= set(order_of_rooms())


def test_importing_the_library_loads_nothing_slow_that_is_not_needed_yet():
    script = (
        "import sys, murakit; print([m for m in ('torchvision', 'optuna', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_the_version_is_the_changelogs():
    changelog = (PACKAGE.parent / "CHANGELOG.md").read_text()
    assert f"## {murakit.__version__}" in changelog
