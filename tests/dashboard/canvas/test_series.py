"""The reserved line loses no peak, and the run's facts count moments as the picture does."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from memscope_dashboard.canvas.series import bucket_maxima, packed_series, run_facts

from memscope.analysis import Analysis
from memscope.trace.marks import step_spans
from tests.dashboard.canvas.test_packed import unpacked
from tests.training_trace import training_trace


def test_no_peak_between_two_parts_is_lost() -> None:
    values = np.random.default_rng(1).integers(0, 1 << 40, 1000)
    for low, high, n_parts in ((0, 999, 7), (13, 500, 64), (5, 5, 10), (0, 9, 100)):
        begin, most = bucket_maxima(values, low, high, n_parts)
        edges = [*begin.tolist(), high + 1]
        assert edges[0] == low
        assert most.tolist() == [int(values[a:b].max()) for a, b in pairwise(edges)]


def test_a_short_range_is_exact() -> None:
    device = Analysis(training_trace()).device()
    header, columns = unpacked(packed_series(device, 3, 40))
    assert header["is_exact"] is True
    assert columns["begin"].tolist() == list(range(3, 41))
    reserved = columns["reserved_low"].astype(np.int64) + (columns["reserved_high"].astype(np.int64) << 32)
    assert np.array_equal(reserved, device.usage.reserved_bytes[3:41])


def test_the_run_is_told_in_moments() -> None:
    device = Analysis(training_trace()).device()
    facts = run_facts(device)
    assert facts["n_events"] == device.n_events
    assert device.usage.event_at(facts["peak"]) == device.usage.peak_event
    assert facts["active_peak_bytes"] == int(device.usage.active_bytes.max())
    spans = step_spans(device.trace)
    assert [(begin, end) for _, begin, end, _ in facts["steps"]] == [
        (span.begin - facts["first_event"], min(span.end - facts["first_event"], device.n_events)) for span in spans
    ]
    assert all(label.lower().startswith("step") for label, *_ in facts["steps"])
