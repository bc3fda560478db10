"""``memscope sql``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Outcome

pytest.importorskip("duckdb")
Run = Callable[..., Outcome]
TRAIN = Path(__file__).parents[2] / "traces" / "tiny-llama-train.memscope"


def test_json_has_columns_and_rows(memscope: Run) -> None:
    outcome = memscope("sql", TRAIN, "select step, label, peak_allocated_bytes / 2.0 as half from steps", "--json")
    assert outcome.code == 0
    said = json.loads(outcome.out)
    assert said["schema_version"] == 1
    assert said["columns"] == ["step", "label", "half"]
    assert [row[:2] for row in said["rows"]] == [[0, "0"], [1, "1"], [2, "2"]]
    assert said["n_rows"] == 3


def test_text_is_a_table_and_says_what_it_leaves_out(memscope: Run) -> None:
    outcome = memscope("sql", TRAIN, "select event, action, label from events", "--limit", "2")
    assert outcome.code == 0
    assert "segment_alloc" in outcome.out
    assert "–" in outcome.out
    assert "2,854 rows, 2,852 not shown" in outcome.out


def test_the_views_are_listed_with_their_columns(memscope: Run) -> None:
    text = memscope("sql", TRAIN, "--views").out
    said = json.loads(memscope("sql", TRAIN, "--views", "--json").out)
    for view in said["views"]:
        assert f"{view['name']}: {view['meaning']}" in text
        for column in view["columns"]:
            assert column["name"] in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((TRAIN,), "give a query"),
        ((TRAIN, "select 1", "--views"), "give a query"),
        ((TRAIN, "select * from nothing"), "cannot be answered"),
        ((TRAIN, "select * from read_text('/etc/hostname')"), "cannot be answered"),
        (("nowhere.memscope", "select 1"), "nowhere.memscope"),
    ],
)
def test_what_cannot_be_answered_is_one_line(memscope: Run, arguments: tuple[object, ...], words: str) -> None:
    outcome = memscope("sql", *arguments)
    assert (outcome.code, outcome.out) == (1, "")
    assert words in outcome.err
    assert len(outcome.err.splitlines()) == 1
