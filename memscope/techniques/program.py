"""A recorded program as rows that a technique can change: what is asked for, when, how much, and what it is for.

A technique takes a :class:`Program` and returns another one. Rows are never taken out: one that is not made any more
has no begin. New ones come at the end. Times leave room between any two events, so that something can be put there;
:meth:`Program.settled` makes that room again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from typing_extensions import Self

from memscope._core import caching
from memscope.device.device import Device
from memscope.lifetimes.tables import NEVER
from memscope.replay.requests import Requests, requests_of
from memscope.techniques.passes import Pass, find_passes
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import BoolArray, Int8Array, Int32Array, Int64Array

GAP = 1 << 24
"""Times between two neighbouring events: more than are ever put there at once."""
BEFORE = -1
"""When that which stood before the first event was made."""


class Others(NamedTuple):
    """What a program asks beside allocations and frees; int64 (m,) each, in order of time.

    ``op`` is of :class:`memscope._core.caching.Op`; ``row`` the allocation, or the pool, that it is about;
    ``dropped_pool`` the pool whose owner is gone then, −1 for none.
    """

    time: Int64Array
    op: Int64Array
    row: Int64Array
    dropped_pool: Int64Array


@dataclass(frozen=True)
class Program:
    """What a program asks of its device's allocator.

    Attributes
    ----------
    device
        The recorded device that it was taken from: names and types of tensors stand there.
    begin, let_go, complete
        int64 (rows,): when each row is asked for, when the program lets go of it, and when its memory is free;
        ``NEVER`` for what does not come, ``BEFORE`` for what stood there already.
    size_bytes, pair
        int64 (rows,): requested bytes, and the pool and stream of ``requests.pairs``.
    category, owner_id, tensor_id
        int64 (rows,): as in :class:`~memscope.attribution.attribution.Attribution`.
    source
        int64 (rows,): the recorded allocation that a row is, or is a copy of; −1 for what a technique adds.
    others
        Everything else that it asks.
    passes
        Its training passes, in order, in times; empty where there are none.
    step_ends
        int64 (steps,): when each of its steps ends.
    requests
        What it was taken from.
    """

    device: Device
    begin: Int64Array
    let_go: Int64Array
    complete: Int64Array
    size_bytes: Int64Array
    pair: Int64Array
    category: Int64Array
    owner_id: Int64Array
    tensor_id: Int64Array
    source: Int64Array
    others: Others
    passes: tuple[Pass, ...]
    step_ends: Int64Array
    requests: Requests

    def asks_the_same(self, other: Program) -> bool:
        """Whether another program asks for the same memory at the same times."""
        mine, theirs = (
            (each.begin, each.let_go, each.complete, each.size_bytes, each.pair, *each.others) for each in (self, other)
        )
        return all(np.array_equal(one, another) for one, another in zip(mine, theirs, strict=True))

    @classmethod
    def of(cls, device: Device) -> Self:
        """The program of a recorded device, as it was."""
        requests, attribution = requests_of(device.lifetimes), device.attribution
        n_rows, n_table = len(requests.requested_bytes), len(device.allocations)
        op, row = requests.op, requests.row
        begin, let_go, complete = (np.full(n_rows, NEVER, np.int64) for _ in range(3))
        times = (np.arange(len(op), dtype=np.int64) + 1) * GAP
        begin[requests.start_rows] = BEFORE
        let_go[requests.start_rows[requests.start_pending]] = BEFORE
        for column, kinds in (
            (begin, (caching.Op.MALLOC,)),
            (let_go, (caching.Op.FREE, caching.Op.FREE_LATER)),
            (complete, (caching.Op.FREE, caching.Op.COMPLETE)),
        ):
            here = np.isin(op, [int(kind) for kind in kinds])
            column[row[here]] = times[here]
        is_other = np.isin(op, [int(caching.Op.TRY), int(caching.Op.EMPTY_CACHE), int(caching.Op.EMPTY_POOL)])
        at = np.flatnonzero(is_other | (requests.dropped_pool != NONE_ID))
        others = Others(
            times[at] + np.where(is_other[at], 0, 1),
            np.where(is_other[at], op[at], caching.Op.NONE).astype(np.int64),
            np.where(is_other[at], row[at], NONE_ID).astype(np.int64),
            requests.dropped_pool[at].astype(np.int64),
        )

        def padded(column: Int8Array | Int32Array, fill: int) -> Int64Array:
            return np.concatenate([column, np.full(n_rows - n_table, fill)]).astype(np.int64)

        def time_of(event: int) -> int:
            return (event - requests.first_event + 1) * GAP - 1

        ends = [] if device.steps is None else device.steps.end.tolist()
        return cls(
            device=device,
            begin=begin,
            let_go=let_go,
            complete=complete,
            size_bytes=np.array(requests.requested_bytes),
            pair=np.array(requests.pair),
            category=padded(attribution.category, Category.UNKNOWN),
            owner_id=padded(attribution.owner_id, NONE_ID),
            tensor_id=padded(attribution.tensor_id, NONE_ID),
            source=np.arange(n_rows, dtype=np.int64),
            others=others,
            passes=tuple(each.mapped(time_of) for each in find_passes(device)),
            step_ends=np.array([time_of(end) for end in ends], np.int64),
            requests=requests,
        )

    def __len__(self) -> int:
        return len(self.begin)

    @property
    def is_made(self) -> BoolArray:
        """Which rows there are at all: bool (rows,)."""
        made: BoolArray = self.begin != NEVER
        return made

    def of_category(self, *categories: Category) -> BoolArray:
        """Which rows are made, and of one of some categories: bool (rows,)."""
        found: BoolArray = self.is_made & np.isin(self.category, [int(category) for category in categories])
        return found

    def within(self, spans: tuple[tuple[int, int], ...]) -> BoolArray:
        """Which rows are asked for within one of some half-open spans of time: bool (rows,)."""
        found = np.zeros(len(self), np.bool_)
        for begin, end in spans:
            found |= (self.begin >= begin) & (self.begin < end)
        return found

    @cached_property
    def tensors(self) -> tuple[tuple[str, tuple[int, ...]] | None, ...]:
        """The type and shape of the tensor that fills each row, None where that was not seen."""
        strings = self.device.trace.strings
        read = {i: read_tensor(strings[i]) for i in set(self.tensor_id.tolist()) if i != NONE_ID}
        return tuple(read.get(i) for i in self.tensor_id.tolist())

    @cached_property
    def owners(self) -> tuple[str, ...]:
        """The owner's name of each row, an empty text where none is known."""
        strings = self.device.trace.strings
        return tuple("" if i == NONE_ID else strings[i] for i in self.owner_id.tolist())

    def without(self, rows: BoolArray) -> Self:
        """The same without some rows."""
        begin, let_go, complete = (np.where(rows, NEVER, c) for c in (self.begin, self.let_go, self.complete))
        return replace(self, begin=begin, let_go=let_go, complete=complete)

    def with_sizes(self, rows: BoolArray, size_bytes: Int64Array) -> Self:
        """The same with other sizes of some rows; ``size_bytes`` is by row, and a row of 0 bytes is not made."""
        changed = replace(self, size_bytes=np.where(rows, size_bytes, self.size_bytes))
        return changed.without(rows & (size_bytes <= 0))

    def begun_at(self, begin: Int64Array) -> Self:
        """The same with rows asked for at other times; ``begin`` is by row."""
        return replace(self, begin=begin)

    def freed_at(self, rows: BoolArray, time: Int64Array) -> Self:
        """The same with some rows let go of, and free, at other times; ``time`` is by row."""
        let_go = np.where(rows, time, self.let_go)
        return replace(self, let_go=let_go, complete=np.where(rows, time, self.complete))

    def with_rows(self, new: NewRows) -> Self:
        """The same with more rows at the end; one whose size is 0 is left out."""
        kept = new.size_bytes > 0
        n = int(np.count_nonzero(kept))
        if not n:
            return self
        of = np.where(new.like == NONE_ID, 0, new.like)[kept]
        is_copy = (new.like != NONE_ID)[kept]
        category = np.where(is_copy & (new.category == NONE_ID)[kept], self.category[of], new.category[kept])
        default_pair = int(np.bincount(self.pair[self.pair >= 0]).argmax()) if len(self.pair) else 0

        def joined(old: Int64Array, added: Int64Array) -> Int64Array:
            return np.concatenate([old, added]).astype(np.int64)

        return replace(
            self,
            begin=joined(self.begin, new.begin[kept]),
            let_go=joined(self.let_go, new.end[kept]),
            complete=joined(self.complete, new.end[kept]),
            size_bytes=joined(self.size_bytes, new.size_bytes[kept]),
            pair=joined(
                self.pair, np.where(is_copy, self.pair[of], default_pair) if new.pair is None else new.pair[kept]
            ),
            category=joined(self.category, category),
            owner_id=joined(self.owner_id, np.where(is_copy, self.owner_id[of], NONE_ID)),
            tensor_id=joined(self.tensor_id, np.where(is_copy, self.tensor_id[of], NONE_ID)),
            source=joined(self.source, np.where(is_copy, self.source[of], NONE_ID)),
        )

    def with_stream(self) -> tuple[Self, int]:
        """The same with one stream more, which has blocks of its own, and the pair that its rows have."""
        pairs = self.requests.pairs
        pool = pairs[int(np.bincount(self.pair[self.pair >= 0]).argmax())][0]
        more = [*pairs, (pool, max(stream for _, stream in pairs) + 1)]
        return replace(self, requests=replace(self.requests, pairs=more)), len(pairs)

    def with_others(self, time: Int64Array, op: caching.Op) -> Self:
        """The same with an act more at some times, which is about nothing in particular."""
        added = Others(time, *(np.full(len(time), value, np.int64) for value in (int(op), NONE_ID, NONE_ID)))
        joined = [np.concatenate(columns) for columns in zip(self.others, added, strict=True)]
        order = np.argsort(joined[0], kind="stable")
        return replace(self, others=Others(*(column[order] for column in joined)))

    def settled(self) -> Self:
        """The same, with room between any two times again."""
        spans = np.array([time for each in self.passes for time in each.times()], np.int64)
        columns = (self.begin, self.let_go, self.complete, self.others.time)
        times = np.unique(np.concatenate(columns))
        times = times[(times != NEVER) & (times != BEFORE)]

        def moved(column: Int64Array) -> Int64Array:
            rank = np.searchsorted(times, column)
            kept = (column == NEVER) | (column == BEFORE)
            return np.where(kept, column, (rank + 1) * GAP).astype(np.int64)

        def border(at: Int64Array) -> Int64Array:
            # It lies before the first event that is not earlier.
            return ((np.searchsorted(times, at) + 1) * GAP - 1).astype(np.int64)

        borders = dict(zip(spans.tolist(), border(spans).tolist(), strict=True))
        return replace(
            self,
            begin=moved(self.begin),
            let_go=moved(self.let_go),
            complete=moved(self.complete),
            others=self.others._replace(time=moved(self.others.time)),
            passes=tuple(each.mapped(borders.__getitem__) for each in self.passes),
            step_ends=border(self.step_ends),
        )

    def _acts(self) -> Others:
        """All that an allocator is asked for, in no order."""
        made = np.flatnonzero(self.is_made & (self.begin != BEFORE))
        at_once = self.let_go == self.complete
        freed = np.flatnonzero(self.is_made & (self.let_go != NEVER) & (self.let_go != BEFORE))
        later = freed[~at_once[freed]]
        completed = np.flatnonzero(self.is_made & (self.complete != NEVER) & ~at_once)
        freed_at_once = freed[at_once[freed]]
        groups = (
            # Of what happens at one time frees come first, so that nothing is counted twice.
            (self.complete[freed_at_once], caching.Op.FREE, freed_at_once),
            (self.let_go[later], caching.Op.FREE_LATER, later),
            (self.complete[completed], caching.Op.COMPLETE, completed),
            (self.begin[made], caching.Op.MALLOC, made),
        )
        time = np.concatenate([*(group[0] for group in groups), self.others.time])
        op = np.concatenate([*(np.full(len(g[2]), int(g[1])) for g in groups), self.others.op])
        row = np.concatenate([*(group[2] for group in groups), self.others.row])
        none = np.full(len(time) - len(self.others.time), NONE_ID, np.int64)
        return Others(time, op, row, np.concatenate([none, self.others.dropped_pool]))

    @property
    def event_times(self) -> Int64Array:
        """When something is asked for: int64, one for each request of :meth:`to_requests`, in order."""
        return np.sort(self._acts().time)

    def to_requests(self) -> Requests:
        """What an allocator is asked for, in order."""
        time, op, row, dropped = self._acts()
        order = np.argsort(time, kind="stable")
        old = self.requests
        started = np.flatnonzero(self.is_made & (self.begin == BEFORE))
        recorded = old.start_rows[np.isin(old.start_rows, started)]
        start_rows = np.concatenate([recorded, started[~np.isin(started, recorded)]])
        return replace(
            old,
            op=op[order].astype(np.int8),
            row=row[order].astype(np.int32),
            dropped_pool=dropped[order].astype(np.int32),
            requested_bytes=self.size_bytes,
            pair=self.pair,
            start_rows=start_rows,
            start_pending=self.let_go[start_rows] == BEFORE,
            is_modelled=True,
            fatal_event=None,
        )


class NewRows(NamedTuple):
    """Rows that a technique adds; int64 (m,) each.

    ``like`` is the row that one is a copy of, −1 for none; ``category`` is −1 for that row's own; ``pair`` is None for
    that row's own, or the most usual.
    """

    begin: Int64Array
    end: Int64Array
    size_bytes: Int64Array
    like: Int64Array
    category: Int64Array
    pair: Int64Array | None = None

    @classmethod
    def of(cls, rows: list[tuple[int, int, int, int]], category: Category) -> Self:
        """Rows given one by one: begin, end, bytes, and the row that each is like."""
        columns = np.array(rows, np.int64).reshape(-1, 4).T
        begin, end, size_bytes, like = columns
        return cls(begin, end, size_bytes, like, np.full(len(rows), int(category), np.int64))


def read_tensor(text: str) -> tuple[str, tuple[int, ...]] | None:
    """A tensor's type and shape from its text; None where it is no such text.

    >>> read_tensor("bfloat16 [4, 128]")
    ('bfloat16', (4, 128))
    """
    dtype, _, shape = text.partition(" ")
    if not (shape.startswith("[") and shape.endswith("]")):
        return None
    inner = shape[1:-1]
    try:
        return dtype, tuple(int(n) for n in inner.split(",")) if inner else ()
    except ValueError:
        return None
