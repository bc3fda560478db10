"""``memscope peak``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from memscope.trace.schema import NONE_ID
from tests.conftest import Outcome

Run = Callable[..., Outcome]


@pytest.mark.parametrize("by", ["category", "site", "module"])
def test_peak_groups_sum_to_what_is_in_use(memscope: Run, trace_file: Path, by: str) -> None:
    peak = json.loads(memscope("peak", trace_file, "--by", by, "--json", "--top", 1000).out)
    in_use = sum(r["bytes"] for r in peak["ledger"]["rows"] if r["name"] == "unknown")
    assert sum(row["requested_bytes"] for row in peak["rows"]) == in_use
    assert memscope("peak", trace_file, "--by", by).code == 0


def test_peak_at_an_event(memscope: Run, trace_file: Path) -> None:
    start = json.loads(memscope("peak", trace_file, "--at", NONE_ID, "--json").out)
    assert start["allocated_bytes"] == 0
    outcome = memscope("peak", trace_file, "--at", 10**9)
    assert outcome.code == 1
    assert "event 1000000000 is not in this trace" in outcome.err
