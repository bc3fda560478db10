"""Questions in SQL: answered from the views, and nothing else is within reach."""

from __future__ import annotations

from pathlib import Path

import pytest

from memscope.analysis import load
from memscope.errors import UsageError
from memscope.export.sql import ask
from memscope.export.views import VIEWS, view_table

pytest.importorskip("duckdb")
TRAIN = Path(__file__).parents[2] / "traces" / "tiny-llama-train.memscope"


@pytest.mark.parametrize("view", list(VIEWS))
def test_every_view_can_be_asked(view: str) -> None:
    analysis = load(TRAIN)
    answer = ask(analysis, f"select * from {view}")
    table = view_table(analysis, view)
    assert list(answer.columns) == table.column_names
    assert sorted(map(repr, answer.rows)) == sorted(repr(tuple(row.values())) for row in table.to_pylist())


def test_views_join() -> None:
    query = """
        select f.file, sum(a.block_bytes) as n
        from allocations a join stacks s on s.stack_id = a.stack_id and s.depth = 0 join frames f using (frame_id)
        where a.is_live_at_peak group by all order by n desc
    """
    analysis = load(TRAIN)
    answer = ask(analysis, query)
    device = analysis.device()
    table, rows = device.allocations, device.peak().in_use_rows
    assert sum(row[1] for row in answer.rows) == int(table.block_bytes[rows][table.stack_id[rows] >= 0].sum())


@pytest.mark.parametrize(
    "query",
    [
        "select * from read_csv('{file}')",
        "select * from read_text('{file}')",
        "select * from '{file}'",
        "select * from glob('{folder}/*')",
        "copy events to '{folder}/out.csv'",
        "copy events to '{folder}/out.parquet' (format parquet)",
        "attach '{folder}/other.db'",
        "export database '{folder}/dump'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "set lock_configuration = false",
        "reset enable_external_access",
        "pragma enable_external_access",
    ],
)
def test_a_query_reaches_no_file_and_no_setting(tmp_path: Path, query: str) -> None:
    file = tmp_path / "secret.csv"
    file.write_text("a\n1\n")
    with pytest.raises(UsageError, match="cannot be answered"):
        ask(load(TRAIN), query.format(file=file, folder=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]


def test_variables_of_python_are_no_tables() -> None:
    table = view_table(load(TRAIN), "steps")
    assert table.num_rows
    with pytest.raises(UsageError, match="table"):
        ask(load(TRAIN), "select * from table_of_python")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("select", "SELECT"),
        ("select nothing from events", "nothing"),
        ("", "give one statement, not 0"),
        ("select 1; drop table events", "give one statement, not 2"),
        ("create table mine as select 1", "asks nothing"),
        ("select 1 / 0 as x, error('a\nb')", "a"),
    ],
)
def test_a_mistake_is_one_line(query: str, words: str) -> None:
    with pytest.raises(UsageError, match="cannot be answered") as refused:
        ask(load(TRAIN), query)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_view_that_there_is_not_is_answered_with_the_one_meant() -> None:
    with pytest.raises(UsageError, match="there is no view 'allocation': did you mean 'allocations'"):
        ask(load(TRAIN), "select * from allocation")
    with pytest.raises(UsageError, match="there is no view 'zzz': choose one of events, allocations"):
        ask(load(TRAIN), "select * from steps join zzz using (step)")
