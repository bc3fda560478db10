"""What is in use as groups that nothing but addresses tells apart."""

from __future__ import annotations

from pathlib import Path

from memscope.analysis import load
from memscope.compare._holdings import N_SAME_STACK, groups_at, path_end
from memscope.trace.categories import Category
from tests.compare.runs import MiB, Take, line, run

SHIPPED = Path(__file__).parents[2] / "traces" / "tiny-llama-train.memscope"


def test_equal_allocations_are_one_group_with_their_sums() -> None:
    acts = [Take(size * MiB, calls=line(number)) for size, number in ((2, 1), (4, 1), (2, 2), (2, 1))]
    groups = groups_at(run(acts).end())
    assert sorted((g.size_bytes, g.n_allocations) for g in groups) == [(2 * MiB, 1), (2 * MiB, 2), (4 * MiB, 1)]
    assert sum(g.requested_bytes for g in groups) == 10 * MiB
    assert all(len(group.keys) > N_SAME_STACK for group in groups)
    assert {group.lines for group in groups} == {(99, 1), (99, 2)}


def test_the_groups_hold_what_is_in_use_whatever_step_it_was_made_in() -> None:
    moment = load(SHIPPED).peak()
    groups = groups_at(moment)
    assert sum(group.n_allocations for group in groups) == len(moment.in_use_rows)
    assert sum(group.block_bytes for group in groups) == moment.allocated_bytes
    assert {Category(group.category).label for group in groups} <= {row.name for row in moment.ledger.rows if row.bytes}


def test_an_empty_moment_has_no_groups() -> None:
    assert groups_at(run([Take(2 * MiB)]).at(-1)) == []


def test_a_path_ends_alike_wherever_it_lies() -> None:
    assert path_end("C:\\work\\project\\model\\a.py") == path_end("/srv/project/model/a.py") == "project/model/a.py"
    assert path_end("a.py") == "a.py"
