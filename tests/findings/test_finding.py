"""A finding: what was found, how bad it is, the numbers that prove it, and what it shows of its allocations."""

from __future__ import annotations

import numpy as np

from memscope.analysis import Analysis
from memscope.findings.finding import UNKNOWN_SITE, Finding, Severity, in_order, largest_rows, site_name, sites_by_bytes
from memscope.trace.schema import NONE_ID
from tests.training_trace import training_trace

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


def test_the_rows_shown_are_those_of_the_largest_blocks() -> None:
    device = Analysis(training_trace()).device()
    shown = largest_rows(device, range(len(device.allocations)), limit=3)
    assert list(device.allocations.block_bytes[list(shown)]) == sorted(device.allocations.block_bytes)[:-4:-1]


def test_lines_of_code_are_named_by_the_bytes_that_come_from_them() -> None:
    device = Analysis(training_trace()).device()
    rows = np.arange(len(device.allocations))
    sizes = device.allocations.block_bytes
    by_site: dict[str | None, int] = {}
    for site, size in zip(device.sites_of(rows), sizes.tolist(), strict=True):
        by_site[site or UNKNOWN_SITE] = by_site.get(site or UNKNOWN_SITE, 0) + size
    found = sites_by_bytes(device, rows, sizes, limit=2)
    assert [by_site[site] for site in found] == sorted(by_site.values(), reverse=True)[:2]
    assert site_name(device, NONE_ID) == UNKNOWN_SITE


def test_a_fix_says_what_it_returns_where_a_replay_can_tell() -> None:
    def words(fix: str, returned_bytes: int | None) -> str:
        return Finding("k", Severity.INFO, 0, "t", "x", 1, fix=fix, returned_bytes=returned_bytes).fix_words

    assert words("", None) == ""
    assert words("do it", None) == "Fix: do it."
    assert words("do it", 0) == "Fix: do it. By replay the peak of reserved memory stays as it is: it lies elsewhere."
    assert words("do it", 3 * MiB) == "Fix: do it. By replay reserved memory peaks 3.0 MiB lower."


def test_after_a_failure_a_fix_says_what_it_leaves_to_spare() -> None:
    def words(returned_bytes: int) -> str:
        found = Finding("k", Severity.INFO, 0, "t", "x", 1, fix="do it", returned_bytes=returned_bytes, is_spare=True)
        return found.fix_words

    assert words(3 * MiB) == "Fix: do it. By replay the request that failed is served then, with 3.0 MiB to spare."
    assert words(0) == "Fix: do it. By replay the request that failed is served then, with nothing to spare."
