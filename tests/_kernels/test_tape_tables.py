"""Dense ids and runs against slow, obvious twins."""

import pickle
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from memscope._kernels import tape_format as vm
from memscope._kernels import tape_tables
from memscope.trace.snapshot._pickle_reader import Tape, dense_ids
from tests._kernels.test_pickle_tape import tape_of
from tests.properties import examples

ROWS = st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 2), st.integers(0, 3)), max_size=60)


@given(ROWS)
@examples(60)
def test_dense_ids_number_distinct_rows_by_first_appearance(rows: list[tuple[int, int]]) -> None:
    columns = np.array(rows, np.int64).reshape(-1, 2).T
    ids, first = dense_ids(*columns)
    naive: dict[tuple[int, int], int] = {}
    assert ids.tolist() == [naive.setdefault(row, len(naive)) for row in rows]
    assert [rows[i] for i in first.tolist()] == list(naive)


def boxes(tape: Tape) -> np.ndarray:
    return tape.sequence(tape.root) >> vm.TAG_BITS


@given(st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=40))
@examples(60)
def test_equal_runs_get_one_id_and_empty_ones_none(runs: list[list[int]]) -> None:
    children = [[i] for i in range(4)]
    tape = tape_of(pickle.dumps([children, *[[children[i] for i in run] for run in runs]], 4))
    lists = boxes(tape)
    child_id = np.full(tape.n_boxes, -1, np.int32)
    child_id[tape.sequence(int(tape.sequence(tape.root)[0])) >> vm.TAG_BITS] = range(4)
    ids, offsets, frame_ids = tape.stacks(lists[1:], child_id)
    naive: dict[tuple[int, ...], int] = {}
    assert ids.tolist() == [naive.setdefault(tuple(run), len(naive)) if run else -1 for run in runs]
    assert [tuple(frame_ids[a:b].tolist()) for a, b in pairwise(offsets.tolist())] == list(naive)


def test_more_runs_and_longer_ones_than_the_first_arrays_hold() -> None:
    children = [[i] for i in range(3)]
    runs = [[children[(i >> bit) % 3] for bit in range(12)] for i in range(3000)] + [[children[0]] * 9000]
    tape = tape_of(pickle.dumps([children, *runs], 4))
    child_id = np.full(tape.n_boxes, -1, np.int32)
    child_id[tape.sequence(int(tape.sequence(tape.root)[0])) >> vm.TAG_BITS] = range(3)
    ids, offsets, frame_ids = tape.stacks(boxes(tape)[1:], child_id)
    keys = [tuple(child[0] for child in run) for run in runs]
    assert len(offsets) - 1 == len(set(keys))
    for key, run_id in zip(keys, ids.tolist(), strict=True):
        assert tuple(frame_ids[offsets[run_id] : offsets[run_id + 1]].tolist()) == key


def test_rows_of_dicts_take_the_keys_asked_for_and_the_last_of_equal_ones() -> None:
    known = ("a", "b", "c")
    tape = tape_of(pickle.dumps([{"a": 1, "x": 9, "c": None}, {}, {"b": "a", 3: 4}], 4), known=known)
    out, seen, bad = tape.rows(tape.sequence(tape.root), [0, 1], seen_keys=[2])
    assert bad == -1
    assert seen.tolist() == [True, True, True]
    assert out.tolist() == [[(1 << 3) | vm.INT, 0, 0], [0, 0, (0 << 3) | vm.STR]]
    twice = tape_of(b"](}(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00aK\x02ue.", known=known)
    assert twice.rows(twice.sequence(twice.root), [0])[0].tolist() == [[(2 << 3) | vm.INT]]


def test_the_first_row_of_another_kind_is_named() -> None:
    tape = tape_of(pickle.dumps([{}, [1, 2], (3,), 5], 4), known=("a",))
    values = tape.sequence(tape.root)
    assert tape.rows(values, [0])[2] == 1
    assert tape.lengths(values)[1] == 0
    lengths, bad = tape.lengths(values[1:3])
    assert (lengths.tolist(), bad) == ([2, 1], -1)
    assert tape.items(values[1:3], lengths, limit=1).tolist() == [(1 << 3) | vm.INT, (3 << 3) | vm.INT]


def test_repeating_one_box_without_end_is_noticed() -> None:
    tape = tape_of(pickle.dumps([[{"a": 1, "b": 2}], 0], 4), known=("a",))
    one = tape.sequence(int(tape.sequence(tape.root)[0]))
    arrays = tape._arrays
    key_column = np.zeros(1, np.int8)
    out, seen = np.zeros((1, 5), np.int64), np.zeros(1, np.bool_)
    for limit, expected in ((20, -1), (19, tape_tables.REPEATED)):
        found = tape_tables.dict_rows(
            np.repeat(one, 5), key_column, arrays["arena"], arrays["box_first"], arrays["box_kind"], limit, out, seen
        )
        assert found == expected
