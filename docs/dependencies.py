"""Write docs/dependencies.md: what memscope depends on, of pyproject.toml and of the metadata of what is installed.

    python docs/dependencies.py

A package that is not installed here keeps what the file says of it. Why each is there is said below, by hand.
"""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

try:
    import tomllib
except ImportError:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "dependencies.md"
OWN = "torch-memscope"
REASONS = {
    "accelerate": "the recipes of large models that tests record",
    "click": "the command line",
    "cmake": "configures the build of the core",
    "dash": "the dashboard's server and pages",
    "dash-ag-grid": "the dashboard's tables",
    "dash-mantine-components": "the dashboard's controls",
    "distributed": "recording on the workers of a Dask cluster",
    "duckdb": "questions in SQL",
    "hypothesis": "properties tried on random examples",
    "import-linter": "holds the order of the layers",
    "joblib": "replays in several processes at once",
    "jsonschema": "holds what `--json` prints to its schema",
    "mypy": "types, strictly",
    "nanobind": "binds the core to Python",
    "ninja": "builds the core",
    "numpy": "the columns that everything is computed on",
    "nvidia-ml-py": "asks the driver what the whole device has in use",
    "optimum-quanto": "quantized caches that tests record",
    "pandas": "frames of results for notebooks, and what plotly and dash take",
    "pandas-stubs": "types of pandas",
    "playwright": "drives a real browser in tests",
    "plotly": "every picture, in reports and in the dashboard",
    "pyarrow": "the Parquet tables of `.memscope` files",
    "pyelftools": "reads the kernels in a CUDA build of torch, for what they take on an emulated device",
    "pytest": "tests",
    "pytest-xdist": "tests in several processes",
    "ray": "recording in the tasks of a Ray cluster",
    "rich": "tables and colours in a terminal",
    "ruff": "lint and format",
    "scikit-build-core": "builds the wheel with its compiled core",
    "tomli": "reads TOML under Python 3.10, which has no reader",
    "torch": "what is recorded; no analysis needs it",
    "transformers": "key/value caches and models of Hugging Face; `estimate`",
    "typing-extensions": "words of typing that Python 3.10 lacks",
}
"""Why each is there."""
_HEAD = """# Dependencies

What memscope is built with, runs with and is tested with, of `pyproject.toml`; `python docs/dependencies.py` writes
this page from the metadata of what is installed. The release is the one seen then. Nothing of another project's source
is part of memscope. `requirements/lock.txt` has the hashes of every version that `constraints.txt` names and of what
those need (`make lock` writes it and this page).

| package | bounds | for | release seen | licence | why |
|---|---|---|---|---|---|
"""


class Row(NamedTuple):
    """One dependency: where it is asked for (``core``, ``build`` or an extra), and what is known of it."""

    name: str
    bounds: str
    needed_for: str
    release: str
    licence: str


def asked_for() -> dict[str, tuple[str, str]]:
    """Each package's bounds, and what asks for it, of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    groups = {"core": project["project"]["dependencies"], "build": project["build-system"]["requires"]}
    groups |= project["project"]["optional-dependencies"]
    found: dict[str, tuple[set[str], list[str]]] = {}
    for group, requirements in groups.items():
        for requirement in map(Requirement, requirements):
            if requirement.name != OWN:
                bounds, needed = found.setdefault(requirement.name, (set(), []))
                bounds.add(str(requirement.specifier))
                needed.append(group)
    return {name: (" or ".join(sorted(bounds)), ", ".join(needed)) for name, (bounds, needed) in sorted(found.items())}


def licence_of(metadata: importlib.metadata.PackageMetadata) -> str:
    """The licence as the package tells it: its expression, else what it is classified as, else its own words."""
    expression = metadata.get("License-Expression")
    classified = [
        one.rpartition(" :: ")[2] for one in metadata.get_all("Classifier") or () if one.startswith("License")
    ]
    named = " or ".join(classified) or metadata.get("License") or "not told"
    return str(expression or named).replace("|", "/").strip()


def known_before() -> dict[str, tuple[str, str]]:
    """Release and licence of each package in the page as it is."""
    if not PAGE.exists():
        return {}
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in PAGE.read_text("utf-8").splitlines()]
    return {row[0].strip("`"): (row[3], row[4]) for row in cells if len(row) == 6}


def rows() -> list[Row]:
    """The table."""
    before = known_before()
    found = []
    for name, (bounds, needed_for) in asked_for().items():
        try:
            metadata = importlib.metadata.metadata(name)
            release, licence = re.sub(r"\+.*", "", metadata["Version"]), licence_of(metadata)
        except importlib.metadata.PackageNotFoundError:
            release, licence = before.get(name, ("not installed where this was written", "not seen"))
        found.append(Row(name, bounds, needed_for, release, licence))
    return found


def page() -> str:
    """The whole page."""
    lines = [
        f"| `{row.name}` | {row.bounds} | {row.needed_for} | {row.release} | {row.licence} | {REASONS[row.name]} |"
        for row in rows()
    ]
    return _HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
