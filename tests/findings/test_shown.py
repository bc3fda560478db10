"""What a finding shows: its largest allocations and the lines of code that made them."""

from __future__ import annotations

import numpy as np

from memscope.analysis import Analysis
from memscope.findings._shown import UNKNOWN_SITE, largest_rows, site_name, sites_by_bytes
from memscope.trace.schema import NONE_ID
from tests.training_trace import training_trace


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
