"""The ledger as lines and as a bar: its rows, to the byte."""

from __future__ import annotations

import pytest

from memscope.analysis import Analysis
from memscope.figures.ledger import device_lines, empty_rows, hatch, ledger_figure, ledger_lines, unmeasured_device_rows
from memscope.figures.theme import LIGHT
from tests.sampled_trace import FULL, MiB, sampled_trace
from tests.training_trace import training_trace


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return Analysis(training_trace())


def test_ledger_lines_are_the_rows_with_bytes_and_unknown(analysis: Analysis) -> None:
    ledger = analysis.peak(0).ledger
    lines = ledger_lines(ledger)
    assert sum(line.bytes for line in lines) == ledger.total_bytes
    assert "unknown" in [line.name for line in lines]
    assert len(lines) + len(empty_rows(ledger)) == len(ledger.rows)
    assert sum(line.share_frac for line in lines) == pytest.approx(1)


def test_ledger_bar_holds_the_rows_bytes(analysis: Analysis) -> None:
    ledger = analysis.peak(0).ledger
    figure = ledger_figure(ledger, LIGHT)
    assert sum(int(bar.x[0]) for bar in figure.data) == ledger.total_bytes


def test_the_rows_of_the_devices_own_count_are_lines_and_the_unmeasured_are_named() -> None:
    count = Analysis(sampled_trace({**FULL, "event": 4, "ms": 250})).peak(0).ledger.driver_usage
    assert count is not None
    assert [(line.label, line.bytes // MiB, line.is_hatched) for line in device_lines(count)] == [
        ("PyTorch, reserved", 22, False),
        ("non-PyTorch", 478, False),
        ("other processes", 390, False),
        ("unexplained", 10, True),
    ]
    assert unmeasured_device_rows(count) == []
    assert unmeasured_device_rows(None) == ["non_pytorch", "other_processes"]


def test_free_memory_is_hatched_and_pending_frees_are_dotted() -> None:
    assert [hatch(name, LIGHT)["shape"] for name in ("free_pinned", "pending_frees", "weights")] == ["/", ".", ""]
