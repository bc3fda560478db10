"""Caches that grow by copying: a tensor is made anew, longer, while the old one is still there."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass

import numpy as np

from memscope.attribution.attribution import Attribution
from memscope.kv_lens.parts import UNNAMED, CacheParts
from memscope.lifetimes.device import DeviceLifetimes
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array, frozen_array

NEVER = int(np.iinfo(np.int64).max)


@dataclass(frozen=True, slots=True)
class Growth:
    """Which allocation replaced which; every array is read-only int64.

    Attributes
    ----------
    old, new
        (m,): indices into the parts; ``new[i]`` was made while ``old[i]`` was still there, to hold what it held.
    chain
        (parts,): the first allocation of the chain of replacements that each belongs to, itself where there is none.
    """

    old: Int64Array
    new: Int64Array
    chain: Int64Array

    def __post_init__(self) -> None:
        for name in ("old", "new", "chain"):
            object.__setattr__(self, name, frozen_array(getattr(self, name), np.int64))

    def __len__(self) -> int:
        return len(self.old)


def let_go_events(lifetimes: DeviceLifetimes) -> Int64Array:
    """When the program let go of each allocation: int64 (rows,), the largest int64 for never."""
    table = lifetimes.allocations
    died = np.where(table.free_requested_event == NONE_ID, table.free_event, table.free_requested_event)
    return np.where(died == NONE_ID, NEVER, died)


def find_growth(lifetimes: DeviceLifetimes, attribution: Attribution, parts: CacheParts) -> Growth:
    """The replacements of a cache's allocations. Linear in them.

    Where names tell caches, layers and parts, what is made under the same name while the last one of it is there
    replaces that: longer, or as long where a window is full or beams are put in order. Where they do not, one name (or
    one stack, without a name) stands for many tensors, which are replaced in the order in which they were made, and
    only by larger ones.
    """
    table, died = lifetimes.allocations, let_go_events(lifetimes)
    owner = attribution.owner_id[parts.rows]
    has_part = np.array([part != UNNAMED for part in parts.parts], np.bool_)[parts.part_id]
    is_named = (parts.cache_id != NONE_ID) & (parts.layer != NONE_ID) & has_part
    stack = np.where(owner != NONE_ID, NONE_ID, table.stack_id[parts.rows])
    columns = (owner, stack, is_named, table.alloc_event[parts.rows], died[parts.rows])
    size = table.requested_bytes[parts.rows].tolist()
    waiting: dict[tuple[int, int], deque[tuple[int, int]]] = defaultdict(deque)
    old, new = [], []
    chain = list(range(len(parts)))
    for index, (name, stack_id, one_tensor, born, end) in enumerate(
        zip(*(column.tolist() for column in columns), strict=True)
    ):
        queue = waiting[name, stack_id]
        while queue and queue[0][1] < born:
            queue.popleft()
        if queue and (one_tensor or size[queue[0][0]] < size[index]):
            candidate, its_end = queue.popleft()
            if its_end != NEVER:
                old.append(candidate)
                new.append(index)
                chain[index] = chain[candidate]
        queue.append((index, end))
    return Growth(np.array(old, np.int64), np.array(new, np.int64), np.array(chain, np.int64))


def most_at_once(begin: Int64Array, end: Int64Array, size_bytes: Int64Array) -> tuple[int, int]:
    """Most bytes at once of things that are there from ``begin`` to before ``end``, and when; (0, −1) of none."""
    if not len(begin):
        return 0, NONE_ID
    event = np.concatenate([begin, end])
    order = np.lexsort((np.concatenate([np.ones(len(begin)), np.zeros(len(end))]), event))
    total = np.cumsum(np.concatenate([size_bytes, -size_bytes])[order])
    most = int(np.argmax(total))
    return int(total[most]), int(event[order[most]])
