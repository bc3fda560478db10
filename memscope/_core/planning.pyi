"""Placing allocations whose lifetimes are all known in advance."""

from typing import Annotated

import numpy
from numpy.typing import NDArray


def number_epochs(start: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], end: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], n_positions: int) -> tuple[Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], int]:
    """
    Number the runs of allocs that frees separate: the only moments at which usage can peak.

    ``start``, ``end`` int64 (rows,): positions in ``[0, n_positions)``; at one position, frees come before
    allocs. Two lifetimes overlap in positions exactly if they overlap in epochs. O(rows + positions).

    Returns the epochs in which each row starts and ends, int64 (rows,), and the number of epochs.
    """

def load_of_epochs(start: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], end: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], size: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], n_epochs: int) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]:
    """
    Sum of the sizes alive in each epoch: int64 (n_epochs,). Epochs and sizes of rows are int64 (rows,).
    """

def peak_load_of_rows(load: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], start: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], end: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]:
    """
    Highest load in each row's lifetime: int64 (rows,). ``load`` is int64 (epochs,). O(log epochs) a row.
    """

class OrderedPlacer:
    """
    Places the same rows in one order after another, each row at the lowest offset
    that is free in its whole lifetime.
    """

    def __init__(self, start: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], end: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], size: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], floor: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], stride: int) -> None:
        """
        Rows in order of their start, int64 (rows,) each; none is placed below its floor. The rows alive at every
        ``stride``-th row are remembered.
        """

    @property
    def n_remembered(self) -> int:
        """How many rows alive, over all strides."""

    def place(self, order: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], max_offset: int, max_work: int) -> tuple[Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], int, int, int]:
        """
        Place rows in an order, int64. For a row that lives with k others the cost is O(k), and O(log k) for each
        that lies below the place found.

        Returns offsets, int64 (rows,), −1 where not placed; the highest end; how many of the order were placed,
        less than all if one ended above ``max_offset`` or the work exceeded ``max_work``; and the work done.
        """

def place_in_time(start: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], end: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], size: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], by_end: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], is_best_fit: bool, max_work: int) -> tuple[Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], int, int]:
    """
    Put each row where an allocator that sees only the past would: first fit or best fit in one address range.
    Linear in the free ranges for each row.

    ``start``, ``end``, ``size`` int64 (rows,), in order of start; ``by_end`` int64 (rows,): the rows in order
    of their end. Returns offsets, int64 (rows,); the highest end, −1 if the work exceeded ``max_work``; and
    the work done, in rows looked at.
    """

def share_slots(start: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], end: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], by_end: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], size_class: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], n_classes: int) -> tuple[Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')], Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C')]]:
    """
    Give rows of one size class the fewest slots such that those in one slot never live together. O(rows).

    int64 (rows,) each, in order of start; ``by_end``: the rows in order of their end. Returns the slot of
    each row within its class, int64 (rows,), and the number of slots of each class, int64 (n_classes,).
    """

def find_overlap(start: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], end: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], low: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)], high: Annotated[NDArray[numpy.int64], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> tuple[int, int] | None:
    """
    The later and the earlier of two rows that are alive together, in ``[start, end)``, with addresses
    ``[low, high)`` in common; None if there are none. int64 (rows,) each. O(n log n).
    """
