"""A fragmentation series in a few numbers: means, the worst moments, and a coarse outline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from memscope.fragmentation.series import FragmentationSeries
from memscope.trace import schema
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array, Table

_OUTLINE_COLUMNS: schema.Columns = {
    name: np.dtype(np.int64)
    for name in ("event", "reserved_bytes", "active_bytes", "pinned_bytes", "releasable_bytes", "largest_request_bytes")
}
_HALF = 0.5
_LEAST_OF_WORST_FRAC = 0.1
"""A moment with less pinned memory than this share of the worst one's is not listed."""


@dataclass(frozen=True, slots=True)
class WorstMoment:
    """A moment with much free memory that cannot go back; the worst of its neighbourhood.

    ``largest_request_bytes`` is None where the device's memory is not known.
    """

    event: int
    reserved_bytes: int
    active_bytes: int
    pinned_bytes: int
    releasable_bytes: int
    largest_free_block_bytes: int
    n_free_blocks: int
    largest_request_bytes: int | None

    @property
    def utilisation_frac(self) -> float | None:
        """Active of reserved bytes."""
        return self.active_bytes / self.reserved_bytes if self.reserved_bytes else None


@dataclass(frozen=True, slots=True)
class Outline(Table):
    """The series in equal runs of events: the highest of each column in each run (of the largest request the lowest).

    ``event`` is the first of its run. ``largest_request_bytes`` is −1 where the device's memory is not known.
    """

    COLUMNS: ClassVar[schema.Columns] = _OUTLINE_COLUMNS
    event: Int64Array
    reserved_bytes: Int64Array
    active_bytes: Int64Array
    pinned_bytes: Int64Array
    releasable_bytes: Int64Array
    largest_request_bytes: Int64Array


@dataclass(frozen=True, slots=True)
class OverTime:
    """A device's fragmentation over its events.

    Attributes
    ----------
    mean_utilisation_by_event_frac, mean_utilisation_by_time_frac
        Mean of active over reserved bytes, each event (each nanosecond) counting once; None where nothing was ever
        reserved (where times are not those of a device).
    lowest_utilisation_frac, lowest_utilisation_event
        The lowest while at least half of the highest reserved bytes were reserved.
    peak_active_bytes, peak_reserved_bytes
        Each at its own moment; ``efficiency_frac`` is their quotient (STAlloc's memory efficiency, arXiv 2507.16274).
    smallest_largest_request_bytes, smallest_largest_request_event
        When the largest request that would have succeeded was smallest; None where the device's memory is not known.
    worst
        Moments with most free memory that cannot go back, worst first.
    """

    device: int
    mean_utilisation_by_event_frac: float | None
    mean_utilisation_by_time_frac: float | None
    lowest_utilisation_frac: float | None
    lowest_utilisation_event: int
    peak_active_bytes: int
    peak_reserved_bytes: int
    smallest_largest_request_bytes: int | None
    smallest_largest_request_event: int
    worst: tuple[WorstMoment, ...]

    @property
    def efficiency_frac(self) -> float | None:
        """Peak active over peak reserved bytes."""
        return self.peak_active_bytes / self.peak_reserved_bytes if self.peak_reserved_bytes else None


def summarise(
    series: FragmentationSeries, *, time_ns: Int64Array | None, available_bytes: int | None, n_worst: int = 5
) -> OverTime:
    """Sum a series up.

    Parameters
    ----------
    time_ns
        int64 (n,): times of the trace's events; None where they are not those of a device.
    available_bytes
        What the allocator can reserve at the most, None where that is not known.
    """
    table = series.overall
    frac, reserved = table.utilisation_frac, table.reserved_bytes
    peak_reserved_bytes = int(reserved.max())
    full = reserved >= _HALF * peak_reserved_bytes
    lowest = int(np.nanargmin(np.where(full, frac, np.inf))) if peak_reserved_bytes else NONE_ID
    del reserved, full
    largest = None if available_bytes is None else series.largest_request_bytes(available_bytes)
    tightest = None if largest is None else int(np.argmin(largest))
    return OverTime(
        device=series.device,
        mean_utilisation_by_event_frac=_mean(frac, series.n_events_of_rows()),
        mean_utilisation_by_time_frac=None if time_ns is None else _mean(frac, _durations(series, time_ns)),
        lowest_utilisation_frac=None if lowest == NONE_ID else float(frac[lowest]),
        lowest_utilisation_event=NONE_ID if lowest == NONE_ID else int(table.event[lowest]),
        peak_active_bytes=int(table.active_bytes.max()),
        peak_reserved_bytes=peak_reserved_bytes,
        smallest_largest_request_bytes=None if largest is None or tightest is None else int(largest[tightest]),
        smallest_largest_request_event=NONE_ID if tightest is None else int(table.event[tightest]),
        worst=_worst(series, largest, n_worst),
    )


def _mean(frac: np.ndarray, weight: Int64Array) -> float | None:
    counted = ~np.isnan(frac) & (weight > 0)
    total = int(weight[counted].sum())
    return float((frac[counted] * weight[counted]).sum() / total) if total else None


def _durations(series: FragmentationSeries, time_ns: Int64Array) -> Int64Array:
    """How long each row of ``overall`` lasts in time; 0 where a time is missing or goes back."""
    event = np.append(
        np.maximum(series.overall.event, series.first_event), max(series.end_event - 1, series.first_event)
    )
    if series.end_event == series.first_event:
        return np.zeros(len(series.overall), np.int64)
    times = time_ns[event]
    known = (times[:-1] != NONE_ID) & (times[1:] != NONE_ID)
    return np.where(known, np.maximum(np.diff(times), 0), 0).astype(np.int64)


def _worst(series: FragmentationSeries, largest: Int64Array | None, n_worst: int) -> tuple[WorstMoment, ...]:
    """Peaks of pinned memory; between two of them it falls below half of the one that was found first."""
    pinned = series.overall.free_in_split_segments_bytes
    highest = int(pinned.max())
    left, worst = pinned.copy(), []
    for _ in range(n_worst):
        row = int(np.argmax(left))
        size = int(left[row])
        if size <= 0 or size < _LEAST_OF_WORST_FRAC * highest:
            break
        worst.append(_moment(series, None if largest is None else int(largest[row]), row))
        lower = np.flatnonzero(pinned < _HALF * size)
        position = int(np.searchsorted(lower, row))
        begin = int(lower[position - 1]) + 1 if position else 0
        end = int(lower[position]) if position < len(lower) else len(pinned)
        left[begin:end] = 0
    return tuple(worst)


def _moment(series: FragmentationSeries, largest_request_bytes: int | None, row: int) -> WorstMoment:
    event = int(series.overall.event[row])
    found = series.at(event).overall
    return WorstMoment(
        event=event,
        reserved_bytes=found.reserved_bytes,
        active_bytes=found.active_bytes,
        pinned_bytes=found.free_in_split_segments_bytes,
        releasable_bytes=found.releasable_bytes,
        largest_free_block_bytes=found.largest_free_block_bytes,
        n_free_blocks=found.n_free_blocks,
        largest_request_bytes=largest_request_bytes,
    )


def outline(series: FragmentationSeries, n_runs: int, *, available_bytes: int | None = None) -> Outline:
    """Reduce a series to at most ``n_runs`` runs of events, keeping the extremes of each."""
    n_events = series.end_event - series.first_event
    n_runs = max(min(n_runs, n_events), 1)
    first = series.first_event + np.arange(n_runs, dtype=np.int64) * n_events // n_runs
    table = series.overall
    # A run takes part in the row that holds after its first event, and in all that begin later in it.
    begin = np.searchsorted(table.event, first, side="right") - 1
    end = np.append(np.searchsorted(table.event, first[1:], side="left"), len(table))
    pairs = np.stack([begin, np.maximum(end, begin + 1)], axis=1).reshape(-1)

    def highest(values: Int64Array) -> Int64Array:
        reduced: Int64Array = np.maximum.reduceat(np.append(values, np.iinfo(np.int64).min), pairs)[::2]
        return reduced

    if available_bytes is None:
        largest = np.full(n_runs, NONE_ID, np.int64)
    else:
        largest = -highest(-series.largest_request_bytes(available_bytes))
    return Outline(
        event=first,
        reserved_bytes=highest(table.reserved_bytes),
        active_bytes=highest(table.active_bytes),
        pinned_bytes=highest(table.free_in_split_segments_bytes),
        releasable_bytes=highest(table.releasable_bytes),
        largest_request_bytes=largest,
    )
