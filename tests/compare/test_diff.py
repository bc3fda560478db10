"""What two moments hold differently: sums that close, and allocations matched without addresses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memscope.analysis import Analysis, load
from memscope.compare.diff import diff_moments
from memscope.compare.difference import By, Change, Difference, Matched
from memscope.trace.categories import Category
from tests.compare.runs import KiB, MiB, Take, line, run
from tests.naive_layout import random_layout

SHIPPED = Path(__file__).parents[2] / "traces"


def at_ends(a: list, b: list, by: By = By.HOLDER) -> Difference:
    return diff_moments(run(a, "a.memscope").end(), run(b, "b.memscope").end(), by)


def deltas(difference: Difference) -> dict[tuple[str, str], int]:
    return {(row.key, row.category): row.delta_bytes for row in difference.rows if row.delta_bytes}


def test_a_run_and_itself_differ_in_nothing() -> None:
    analysis = load(SHIPPED / "tiny-llama-train.memscope")
    found = diff_moments(analysis.peak(), load(SHIPPED / "tiny-llama-train.memscope").peak())
    assert found.delta_bytes == 0
    assert not deltas(found)
    n = len(analysis.peak().in_use_rows)
    assert (found.matched.n_same_stack, found.matched.n_moved, found.matched.n_new, found.matched.n_gone) == (
        n,
        0,
        0,
        0,
    )


def test_new_gone_grown_and_shrunk_are_told_and_rounding_is_a_row() -> None:
    a = [
        Take(2 * MiB, Category.WEIGHTS, "fc.weight", line(1)),
        Take(4 * MiB, Category.ACTIVATIONS, "fc output", line(5)),
        Take(6 * MiB, Category.ACTIVATIONS, "dropout mask", line(6)),
        Take(8 * MiB, Category.INPUTS, "tokens", line(2)),
    ]
    b = [
        Take(2 * MiB, Category.WEIGHTS, "fc.weight", line(1)),
        Take(10 * MiB, Category.ACTIVATIONS, "fc output", line(5)),
        Take(2 * MiB - 512, Category.INPUTS, "tokens", line(2), extra=512),
        Take(2 * MiB, calls=line(7)),
    ]
    found = at_ends(a, b)
    changes = {row.key: row.change for row in found.rows if not row.is_rounding}
    assert changes == {
        "fc.weight": Change.SAME,
        "fc output": Change.GROWN,
        "dropout mask": Change.GONE,
        "tokens": Change.SHRUNK,
        "/home/me/project/train.py:7 forward": Change.NEW,
    }
    # 20 MiB before; 2 + 10 + 2 + 2 after, 512 bytes of them rounding.
    assert found.delta_bytes == -4 * MiB
    assert found.rows[-1].is_rounding
    assert (found.rows[-1].a_bytes, found.rows[-1].b_bytes) == (0, 512)
    assert sum(row.delta_bytes for row in found.rows) == sum(row.delta_bytes for row in found.categories) == -4 * MiB


def test_lines_that_have_moved_are_the_same_lines() -> None:
    a = [Take(2 * MiB, calls=line(10)), Take(4 * MiB, calls=line(12))]
    b = [Take(2 * MiB, calls=line(30)), Take(8 * MiB, calls=line(31)), Take(4 * MiB, calls=line(32))]
    found = at_ends(a, b)
    assert deltas(found) == {("/home/me/project/train.py:31 forward", "unknown"): 8 * MiB}
    assert (found.matched.n_same_stack, found.matched.n_moved, found.matched.n_new) == (0, 2, 1)


def test_lines_that_have_moved_and_grown_are_matched_in_their_order() -> None:
    a = [Take(2 * MiB, calls=line(10)), Take(4 * MiB, calls=line(12))]
    b = [Take(4 * MiB, calls=line(30)), Take(12 * MiB, calls=line(32))]
    # The 4 MiB of line 12 are taken for those of line 30, which are equal; what is left is matched with what is left.
    assert deltas(at_ends(a, b)) == {("/home/me/project/train.py:32 forward", "unknown"): 10 * MiB}
    c = [Take(3 * MiB, calls=line(30)), Take(5 * MiB, calls=line(32))]
    assert deltas(at_ends(a, c)) == {
        ("/home/me/project/train.py:30 forward", "unknown"): MiB,
        ("/home/me/project/train.py:32 forward", "unknown"): MiB,
    }


def test_another_checkout_and_another_file_are_matched() -> None:
    a = [Take(2 * MiB, calls=line(10, file="/home/me/work/project/model/train.py"))]
    elsewhere = [Take(2 * MiB, calls=line(10, file="/runner/7/project/model/train.py"))]
    renamed = [Take(2 * MiB, calls=line(11, file="/home/me/work/project/model/training.py"))]
    assert at_ends(a, elsewhere).matched.n_same_stack == 1
    assert at_ends(a, renamed).matched.n_moved == 1
    assert not deltas(at_ends(a, renamed))


def test_a_module_that_has_another_name_is_the_same() -> None:
    def state(*names: str, at: int = 4) -> list:
        return [Take(2 * MiB, Category.OPTIMIZER_STATE, f"exp_avg of {name}", line(at, "step")) for name in names]

    # Two of three equal tensors of one name are now called by their layer.
    found = at_ends(
        state("fc.weight", "fc.weight", "fc.weight"), state("fc.weight", "layers.1.fc.weight", "layers.2.fc.weight")
    )
    assert found.delta_bytes == 0
    assert not deltas(found)
    assert (found.matched.n_same_stack, found.matched.n_new, found.matched.n_gone) == (3, 0, 0)
    moved = at_ends(state("fc.weight", "fc.weight"), state("fc.weight", "layers.1.fc.weight", at=9))
    assert not deltas(moved)
    assert (moved.matched.n_moved, moved.matched.n_new) == (2, 0)


def test_allocations_are_matched_one_by_one() -> None:
    a = [Take(2 * MiB, calls=line(1)), Take(2 * MiB, calls=line(1))]
    found = at_ends(a, [*a, Take(2 * MiB, calls=line(1)), Take(6 * MiB, calls=line(1))])
    assert found.matched == Matched(n_same_stack=2, n_moved=0, n_new=2, n_gone=0)
    assert deltas(found) == {("/home/me/project/train.py:1 forward", "unknown"): 8 * MiB}


def test_a_new_line_in_a_function_that_was_there_is_new() -> None:
    a = [Take(2 * MiB, calls=line(10))]
    found = at_ends(a, [*a, Take(6 * MiB, calls=line(11))])
    assert deltas(found) == {("/home/me/project/train.py:11 forward", "unknown"): 6 * MiB}
    assert [row.change for row in found.rows if row.delta_bytes] == [Change.NEW]


def test_the_layers_of_a_model_are_one_row_by_holder_and_many_by_owner() -> None:
    layers = [Take(2 * MiB, Category.WEIGHTS, f"model.layers.{i}.fc.weight", line(3)) for i in range(3)]
    assert deltas(at_ends(layers[:1], layers)) == {("model.layers.*.fc.weight", "weights"): 4 * MiB}
    assert deltas(at_ends(layers[:1], layers, By.OWNER)) == {
        ("model.layers.1.fc.weight", "weights"): 2 * MiB,
        ("model.layers.2.fc.weight", "weights"): 2 * MiB,
    }
    assert deltas(at_ends(layers[:1], layers, By.MODULE)) == {
        ("model.layers.1.fc", "weights"): 2 * MiB,
        ("model.layers.2.fc", "weights"): 2 * MiB,
    }
    assert deltas(at_ends(layers[:1], layers, By.SITE)) == {("/home/me/project/train.py:3 forward", "weights"): 4 * MiB}
    assert deltas(at_ends(layers[:1], layers, By.CATEGORY)) == {("weights", "weights"): 4 * MiB}


def test_a_leak_of_one_run_is_what_grew_between_two_steps() -> None:
    acts: list = [Take(20 * MiB, Category.WEIGHTS, "fc.weight", line(1))]
    for step in range(5):
        acts += [
            Take(4 * MiB, Category.ACTIVATIONS, "fc output", line(5), free_at_step=True),
            Take(MiB * 2, calls=line(8)),
        ]
        acts.append(str(step))
    analysis = run(acts)
    device = analysis.device()
    ends = [device.at(int(end) - 1) for end in device.steps.end]
    found = diff_moments(ends[1], ends[4])
    assert found.is_one_trace
    assert deltas(found) == {("/home/me/project/train.py:8 forward", "unknown"): 6 * MiB}
    assert found.matched.n_new == 3


@given(seed_a=st.integers(0, 300), seed_b=st.integers(0, 300), share_a=st.floats(0, 1), share_b=st.floats(0, 1))
def test_any_two_moments_sum_to_their_difference(seed_a: int, seed_b: int, share_a: float, share_b: float) -> None:
    moments = []
    for seed, share in ((seed_a, share_a), (seed_b, share_b)):
        device = Analysis(random_layout(seed, 60).trace()).device()
        moments.append(device.at(int(share * (device.n_events - 1)) + device.lifetimes.first_event))
    for by in By:
        found = diff_moments(*moments, by)
        for i, name in enumerate(("a_bytes", "b_bytes")):
            table = moments[i].device.allocations
            event = moments[i].event
            in_use = table.active_at(event) & ~table.pending_at(event)
            expected = int(table.block_bytes[in_use].sum())
            assert sum(getattr(row, name) for row in found.rows) == expected
            assert sum(getattr(row, name) for row in found.categories) == expected
        counted = [sum(getattr(row, name) for row in found.rows) for name in ("n_a", "n_b")]
        assert counted == [len(moment.in_use_rows) for moment in moments]
        m = found.matched
        assert m.n_same_stack + m.n_moved + m.n_new == counted[1]
        assert m.n_same_stack + m.n_moved + m.n_gone == counted[0]


def test_rows_come_largest_difference_first() -> None:
    a = [Take((i + 1) * 2 * MiB, calls=line(i + 1, f"f{i}")) for i in range(6)]
    b = [Take((7 - i) * 2 * MiB + KiB, calls=line(i + 1, f"f{i}"), extra=KiB) for i in range(6)]
    sizes = [abs(row.delta_bytes) for row in at_ends(a, b).rows[:-1]]
    assert sizes == sorted(sizes, reverse=True)
    assert np.any(np.array(sizes) > 0)


def test_what_has_no_stack_and_no_owner_is_one_row_not_recorded() -> None:
    found = at_ends([Take(2 * MiB)], [Take(4 * MiB), Take(2 * MiB)])
    assert deltas(found) == {("not recorded", "unknown"): 4 * MiB}


@pytest.mark.parametrize("by", list(By))
def test_each_grouping_gives_every_row_a_name(by: By) -> None:
    found = diff_moments(
        load(SHIPPED / "tiny-llama-train.memscope").peak(), load(SHIPPED / "tiny-gpt2-generate.memscope").peak(), by
    )
    assert all(row.key for row in found.rows)
    assert len({(row.key, row.category) for row in found.rows}) == len(found.rows)


def test_where_only_one_side_has_owners_both_are_told_by_line_of_code() -> None:
    owned = [
        Take(2 * MiB, Category.WEIGHTS, "fc.weight", line(1)),
        Take(4 * MiB, Category.WEIGHTS, "emb.weight", line(5)),
    ]
    a, b = run(owned, "a.memscope"), run([Take(2 * MiB, calls=line(1)), Take(6 * MiB, calls=line(5))], "b.memscope")
    for found, side in ((diff_moments(a.end(), b.end()), "A"), (diff_moments(b.end(), a.end()), "B")):
        assert found.owners_in == side
        names = {row.key for row in found.rows if not row.is_rounding}
        assert names == {f"/home/me/project/train.py:{n} forward" for n in (1, 5)}
        assert sum(row.delta_bytes for row in found.rows) == found.delta_bytes
    assert at_ends(owned, owned).owners_in is None
    assert diff_moments(a.end(), a.at(-1)).owners_in is None
    assert diff_moments(a.end(), b.at(-1)).owners_in is None


def test_a_row_has_the_stack_of_most_of_it_at_each_moment() -> None:
    a = [Take(2 * MiB, Category.WEIGHTS, "fc.weight", line(1)), Take(8 * MiB, Category.INPUTS, "x", line(2))]
    b = [Take(6 * MiB, Category.WEIGHTS, "fc.weight", line(9)), Take(4 * MiB, calls=line(7))]
    found = at_ends(a, b)
    rows = {row.key: row for row in found.rows}

    def lines(name: str) -> tuple[list[int], list[int]]:
        row, sides = rows[name], (found.a, found.b)
        ids = (row.a_stack_id, row.b_stack_id)
        stacks = [[] if i < 0 else side.device.trace.stack(i) for side, i in zip(sides, ids, strict=True)]
        return tuple([frame.line for frame in stack] for stack in stacks)

    assert lines("fc.weight") == ([1, 99], [9, 99])
    assert lines("x") == ([2, 99], [])
    assert lines(next(name for name in rows if "train.py:7" in name)) == ([], [7, 99])
    assert (rows["rounding"].a_stack_id, rows["rounding"].b_stack_id) == (-1, -1)
