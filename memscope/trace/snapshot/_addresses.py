"""Addresses of the upper half of the address space, moved to where an int64 orders them as the unsigned numbers are.

Everything behind the reader sorts addresses, subtracts them and asks where one lies, in Python and in the core, and −1
is its "none". An address with its top bit set would be negative in all of these places. So the reader alone deals with
it: such addresses are stored less a base, which keeps every order and every distance within a segment. The base is
part of the trace (:meth:`memscope.trace.metadata.TraceMetadata.real_address`), and what is shown is what the process
saw.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from memscope.errors import InputFileError
from memscope.trace.metadata import AddressBases
from memscope.trace.schema import Action
from memscope.trace.snapshot._events import SnapshotEvents
from memscope.trace.snapshot._pickle_reader import BoolArray, Int64Array
from memscope.trace.snapshot._state import SnapshotState

_HALF = 1 << 63
_BASES = ((0, 3 * (_HALF >> 1)), (0, _HALF), (_HALF >> 1, _HALF >> 1))
"""What may be taken off the addresses of the lower half and of the upper. From the upper alone: its two top bits, as in
the addresses that processors know, or its top bit; or the same from both, where they meet in the middle."""


def rebase_addresses(
    path: Path, events: SnapshotEvents, state: SnapshotState
) -> tuple[SnapshotEvents, SnapshotState, AddressBases]:
    """Events and state with every address in 0 … 2⁶³−1, and the bases that were taken off.

    Raises
    ------
    InputFileError
        If the addresses are so far apart that no base serves.
    """
    has_address = (events.action != Action.OOM) & (events.action != Action.SNAPSHOT)
    columns = (state.segments.address, state.blocks.address)
    if not ((events.address < 0) & has_address).any() and not any((column < 0).any() for column in columns):
        return events, state, ()  # as nearly always, without a copy of the columns
    n, m = len(events.address), len(state.segments.address)
    addresses = np.concatenate((events.address, *columns))
    sizes = np.concatenate((events.size_bytes, state.segments.size_bytes, state.blocks.size_bytes))
    are_addresses = np.ones(len(addresses), np.bool_)
    are_addresses[:n] = has_address
    stored, bases = rebased(path, addresses, sizes, are_addresses)
    if not bases:
        return events, state, ()
    of_segment = dict(zip(state.segments.address.tolist(), stored[n : n + m].tolist(), strict=True))
    state = replace(
        state,
        segments=replace(state.segments, address=stored[n : n + m]),
        blocks=replace(state.blocks, address=stored[n + m :]),
        total_mismatches=tuple(entry | {"address": of_segment[entry["address"]]} for entry in state.total_mismatches),
    )
    return replace(events, address=stored[:n]), state, bases


def rebased(
    path: Path, addresses: Int64Array, sizes: Int64Array, are_addresses: BoolArray
) -> tuple[Int64Array, AddressBases]:
    """Addresses, given as the bits of unsigned ones, in 0 … 2⁶³−1, and the bases taken off; the rest as it is.

    Raises
    ------
    InputFileError
        If they are so far apart that no base serves.
    """
    # Memory that reaches beyond the last address is none: it stays as it is, negative, and is found to be absurd.
    are_addresses = are_addresses & ~((addresses < 0) & (addresses + np.maximum(sizes, 1) > 0))
    if not ((addresses < 0) & are_addresses).any():
        return addresses, ()
    unsigned = addresses.view(np.uint64)
    bases = _bases_for(unsigned[are_addresses], sizes[are_addresses])
    if bases is None:
        low, high = int(unsigned[are_addresses].min()), int(unsigned[are_addresses].max())
        raise InputFileError(path, f"its addresses, {low:#x} to {high:#x}, are further apart than those of any process")
    low_base, high_base = (np.uint64(base) for base in bases)
    stored = np.where(addresses < 0, unsigned - high_base, unsigned - low_base).view(np.int64)
    return np.where(are_addresses, stored, addresses), _as_recorded(unsigned[are_addresses], bases)


def _bases_for(addresses: np.ndarray[tuple[int], np.dtype[np.uint64]], sizes: Int64Array) -> tuple[int, int] | None:
    """Bases of the two halves that keep the order, None if none of them does."""
    is_high: BoolArray = addresses >= np.uint64(_HALF)
    high_start, high_end = int(addresses[is_high].min()), _end_of(addresses, sizes)
    low = addresses[~is_high]
    low_start = int(low.min()) if len(low) else high_start
    low_end = _end_of(low, sizes[~is_high]) if len(low) else 0
    for low_base, high_base in _BASES:
        meets = low_base != high_base and high_start - high_base < low_end
        if high_start >= high_base and low_start >= low_base and not meets and high_end - high_base < _HALF:
            return low_base, high_base
    return None


def _end_of(addresses: np.ndarray[tuple[int], np.dtype[np.uint64]], sizes: Int64Array) -> int:
    """Where the memory at the last address ends."""
    last = addresses.max()
    return int(last) + max(int(sizes[addresses == last].max()), 0)


def _as_recorded(addresses: np.ndarray[tuple[int], np.dtype[np.uint64]], bases: tuple[int, int]) -> AddressBases:
    low_base, high_base = bases
    if low_base == high_base:
        return ((0, low_base),)
    is_high = addresses >= np.uint64(_HALF)
    first = int(addresses[is_high].min()) - high_base
    return ((first, high_base),) if (~is_high).any() else ((0, high_base),)
