"""What rounding takes."""

from __future__ import annotations

from memscope.findings.finding import Severity
from tests.findings.traces import analysed, kinds, of_kind
from tests.replay.recordings import Recorder

MiB = 1 << 20


def test_rounding_is_found() -> None:
    recorder = Recorder("roundup_power2_divisions:2")
    for _ in range(5):
        recorder.allocator.malloc(33 * MiB)
    (found,) = of_kind(analysed(recorder).opinions(0).findings, "rounding")
    # Between 32 and 64 MiB there is one step, at 48.
    assert found.bytes == 5 * 15 * MiB
    assert found.severity is Severity.SEVERE
    assert found.evidence["n_blocks_of_half"] == 3
    recorder = Recorder()
    for _ in range(5):
        recorder.allocator.malloc(33 * MiB)
    assert "rounding" not in kinds(analysed(recorder).opinions(0).findings)
