"""The device's own count in words."""

from __future__ import annotations

from typing import Any

import pytest

from memscope.analysis import Analysis
from memscope.device.device import Moment
from memscope.words.driver_usage import device_finding, driver_usage_origin, why_not_measured
from tests.sampled_trace import FULL, MiB, sampled_trace

AFTER = {**FULL, "event": 4, "ms": 250}


def peak_of(*samples: dict[str, Any], **metadata: Any) -> Moment:
    return Analysis(sampled_trace(*samples, **metadata)).peak(0)


@pytest.mark.parametrize(
    ("changed", "finding"),
    [
        # 900 MiB are used, 22 of them reserved by PyTorch; the process holds 500 and others 390.
        ({}, "NVML and PyTorch agree within 878.0 MiB at event 3: non-PyTorch 478.0 MiB"),
        (
            {"process_used_bytes": 100 * MiB, "others_used_bytes": 790 * MiB},
            "Other processes hold 790.0 MiB of the device at event 3",
        ),
        (
            {"process_used_bytes": -1, "others_used_bytes": -1},
            "878.0 MiB of the device are used beyond PyTorch at event 3; this process and others were not told apart",
        ),
        (
            {"device_used_bytes": 4000 * MiB, "process_used_bytes": 3600 * MiB},
            "This process holds 3.5 GiB beyond PyTorch at event 3: non-PyTorch 3.5 GiB",
        ),
    ],
)
def test_the_finding_names_who_holds_most_beyond_pytorch(changed: dict[str, int], finding: str) -> None:
    assert device_finding(peak_of({**AFTER, **changed})) == finding


def test_the_origin_says_when_the_sample_is_of_another_moment() -> None:
    for sample, words in (
        (AFTER, "Sampled at event 3, one of 1 sample"),
        (
            FULL,
            "Sampled at event 1, one of 1 sample; PyTorch had reserved a different size than at the chosen moment",
        ),
    ):
        peak = peak_of(sample)
        count = peak.ledger.driver_usage
        assert count is not None
        assert driver_usage_origin(peak, count) == words


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("cuda", "The device was not sampled. A recording made with memscope run on a GPU"),
        ("torch-snapshot", "The device was not sampled. A PyTorch snapshot holds no more"),
        ("dry-run", "A dry run has no device. To measure what else"),
    ],
)
def test_why_nothing_was_measured_depends_on_what_recorded_it(source: str, hint: str) -> None:
    peak = peak_of(source=source)
    assert device_finding(peak) == "What the device holds beyond PyTorch is not measured"
    assert why_not_measured(peak).startswith(hint)
