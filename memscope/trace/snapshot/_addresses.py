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
_BASES = ((0, _HALF), (_HALF >> 1, _HALF >> 1))
"""What may be taken off the addresses of the lower half and of the upper: the upper's top bit alone; or the same from
both, where they meet in the middle."""


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
    columns = (events.address[has_address], state.segments.address, state.blocks.address)
    if not any((column < 0).any() for column in columns):
        return events, state, ()
    addresses = np.concatenate(columns).view(np.uint64)
    sizes = np.concatenate((events.size_bytes[has_address], state.segments.size_bytes, state.blocks.size_bytes))
    bases = _bases_for(addresses, sizes)
    if bases is None:
        low, high = int(addresses.min()), int(addresses.max())
        raise InputFileError(path, f"its addresses, {low:#x} to {high:#x}, are further apart than those of any process")

    def moved(column: Int64Array) -> Int64Array:
        low, high = (np.uint64(base) for base in bases)
        unsigned = column.view(np.uint64)
        return np.where(column < 0, unsigned - high, unsigned - low).view(np.int64)

    state = replace(
        state,
        segments=replace(state.segments, address=moved(state.segments.address)),
        blocks=replace(state.blocks, address=moved(state.blocks.address)),
        total_mismatches=tuple(
            entry | {"address": int(moved(np.array([entry["address"]], np.int64))[0])}
            for entry in state.total_mismatches
        ),
    )
    events = replace(events, address=np.where(has_address, moved(events.address), events.address))
    return events, state, _as_recorded(addresses, bases)


def _bases_for(addresses: np.ndarray[tuple[int], np.dtype[np.uint64]], sizes: Int64Array) -> tuple[int, int] | None:
    """Bases of the two halves that keep the order, None if none of them does."""
    is_high: BoolArray = addresses >= np.uint64(_HALF)
    high_start, high_end = int(addresses[is_high].min()), int(addresses.max())
    low = addresses[~is_high]
    low_start = int(low.min()) if len(low) else high_start
    at_end = int(low.argmax()) if len(low) else 0
    low_end = int(low[at_end]) + max(int(sizes[~is_high][at_end]), 0) if len(low) else 0
    for low_base, high_base in _BASES:
        meets = low_base != high_base and high_start - high_base < low_end
        if not meets and low_start >= low_base and high_end - high_base < _HALF:
            return low_base, high_base
    return None


def _as_recorded(addresses: np.ndarray[tuple[int], np.dtype[np.uint64]], bases: tuple[int, int]) -> AddressBases:
    low_base, high_base = bases
    if low_base == high_base:
        return ((0, low_base),)
    is_high = addresses >= np.uint64(_HALF)
    first = int(addresses[is_high].min()) - high_base
    return ((first, high_base),) if (~is_high).any() else ((0, high_base),)
