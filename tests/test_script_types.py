"""The dashboard's scripts have the types that dashboard/types gives them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "dashboard" / "memscope_dashboard" / "assets").rglob("*.js"))


def compiler() -> str:
    """TypeScript's compiler: what `make types` installed, else one of the machine; the test is skipped without."""
    installed = sorted(ROOT.glob("build/typescript-*/node_modules/.bin/tsc"))
    found = str(installed[-1]) if installed else shutil.which("tsc")
    if found is None:
        pytest.skip("no TypeScript: `make types` installs it by npm")
    return found


def test_the_scripts_have_the_types_that_they_say() -> None:
    done = subprocess.run([compiler(), "-p", "dashboard/tsconfig.json"], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == ""
    assert done.returncode == 0


def test_a_wrong_type_in_a_script_is_found(tmp_path: Path) -> None:
    folder = shutil.copytree(ROOT / "dashboard", tmp_path / "dashboard", ignore=shutil.ignore_patterns("__pycache__"))
    wrong = folder / "memscope_dashboard" / "assets" / "canvas" / "9_wrong.js"
    wrong.write_text("window.memscopeCanvas.firstAbove(1, 2);\n")
    done = subprocess.run([compiler(), "-p", str(folder / "tsconfig.json")], capture_output=True, text=True)
    assert done.returncode != 0
    assert "9_wrong.js(1,34)" in done.stdout


def test_no_script_escapes_from_its_types() -> None:
    assert len(SCRIPTS) > 15
    types = [*SCRIPTS, *(ROOT / "dashboard" / "types").glob("*.d.ts")]
    escapes = re.compile(r"@ts-(ignore|nocheck|expect-error)|\{any\}|\bany\[\]|: any\b|<any>")
    assert {path.name for path in types if escapes.search(path.read_text(encoding="utf-8"))} == set()
