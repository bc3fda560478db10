"""The object of ``memscope diff --json``."""

from __future__ import annotations

import pytest

from memscope.compare.diff import diff_moments
from memscope.reports.diff.json import diff_json
from memscope.trace.categories import Category
from tests.compare.runs import MiB, Take, line, run


def test_the_object_has_both_moments_and_rows_that_sum_to_the_difference() -> None:
    a = run([Take(2 * MiB, Category.WEIGHTS, "fc.weight", line(1))], "a.memscope")
    b = run([Take(2 * MiB - 100, Category.WEIGHTS, "fc.weight", line(1), extra=100), Take(4 * MiB)], "b.memscope")
    said = diff_json(diff_moments(a.peak(), b.peak()))
    assert said["a"]["peak_allocated_bytes"] == said["a"]["allocated_bytes"] == 2 * MiB
    assert said["b"]["peak_reserved_bytes"] == 6 * MiB
    assert said["delta_bytes"] == said["delta_reserved_bytes"] == 4 * MiB
    for rows in (said["rows"], said["categories"]):
        assert sum(row["delta_bytes"] for row in rows) == 4 * MiB
        assert next(row for row in rows if row["key"] == "rounding")["delta_bytes"] == 100
    assert said["rows"][0] == {
        "key": "not recorded",
        "category": "unknown",
        "a_bytes": 0,
        "b_bytes": 4 * MiB,
        "delta_bytes": 4 * MiB,
        "a_allocations": 0,
        "b_allocations": 1,
        "change": "new",
        "site": None,
    }


@pytest.mark.parametrize(("owners", "side"), [((True, False), "A"), ((False, True), "B"), ((True, True), None)])
def test_the_side_that_alone_has_owners_is_told(owners: tuple[bool, bool], side: str | None) -> None:
    owned, bare = Take(2 * MiB, Category.WEIGHTS, "fc.weight", line(1)), Take(2 * MiB, calls=line(1))
    names = ("a.memscope", "b.memscope")
    a, b = (run([owned if has else bare], name) for has, name in zip(owners, names, strict=True))
    assert diff_json(diff_moments(a.peak(), b.peak()))["owners_in"] == side
