"""The plan of the house, held: folders and their public parts, sizes, circles, and a test for each module.

Only the text of the project is read. What the layers are, ``lint-imports`` checks.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "memscope"
DASHBOARD = ROOT / "dashboard" / "memscope_dashboard"

MAX_MODULES = 487
"""May only become larger for a file that a new finding, technique, view, allocator or part of PyTorch is."""
MAX_MODULES_IN_A_FOLDER = 15
MAX_MODULE_LINES = 500
MAX_FUNCTION_LINES = 60

FLAT_FOLDERS = ("_core", "cli")
"""A file a verb, and the compiled core's stubs: their lists may be long, and nothing in them is private by name."""

WITHOUT_LOGIC = {
    "memscope.__main__",
    "memscope.attribution.distributed_rules",
    "memscope.attribution.rule_table",
    "memscope.capture.dry_run.distributed._parts",
    "memscope.serving.presets",
    "memscope.trace.categories",
    "memscope.trace.schema",
}
"""Tables and lists of names: other modules' tests read them."""


def _modules(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.rglob("*.py")) if "__pycache__" not in path.parts)


ALL_MODULES = [*_modules(PACKAGE), *_modules(DASHBOARD)]
FOLDERS = sorted({path.parent for path in _modules(PACKAGE)} - {PACKAGE, *(PACKAGE / name for name in FLAT_FOLDERS)})


def _name(path: Path) -> str:
    """The dotted name of a module."""
    relative = path.relative_to(DASHBOARD.parent if path.is_relative_to(DASHBOARD) else ROOT)
    parts = relative.parent.parts if path.name == "__init__.py" else relative.with_suffix("").parts
    return ".".join(parts)


def _is_flat(path: Path) -> bool:
    return path.is_relative_to(DASHBOARD) or path.relative_to(PACKAGE).parts[0] in FLAT_FOLDERS


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def _graph() -> grimp.ImportGraph:
    """Every import, those inside functions and under TYPE_CHECKING among them."""
    return grimp.build_graph("memscope", "memscope_dashboard", cache_dir=None)


def _functions(path: Path) -> Iterator[tuple[str, int]]:
    """Each function's name and the lines of its body, its docstring aside."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            yield node.name, body[-1].end_lineno - body[0].lineno + 1 if body else 0


def _public_parts(folder: Path) -> set[str]:
    """The modules that a folder's docstring names as those that other folders import."""
    docstring = ast.get_docstring(_tree(folder / "__init__.py")) or ""
    return set(re.findall(r"^``([a-z_0-9]+)``", docstring.partition("Other folders import:")[2], re.MULTILINE))


def test_no_module_takes_part_in_a_circle() -> None:
    graph = _graph()
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    circles: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        path.append(module)
        for imported in graph.find_modules_directly_imported_by(module):
            if imported not in order:
                visit(imported)
                lowest[module] = min(lowest[module], lowest[imported])
            elif imported in path:
                lowest[module] = min(lowest[module], order[imported])
        if lowest[module] == order[module]:
            circle = path[path.index(module) :]
            del path[path.index(module) :]
            if len(circle) > 1:
                circles.append(circle)

    for module in sorted(graph.modules):
        if module not in order:
            visit(module)
    assert not circles


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: _name(path / "__init__.py"))
def test_a_folder_says_which_of_its_parts_others_may_import(folder: Path) -> None:
    public = _public_parts(folder)
    modules = {path.stem for path in folder.glob("*.py") if path.name != "__init__.py"}
    assert public <= modules, "named in the docstring, and not there"
    private = {name for name in modules if name.startswith("_")}
    assert public | private == modules, "neither named in the folder's docstring nor private by name"
    assert not public & private


@pytest.mark.parametrize("path", ALL_MODULES, ids=_name)
def test_nothing_private_is_imported_from_another_folder(path: Path) -> None:
    here = _name(path) if path.name == "__init__.py" else _name(path).rpartition(".")[0]
    for node in ast.walk(_tree(path)):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("memscope"):
            continue
        module = str(node.module)
        for alias in node.names:
            parts = f"{module}.{alias.name}".removeprefix("memscope._core").split(".")
            private = [part for part in parts if part.startswith("_") and not part.startswith("__")]
            folder = module if (ROOT / module.replace(".", "/")).is_dir() else module.rpartition(".")[0]
            assert not private or folder == here, f"{module}.{alias.name}"


@pytest.mark.parametrize("path", ALL_MODULES, ids=_name)
def test_modules_and_functions_are_of_a_size_to_be_read(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_MODULE_LINES
    assert not [(name, lines) for name, lines in _functions(path) if lines > MAX_FUNCTION_LINES]


def test_folders_show_their_parts_at_a_glance() -> None:
    sizes = {_name(folder / "__init__.py"): len(list(folder.glob("*.py"))) for folder in FOLDERS}
    assert not {name: size for name, size in sizes.items() if size > MAX_MODULES_IN_A_FOLDER}
    assert len(ALL_MODULES) <= MAX_MODULES


def _has_logic(path: Path) -> bool:
    return path.name != "__init__.py" and _name(path) not in WITHOUT_LOGIC and any(True for _ in _functions(path))


@pytest.mark.parametrize("path", [p for p in ALL_MODULES if _has_logic(p)], ids=_name)
def test_each_module_with_logic_has_a_test_file_of_its_name(path: Path) -> None:
    if path.is_relative_to(DASHBOARD):
        folder = ROOT / "tests" / "dashboard" / path.parent.relative_to(DASHBOARD)
    else:
        folder = ROOT / "tests" / path.parent.relative_to(PACKAGE)
    expected = folder / f"test_{path.stem.lstrip('_')}.py"
    assert expected.exists(), f"{expected.relative_to(ROOT)} is missing"
