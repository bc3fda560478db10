"""Tables check their own shape and cannot be changed."""

import numpy as np
import pytest

from memscope.errors import InvariantError
from memscope.trace.tables import MarkTable, StackTable, frozen_array, rank_rows


def marks(n: int = 3) -> MarkTable:
    return MarkTable(event=np.arange(n), time_ns=np.arange(n), kind=np.zeros(n), label_id=np.arange(n))


def test_columns_take_the_schemas_types() -> None:
    table = marks()
    assert [column.dtype.name for column in table.columns().values()] == ["int64", "int64", "int8", "int32"]
    assert len(table) == 3
    assert len(MarkTable.empty()) == 0


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(InvariantError, match=r"MarkTable\.kind has shape \(2,\), expected \(3,\)"):
        MarkTable(event=np.arange(3), time_ns=np.arange(3), kind=np.zeros(2), label_id=np.arange(3))
    with pytest.raises(InvariantError, match="has shape"):
        MarkTable(event=np.zeros((2, 2)), time_ns=np.arange(2), kind=np.zeros(2), label_id=np.arange(2))


def test_rows_are_taken_by_position_and_by_mask() -> None:
    table = marks()
    assert table.take(np.array([2, 0])).event.tolist() == [2, 0]
    assert table.take(table.event > 0).label_id.tolist() == [1, 2]


def test_a_table_is_made_of_a_mapping_that_may_have_more() -> None:
    columns = {**marks().columns(), "other": np.zeros(9)}
    assert MarkTable.from_columns(columns).event.tolist() == [0, 1, 2]
    with pytest.raises(KeyError):
        MarkTable.from_columns({"event": [1]})


def test_a_frozen_array_leaves_its_source_writable() -> None:
    source = np.arange(3)
    frozen = frozen_array(source, np.int64)
    assert np.shares_memory(source, frozen)
    source[0] = 7
    with pytest.raises(ValueError, match="read-only"):
        frozen[0] = 1


def test_stacks_are_runs_of_frames() -> None:
    table = StackTable(offsets=[0, 2, 2, 3], frame_ids=[1, 0, 1], name_id=[0, 1], filename_id=[2, 2], line=[5, 6])
    assert (len(table), table.n_frames) == (3, 2)
    assert [table.frames_of(i).tolist() for i in (0, 1, 2, -1)] == [[1, 0], [], [1], []]
    assert len(StackTable.empty()) == 0


@pytest.mark.parametrize("offsets", [[], [1, 3], [0, 2], [0, 4]])
def test_offsets_must_cover_the_frames(offsets: list[int]) -> None:
    with pytest.raises(InvariantError, match="offsets"):
        StackTable(offsets=offsets, frame_ids=[0, 0, 0], name_id=[0], filename_id=[0], line=[0])


def test_offsets_must_not_go_back() -> None:
    with pytest.raises(InvariantError, match="offsets"):
        StackTable(offsets=[0, 3, 1, 3], frame_ids=[0, 0, 0], name_id=[0], filename_id=[0], line=[0])


def test_frame_columns_must_be_equally_long() -> None:
    with pytest.raises(InvariantError, match="frame columns"):
        StackTable(offsets=[0], frame_ids=[], name_id=[0], filename_id=[0], line=[])


def test_rows_are_ranked_as_numpy_ranks_them() -> None:
    rng = np.random.default_rng(3)
    for n in (0, 1, 500):
        columns = rng.integers(-4, 4, (3, n))
        columns[1] *= 1 << 58
        _, expected = np.unique(columns, axis=1, return_inverse=True)
        assert rank_rows(*columns).tolist() == expected.reshape(-1).tolist()
