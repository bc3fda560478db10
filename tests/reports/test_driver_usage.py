"""The device's own count in the reports: its rows where it was sampled, "not measured" where not."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from memscope.analysis import Analysis
from memscope.reports.json import report_json
from memscope.reports.text import print_report
from tests.sampled_trace import FULL, MS, MiB, sampled_trace

AFTER = {**FULL, "event": 4, "ms": 250}


def printed(*samples: dict[str, Any], **metadata: Any) -> str:
    out = io.StringIO()
    print_report(Analysis(sampled_trace(*samples, **metadata)), Console(file=out, width=160))
    return out.getvalue()


def test_the_text_has_the_rows_and_their_sum() -> None:
    text = printed(AFTER)
    assert "the device's own count, sampled after event 3\n" in text
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "478.0 MiB" in lines["non_pytorch"]
    assert f"{478 * MiB:,}" in lines["non_pytorch"]
    assert "390.0 MiB" in lines["other_processes"]
    assert "10.0 MiB" in lines["unexplained"]
    assert f"{900 * MiB:,}" in lines["device"]


def test_the_text_says_when_the_sample_was_of_another_moment() -> None:
    assert "sampled after event 1, when PyTorch had reserved a different size" in printed(FULL)


def test_the_text_says_why_nothing_was_measured() -> None:
    assert "beyond PyTorch: not measured, the device was not sampled" in printed()


def test_a_dry_run_is_not_blamed_for_having_no_device() -> None:
    assert "beyond PyTorch" not in printed(source="dry-run")


def test_the_json_has_the_rows_or_null_and_why() -> None:
    [device] = report_json(Analysis(sampled_trace(AFTER)))["devices"]
    assert device["ledger"]["device_count"] == {
        "event": 3,
        "time_ns": 250 * MS,
        "rows": [
            {"name": "pytorch_reserved", "bytes": 22 * MiB},
            {"name": "non_pytorch", "bytes": 478 * MiB},
            {"name": "other_processes", "bytes": 390 * MiB},
            {"name": "unexplained", "bytes": 10 * MiB},
        ],
        "total_bytes": 900 * MiB,
        "is_same_reserved": True,
    }
    assert device["ledger"]["device_not_counted"] is None
    [device] = report_json(Analysis(sampled_trace()))["devices"]
    assert device["ledger"]["device_count"] is None
    assert device["ledger"]["device_not_counted"] == "the device was not sampled"
