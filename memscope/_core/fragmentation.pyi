"""What is free, and what of it could go back, after every event."""

from typing import Annotated

import numpy
from numpy.typing import NDArray


NEVER: int = 0

WHOLE: int = 1

def follow(action: Annotated[NDArray[numpy.int8], dict(shape=(None,), order='C', device='cpu', writable=False)], address: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], size_bytes: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], segment_key: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], start_segments: tuple[Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)]], key_group: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], key_release_rule: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], blocks: tuple[Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)]], first_event: int) -> tuple[list[tuple[Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C')]]], int]:
    """
    Follow a device's fragmentation through its events. O(log n) each.

    ``action`` int8 (n,), ``address``, ``size_bytes`` int64 (n,): the events of one device, numbered from
    ``first_event`` on; ``segment_key`` int64 (n,): the range key of segment events. ``start_segments``: start,
    end and key, int64 (m,), of what exists before the first. ``key_group``, ``key_release_rule`` int64 (k,):
    the group of each key, and how its memory goes back: ``NEVER``, as a ``WHOLE``, or by handles of that many
    bytes. ``blocks``: alloc event, free event (−1 for none), address, block bytes and requested bytes, int64
    (rows,).

    Returns the step functions of each group, with the state before the first event (−1) in row 0: event,
    int32; reserved, active, requested, releasable and largest free bytes, int64 (rows,); segments, active and
    free blocks, int32 (rows,). Then the number of events that do not fit.
    """
