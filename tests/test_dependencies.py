"""The page of dependencies has exactly those of pyproject.toml, with their bounds, and a reason for each."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
_NAME = re.compile(r"[A-Za-z0-9._-]+")


@pytest.fixture(scope="module")
def table() -> dict[str, list[str]]:
    lines = (ROOT / "docs" / "dependencies.md").read_text("utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| `")]
    assert len({row[0] for row in rows}) == len(rows), "a package stands there twice"
    return {row[0].strip("`"): row[1:] for row in rows}


def asked_for() -> dict[str, set[str]]:
    """What asks for each package: ``core``, ``build``, or the extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    groups = {"core": project["project"]["dependencies"], "build": project["build-system"]["requires"]}
    found: dict[str, set[str]] = {}
    for group, requirements in (groups | project["project"]["optional-dependencies"]).items():
        for requirement in requirements:
            name = _NAME.match(requirement).group()
            if name != project["project"]["name"]:
                found.setdefault(name, set()).add(group)
    return found


def test_the_page_has_the_dependencies_that_there_are_and_no_others(table: dict[str, list[str]]) -> None:
    assert {name: set(row[1].split(", ")) for name, row in table.items()} == asked_for()


def test_each_has_its_bounds_a_licence_and_a_reason(table: dict[str, list[str]]) -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    for name, (bounds, _, release, licence, reason) in table.items():
        assert all(f"{name}{part}" in text or f",{part}" in text for part in bounds.split(",")), name
        assert release, name
        assert licence, name
        assert len(reason.split()) > 1 or reason == "tests", name


def test_the_lock_has_the_versions_of_the_constraints_each_with_hashes(table: dict[str, list[str]]) -> None:
    def normal(name: str) -> str:
        return name.lower().replace("_", "-")

    pinned = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)
    lock = (ROOT / "requirements" / "lock.txt").read_text("utf-8")
    constraints = (ROOT / "constraints.txt").read_text("utf-8")
    locked = {normal(name): version for name, version in pinned.findall(lock)}
    wanted = {normal(name): version for name, version in pinned.findall(constraints)}
    assert {name: locked[name] for name in wanted if name in locked} == {
        name: version for name, version in wanted.items() if name in locked
    }
    # What only another Python needs, or what builds, is asked for elsewhere.
    assert set(table) - set(locked) <= {"tomli"}
    entries = re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE)[1:]
    assert len(entries) == len(locked)
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in lock, "where it was made is nobody's business"
    assert "--hash" not in constraints, "hashes there would refuse editable installations"
