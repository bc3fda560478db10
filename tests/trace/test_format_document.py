"""``docs/format.md`` says of every table and view what the schema has, no more and no less."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from memscope.export.views import VIEWS
from memscope.trace import schema
from memscope.trace.container import read_container, write_container

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "format.md").read_text()
SHIPPED = ROOT / "traces" / "tiny-gpt2-generate.memscope"
_TYPED = {
    "events": schema.EVENT_COLUMNS,
    "frames": schema.FRAME_COLUMNS,
    "segments": schema.SEGMENT_COLUMNS,
    "blocks": schema.BLOCK_COLUMNS,
    "samples": schema.SAMPLE_COLUMNS,
    "marks": schema.MARK_COLUMNS,
    "owners": schema.OWNER_COLUMNS,
    "cache_layers": schema.CACHE_LAYER_COLUMNS,
    "cache_lengths": schema.CACHE_LENGTH_COLUMNS,
}


def documented(heading: str) -> dict[str, dict[str, tuple[str, str]]]:
    """The tables under headings of a kind: name → column → (type, meaning)."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for name, body in re.findall(rf"^### {heading}`(\w+)`\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL):
        rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+) \|$", body, re.MULTILINE)
        found[name] = {column: (kind, meaning) for column, kind, meaning in rows}
    return found


def test_every_member_of_a_file_is_described_with_its_columns(tmp_path: Path) -> None:
    tables = documented("")
    # Written anew: the shipped file is older than some columns.
    with zipfile.ZipFile(write_container(read_container(SHIPPED), tmp_path / "run.memscope")) as file:
        members = {Path(name).stem: name for name in file.namelist() if name.endswith(".parquet")}
        assert set(tables) == set(members)
        for name, member in members.items():
            assert pq.read_schema(io.BytesIO(file.read(member))).names == list(tables[name]), name
        keys = json.loads(file.read("meta.json"))
    described = TEXT.partition("## `meta.json`")[2].partition("## Tables")[0]
    assert set(keys) <= set(re.findall(r"`(\w+)`", described))


@pytest.mark.parametrize("name", list(_TYPED))
def test_the_types_are_those_of_the_schema(name: str) -> None:
    said = {column: kind for column, (kind, _) in documented("")[name].items()}
    assert said == {column: str(dtype) for column, dtype in _TYPED[name].items()}


def test_the_views_are_described_as_they_are() -> None:
    assert documented("View ") == {name: dict(view.columns) for name, view in VIEWS.items()}


def test_numbers_that_stand_for_words_are_listed() -> None:
    tables = documented("")
    kinds = (("events", "action", schema.Action), ("blocks", "state", schema.BlockState))
    for table, column, kind in kinds:
        listed = ", ".join(f"{one.value} {one.name.lower()}" for one in kind)
        assert tables[table][column][1] == listed
    assert f"schema\nversion {schema.SCHEMA_VERSION};" in TEXT
