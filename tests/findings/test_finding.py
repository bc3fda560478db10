"""Findings and their order."""

from __future__ import annotations

from memscope.findings.finding import Finding, Severity, in_order

MiB = 1 << 20


def test_findings_come_worst_first() -> None:
    def finding(severity: Severity, size: int | None) -> Finding:
        return Finding("k", severity, 0, "t", "x", size)

    ordered = in_order(
        [
            finding(Severity.INFO, 9),
            finding(Severity.SEVERE, 1),
            finding(Severity.SEVERE, 5),
            finding(Severity.INFO, None),
        ]
    )
    assert [(f.severity.label, f.bytes) for f in ordered] == [("severe", 5), ("severe", 1), ("info", 9), ("info", None)]
