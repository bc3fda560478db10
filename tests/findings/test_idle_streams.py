"""Memory that is free on one stream while another takes more."""

from __future__ import annotations

from memscope.findings.finding import Severity
from tests.findings.traces import analysed, kinds, of_kind
from tests.replay.recordings import Recorder

MiB = 1 << 20


def two_phases(second_stream: int) -> Recorder:
    """400 MiB are used and let go of on the default stream, then as much on a second one."""
    recorder = Recorder()
    kept = recorder.allocator.malloc(30 * MiB)
    for stream in (0, second_stream):
        blocks = [recorder.allocator.malloc(40 * MiB, stream) for _ in range(10)]
        for block in blocks:
            recorder.allocator.free(block)
    recorder.allocator.free(kept)
    return recorder


def test_memory_idle_on_another_stream_is_found_with_what_one_stream_would_save() -> None:
    analysis = analysed(two_phases(second_stream=7))
    (found,) = of_kind(analysis.opinions(0).findings, "idle-streams")
    # The default stream's 400 MiB would have served the second one's requests.
    assert found.bytes == found.evidence["saved_bytes"] == 400 * MiB
    assert found.evidence["reserved_bytes"] == 830 * MiB
    assert found.evidence["n_streams"] == 2
    assert found.evidence["most_idle_stream"] == 0
    assert found.severity is Severity.SEVERE
    assert found.event == int(analysis.device(0).usage.event_at(int(analysis.device(0).usage.reserved_bytes.argmax())))


def test_one_stream_leaves_nothing_idle_on_another() -> None:
    assert "idle-streams" not in kinds(analysed(two_phases(second_stream=0)).opinions(0).findings)


def test_streams_that_need_their_memory_at_the_same_time_would_save_nothing_together() -> None:
    recorder = Recorder()
    pairs = [(recorder.allocator.malloc(40 * MiB, 0), recorder.allocator.malloc(40 * MiB, 7)) for _ in range(10)]
    for first, second in pairs[1:]:
        recorder.allocator.free(first)
        recorder.allocator.free(second)
    recorder.allocator.malloc(500 * MiB, 7)
    assert "idle-streams" not in kinds(analysed(recorder).opinions(0).findings)
