"""``memscope replay``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from memscope.replay.caching.allocator import CachingAllocator
from memscope.replay.compare import DEFAULT_CONFS
from memscope.replay.strategies import STRATEGIES
from memscope.trace.builder import TraceBuilder
from memscope.trace.container import write_container
from memscope.trace.metadata import TraceMetadata
from memscope.trace.schema import BlockState, TieRule
from memscope.trace.trace import Trace
from tests.conftest import Outcome

Run = Callable[..., Outcome]


MiB = 1 << 20


def simulated_trace() -> Trace:
    """A small recording that the simulator itself made, sizes and order fixed."""
    allocator = CachingAllocator(tie_rule=TieRule.SEGMENT_AGE)
    live = []
    for i in range(60):
        live.append(allocator.malloc((i * 7919 % 30 + 1) * 100_000))
        if i % 3 == 2:
            allocator.free(live.pop(i % len(live)))
    builder = TraceBuilder()
    for event in allocator.drain_events():
        builder.add_event(event.action, address=event.address, size_bytes=event.size_bytes, stream=event.stream)
    state = allocator.state()
    for i in range(len(state.segments)):
        segment = builder.add_segment(
            address=int(state.segments.address[i]),
            size_bytes=int(state.segments.size_bytes[i]),
            is_large=bool(state.segments.is_large[i]),
        )
        for b in (j for j in range(len(state.blocks)) if state.blocks.segment_id[j] == i):
            builder.add_block(
                segment,
                address=int(state.blocks.address[b]),
                size_bytes=int(state.blocks.size_bytes[b]),
                requested_bytes=int(state.blocks.requested_bytes[b]),
                state=BlockState(state.blocks.state[b]),
            )
    return builder.build(
        TraceMetadata(source="synthetic", alloc_conf="", tie_rule=TieRule.SEGMENT_AGE, has_pool_ids=True)
    )


@pytest.fixture
def trace_file(tmp_path: Path) -> Path:
    return write_container(simulated_trace(), tmp_path / "run.memscope")


def test_replay_compares_the_recording_with_every_strategy(memscope: Run, trace_file: Path) -> None:
    content = json.loads(memscope("replay", trace_file, "--json").out)
    results = {(r["strategy"], r["conf"]): r for r in content["results"]}
    others = {(name, None) for name, strategy in STRATEGIES.items() if not strategy.takes_conf}
    assert set(results) == {*(("caching", conf) for conf in DEFAULT_CONFS), *others}
    default = results["caching", ""]
    assert default["peak_reserved_bytes"] == content["recorded"]["peak_reserved_bytes"]
    assert default["exactness"] == "exact"
    assert results["lower-bound", None]["exactness"] == "bound"
    assert all(
        results["lower-bound", None]["peak_reserved_bytes"] <= r["peak_reserved_bytes"] for r in results.values()
    )
    peaks = [r["peak_reserved_bytes"] for r in content["results"]]
    assert peaks == sorted(peaks)
    recorded = content["recorded"]["peak_reserved_bytes"]
    assert all(r["saved_bytes"] == recorded - r["peak_reserved_bytes"] for r in content["results"])
    for r in results.values():
        assert r["unused_bytes"]["largest"] >= r["unused_bytes"]["mean_over_events"] >= 0
        assert r["exactness"] != "modelled" or r["notes"]
    assert default["driver_calls"] == {"cudaMalloc": default["n_device_allocs"]}
    assert default["fragmentation"]["reserved_bytes"] == default["peak_reserved_bytes"]
    text = memscope("replay", trace_file)
    assert text.code == 0
    assert all(name in text.out for name in STRATEGIES)


def test_replay_on_a_small_device_runs_out_and_says_where(memscope: Run, trace_file: Path) -> None:
    content = json.loads(
        memscope("replay", trace_file, "--strategy", "caching", "--conf", "", "--capacity", "22MiB", "--json").out
    )
    (result,) = content["results"]
    assert {"event", "requested_bytes", "free_bytes"} <= set(result["oom"])
    assert result["oom"]["largest_free_block_bytes"] <= result["oom"]["reserved_free_bytes"]
    assert result["oom"]["free_bytes"] < result["oom"]["requested_bytes"] + 20 * MiB


@pytest.mark.parametrize(
    "arguments",
    [
        ("--strategy", "magic"),
        ("--conf", "nonsense:1"),
        ("--conf", "backend:cudaMallocAsync"),
        ("--capacity", "lots"),
        ("--held-by-others", "some"),
        ("--memory-fraction", "0.5"),
        ("--address", "tcp://127.0.0.1:1"),
        ("--jobs", "0"),
    ],
    ids="=".join,
)
def test_what_cannot_be_replayed_is_one_line_and_exit_1(
    memscope: Run, trace_file: Path, arguments: tuple[str, str]
) -> None:
    outcome = memscope("replay", trace_file, *arguments)
    assert outcome.code == 1
    assert outcome.err.count("\n") == 1


def test_several_traces_are_compared_each_by_itself(memscope: Run, trace_file: Path) -> None:
    arguments = ("replay", trace_file, trace_file, "--conf", "", "--json")
    content = json.loads(memscope(*arguments).out)
    one, other = content["traces"]
    assert one == other
    assert [r["conf"] for r in one["results"]] == [""]


def test_the_strategies_are_listed_with_what_they_are(memscope: Run) -> None:
    outcome = memscope("replay", "--list")
    assert outcome.code == 0
    assert [line.split()[0] for line in outcome.out.splitlines()] == list(STRATEGIES)


def test_memory_held_by_others_and_a_fraction_leave_less(memscope: Run, trace_file: Path) -> None:
    def reserved(*arguments: str) -> int:
        outcome = memscope("replay", trace_file, "--conf", "", "--capacity", "1GiB", *arguments, "--json")
        (result,) = json.loads(outcome.out)["results"]
        return 0 if result["oom"] else result["peak_reserved_bytes"]

    assert reserved() == reserved("--memory-fraction", "0.5") > 0
    assert reserved("--held-by-others", "1000MiB") == 0
    assert reserved("--memory-fraction", "0.02") == 0


def test_combinations_known_to_harm_are_warned_of(memscope: Run, trace_file: Path) -> None:
    outcome = memscope("replay", trace_file, "--conf", "expandable_segments:True,max_split_size_mb:64")
    assert outcome.code == 0
    assert "pytorch#123548" in outcome.out.replace("\n", "")


def test_replays_in_processes_print_the_same(memscope: Run, trace_file: Path) -> None:
    arguments = ("replay", trace_file, "--strategy", "caching", "--json")
    assert memscope(*arguments, "--jobs", "2").out == memscope(*arguments).out
