"""Placing allocations whose lifetimes are all known in advance."""

from typing import Annotated

import numpy
from numpy.typing import NDArray


def find_overlap(start: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], end: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], low: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], high: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> tuple[int, int] | None:
    """
    The later and the earlier of two rows that are alive together, in ``[start, end)``, with addresses
    ``[low, high)`` in common; None if there are none. int64 (rows,) each. O(n log n).
    """
