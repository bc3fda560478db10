"""Every format by its name: the file, and what it is of."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from memscope.analysis import load
from memscope.errors import UsageError
from memscope.export.formats import FORMATS, Asked, export
from memscope.export.views import VIEWS, view_table

TRAIN = Path(__file__).parents[2] / "traces" / "tiny-llama-train.memscope"


@pytest.mark.parametrize("name", list(FORMATS))
def test_each_format_writes_a_file_and_not_over_another(tmp_path: Path, name: str) -> None:
    if name == "html":
        pytest.importorskip("plotly")
    analysis = load(TRAIN)
    path = export(analysis, name, tmp_path / f"out{FORMATS[name].suffix}")
    assert path.stat().st_size > 100
    with pytest.raises(UsageError, match="exists already"):
        export(analysis, name, path)
    before = path.read_bytes()
    export(analysis, name, path, overwrite=True)
    assert name == "html" or path.read_bytes() == before


@pytest.mark.parametrize("view", list(VIEWS))
def test_csv_and_parquet_hold_the_view(tmp_path: Path, view: str) -> None:
    import pyarrow.parquet as pq

    analysis = load(TRAIN)
    table = view_table(analysis, view)
    with export(analysis, "csv", tmp_path / "a.csv", Asked(view=view)).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == table.num_rows
    assert list(rows[0]) == table.column_names
    first = table.to_pylist()[0]
    for column, value in first.items():
        expected = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        assert rows[0][column] == expected
    read = pq.read_table(export(analysis, "parquet", tmp_path / "a.parquet", Asked(view=view)))
    assert read.to_pylist() == table.to_pylist()


def test_a_profile_is_of_the_moment_asked_for(tmp_path: Path) -> None:
    analysis = load(TRAIN)
    path = export(analysis, "speedscope", tmp_path / "a.json", Asked(event=50))
    (profile,) = json.loads(path.read_text())["profiles"]
    moment = analysis.device().at(50)
    assert profile["endValue"] == int(analysis.device().allocations.requested_bytes[moment.in_use_rows].sum())


def test_the_snapshot_is_read_as_what_it_was_made_of(tmp_path: Path) -> None:
    analysis = load(TRAIN)
    again = load(export(analysis, "memory_viz", tmp_path / "a.pickle"))
    assert again.device().usage.allocated_bytes.tolist() == analysis.device().usage.allocated_bytes.tolist()


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if not form.is_of_moment])
def test_what_is_of_the_whole_trace_takes_no_moment(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is of the whole trace"):
        export(load(TRAIN), name, tmp_path / "out", Asked(event=3))
    assert not (tmp_path / "out").exists()
