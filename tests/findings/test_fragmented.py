"""Free memory that live blocks pin, and pools that only grow."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memscope.analysis import Analysis
from memscope.findings.finding import Severity
from memscope.findings.returned import Returned
from tests.findings.traces import analysed, fragmented, kinds, of_kind
from tests.replay.recordings import Recorder

MiB = 1 << 20


def test_pinned_memory_is_found_with_its_bytes_and_pins() -> None:
    analysis = analysed(fragmented())
    (found,) = of_kind(analysis.opinions(0).findings, "fragmentation")
    assert found.severity is Severity.SEVERE
    # Two pairs to a segment, 20 segments: the two of 8 MiB are free in each.
    assert found.bytes == 20 * 16 * MiB
    assert found.evidence["reserved_bytes"] == 400 * MiB
    state = analysis.at(found.event, 0).fragmentation.overall
    assert found.bytes == state.free_in_split_segments_bytes
    assert found.view == "map"
    assert found.rows


def test_free_memory_that_could_go_back_is_no_fragmentation() -> None:
    recorder = Recorder()
    live = [recorder.allocator.malloc(20 * MiB) for _ in range(40)]
    for address in live[:-1]:
        recorder.allocator.free(address)
    assert "fragmentation" not in kinds(analysed(recorder).opinions(0).findings)


def test_cached_memory_that_nothing_used_while_most_was_reserved_is_said() -> None:
    recorder = Recorder()
    sizes = (100, 200, 300, 400)  # each larger than what is free, so that all stay cached
    for size in sizes:
        recorder.allocator.free(recorder.allocator.malloc(size * MiB))
    recorder.allocator.malloc(390 * MiB)
    (found,) = of_kind(analysed(recorder).opinions(0).findings, "idle-cache")
    assert (found.bytes, found.severity) == ((sum(sizes) - 400) * MiB, Severity.INFO)
    assert found.returned_bytes == (sum(sizes) - 400) * MiB
    assert "expandable_segments:True" in found.fix


def test_a_rocm_build_is_not_told_to_use_what_it_has_not() -> None:
    recorder = Recorder()
    for size in (100, 200, 300, 400):
        recorder.allocator.free(recorder.allocator.malloc(size * MiB))
    recorder.allocator.malloc(390 * MiB)
    trace = analysed(recorder).trace
    rocm = replace(trace, metadata=replace(trace.metadata, torch_version="2.8", extra={"rocm": True}))
    (found,) = of_kind(Analysis(rocm).opinions(0).findings, "idle-cache")
    assert "expandable_segments" not in found.fix


def test_a_cache_that_was_full_at_some_time_is_not_idle() -> None:
    recorder = Recorder()
    live = [recorder.allocator.malloc(100 * MiB) for _ in range(10)]
    for address in live:
        recorder.allocator.free(address)
    assert not of_kind(analysed(recorder).opinions(0).findings, "idle-cache")


def test_free_memory_between_steps_is_no_fragmentation() -> None:
    recorder = Recorder()
    for _ in range(3):
        pairs = [(recorder.allocator.malloc(2 * MiB), recorder.allocator.malloc(8 * MiB)) for _ in range(40)]
        for i, pair in enumerate(pairs):
            recorder.allocator.free(pair[1])
            if i % 2:
                recorder.allocator.free(pair[0])
        for pair in pairs[::2]:
            recorder.allocator.free(pair[0])
    analysis = analysed(recorder)
    assert analysis.device(0).fragmentation_series.overall.free_in_split_segments_bytes.max() > 200 * MiB
    assert "fragmentation" not in kinds(analysis.opinions(0).findings)


def test_a_pool_that_only_grows_is_found() -> None:
    recorder = Recorder()
    malloc, free = recorder.allocator.malloc, recorder.allocator.free
    kept = []
    # Each round needs a little more than the block that was freed: it never fits.
    for i in range(30):
        block = malloc((12 + 2 * i) * MiB)
        kept.append(malloc(1200 << 10))
        free(block)
    (found,) = of_kind(analysed(recorder).opinions(0).findings, "growing-pool")
    assert found.bytes > 64 * MiB
    assert found.evidence["size_class"] == "large"


def test_a_pool_that_grows_with_what_is_in_use_is_no_finding() -> None:
    recorder = Recorder()
    for _ in range(60):
        recorder.allocator.malloc(20 * MiB)
    assert "growing-pool" not in kinds(analysed(recorder).opinions(0).findings)


@pytest.mark.parametrize(("share", "is_named"), [(0.01, False), (0.03, True)])
def test_a_switch_is_named_where_the_search_would_recommend_it(
    monkeypatch: pytest.MonkeyPatch, share: float, is_named: bool
) -> None:
    monkeypatch.setattr(Returned, "if_expandable", lambda self: int(share * self.peak_bytes))
    (found,) = of_kind(analysed(fragmented()).opinions(0).findings, "fragmentation")
    assert ("expandable_segments" in found.fix) is is_named
    assert (found.returned_bytes is not None) is is_named
