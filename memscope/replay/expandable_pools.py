"""Which private pool an address reservation belonged to, where the recording does not say (before torch 2.12).

A pool has one reservation for each stream and size class, so reservations that exist side by side tell pools apart; a
recording shows where each begins and how far it is mapped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memscope._kernels.caching_rules import SMALL_BYTES, round_sizes
from memscope.lifetimes.placing import rules_of
from memscope.replay.recording import Recording, next_request
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.tables import Int64Array


@dataclass(slots=True)
class _Reservation:
    """One reservation while it has memory: where it is mapped, for whom, and its pool if the final state names it."""

    base: int
    end: int
    stream: int
    is_large: bool
    first_event: int
    mapped_bytes: int = 0
    last_event: int = NONE_ID
    pool: int = NONE_ID

    def overlaps(self, other: _Reservation, n_events: int) -> bool:
        """Whether both existed at some moment, with the same stream and size class."""
        ends = [n_events if r.last_event == NONE_ID else r.last_event for r in (self, other)]
        alike = (self.stream, self.is_large) == (other.stream, other.is_large)
        return alike and self.first_event < ends[1] and other.first_event < ends[0]


class ReservationPools:
    """The reservations of a recording, found from its maps and unmaps.

    Attributes
    ----------
    of_event
        int64 (n,): the reservation that an allocation lies in, −1 for other events.
    of_start_segment
        int64 (segments,): the reservation of each segment before the first event.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._all: list[_Reservation] = []
        self._live: list[int] = []
        rounded = round_sizes(recording.size_bytes, rules_of(recording.trace.metadata).roundup_divisions)
        self._is_large = rounded > SMALL_BYTES
        self.of_start_segment = self._start()
        self.of_event = np.full(recording.n_events, NONE_ID, np.int64)
        for position in np.flatnonzero(
            np.isin(recording.action, (Action.ALLOC, Action.SEGMENT_MAP, Action.SEGMENT_UNMAP))
        ).tolist():
            self._follow(position)
        final = recording.lifetimes.recorded_final_state().segments
        for address, pool in zip(final.address.tolist(), final.pool_id.tolist(), strict=True):
            found = self._holding(address)
            if found != NONE_ID:
                self._all[found].pool = pool

    def _start(self) -> Int64Array:
        segments = self._recording.start_state.segments
        of_segment = np.full(len(segments), NONE_ID, np.int64)
        for i in range(len(segments)):
            address, size = int(segments.address[i]), int(segments.size_bytes[i])
            stream = int(self._recording.trace.stream_handles[segments.stream_id[i]])
            of_segment[i] = self._add(address, size, stream, bool(segments.is_large[i]), NONE_ID)
        return of_segment

    def _add(self, address: int, size: int, stream: int, is_large: bool, position: int) -> int:
        self._all.append(_Reservation(address, address + size, stream, is_large, position, size))
        self._live.append(len(self._all) - 1)
        return self._live[-1]

    def _holding(self, address: int) -> int:
        """The live reservation whose mapped span an address lies in or follows, −1 for none."""
        below = [i for i in self._live if self._all[i].base <= address <= self._all[i].end]
        return max(below, key=lambda i: self._all[i].base, default=NONE_ID)

    def _follow(self, position: int) -> None:
        recording = self._recording
        address, size = int(recording.address[position]), int(recording.size_bytes[position])
        found = self._holding(address)
        if recording.action[position] == Action.ALLOC:
            self.of_event[position] = found
            return
        if recording.action[position] == Action.SEGMENT_UNMAP:
            if found == NONE_ID:
                return
            self._all[found].mapped_bytes -= size
            if self._all[found].mapped_bytes <= 0:
                self._all[found].last_event = position
                self._live.remove(found)
            return
        request = next_request(recording, position)
        stream, is_large = int(recording.stream[position]), bool(request != NONE_ID and self._is_large[request])
        reservation = self._all[found] if found != NONE_ID else None
        if reservation is None or (reservation.stream, reservation.is_large) != (stream, is_large):
            self._add(address, size, stream, is_large, position)
            return
        reservation.end = max(reservation.end, address + size)
        reservation.mapped_bytes += size

    def pools(self, *, prefers_default: bool) -> Int64Array:
        """A pool for each reservation: the known one; the default pool if nothing speaks against it; or a new one."""
        n_events = self._recording.n_events
        pools = np.array([reservation.pool for reservation in self._all], np.int64)
        next_pool = max(0, int(pools.max(initial=0))) + 1
        for i, reservation in enumerate(self._all):
            if pools[i] != NONE_ID:
                continue
            rivals = [k for k in np.flatnonzero(pools == 0) if self._all[k].overlaps(reservation, n_events)]
            if prefers_default and not rivals:
                pools[i] = 0
            else:
                pools[i] = next_pool
                next_pool += 1
        return pools

    @property
    def n_unnamed(self) -> int:
        """Reservations that were gone at the end, whose pool nothing names."""
        return sum(reservation.pool == NONE_ID for reservation in self._all)
