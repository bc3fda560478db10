"""Frees that wait for another stream."""

from __future__ import annotations

from memscope.findings.finding import Severity
from tests.findings.traces import analysed, kinds, of_kind
from tests.replay.recordings import Recorder

MiB = 1 << 20


def test_frees_that_wait_for_a_stream_are_found_with_what_was_taken_meanwhile() -> None:
    recorder = Recorder()
    kept = recorder.allocator.malloc(40 * MiB)
    waiting = [recorder.allocator.malloc(20 * MiB) for _ in range(4)]
    for address in waiting:
        recorder.allocator.free(address, waits=True)
    recorder.allocator.malloc(20 * MiB)
    for address in waiting:
        recorder.allocator.complete_free(address)
    recorder.allocator.free(kept)
    (found,) = of_kind(analysed(recorder).opinions(0).findings, "stream-delayed-frees")
    assert found.bytes == 80 * MiB
    assert found.severity is Severity.SEVERE
    assert found.evidence["n_pending"] == 4
    assert found.evidence["n_segments_taken_meanwhile"] == 1
    assert found.evidence["segment_bytes_taken_meanwhile"] == 20 * MiB
    assert found.evidence["mean_wait_ns"] is None


def test_frees_that_complete_at_once_do_not_wait() -> None:
    recorder = Recorder()
    for _ in range(5):
        recorder.allocator.free(recorder.allocator.malloc(200 * MiB))
    assert "stream-delayed-frees" not in kinds(analysed(recorder).opinions(0).findings)
