"""Ranks side by side: who is who, the spread, the steps, what differs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from memscope.analysis import Analysis
from memscope.errors import ContradictionError, UsageError
from memscope.ranks.compare import compare_ranks, rank_in_name
from memscope.ranks.comparison import RankComparison, RankSource
from memscope.trace.categories import Category
from memscope.trace.open import open_trace
from memscope.trace.schema import NONE_ID
from memscope.trace.trace import Trace
from tests.rank_traces import Act, Alloc, Free, MiB, Oom, Phase, Step, Wait, rank_trace, training

SHIPPED = Path(__file__).parents[2] / "traces" / "tiny-llama-train.memscope"


def compared(*ranks: list[Act]) -> RankComparison:
    return compare_ranks([Analysis(rank_trace(acts, rank=rank)) for rank, acts in enumerate(ranks)])


def allocated_mib(comparison: RankComparison) -> dict[str, list[int | None]]:
    return {
        step.title: [None if use is None else use.allocated_bytes // MiB for use in step.uses]
        for step in comparison.steps
    }


def test_each_rank_has_its_peaks_with_event_and_step() -> None:
    # Weights 20; step 0 adds 10, step 1 adds 30. Each allocation is a new segment: 20 + 10 + 30 are reserved in step 1.
    row = compared(training(10, 30)).rows[0]
    assert (row.label, row.rank, row.rank_source, row.device) == ("rank 0", 0, RankSource.METADATA, 0)
    assert (row.peak.allocated_bytes, row.peak.event, row.peak.step) == (50 * MiB, 7, "1")
    assert row.peak.where == "step 1"
    assert row.peak_active.active_bytes == 50 * MiB
    assert row.peak_reserved is not None
    assert (row.peak_reserved.reserved_bytes, row.peak_reserved.event) == (60 * MiB, 6)
    # When the segment of 30 was mapped only the weights were in use.
    assert row.free_at_peak_reserved_bytes == 40 * MiB
    assert row.category_bytes["weights"] == 20 * MiB
    assert row.category_bytes["activations"] == 30 * MiB
    assert sum(row.category_bytes.values()) == row.peak.allocated_bytes
    assert (row.n_events, row.n_steps, row.oom_events, row.total_bytes) == (10, 2, (), None)
    assert row.headroom_bytes is None


def test_the_spread_names_highest_lowest_and_median() -> None:
    spread = compared(training(10), training(40), training(20), training(30)).peak_allocated
    assert (spread.highest, spread.lowest) == (1, 0)
    assert (spread.highest_bytes, spread.lowest_bytes) == (60 * MiB, 30 * MiB)
    # Of 30, 40, 50, 60 the lower of the two in the middle.
    assert (spread.median, spread.median_bytes) == (2, 40 * MiB)
    assert (spread.spread_bytes, spread.spread_frac, spread.n_rows) == (30 * MiB, 0.5, 4)


def test_equal_ranks_have_no_spread_and_no_differences() -> None:
    comparison = compared(training(10, 10), training(10, 10))
    assert comparison.peak_allocated.spread_bytes == 0
    assert comparison.differences is not None
    assert comparison.differences.difference_bytes == 0
    assert comparison.differences.holders == ()
    assert all(d.difference_bytes == 0 for d in comparison.differences.categories)
    assert comparison.settings_that_differ == ()


def test_nothing_in_use_has_no_share() -> None:
    assert compared([Oom(10)], [Oom(10)]).peak_allocated.spread_frac is None


def test_steps_are_aligned_by_name_and_missing_ones_are_none() -> None:
    late = [Alloc("weights", 20), Alloc("a", 10), Step("1"), Alloc("b", 12), Step("2")]
    comparison = compared(training(10, 20), late)
    assert allocated_mib(comparison) == {"step 0": [30, None], "step 1": [40, 30], "step 2": [None, 42]}
    middle = comparison.steps[1]
    assert (middle.allocated.highest, middle.allocated.spread_bytes) == (0, 10 * MiB)
    assert comparison.steps[0].allocated.n_rows == 1


def test_what_a_step_begins_with_counts_in_it() -> None:
    # Step 1 only frees: its highest is what step 0 left, as after reset_peak_memory_stats.
    acts = [Alloc("a", 30), Step("0"), Free("a"), Step("1"), Alloc("b", 10)]
    comparison = compared(acts)
    assert allocated_mib(comparison) == {"step 0": [30], "step 1": [30], "after the last step": [10]}
    use = comparison.steps[1].uses[0]
    assert use is not None
    assert (use.allocated_event, use.begin, use.end, use.is_finished) == (1, 2, 4, True)
    assert use.reserved_bytes == 30 * MiB


def test_a_step_without_events_holds_what_was_there() -> None:
    assert allocated_mib(compared([Step("0"), Alloc("a", 10), Step("1"), Step("2")])) == {
        "step 0": [0],
        "step 1": [10],
        "step 2": [10],
    }
    assert compared([Step("0"), Alloc("a", 10)]).steps[0].uses[0].allocated_event == NONE_ID  # type: ignore[union-attr]


def test_the_step_that_a_recording_ended_in_is_the_one_after_its_last() -> None:
    died = [*training(10), Alloc("batch", 50, Category.INPUTS, "batch"), Oom(80)]
    comparison = compared(training(10, 12, 14), died)
    assert allocated_mib(comparison) == {"step 0": [30, 30], "step 1": [32, 70], "step 2": [34, None]}
    use = comparison.steps[1].uses[1]
    assert use is not None
    assert not use.is_finished
    row = comparison.rows[1]
    assert (row.oom_events, row.n_steps, row.peak.step) == ((8,), 1, "1")
    assert row.peak.where == "step 1, unfinished"
    differences = comparison.differences
    assert differences is not None
    assert differences.step is comparison.steps[1]
    assert (differences.highest, differences.lowest, differences.difference_bytes) == (1, 0, 38 * MiB)


def test_what_follows_the_last_step_of_all_comes_last() -> None:
    comparison = compared([*training(10), Alloc("a", 50)], [*training(10), Alloc("a", 40)])
    assert allocated_mib(comparison) == {"step 0": [30, 30], "after the last step": [70, 60]}
    assert comparison.rows[0].peak.step is None
    assert comparison.rows[0].peak.where == "after the last step"
    assert comparison.differences is not None
    assert comparison.differences.step is comparison.steps[1]


def test_steps_of_one_name_are_told_apart_by_their_order() -> None:
    acts = [Alloc("a", 10), Step("epoch"), Alloc("b", 12), Step("epoch")]
    comparison = compared(acts, acts)
    assert allocated_mib(comparison) == {"step epoch": [10, 10], "step epoch (2)": [22, 22]}


def test_differences_are_exact_largest_first_and_sum_to_the_whole() -> None:
    # In step 1: rank 0 holds 20 weights, 30 of activations, 16 of a cache; rank 1 24, 10 and nothing.
    cache = [Alloc("cache", 16, site="keep")]
    comparison = compared(training(10, 30, extra=cache), training(10, 10, weights=24))
    found = comparison.differences
    assert found is not None
    assert (found.highest, found.lowest) == (0, 1)
    assert (found.highest_allocated_bytes, found.lowest_allocated_bytes) == (66 * MiB, 34 * MiB)
    in_mib = [(d.name, d.kind, d.highest_bytes // MiB, d.lowest_bytes // MiB) for d in found.holders]
    assert in_mib == [
        ("fc output", "owner", 30, 10),
        ("/home/me/train.py:7 keep", "site", 16, 0),
        ("fc.weight", "owner", 20, 24),
    ]
    categories = [(d.name, d.difference_bytes // MiB) for d in found.categories]
    assert categories == [("activations", 20), ("unknown", 16), ("weights", -4)]
    for differences in (found.holders, found.categories):
        assert sum(d.difference_bytes for d in differences) == found.difference_bytes == 32 * MiB


def test_the_lowest_rank_is_the_lowest_of_the_step_of_the_peak() -> None:
    # Rank 1's own peak is the lowest of all, but in step 1 rank 2 holds least.
    comparison = compared(training(10, 40), training(20, 18), training(30, 10))
    found = comparison.differences
    assert found is not None
    assert comparison.peak_allocated.lowest == 1
    assert (found.highest, found.lowest, found.difference_bytes) == (0, 2, 30 * MiB)


def test_ranks_without_a_common_step_are_compared_at_their_own_peaks() -> None:
    found = compared([Alloc("a", 30)], [Alloc("a", 10)], training(20)).differences
    assert found is not None
    assert found.step is None
    assert (found.highest, found.lowest, found.difference_bytes) == (2, 1, 30 * MiB)


def test_what_has_neither_owner_nor_stack_is_named_so() -> None:
    found = compared([Alloc("a", 30)], [Alloc("a", 10)]).differences
    assert found is not None
    assert [(d.name, d.kind) for d in found.holders] == [("not recorded", "none")]


def test_each_device_of_a_trace_is_a_row_and_its_steps_are_found_by_time() -> None:
    one: list[Act] = [Alloc("a", 10), Step("0"), Alloc("b", 12), Alloc("c", 14), Step("1")]
    two: list[Act] = [Alloc("a", 20), Wait(), Wait(), Alloc("b", 30), Wait()]
    comparison = compare_ranks([Analysis(rank_trace(one, two, rank=4)), Analysis(rank_trace(one, rank=5))])
    assert [row.label for row in comparison.rows] == ["rank 4, device 0", "rank 4, device 1", "rank 5"]
    assert allocated_mib(comparison) == {"step 0": [10, 20, 10], "step 1": [36, 50, 36]}
    assert comparison.rows[1].peak.where == "step 1"
    assert comparison.n_ranks == 2
    assert comparison.device_of(1) is comparison.analyses[0].device(1)


def test_without_times_only_the_device_of_the_marks_has_steps() -> None:
    trace = rank_trace([Alloc("a", 10), Step("0")], [Alloc("a", 20)], timed=False)
    comparison = compare_ranks([Analysis(trace)])
    assert allocated_mib(comparison) == {"step 0": [10, None]}
    assert comparison.rows[1].peak.where == ""


def test_the_rank_is_told_by_the_recording_then_the_file_and_never_made_up() -> None:
    trace = rank_trace(training(10))
    recorded = dataclasses.replace(trace, metadata=dataclasses.replace(trace.metadata, rank=2))
    comparison = compare_ranks(
        [
            Analysis(trace, "other.memscope"),
            Analysis(trace, "run-rank0.memscope"),
            Analysis(recorded, "a-rank7.pickle"),
        ]
    )
    told = [(row.rank, row.rank_source, row.name, row.position) for row in comparison.rows]
    assert told == [
        (None, RankSource.NONE, "other.memscope", 0),
        (0, RankSource.FILE_NAME, "run-rank0.memscope", 1),
        (2, RankSource.METADATA, "a-rank7.pickle", 2),
    ]
    assert not comparison.is_one_run
    assert [row.label for row in comparison.rows] == ["other.memscope", "run-rank0.memscope", "a-rank7.pickle"]


@pytest.mark.parametrize(
    ("files", "labels"),
    [
        (("run-rank1.memscope", "run-rank0.memscope"), ("rank 0", "rank 1")),
        (("a/rank0.pickle", "b/rank1.pickle"), ("rank 0", "rank 1")),
        (("before-rank0.pickle", "after-rank1.pickle"), ("before-rank0.pickle", "after-rank1.pickle")),
        (("before-rank0.pickle", "after-rank0.pickle"), ("before-rank0.pickle", "after-rank0.pickle")),
        (("a/run.pickle", "/b/run.pickle", "other.pickle"), ("a/run.pickle", "b/run.pickle", "other.pickle")),
        (("run.memscope", "run.memscope"), ("run.memscope", "run.memscope (2)")),
        ((None, None), ("the trace", "the trace (2)")),
    ],
)
def test_traces_are_ranks_only_where_something_says_so(files: tuple[str | None, ...], labels: tuple[str, ...]) -> None:
    comparison = compare_ranks([Analysis(rank_trace(training(10)), file) for file in files])
    assert tuple(row.label for row in comparison.rows) == labels
    assert comparison.is_one_run == labels[0].startswith("rank ")
    assert comparison.noun == ("rank" if comparison.is_one_run else "trace")
    assert comparison.n_ranks == len(files)


def test_devices_of_traces_that_are_no_ranks_are_called_by_the_file_and_their_number() -> None:
    two, one = rank_trace(training(10), training(20)), rank_trace(training(12))
    comparison = compare_ranks([Analysis(two, "b.memscope"), Analysis(one, "a.memscope")])
    assert [row.label for row in comparison.rows] == ["b.memscope, device 0", "b.memscope, device 1", "a.memscope"]
    assert comparison.n_ranks == 2


@pytest.mark.parametrize(
    ("name", "rank"),
    [
        ("run-rank3.memscope", 3),
        ("run-rank12.pickle.gz", 12),
        ("snapshot_rank_0.pickle", 0),
        ("rank5.pickle", 5),
        ("frankfurt7.memscope", None),
        ("run.memscope", None),
        ("ranking.memscope", None),
    ],
)
def test_a_rank_is_read_from_a_file_name(name: str, rank: int | None) -> None:
    assert rank_in_name(name) == rank


def test_two_files_of_one_rank_and_device_are_refused_naming_both() -> None:
    trace, other = rank_trace(training(10), rank=1), rank_trace(training(10), rank=2)
    analyses = [Analysis(trace, "a.memscope"), Analysis(trace, "b-rank1.memscope"), Analysis(other, "c.memscope")]
    with pytest.raises(UsageError, match=r"^a\.memscope and b-rank1\.memscope both .* rank 1, device 0"):
        compare_ranks(analyses)
    assert [row.label for row in compare_ranks(analyses[:2]).rows] == ["a.memscope", "b-rank1.memscope"]


def test_nothing_to_compare_is_refused_and_an_empty_trace_among_others_is_named() -> None:
    empty = Analysis(rank_trace([]), "run-rank1.memscope")
    with pytest.raises(UsageError, match="nothing to compare"):
        compare_ranks([empty])
    comparison = compare_ranks([Analysis(rank_trace(training(10)), "run-rank0.memscope"), empty])
    assert comparison.without_devices == ("run-rank1.memscope",)
    assert comparison.differences is None


def test_a_trace_that_contradicts_itself_is_refused_by_name() -> None:
    good = rank_trace(training(10))
    sizes = good.size_bytes.copy()
    sizes[0] += 2 * MiB
    bad = dataclasses.replace(good, size_bytes=sizes)
    with pytest.raises(ContradictionError, match=r"run-rank1\.memscope contradicts itself"):
        compare_ranks([Analysis(good, "run-rank0.memscope"), Analysis(bad, "run-rank1.memscope")])


def test_settings_and_facts_that_differ_are_listed_by_row() -> None:
    one = rank_trace(training(10), rank=0, torch_version="2.12.0", device_total_bytes={0: 80}, alloc_conf="")
    two = rank_trace(training(10, 10), rank=1, torch_version="2.13.0", device_total_bytes={0: 80}, alloc_conf=None)
    settings = {s.name: s.values for s in compare_ranks([Analysis(two), Analysis(one)]).settings_that_differ}
    assert settings == {
        "torch_version": ("2.12.0", "2.13.0"),
        "alloc_conf": ("", None),
        "n_steps": (1, 2),
        "n_events": (6, 10),
    }


def test_where_segments_were_not_recorded_reserved_is_none() -> None:
    trace = rank_trace(training(10), rank=0)
    blind = dataclasses.replace(trace, metadata=dataclasses.replace(trace.metadata, rank=1, has_segment_events=False))
    comparison = compare_ranks([Analysis(trace), Analysis(blind)])
    row = comparison.rows[1]
    assert (row.peak_reserved, row.free_at_peak_reserved_bytes, row.headroom_bytes) == (None, None, None)
    assert row.peak.reserved_bytes is None
    assert comparison.peak_reserved is not None
    assert comparison.peak_reserved.n_rows == 1
    use = comparison.steps[0].uses[1]
    assert use is not None
    assert use.reserved_bytes is None
    only_blind = compare_ranks([Analysis(blind)])
    assert only_blind.peak_reserved is None
    assert only_blind.steps[0].reserved is None


def test_phases_are_told_where_they_were_marked() -> None:
    comparison = compared([Phase("forward"), Alloc("a", 10), Step("0")], [Phase("forward"), Alloc("a", 12)])
    assert [row.peak.where for row in comparison.rows] == ["step 0, forward", "forward"]


def as_rank(trace: Trace, rank: int) -> Analysis:
    return Analysis(dataclasses.replace(trace, metadata=dataclasses.replace(trace.metadata, rank=rank)))


def test_a_shipped_trace_on_four_ranks_agrees_with_its_own_report() -> None:
    trace = open_trace(SHIPPED)
    comparison = compare_ranks([as_rank(trace, rank) for rank in range(4)])
    alone = Analysis(trace)
    peak = alone.peak()
    for row in comparison.rows:
        assert (row.peak.event, row.peak.allocated_bytes) == (peak.event, peak.allocated_bytes)
        assert sum(row.category_bytes.values()) == peak.allocated_bytes
    usage = alone.device().usage
    for step in comparison.steps:
        use = step.uses[0]
        assert use is not None
        held = usage.allocated_bytes[use.begin : use.end + 1]
        assert use.allocated_bytes == max(int(size) for size in held)
    assert [step.title for step in comparison.steps] == ["step 0", "step 1", "step 2", "after the last step"]
    assert max(step.allocated.highest_bytes for step in comparison.steps) == comparison.peak_allocated.highest_bytes


def test_what_differs_equally_stands_in_the_order_that_people_count() -> None:
    more = [Alloc(f"a{i}", 10, Category.WEIGHTS, f"layers.{i}.weight") for i in (10, 1, 11, 2)]
    found = compared(more, [Alloc("b", 10)]).differences
    assert found is not None
    named = [d.name for d in found.holders if d.kind == "owner"]
    assert named == [f"layers.{i}.weight" for i in (1, 2, 10, 11)]
