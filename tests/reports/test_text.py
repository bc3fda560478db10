"""The report for a terminal: the numbers of the library, and "not measured" where there are none."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from rich.console import Console

from memscope.analysis import Analysis, load
from memscope.reports.text import print_moment, print_report
from tests.sampled_trace import FULL, MiB, sampled_trace
from tests.training_trace import training_trace

TRACES = Path(__file__).resolve().parents[2] / "traces"
AFTER = {**FULL, "event": 4, "ms": 250}


def printed(*samples: dict[str, Any], **metadata: Any) -> str:
    out = io.StringIO()
    print_report(Analysis(sampled_trace(*samples, **metadata)), Console(file=out, width=160))
    return out.getvalue()


def test_the_text_has_the_rows_and_their_sum() -> None:
    text = printed(AFTER)
    assert "the device's own count, sampled after event 3\n" in text
    lines = {line.strip().split("  ")[0]: line for line in text.splitlines() if line.strip()}
    assert "478.0 MiB" in lines["non-PyTorch"]
    assert f"{478 * MiB:,}" in lines["non-PyTorch"]
    assert "390.0 MiB" in lines["other processes"]
    assert "10.0 MiB" in lines["unexplained"]
    assert f"{900 * MiB:,}" in lines["device used"]


def test_the_text_says_when_the_sample_was_of_another_moment() -> None:
    assert "sampled after event 1, when PyTorch had reserved a different size" in printed(FULL)


def test_the_text_says_why_nothing_was_measured() -> None:
    assert "beyond PyTorch: not measured, the device was not sampled" in printed()


def test_a_dry_run_is_not_blamed_for_having_no_device() -> None:
    assert "beyond PyTorch" not in printed(source="dry-run")


def test_the_report_has_peak_headroom_ledger_and_the_failed_request() -> None:
    out = io.StringIO()
    print_report(load(TRACES / "tiny-out-of-memory.memscope"), Console(file=out, width=160))
    text = out.getvalue()
    assert "Device 0 (a device of 1GiB): peak 448.2 MiB allocated after event 74\n" in text
    assert "headroom 62.0 MiB; the device has 1.0 GiB, of which others hold 512.0 MiB" in text
    assert "out of memory at event 75, asking for 64.0 MiB" in text
    assert re.search(r"weights +384\.2 MiB +85\.4 % +402,849,792", text)
    assert re.search(r"reserved +450\.0 MiB +100\.0 % +471,859,200 +the sum, to the byte", text)


def test_who_is_live_is_listed_and_the_rest_is_counted() -> None:
    out = io.StringIO()
    print_moment(Analysis(training_trace()).peak(0), "site", 2, Console(file=out, width=160))
    text = out.getvalue()
    assert "Device 0 after event 120 (step 2, backward): 35.1 MiB allocated, 35.1 MiB active, 42.0 MiB reserved" in text
    assert re.search(r"size +of reserved +allocations +site *\n", text)
    assert re.search(r"20\.0 MiB +47\.6 % +4 +/home/me/project/train\.py:7 forward", text)
    assert re.search(r"MiB +\S+ % +\d+ +2 more, together", text)
    assert re.search(r"42\.0 MiB +100\.0 % +reserved: the sum, to the byte", text)


def test_shares_of_a_moment_are_of_what_is_reserved_and_sum_to_all_of_it() -> None:
    analysis = load(TRACES / "tiny-llama-train.memscope")
    for by in ("site", "module", "step", "rule"):
        out = io.StringIO()
        print_moment(analysis.peak(), by, 5, Console(file=out, width=120))
        rows = re.findall(r"^ +(?:\S+ (?:[KMG]i)?B) +(\d+\.\d) %", out.getvalue(), re.MULTILINE)
        assert rows[-1] == "100.0"
        assert abs(sum(map(float, rows[:-1])) - 100) < 0.05 * len(rows)


def test_the_report_says_where_frag_looks_if_that_is_another_moment() -> None:
    analysis = Analysis(training_trace())
    out = io.StringIO()
    print_report(analysis, Console(file=out, width=250))
    device = analysis.device(0)
    is_other = device.fragmentation_moment().event != device.peak().event
    assert ("memscope frag looks after event" in out.getvalue()) == is_other
    assert is_other
