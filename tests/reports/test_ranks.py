"""Ranks side by side as text, JSON and HTML: the numbers of the comparison, and nothing that a name could break."""

from __future__ import annotations

import dataclasses
import io
import json
import re

import pytest
from rich.console import Console

from memscope.ranks.comparison import RankComparison
from memscope.reports.ranks import print_ranks, ranks_json
from memscope.reports.ranks_html import ranks_html
from memscope.trace.categories import Category
from memscope.words.ranks import grouped_by_rank, ranks_finding, shown_steps
from tests.rank_traces import DIED, Act, Alloc, MiB, Oom, Phase, compare_acts, compare_traces, rank_trace, training

HOSTILE = "<script>alert(1)</script> [bold red]x[/bold red]\nsecond line " + "long " * 40


def printed(comparison: RankComparison, width: int = 120) -> str:
    out = io.StringIO()
    print_ranks(comparison, Console(file=out, width=width, highlight=False, soft_wrap=True, emoji=False))
    return out.getvalue()


def line_of(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.strip().startswith(start))


def test_the_text_says_who_peaks_and_by_how_much() -> None:
    text = printed(compare_acts(training(10, 12, 14), DIED))
    first = text.splitlines()[0]
    assert first == (
        "rank 1 peaks highest: 70.0 MiB allocated (step 1, unfinished); rank 0 lowest, 36.0 MiB (51.4 %) less"
    )
    assert "peak allocated: 34.0 MiB (rank 0) to 70.0 MiB (rank 1); spread 36.0 MiB, 51.4 % of the highest" in text
    assert re.search(r"rank 1 +70\.0 MiB +step 1, unfinished +80\.0 MiB +60\.0 MiB +event 8 +highest", text)
    assert "What rank 1 holds beyond rank 0 in step 1: +38.0 MiB allocated" in text
    assert re.search(r"batch +50\.0 MiB +0 B +\+50\.0 MiB +\+52,428,800", text)
    assert re.search(r"fc output +0 B +12\.0 MiB +-12\.0 MiB +-12,582,912", text)


def test_the_steps_stand_side_by_side_and_missing_ones_are_said_to_be() -> None:
    text = printed(compare_acts(training(10, 12, 14), DIED))
    steps = text[text.index("Highest allocated in each step") :]
    assert line_of(steps, "step 0").split() == ["step", "0", "30.0", "MiB", "30.0", "MiB", "0", "B"]
    assert line_of(steps, "step 1").split() == ["step", "1", "32.0", "MiB", "70.0", "MiB*", "38.0", "MiB"]
    assert line_of(steps, "step 2").split() == ["step", "2", "34.0", "MiB", "—", "—"]
    assert "— not recorded; * the recording ended within the step" in text


def test_equal_ranks_are_said_to_be_equal() -> None:
    text = printed(compare_acts(training(10), training(10), training(10)))
    assert text.startswith("all 3 ranks peak at 30.0 MiB allocated\n")
    assert "Nothing differs between rank 0 and rank 1 in step 0" in text
    assert "are the same on all ranks" in text
    assert "all ranks: Every byte since the first allocation is accounted for" in text


def test_each_ranks_warnings_are_shown_with_the_rank() -> None:
    traces = [rank_trace(training(10), n_events_lost=0 if rank else 7) for rank in range(3)]
    text = printed(compare_traces(traces))
    assert "⚠ rank 0: 7 events were lost" in text
    assert "⚠ all ranks: allocs and frees without a stack" in text
    assert "· ranks 1–2: Every byte" in text
    assert "· rank 0: Parts of what the device did are missing" in text


def test_many_warnings_that_differ_in_their_numbers_are_not_all_printed() -> None:
    comparison = compare_traces([rank_trace(training(10), n_events_lost=rank + 1) for rank in range(9)])
    lost = [who for who, text in grouped_by_rank(comparison, lambda row: [w for w in row.warnings if "lost" in w])]
    assert lost == ["rank 0", "rank 1", "rank 2", "ranks 3–8"]
    assert "the same, with other numbers (the JSON has them)" in printed(comparison)


def test_up_to_sixteen_ranks_have_a_row_each_beyond_that_the_extremes_and_the_median() -> None:
    def listed(n: int) -> list[str]:
        acts = [training(10 + 2 * ((5 * rank) % n), extra=[Oom(4)] * (rank in (3, 8))) for rank in range(n)]
        return re.findall(r"^  (rank \d+) ", printed(compare_acts(*acts)).split("peak allocated:")[0], re.MULTILINE)

    assert listed(16) == [f"rank {rank}" for rank in range(16)]
    # Of 33 ranks, (5 rank) % 33 is 0 for rank 0, 32 for rank 13 and 16 for rank 23; rank 3 ran out of memory first.
    assert listed(33) == ["rank 0", "rank 3", "rank 13", "rank 23"]


def test_the_rest_of_many_ranks_is_counted() -> None:
    acts = [training(10 + 2 * rank, extra=[Oom(4)] * (rank in (3, 8))) for rank in range(20)]
    text = printed(compare_acts(*acts))
    assert "16 more: peaks from 32.0 MiB to 66.0 MiB allocated, 1 of them out of memory (the JSON has each)" in text


@pytest.mark.parametrize("n", [2, 8, 16, 40])
def test_no_line_of_a_table_is_wider_than_120_columns(n: int) -> None:
    acts = [training(10 + 2 * rank, 1000, 12, 14) for rank in range(n)]
    comparison = compare_traces([rank_trace(a, a, device_total_bytes={0: 1 << 34}) for a in acts[: n // 2 + 1]])
    for width in (120, 80):
        lines = [line for line in printed(comparison, width).splitlines() if "  " in line.strip()]
        assert lines
        assert max(len(line) for line in lines) <= width


def test_eight_ranks_still_stand_side_by_side() -> None:
    text = printed(compare_acts(*(training(100 + 2 * rank, 120) for rank in range(8))))
    assert re.search(r"rank 0 +rank 1 +rank 2 +rank 3 +rank 4 +rank 5 +rank 6 +rank 7 +spread", text)


def test_hostile_and_long_names_stay_text_on_one_line() -> None:
    acts: list[Act] = [Phase(HOSTILE), Alloc("a", 30, Category.INPUTS, HOSTILE)]
    comparison = compare_traces([rank_trace(acts, torch_version=HOSTILE), rank_trace([Alloc("a", 10)])])
    text = printed(comparison)
    assert "[bold red]" in text
    assert not any(line.startswith("second line") for line in text.splitlines())
    assert max(len(line) for line in text.splitlines() if not line.startswith("    ")) <= 120
    html = ranks_html(comparison)
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_of_many_steps_those_that_differ_most_are_shown_and_that_of_the_peak() -> None:
    # The peak is in step 3, where both hold the same; they differ in the later ones.
    one = training(10, 10, 10, 90, *([30] * 20))
    two = training(10, 10, 10, 90, *([10] * 20))
    comparison = compare_acts(one, two)
    titles = [step.title for step in shown_steps(comparison, 10)]
    assert titles == ["step 3", *(f"step {i}" for i in range(4, 13))]
    assert "Highest allocated in each step, the 10 of 24 that differ most in it" in printed(comparison)


def test_one_row_alone_is_not_compared() -> None:
    comparison = compare_acts(training(10))
    assert ranks_finding(comparison) == "rank 0: peak 30.0 MiB allocated (step 0)"
    assert "What rank" not in printed(comparison)
    assert ranks_json(comparison)["differences"] is None
    assert "What rank" not in ranks_html(comparison)


def test_an_empty_trace_among_others_is_named() -> None:
    comparison = compare_traces([rank_trace(training(10)), rank_trace([])])
    assert "⚠ run-rank1.memscope is empty" in printed(comparison)
    assert "run-rank1.memscope is empty" in ranks_html(comparison)


def test_settings_that_differ_name_their_ranks() -> None:
    confs = ["", "", "expandable_segments:True", None]
    text = printed(compare_traces([rank_trace(training(10), alloc_conf=conf) for conf in confs]))
    assert (
        "  allocator settings: default (ranks 0–1); expandable_segments:True (rank 2); not recorded (rank 3)\n" in text
    )


def test_the_json_has_the_numbers_and_nulls_for_what_is_missing() -> None:
    comparison = compare_acts(training(10, 12, 14), DIED)
    content = json.loads(json.dumps(ranks_json(comparison)))
    assert content["n_ranks"] == 2
    zero, one = content["ranks"]
    assert (zero["rank"], zero["device"], zero["rank_source"]) == (0, 0, "file_name")
    assert (one["peak"]["allocated_bytes"], one["peak"]["step"], one["peak"]["event"]) == (70 * MiB, "1", 7)
    assert (one["peak_reserved"]["reserved_bytes"], one["n_ooms"], one["oom_events"]) == (80 * MiB, 1, [8])
    assert one["by_category"]["inputs"] == 50 * MiB
    assert content["spread"]["peak_allocated"]["spread_bytes"] == 36 * MiB
    assert content["spread"]["peak_allocated"]["highest"] == {
        "label": "rank 1",
        "rank": 1,
        "device": 0,
        "bytes": 70 * MiB,
    }
    assert [step["step"] for step in content["steps"]] == ["0", "1", "2"]
    assert content["steps"][2]["ranks"][1] is None
    assert content["steps"][1]["ranks"][1]["is_finished"] is False
    found = content["differences"]
    assert found["step"] == "1"
    assert sum(row["difference_bytes"] for row in found["holders"]) == found["difference_bytes"] == 38 * MiB
    assert sum(row["difference_bytes"] for row in found["categories"]) == 38 * MiB
    assert {s["name"] for s in content["settings_that_differ"]} == {"n_steps", "n_events"}


def test_reserved_bytes_that_were_not_measured_are_null_and_said_so() -> None:
    trace = rank_trace(training(10))
    blind = dataclasses.replace(trace, metadata=dataclasses.replace(trace.metadata, has_segment_events=False))
    comparison = compare_traces([trace, blind])
    row = ranks_json(comparison)["ranks"][1]
    assert (row["peak_reserved"], row["free_at_peak_reserved_bytes"]) == (None, None)
    assert "not measured" in line_of(printed(comparison), "rank 1")
    assert "peak reserved: 30.0 MiB; not measured in 1" in printed(comparison)
    assert "not measured" in ranks_html(comparison)
