"""Dense ids and runs against slow, obvious twins."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.errors import UnsafePickleError
from memscope.trace.snapshot._pickle_reader import NO_VALUE, Tape, dense_ids
from tests.properties import examples
from tests.trace.snapshot.test_machine import tape_of

ROWS = st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 2), st.integers(0, 3)), max_size=60)


@given(ROWS)
@examples(60)
def test_dense_ids_number_distinct_rows_by_first_appearance(rows: list[tuple[int, int]]) -> None:
    columns = np.array(rows, np.int64).reshape(-1, 2).T
    ids, first = dense_ids(*columns)
    naive: dict[tuple[int, int], int] = {}
    assert ids.tolist() == [naive.setdefault(row, len(naive)) for row in rows]
    assert [rows[i] for i in first.tolist()] == list(naive)


def numbered(tape: Tape, n_children: int) -> tuple[list[int], list[tuple[int, ...]]]:
    """Stack ids of all lists but the first, whose items are the frames; and the frames of each stack."""
    children, *lists = tape.sequence(tape.root).tolist()
    frames, bad = tape.boxes_in(np.array([children]))
    assert bad == -1
    assert len(frames) == n_children
    values = np.array(lists, np.int64)
    distinct, bad = tape.sequences_in([values])
    assert bad == -1
    stacks = tape.number_stacks(distinct, frames, np.arange(n_children, dtype=np.int32))
    frame_ids = stacks.frame_ids()
    return stacks.ids(values).tolist(), [tuple(frame_ids[a:b].tolist()) for a, b in pairwise(stacks.offsets().tolist())]


@given(st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=40))
@examples(60)
def test_equal_runs_get_one_id_and_empty_ones_none(runs: list[list[int]]) -> None:
    children = [[i] for i in range(4)]
    ids, stacks = numbered(tape_of(pickle.dumps([children, *[[children[i] for i in run] for run in runs]], 4)), 4)
    naive: dict[tuple[int, ...], int] = {}
    assert ids == [naive.setdefault(tuple(run), len(naive)) if run else -1 for run in runs]
    assert stacks == list(naive)


def test_runs_filled_in_one_batch_or_several_are_equal() -> None:
    children = b"]q\x00(]q\x01(K\x01e]q\x02(K\x02ee"
    one_batch, two_batches, one_by_one = b"](h\x01h\x02e", b"](h\x01e(h\x02e", b"]h\x01ah\x02a"
    ids, stacks = numbered(tape_of(b"](" + children + one_batch + two_batches + one_by_one + b"e."), 2)
    assert (ids, stacks) == ([0, 0, 0], [(0, 1)])


def test_more_runs_and_longer_ones_than_the_first_arrays_hold() -> None:
    children = [[i] for i in range(3)]
    runs = [[children[(i >> bit) % 3] for bit in range(12)] for i in range(3000)] + [[children[0]] * 9000]
    ids, stacks = numbered(tape_of(pickle.dumps([children, *runs], 4)), 3)
    keys = [tuple(child[0] for child in run) for run in runs]
    assert len(stacks) == len(set(keys))
    assert [stacks[run_id] for run_id in ids] == keys


def test_rows_of_dicts_take_the_keys_asked_for_and_the_last_of_equal_ones() -> None:
    known = ("a", "b", "c", "d")
    tape = tape_of(pickle.dumps([{"a": 1, "x": 9, "c": None}, {}, {"b": "a", 3: 4}], 4), known=known)
    dicts = tape.sequence(tape.root)
    seen, bad = tape.check_dicts(dicts, [0, 1, 2, 3])
    assert bad == -1
    assert seen.tolist() == [True, True, True, False]
    assert tape.integers(dicts, 0, missing=-5, wrap=False)[0].tolist() == [1, -5, -5]
    assert tape.text_ids(dicts, 1) == (pytest.approx(np.array([-1, -1, 0])), -1)
    assert tape.has(dicts, 2).tolist() == [False, False, False]
    assert (tape.column(dicts, 2) != NO_VALUE).tolist() == [True, False, False]
    twice = tape_of(b"](}(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00aK\x02ue.", known=known)
    assert twice.integers(twice.sequence(twice.root), 0, missing=0, wrap=False)[0].tolist() == [2]


def test_the_first_row_of_another_kind_is_named() -> None:
    tape = tape_of(pickle.dumps([{}, [1, 2], (3,), 5], 4), known=("a",))
    values = tape.sequence(tape.root)
    assert tape.check_dicts(values, [0])[1] == 1
    assert tape.lengths(values)[1] == 0
    assert tape.sequences_in([values[1:3], values])[1] == 0
    assert tape.boxes_in(values[1:3])[1] == 0
    lengths, bad = tape.lengths(values[1:3])
    assert (lengths.tolist(), bad) == ([2, 1], -1)
    assert [tape.scalar(item) for item in tape.items(values[1:3], limit=1).tolist()] == [1, 3]


def test_repeating_one_box_without_end_is_noticed() -> None:
    tape = tape_of(pickle.dumps([{f"key {i}": i for i in range(1000)}, [0] * 1000], 4), known=("a",))
    one_dict, one_list = (np.array([value]) for value in tape.sequence(tape.root).tolist())
    # A million items may always be passed, of a dict both keys and values.
    assert tape.check_dicts(np.repeat(one_dict, 520), [0])[1] == -1
    with pytest.raises(UnsafePickleError, match="multiplies"):
        tape.check_dicts(np.repeat(one_dict, 530), [0])
    assert len(tape.items(np.repeat(one_list, 1040))) == 1_040_000
    with pytest.raises(UnsafePickleError, match="multiplies"):
        tape.items(np.repeat(one_list, 1060))


def test_one_dict_cannot_be_millions_of_rows() -> None:
    tape = tape_of(pickle.dumps([{}], 4))
    with pytest.raises(UnsafePickleError, match="far more memory"):
        tape.check_dicts(np.repeat(tape.sequence(tape.root), 1_100_000), [])
