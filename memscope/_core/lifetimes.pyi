"""
Allocs paired with their frees, segments over time, and the layout of blocks that they imply.
"""

from collections.abc import Sequence
import enum
from typing import Annotated

import numpy
from numpy.typing import NDArray


class Contradiction(enum.Enum):
    """Why an event cannot be."""

    ALLOCATED_TWICE = 0

    FREED_TWICE = 1

    FREE_SIZE_DIFFERS = 2

def pair_events(action: Annotated[NDArray[numpy.int8], dict(shape=(None,), order='C', device='cpu', writable=False)], address: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], size_bytes: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], *, allocs_recorded: bool, completions_recorded: bool) -> tuple[tuple[Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]], int, int, tuple[Contradiction, int] | None]:
    """
    Pair the allocs of one device with their frees, by address. O(n).

    ``action`` int8 (n,), ``address``, ``size_bytes`` int64 (n,): the device's events in order. Where allocs
    were not recorded, frees without one prove nothing; where completions were not, a request closes.

    Returns one row for each allocation seen: alloc, free-requested and free event (positions, −1 for none),
    address and requested bytes, int64 (rows,) each; the number of frees whose alloc was not seen; of allocs
    that found their address still open; the first contradiction and its event, None if there is none.
    """

def lay_out(action: Annotated[NDArray[numpy.int8], dict(shape=(None,), order='C', device='cpu', writable=False)], address: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], size_bytes: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], segment_key: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], start_segments: tuple[Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)]], allocations: tuple[Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)]], block_bytes: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], is_exact: Annotated[NDArray[numpy.bool_], dict(shape=(None,), order='C', device='cpu', writable=False)], *, roundup_divisions: Sequence[int], max_split_bytes: int, is_expandable: bool, key_never_splits: Annotated[NDArray[numpy.bool_], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> tuple[Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], int, int]:
    """
    Find the block of every allocation by following the free ranges forward. O(log n) for each event.

    ``action`` int8 (n,), ``address``, ``size_bytes`` int64 (n,): the events of one device; ``segment_key``
    int64 (n,): the range key of segment events. ``start_segments``: start, end and key, int64 (m,), of what
    exists before the first. ``allocations``: alloc event, free event (positions, −1 for none) and address,
    int64 (rows,). ``block_bytes`` int64 and ``is_exact`` bool (rows,): what is known of those that predate
    the events. ``key_never_splits`` bool (k,): by range key, whether its pool hands out whole blocks only.

    Returns ``block_bytes`` int64, ``is_exact`` uint8 and the key of its segment (−1 for none) int64 of each
    row; the number of events that do not fit the layout, and the first of them, −1 for none.
    """

def ranges_after(before: tuple[Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)]], action: Annotated[NDArray[numpy.int8], dict(shape=(None,), order='C', device='cpu', writable=False)], address: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], size_bytes: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], key: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> tuple[Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]]:
    """
    Segments, and mapped runs, after some segment events; those that do not fit are left out.

    ``before``: start, end and key, int64 (m,), of those before the first; ``action`` int8, the others int64
    (n,): the events. Returns start, end and key, int64, ascending.
    """

def ranges_before(after: tuple[Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)]], action: Annotated[NDArray[numpy.int8], dict(shape=(None,), order='C', device='cpu', writable=False)], address: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], size_bytes: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], key: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> tuple[tuple[Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]], int, int]:
    """
    Segments, and mapped runs, before some segment events, by undoing them; arguments as for
    :func:`ranges_after`. Returns start, end and key, int64, ascending; the number of events that could not
    be undone, and the first of them, −1 for none.
    """
