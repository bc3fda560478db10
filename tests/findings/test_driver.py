"""Calls of the driver that a warmed-up program should not need."""

from __future__ import annotations

import numpy as np

from memscope.analysis import Analysis
from memscope.trace.schema import Action
from tests.findings.traces import analysed, kinds, of_kind
from tests.oom.planted import Program
from tests.replay.recordings import Recorder

MiB = 1 << 20


def test_reclaims_of_the_allocator_are_counted_with_their_bytes() -> None:
    recorder = Recorder(total=100 * MiB, knows_total=True)
    for i in range(12):
        size = (60 if i % 2 else 70) * MiB
        recorder.allocator.free(recorder.allocator.malloc(size))
        # What was freed is in the way of the next one, which is larger or takes another segment.
        recorder.allocator.free(recorder.allocator.malloc(80 * MiB + i * 2 * MiB if i < 10 else 99 * MiB))
    analysis = analysed(recorder)
    (found,) = of_kind(analysis.opinions(0).findings, "retries")
    assert found.evidence["n_retries"] == recorder.allocator.stats.n_retries
    trace = analysis.trace
    assert found.bytes == trace.size_bytes[trace.action == Action.SEGMENT_FREE].sum()
    assert found.evidence["recorded_ns"] is None
    assert found.evidence["modelled_ns"] > 0
    # The largest that a reclaim served is one of 99 MiB, on 100.
    assert found.text.endswith("The device is nearly full.")


def test_a_reclaim_of_what_was_only_cached_is_not_called_a_full_device() -> None:
    recorder = Recorder(total=100 * MiB, knows_total=True)
    for size in (30, 34, 38):  # the third finds 36 MiB left, and 64 cached
        recorder.allocator.free(recorder.allocator.malloc(size * MiB))
    (found,) = of_kind(analysed(recorder).opinions(0).findings, "retries")
    assert "At most 38.0 MiB of the 100.0 MiB that PyTorch could have were in use" in found.text


def refused_after_a_reclaim(n_times: int) -> Program:
    program = Program(100 * MiB)
    program.malloc(70 * MiB)
    for _ in range(n_times):
        program.free(program.malloc(20 * MiB))
        assert program.malloc(40 * MiB) is None
    return program


def test_a_reclaim_for_a_request_that_was_refused_all_the_same_is_not_said_to_serve_it() -> None:
    (found,) = of_kind(Analysis(refused_after_a_reclaim(2).trace()).opinions(0).findings, "retries")
    assert found.title.startswith("Cached memory was given back 2 times for requests that were refused all the same")
    assert found.evidence["n_failed"] == 2
    program = refused_after_a_reclaim(2)
    program.free(program.malloc(20 * MiB))
    program.malloc(30 * MiB)
    (found,) = of_kind(Analysis(program.trace()).opinions(0).findings, "retries")
    assert "3 times to serve requests, 2 of which were refused all the same" in found.title


def test_garbage_that_is_collected_is_no_lack_of_memory() -> None:
    program = Program(400 * MiB, conf="garbage_collection_threshold:0.2", fraction=0.5)
    for i in range(4):
        program.free(program.malloc((40 + 10 * i) * MiB))
    trace = program.trace()
    assert np.count_nonzero(trace.action == Action.SEGMENT_FREE) > 0
    assert not {"retries", "cache-given-back", "cache-emptied"} & set(kinds(Analysis(trace).opinions(0).findings))


def test_emptying_the_cache_in_every_round_is_found_as_the_programs_own() -> None:
    recorder = Recorder()
    # The device had 100 MiB: a request of 40 MiB while 40 are reserved was not refused.
    recorder.allocator.free(recorder.allocator.malloc(100 * MiB))
    for _ in range(25):
        recorder.allocator.empty_cache()
        recorder.allocator.free(recorder.allocator.malloc(40 * MiB))
    findings = analysed(recorder).opinions(0).findings
    (found,) = of_kind(findings, "cache-emptied")
    # With the first one 140 MiB would have been reserved, more than the device is known to have had: but the 100 MiB
    # that were given back would have served the request.
    assert found.evidence["n_calls"] == 25
    assert found.evidence["given_back_bytes"] == (100 + 24 * 40) * MiB
    assert found.evidence["taken_since_bytes"] == 25 * 40 * MiB
    assert "retries" not in kinds(findings)


def test_where_it_cannot_be_told_who_gave_memory_back_that_is_said() -> None:
    recorder = Recorder()
    for i in range(13):
        recorder.allocator.free(recorder.allocator.malloc((40 + 2 * i) * MiB))
        recorder.allocator.empty_cache()
    findings = analysed(recorder).opinions(0).findings
    (found,) = of_kind(findings, "cache-given-back")
    assert found.evidence["n_reclaims"] == 12
    assert "does not tell which" in found.text
    assert not {"retries", "cache-emptied"} & set(kinds(findings))


def test_driver_calls_that_go_on_are_found() -> None:
    recorder = Recorder()
    for _ in range(50):
        recorder.allocator.free(recorder.allocator.malloc(40 * MiB))
        recorder.allocator.empty_cache()
    (found,) = of_kind(analysed(recorder).opinions(0).findings, "driver-calls")
    assert found.evidence["n_taken"] == 25


def test_a_cap_that_was_reached_is_not_called_a_full_device() -> None:
    program = Program(400 * MiB, fraction=0.25)
    program.malloc(70 * MiB)
    program.free(program.malloc(20 * MiB))
    program.malloc(30 * MiB)
    (found,) = of_kind(Analysis(program.trace()).opinions(0).findings, "retries")
    assert found.text.startswith("PyTorch had all that its fraction of 0.25 lets it reserve (100.0 MiB), so")
    assert "device is nearly full" not in found.text
