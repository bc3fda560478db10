"""What is inferred of memory from before a recording, beside what the whole recording knows of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from memscope.attribution.attribution import attribute
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.categories import Category, CategorySource
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array
from memscope.trace.trace import Trace
from tests.attribution.cut import without_first_events
from tests.attribution.from_stacks import N_CATEGORIES, without_backward_stacks, without_identity


@dataclass(frozen=True)
class Judged:
    """Bytes from before the recording whose owner is known, and what was inferred of them.

    Attributes
    ----------
    known_bytes
        Bytes whose owner is known.
    confusion
        By confidence: int64 (categories, categories), bytes by true category (rows) and by inferred category (columns).
    """

    known_bytes: int
    confusion: dict[float, Int64Array]

    def told_bytes(self, least: float = 0.0) -> int:
        """Bytes told with at least a confidence."""
        return sum(int(found.sum()) for confidence, found in self.confusion.items() if confidence >= least)

    def right_bytes(self, least: float = 0.0) -> int:
        """Bytes of them told right, block by block."""
        return sum(int(np.trace(found)) for confidence, found in self.confusion.items() if confidence >= least)

    def summed_bytes(self) -> int:
        """Bytes told right in sums: of equal blocks which is which does not matter to a ledger."""
        total = sum(self.confusion.values(), np.zeros((N_CATEGORIES, N_CATEGORIES), np.int64))
        return int(np.minimum(total.sum(axis=0), total.sum(axis=1)).sum())


def judge(trace: Trace, share: float) -> Judged:
    """Cut off the first events, take away all owners and the stacks that CUDA has not, and compare with the owners."""
    cut = without_first_events(trace, int(share * trace.n_events))
    true = attribute(DeviceLifetimes(cut, 0), ())
    lifetimes = DeviceLifetimes(without_identity(without_backward_stacks(cut)), 0)
    found, table = attribute(lifetimes), lifetimes.allocations
    known = (table.alloc_event == NONE_ID) & (true.category != Category.UNKNOWN)
    told = known & (found.source == CategorySource.INFERRED)
    confusion: dict[float, Int64Array] = {}
    for number, inference in enumerate(found.inferences):
        rows = np.flatnonzero(told & (found.inference_id == number))
        matrix = confusion.setdefault(inference.confidence, np.zeros((N_CATEGORIES, N_CATEGORIES), np.int64))
        np.add.at(matrix, (true.category[rows], found.category[rows]), table.requested_bytes[rows])
    return Judged(int(table.requested_bytes[known].sum()), confusion)
