"""The JSON contract: bytes are integers, and what was not measured is null."""

from __future__ import annotations

import dataclasses
import json

from memscope.analysis import Analysis
from memscope.reports.json import moment_json, report_json
from tests.rank_traces import rank_trace, training
from tests.sampled_trace import FULL, MS, MiB, sampled_trace
from tests.training_trace import training_trace

AFTER = {**FULL, "event": 4, "ms": 250}


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


def test_a_device_has_its_peak_its_ledger_and_its_fragmentation_in_bytes() -> None:
    analysis = Analysis(training_trace())
    content = json.loads(json.dumps(report_json(analysis)))
    (device,) = content["devices"]
    assert (device["peak"]["event"], device["peak"]["where"]) == (120, "step 2, backward")
    assert sum(row["bytes"] for row in device["ledger"]["rows"]) == device["ledger"]["total_bytes"] == 42 * MiB
    assert device["fragmentation"]["reserved_bytes"] == 42 * MiB
    assert (device["n_ooms"], device["headroom_bytes"]) == (1, 22 * MiB)
    assert content["completeness"]["contradictions"] == []


def test_a_trace_that_contradicts_itself_has_no_devices_and_says_why() -> None:
    good = rank_trace(training(10))
    sizes = good.size_bytes.copy()
    sizes[0] += 2 * MiB
    content = report_json(Analysis(dataclasses.replace(good, size_bytes=sizes)))
    assert (content["devices"], content["findings"], content["completeness"]["n_events_lost"]) == ([], [], None)
    assert content["completeness"]["contradictions"]


def test_of_a_moments_groups_the_first_are_listed_and_all_are_counted() -> None:
    content = moment_json(Analysis(training_trace()).peak(0), "site", 1)
    assert (len(content["rows"]), content["n_rows"]) == (1, 4)
    assert content["rows"][0]["site"] == "/home/me/project/train.py:7 forward"
