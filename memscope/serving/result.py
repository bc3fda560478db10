"""What a replay of requests found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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


def make_timeline(steps: Mapping[str, Int64Array], capacity: int, unit_bytes: int) -> KvTimeline:
    """A timeline in bytes from the columns of an engine's steps, which are in units."""
    names = ("tokens", "reservation", "internal", "external")
    unclaimed = capacity - sum(steps[name] for name in names)
    columns = (
        *(steps[name] for name in ("start_us", "end_us", "n_running", "n_waiting", "n_preemptions")),
        steps["tokens"] * unit_bytes,
        steps["taken"] * unit_bytes,
        *(steps[name] * unit_bytes for name in names[1:]),
        unclaimed * unit_bytes,
        steps["saved"] * unit_bytes,
    )
    return KvTimeline(*(frozen_array(column, np.int64) for column in columns))


@dataclass(frozen=True, slots=True)
class KvWaste:
    """Key/value memory over time, in byte·microseconds; exact.

    Attributes
    ----------
    tokens
        Holds tokens of requests that run.
    reservation
        Is kept for tokens that its request will have.
    internal
        Belongs to a request and never holds one of its tokens, or no longer: block tails, lengths not reached.
    external
        Is free while a request waits for memory, or lies in a buddy allocator's rounding.
    unclaimed
        Is free, or cached, while nothing waits for memory: not waste.
    """

    tokens: int
    reservation: int
    internal: int
    external: int
    unclaimed: int

    @property
    def claimed(self) -> int:
        """Everything but ``unclaimed``: what the shares are of."""
        return self.tokens + self.reservation + self.internal + self.external

    def share(self, part: int) -> float | None:
        """A part as a share of what is claimed; None if nothing ever was."""
        return part / self.claimed if self.claimed else None


@dataclass(frozen=True, slots=True)
class KvResult:
    """One manager's replay. Counts and bytes are exact in the model; times are estimates of the cost model.

    Attributes
    ----------
    manager, block_size, page_bytes
        Which, and the size of its blocks or pages where it has any.
    capacity_bytes
        Key/value memory on one GPU, in whole blocks.
    n_requests, n_completed, n_refused
        Refused: too long for the model or for the memory.
    n_hit_blocks, n_queried_blocks
        Full blocks of prompts found cached at a request's first start, of those looked for; None where no prefixes are
        known or none are shared.
    hit_tokens
        Tokens of those found.
    n_block_copies
        Blocks copied because samples of one request, which shared them, went on differently; a block of all layers is
        one. 0 where samples share nothing.
    n_pad_tokens
        Tokens that hold nothing, computed to make the sequences of a static batch equally long; internal waste.
    n_recomputed_tokens, n_generated_tokens, n_computed_tokens
        Of all samples; a prompt that samples share is computed once. Without padding.
    longest_context_tokens, largest_batch_requests
        The longest sequence that fits alone; how many sequences of the mean final length fit together;
        None for tensors, where that depends on what was allocated before.
    makespan_us, busy_us
        From the first arrival to the last end, and how long of it steps ran.
    first_token_us
        Wait for the first token of each completed request.
    """

    manager: str
    block_size: int | None
    page_bytes: int | None
    capacity_bytes: int
    waste: KvWaste
    timeline: KvTimeline
    n_requests: int
    n_completed: int
    n_refused: int
    n_steps: int
    n_preemptions: int
    n_swaps: int
    n_recomputed_tokens: int
    n_evictions: int
    n_hit_blocks: int | None
    n_queried_blocks: int | None
    hit_tokens: int | None
    prompt_tokens: int
    n_generated_tokens: int
    n_computed_tokens: int
    n_block_copies: int
    n_pad_tokens: int
    peak_concurrent_requests: int
    mean_concurrent_requests: float
    peak_alloc_bytes: int
    peak_token_bytes: int
    longest_context_tokens: int | None
    largest_batch_requests: int | None
    mean_final_tokens: int
    makespan_us: int
    busy_us: int
    first_token_us: Int64Array
    notes: tuple[str, ...]

    @property
    def kv_token_share_frac(self) -> float | None:
        """Share of claimed key/value memory, over time, that holds tokens; None if none was ever claimed."""
        return self.waste.share(self.waste.tokens)

    @property
    def prefix_hit_frac(self) -> float | None:
        """Share of the prompts' full blocks that were found cached; None if it was not known or asked."""
        if not self.n_queried_blocks or self.n_hit_blocks is None:
            return None
        return self.n_hit_blocks / self.n_queried_blocks

    @property
    def saved_byte_us(self) -> int:
        """Memory that sharing saves, in byte·microseconds: what would be taken on top if no block were shared."""
        return self.timeline.byte_us(self.timeline.saved_bytes)

    @property
    def sharing_saved_frac(self) -> float | None:
        """Memory saved by sharing as a share of what would be taken without; None if none was ever taken.

        The measure of the PagedAttention paper (arXiv 2309.06180, figure 15).
        """
        saved, taken = self.saved_byte_us, self.timeline.byte_us(self.timeline.alloc_bytes)
        return saved / (saved + taken) if taken else None

    @property
    def generated_tokens_per_s(self) -> float | None:
        """Estimate: tokens generated a second of the whole replay."""
        return self.n_generated_tokens / self.makespan_us * 1e6 if self.makespan_us else None

    @property
    def requests_per_s(self) -> float | None:
        """Estimate: requests completed a second of the whole replay."""
        return self.n_completed / self.makespan_us * 1e6 if self.makespan_us else None

    def first_token_s(self, percentile: float) -> float | None:
        """Estimate: a percentile of the wait for the first token, in seconds."""
        if not len(self.first_token_us):
            return None
        return float(np.percentile(self.first_token_us, percentile)) / 1e6

    def concurrency(self, n_points: int = 120) -> list[dict[str, float | int]]:
        """Requests over time, in equal spans: time-weighted mean and peak running, mean waiting; [] without steps."""
        timeline = self.timeline
        if not len(timeline):
            return []
        first, last = timeline.spans(n_points)
        running = timeline.mean(timeline.n_running, first, last)
        waiting = timeline.mean(timeline.n_waiting, first, last)
        peak = np.maximum.reduceat(timeline.n_running, first)
        return [
            {
                "end_s": float(timeline.end_us[end]) / 1e6,
                "mean_running": float(mean),
                "peak_running": int(most),
                "mean_waiting": float(wait),
            }
            for end, mean, most, wait in zip(last, running, peak, waiting, strict=True)
        ]

    def memory_over_time(self, n_points: int = 120) -> KvMemoryOverTime:
        """Memory over time, split into tokens and each kind of waste, in the spans of :meth:`concurrency`."""
        return memory_over_time(self.timeline, self.capacity_bytes, n_points)
