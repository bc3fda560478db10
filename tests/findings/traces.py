"""Traces that findings are looked for in."""

from __future__ import annotations

from pathlib import Path

from memscope.analysis import Analysis
from memscope.findings.finding import Finding, Findings
from tests.replay.recordings import Recorder

MiB = 1 << 20
SHIPPED = Path(__file__).resolve().parents[2] / "traces"


def analysed(recorder: Recorder) -> Analysis:
    return Analysis(recorder.trace())


def kinds(findings: Findings) -> list[str]:
    return [finding.kind for finding in findings.findings]


def of_kind(findings: Findings, kind: str) -> list[Finding]:
    return [finding for finding in findings.findings if finding.kind == kind]


def fragmented(n_pairs: int = 40) -> Recorder:
    """Segments of 20 MiB, in each of which 4 MiB stay live when 30 MiB more are taken."""
    recorder = Recorder()
    pairs = [(recorder.allocator.malloc(2 * MiB), recorder.allocator.malloc(8 * MiB)) for _ in range(n_pairs)]
    for _, large in pairs:
        recorder.allocator.free(large)
    recorder.allocator.malloc(30 * MiB)
    return recorder
