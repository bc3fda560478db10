"""What a replay's memory held, step by step, and its reduction to a few spans of time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memscope._kernels import kv_layout as at
from memscope.trace.tables import Int64Array, frozen_array

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class KvTimeline:
    """State in each step; every array is read-only int64 (n_steps,).

    In each step ``token_bytes + reservation_bytes + internal_bytes + external_bytes + unclaimed_bytes`` is all of the
    memory; the parts weighed with :attr:`duration_us` sum up to those of ``KvWaste``, where what lies between the steps
    is unclaimed.

    Attributes
    ----------
    start_us, end_us
        When a step begins and ends; between the end of one and the start of the next there was nothing to serve.
    n_running, n_waiting
        Requests in it, and those that have come and do not run.
    n_preemptions
        Requests put back until then, in all steps up to this one.
    token_bytes, alloc_bytes
        Bytes that hold tokens, and bytes taken.
    reservation_bytes, internal_bytes, external_bytes, unclaimed_bytes
        The other parts, as ``KvWaste`` tells them apart. External waste is taken only where it is a buddy allocator's
        rounding; else it is free.
    saved_bytes
        Bytes that would be taken on top if no sequence shared a block with another.
    """

    start_us: Int64Array
    end_us: Int64Array
    n_running: Int64Array
    n_waiting: Int64Array
    n_preemptions: Int64Array
    token_bytes: Int64Array
    alloc_bytes: Int64Array
    reservation_bytes: Int64Array
    internal_bytes: Int64Array
    external_bytes: Int64Array
    unclaimed_bytes: Int64Array
    saved_bytes: Int64Array

    def __len__(self) -> int:
        return len(self.end_us)

    @property
    def duration_us(self) -> Int64Array:
        """How long each step took."""
        return self.end_us - self.start_us

    def byte_us(self, values: Int64Array) -> int:
        """A column of bytes summed over time, exactly: Σ bytes × duration, as a whole Python number."""
        products = values * self.duration_us
        # A step's product fits into 63 bits; their sum may not: it is made of two halves.
        return (int((products >> 32).sum()) << 32) + int((products & 0xFFFFFFFF).sum())

    def spans(self, n_points: int) -> tuple[Int64Array, Int64Array]:
        """Where equal spans of time begin and end: the first and the last step of each; at most ``n_points``."""
        if not len(self):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        n_points = min(n_points, len(self))
        last = np.unique(np.searchsorted(self.end_us, np.linspace(0, self.end_us[-1], n_points + 1)[1:]))
        first = np.concatenate(([0], last[:-1] + 1))
        return first.astype(np.int64), last.astype(np.int64)

    def mean(self, values: Int64Array, first: Int64Array, last: Int64Array) -> Float64Array:
        """Time-weighted mean of a column in each span: float64. Between steps it is 0."""
        ends = self.end_us[last]
        whole = np.diff(ends, prepend=0)
        weighted = np.add.reduceat(self.duration_us.astype(np.float64) * values, first)
        return np.asarray(weighted / whole, np.float64)


@dataclass(frozen=True, slots=True)
class KvMemoryOverTime:
    """Memory in equal spans of time; every array has one entry a span.

    ``token_bytes + reservation_bytes + internal_bytes + external_bytes + unclaimed_bytes`` is all of the memory.

    Attributes
    ----------
    start_us, end_us
        int64: where a span begins and ends.
    token_bytes, reservation_bytes, internal_bytes, external_bytes, unclaimed_bytes
        float64: time-weighted means.
    peak_alloc_bytes
        int64: the most that was taken.
    n_preemptions
        int64: requests put back until the span's end.
    """

    start_us: Int64Array
    end_us: Int64Array
    token_bytes: Float64Array
    reservation_bytes: Float64Array
    internal_bytes: Float64Array
    external_bytes: Float64Array
    unclaimed_bytes: Float64Array
    peak_alloc_bytes: Int64Array
    n_preemptions: Int64Array

    def __len__(self) -> int:
        return len(self.end_us)


def memory_over_time(timeline: KvTimeline, capacity_bytes: int, n_points: int) -> KvMemoryOverTime:
    """Reduce a timeline to at most ``n_points`` spans, those of ``KvResult.concurrency``; none without steps."""
    first, last = timeline.spans(n_points)
    ends = timeline.end_us[last]
    columns = (
        timeline.token_bytes,
        timeline.reservation_bytes,
        timeline.internal_bytes,
        timeline.external_bytes,
    )
    tokens, reservation, internal, external = (timeline.mean(column, first, last) for column in columns)
    return KvMemoryOverTime(
        start_us=np.concatenate(([0], ends))[:-1].astype(np.int64),
        end_us=ends,
        token_bytes=tokens,
        reservation_bytes=reservation,
        internal_bytes=internal,
        external_bytes=external,
        unclaimed_bytes=capacity_bytes - tokens - reservation - internal - external,
        peak_alloc_bytes=np.maximum.reduceat(timeline.alloc_bytes, first) if len(first) else ends,
        n_preemptions=timeline.n_preemptions[last],
    )


def make_timeline(rows: Int64Array, capacity: int, unit_bytes: int) -> KvTimeline:
    """A timeline from the kernel's rows, int64 (n_steps, N_TIMELINE), in bytes."""
    tokens, taken = rows[:, at.T_TOKENS], rows[:, at.T_ALLOC]
    reservation, external, slack = (rows[:, i] for i in (at.T_RESERVATION, at.T_EXTERNAL, at.T_SLACK))
    internal = taken - slack - tokens - reservation
    columns = (
        rows[:, at.T_START],
        rows[:, at.T_TIME],
        rows[:, at.T_RUNNING],
        rows[:, at.T_WAITING],
        rows[:, at.T_PREEMPTIONS],
        tokens * unit_bytes,
        taken * unit_bytes,
        reservation * unit_bytes,
        internal * unit_bytes,
        external * unit_bytes,
        (capacity - tokens - reservation - internal - external) * unit_bytes,
        rows[:, at.T_SAVED] * unit_bytes,
    )
    return KvTimeline(*(frozen_array(column, np.int64) for column in columns))
