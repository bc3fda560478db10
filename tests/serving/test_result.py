"""Memory over time: the parts of each step, and of each span."""

from __future__ import annotations

import numpy as np
import pytest

from memscope.serving.result import KvResult
from memscope.serving.simulate import simulate
from tests.serving.small_tables import check_timeline, job, table

PARTS = ("token_bytes", "reservation_bytes", "internal_bytes", "external_bytes", "unclaimed_bytes")


def _busy(manager: str) -> KvResult:
    """Requests that wait for memory, then a pause of a second, then one more."""
    rng = np.random.default_rng(1)
    requests = [(100 * i, int(prompt), 12) for i, prompt in enumerate(rng.integers(1, 30, 60))]
    return simulate(job(table([*requests, (1_000_000, 9, 4)]), manager, n_tokens=128, max_length=48))


def test_a_step_begins_where_the_one_before_it_ended_or_when_a_request_comes() -> None:
    # A step of 4 or 5 tokens takes 70 µs; the second request comes at 1,000.
    timeline = simulate(job(table([(0, 4, 2), (1000, 4, 1)]), n_tokens=40)).timeline
    assert timeline.start_us.tolist() == [0, 70, 1000]
    assert timeline.end_us.tolist() == [70, 140, 1070]
    assert timeline.token_bytes.tolist() == [4 * 24, 5 * 24, 4 * 24]
    assert timeline.internal_bytes.tolist() == [0, 3 * 24, 0]
    assert timeline.unclaimed_bytes.tolist() == [36 * 24, 32 * 24, 36 * 24]


@pytest.mark.parametrize("manager", ["max-length", "buddy", "paged", "radix"])
@pytest.mark.parametrize("n_points", [1, 7, 120, 10_000])
def test_spans_hold_what_the_steps_hold(manager: str, n_points: int) -> None:
    result = _busy(manager)
    check_timeline(result)
    memory = result.memory_over_time(n_points)
    assert 1 <= len(memory) <= n_points
    assert memory.start_us[0] == 0
    assert np.array_equal(memory.start_us[1:], memory.end_us[:-1])
    assert memory.end_us[-1] == result.makespan_us
    whole = sum(getattr(memory, name) for name in PARTS)
    assert whole == pytest.approx(np.full(len(memory), result.capacity_bytes))
    length = memory.end_us - memory.start_us
    for name in PARTS:
        part = getattr(result.waste, name.removesuffix("_bytes").replace("token", "tokens"))
        assert float(np.dot(length, getattr(memory, name))) == pytest.approx(part, rel=1e-9)
    assert memory.peak_alloc_bytes.max() == result.peak_alloc_bytes
    assert memory.n_preemptions[-1] == result.n_preemptions
    assert [point["end_s"] for point in result.concurrency(n_points)] == (memory.end_us / 1e6).tolist()


def test_time_without_requests_counts_as_none_running() -> None:
    result = _busy("paged")
    points = result.concurrency(1)
    assert points[0]["mean_running"] == pytest.approx(result.mean_concurrent_requests)
    running = float(np.dot(result.timeline.duration_us, result.timeline.n_running))
    assert result.mean_concurrent_requests == pytest.approx(running / result.makespan_us)
    assert result.mean_concurrent_requests < 0.5 * result.timeline.n_running.mean()
