"""A difference in words."""

from __future__ import annotations

from memscope.compare.diff import diff_moments
from memscope.trace.categories import Category
from memscope.words.compare import (
    changes_words,
    differing_facts,
    headline,
    matched_words,
    owners_hint,
    place_hint,
    place_words,
    row_name,
    signed_bytes,
    trace_names,
)
from tests.compare.runs import MiB, Take, line, run
from tests.rank_traces import Alloc, Phase, Step, rank_trace

A = [Take(2 * MiB, Category.WEIGHTS, "fc.weight", line(1))]
B = [*A, Take(4 * MiB, calls=line(7)), Take(2 * MiB - 512, extra=512, calls=line(8))]


def test_the_headline_says_which_holds_more_and_how_much() -> None:
    a, b = run(A, "a.memscope"), run(B, "b.memscope")
    found = diff_moments(a.peak(), b.peak())
    assert headline(found) == "b.memscope holds 6.0 MiB more than a.memscope at its peak: 2.0 MiB → 8.0 MiB allocated"
    assert "6.0 MiB less" in headline(diff_moments(b.peak(), a.peak()))
    assert headline(diff_moments(a.peak(), a.at(-1))).startswith("allocated memory shrank by 2.0 MiB")
    assert headline(diff_moments(a.peak(), run(A, "c.memscope").peak())) == "both hold 2.0 MiB allocated at their peaks"
    assert headline(diff_moments(a.peak(), a.peak())).startswith("nothing allocated grew")
    assert changes_words(found) == "2 new (+6.0 MiB); 1 the same"
    assert matched_words(found) == "1 allocation matched by owner, stack and phase; 2 new, 0 gone"
    assert row_name(found.rows[-1]) == "rounding"


def test_files_of_one_name_are_told_apart() -> None:
    a, b = run(A, "one/run.memscope"), run(B, "two/run.memscope")
    assert trace_names(diff_moments(a.peak(), b.peak())) == ("one/run.memscope", "two/run.memscope")
    assert trace_names(diff_moments(a.peak(), run(B, "one/run.memscope").peak())) == (
        "run.memscope (A)",
        "run.memscope (B)",
    )


def test_what_else_differs_is_listed() -> None:
    a = run(A, torch_version="2.11.0", alloc_conf="")
    b = run(A, torch_version="2.13.0", alloc_conf="expandable_segments:True")
    assert differing_facts(diff_moments(a.peak(), b.peak())) == [
        ("torch", "2.11.0", "2.13.0"),
        ("allocator settings", "default", "expandable_segments:True"),
    ]
    assert differing_facts(diff_moments(a.peak(), a.at(-1))) == []


def test_moments_in_other_phases_are_said_to_be() -> None:
    forward = run(A).device()
    assert place_hint(diff_moments(forward.peak(), forward.peak())) == ""
    from memscope.analysis import Analysis

    a, b = (Analysis(rank_trace([Phase(name), Alloc("x", 10), Step("0")])) for name in ("forward", "backward"))
    assert place_hint(diff_moments(a.peak(), b.peak())).startswith("A is in forward then, B in backward")
    assert place_words(a.peak()) == "event 1 (step 0, forward)"
    assert place_words(a.at(-1)) == "the start"


def test_differences_have_signs() -> None:
    assert [signed_bytes(n) for n in (MiB, 0, -MiB)] == ["+1.0 MiB", "0 B", "-1.0 MiB"]


def test_owners_of_one_side_alone_are_said() -> None:
    owned = run([Take(2 * MiB, Category.WEIGHTS, "fc.weight", line(1))])
    plain = run([Take(2 * MiB, calls=line(1))])
    found = diff_moments(owned.peak(), plain.peak())
    assert owners_hint(found).startswith("only A has owners, B has none")
    assert "by stack and phase" in matched_words(found)
    assert owners_hint(diff_moments(plain.peak(), owned.peak())).startswith("only B has owners")
    assert owners_hint(diff_moments(owned.peak(), owned.peak())) == ""
