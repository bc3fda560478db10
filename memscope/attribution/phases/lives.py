"""How allocations live: when each was made and freed, beside the phases of the program and beside the others."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import numpy as np

from memscope.attribution.phases._joined import joined_rows
from memscope.attribution.phases.phases import Phase, PhaseRuns
from memscope.lifetimes.ages import lasting_rows
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.tables import NEVER
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import BoolArray, Int64Array

_N_LEAST_GROWN = 4
_N_LEAST_WITNESSED = 8
"""Allocations and frees of a recording, from which it says something of what was there before that it stays."""
_N_MOST_CALLS = 8
"""Forward passes, or generations, that a batch made once may see: of several models, or of a prompt again."""
_N_MOST_PASSES = 2
"""A batch is dropped when the next one replaces it: it sees its own backward pass and, at most, the next."""
_WORKING = (Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER, Phase.GENERATE)


class Life(Enum):
    """What a rule can ask about an allocation's life."""

    SHORT = "short"
    """Freed in the very phase that it was made in."""
    SAVED = "saved"
    """Made before a backward pass and freed within it: autograd had saved it."""
    KEPT = "kept"
    """Not freed in the recording."""
    TO_THE_END = "to the end"
    """Not freed, or freed outside of passes and steps after the last allocation, when the program ends."""
    SETUP = "setup"
    """Made before the first forward pass, backward pass, optimizer step or generation, and still there after it."""
    LASTING = "lasting"
    """Not freed, although its phase came again later."""
    FED = "fed"
    """Made outside of every phase, and alive when the forward pass or generation that follows begins; freed soon after,
    or made at a place where the same happens again."""
    ONCE = "once"
    """The only allocation of its size from its stack."""
    GROWING = "growing"
    """One of a series from one stack whose sizes grow by equal amounts, each alive until the next is there."""
    JOINED = "joined"
    """One of a series from one stack, each the one before with a piece more, which is dropped once the next is."""


class LifeTable:
    """Answers, for every allocation of a device, what :class:`Life` names; each answer is worked out once."""

    def __init__(self, lifetimes: DeviceLifetimes, runs: PhaseRuns) -> None:
        self._table = lifetimes.allocations
        self._runs = runs
        self._known: dict[Life, BoolArray] = {}
        self._died = lifetimes.died_event
        self._lifetimes = lifetimes
        self._work: dict[Life, Callable[[], BoolArray]] = {
            Life.SHORT: self._short,
            Life.SAVED: self._saved,
            Life.KEPT: self._kept,
            Life.TO_THE_END: self._to_the_end,
            Life.SETUP: self._setup,
            Life.LASTING: self._lasting,
            Life.FED: self._fed,
            Life.ONCE: self._once,
            Life.GROWING: self._growing,
            Life.JOINED: self._joined,
        }

    def rows(self, life: Life) -> BoolArray:
        """Which allocations live so: bool (rows,)."""
        if life not in self._known:
            self._known[life] = self._work[life]()
        return self._known[life]

    def _short(self) -> BoolArray:
        runs = self._runs
        short: BoolArray = (runs.row_run != NONE_ID) & (runs.row_phase > Phase.OUTSIDE) & (self._died != NEVER)
        short[short] = self._died[short] < runs.end[runs.row_run[short]]
        return short

    def _saved(self) -> BoolArray:
        saved: BoolArray = (self._died != NEVER) & (self._runs.row_phase != Phase.BACKWARD)
        saved[saved] = self._runs.phase_at(self._died[saved]) == Phase.BACKWARD
        return saved

    def _kept(self) -> BoolArray:
        kept: BoolArray = self._died == NEVER
        return kept

    @property
    def unseen(self) -> BoolArray:
        """What was there before a recording of next to nothing and still is: of its life nothing is known."""
        is_old = self._table.alloc_event == NONE_ID
        n_witnessed = np.count_nonzero(~is_old) + np.count_nonzero(self._died != NEVER)
        unseen: BoolArray = is_old & self.rows(Life.KEPT) & (n_witnessed < _N_LEAST_WITNESSED)
        return unseen

    def _to_the_end(self) -> BoolArray:
        last = self._kept() & ~self.unseen
        ending = np.flatnonzero(lasting_rows(self._lifetimes) & ~self._kept())
        has_no_stack = self._lifetimes.trace.stack_id[self._died[ending]] == NONE_ID
        last[ending] = has_no_stack | (self._runs.phase_at(self._died[ending]) <= Phase.OUTSIDE)
        return last

    def _setup(self) -> BoolArray:
        runs = self._runs
        working = np.flatnonzero(np.isin(runs.phase, _WORKING))
        if not len(working):
            return self._kept() & ~self.unseen
        setup: BoolArray = (self._table.alloc_event < runs.begin[working[0]]) & (self._died >= runs.end[working[0]])
        return setup

    def _lasting(self) -> BoolArray:
        """A later run of the same phase exists. An allocation from before the events has no phase to come again."""
        runs = self._runs
        last_run = {phase: int(np.flatnonzero(runs.phase == phase)[-1]) for phase in np.unique(runs.phase)}
        last = np.array([last_run.get(phase, NONE_ID) for phase in Phase], np.int64)
        lasting: BoolArray = self._kept() & (runs.row_run != NONE_ID)
        lasting &= last[runs.row_phase.astype(np.int64) - Phase.UNTOLD] > runs.row_run
        return lasting

    def _fed(self) -> BoolArray:
        runs, table = self._runs, self._table
        fed: BoolArray = (runs.row_run != NONE_ID) & (runs.row_phase == Phase.OUTSIDE)
        begin = self._next_pass()[runs.row_run[fed]]
        fed[fed] = (
            (begin != NEVER) & (self._died[fed] > begin) & (self._n_passes(fed, Phase.BACKWARD) <= _N_MOST_PASSES)
        )
        # What sees pass after pass is a sum over them, a state of them or kept of them, not a batch; a batch at the
        # recording's end may be there still.
        is_soon = self._died[fed] != NEVER
        is_soon &= self._n_passes(fed, Phase.FORWARD, Phase.GENERATE) <= _N_MOST_CALLS
        of_stack = table.stack_id[fed]
        n_made, n_soon = np.bincount(of_stack, minlength=1), np.bincount(of_stack, is_soon, minlength=1)
        fed[fed] = is_soon | (2 * n_soon[of_stack] >= n_made[of_stack])
        return fed

    def _n_passes(self, rows: BoolArray, *phases: Phase) -> Int64Array:
        """How many runs of some phases begin while each of some allocations lives: int64."""
        begin = np.sort(self._runs.begin[np.isin(self._runs.phase, phases)])
        n: Int64Array = np.searchsorted(begin, self._died[rows]) - np.searchsorted(begin, self._table.alloc_event[rows])
        return n

    def _next_pass(self) -> Int64Array:
        """Where the pass begins that each run leads to, the largest int64 for none: int64 (runs,).

        Gradients may be dropped in between, as at the top of a step; but what follows a backward pass and leads to the
        optimizer is not for the next pass.
        """
        runs = self._runs
        begin = np.full(len(runs.phase), NEVER, np.int64)
        previous = Phase.OUTSIDE
        upcoming = NEVER
        before = []
        for phase in runs.phase.tolist():
            before.append(previous)
            previous = previous if phase == Phase.OUTSIDE else Phase(phase)
        is_stepped = False
        for i in range(len(begin) - 1, -1, -1):
            phase = runs.phase[i]
            if phase == Phase.OUTSIDE:
                begin[i] = NEVER if is_stepped and before[i] == Phase.BACKWARD else upcoming
            elif phase == Phase.OPTIMIZER:
                is_stepped = True
            else:
                is_stepped = False
                upcoming = int(runs.begin[i]) if phase in (Phase.FORWARD, Phase.GENERATE) else NEVER
        return begin

    def _once(self) -> BoolArray:
        table = self._table
        order = np.lexsort((table.requested_bytes, table.stack_id))
        same = np.zeros(len(table) + 1, np.bool_)
        stack, size = table.stack_id[order], table.requested_bytes[order]
        same[1:-1] = (stack[1:] == stack[:-1]) & (size[1:] == size[:-1])
        once = np.empty(len(table), np.bool_)
        once[order] = ~(same[1:] | same[:-1])
        return once

    def _growing(self) -> BoolArray:
        """Stacks are followed one by one; those with fewer than four sizes are left out before."""
        table = self._table
        growing = np.zeros(len(table), np.bool_)
        rows = np.flatnonzero((table.stack_id != NONE_ID) & (table.alloc_event != NONE_ID))
        order = rows[np.argsort(table.stack_id[rows], kind="stable")]
        for of_stack in np.split(order, np.flatnonzero(np.diff(table.stack_id[order])) + 1):
            if len(of_stack) >= _N_LEAST_GROWN and self._is_series(of_stack):
                growing[of_stack] = True
        return growing

    def _joined(self) -> BoolArray:
        """Of what is made outside of passes."""
        is_outside = (self._runs.row_run != NONE_ID) & (self._runs.row_phase == Phase.OUTSIDE)
        return joined_rows(self._lifetimes, np.flatnonzero(is_outside))

    def _is_series(self, rows: Int64Array) -> bool:
        """Whether one stack's allocations, in their order, are a series of ``n`` that grow together."""
        size = self._table.requested_bytes[rows]
        sizes, counts = np.unique(size, return_counts=True)
        n = int(counts[0])
        if len(sizes) < _N_LEAST_GROWN or n * len(sizes) != len(size) or len(np.unique(np.diff(sizes))) != 1:
            return False
        if not np.array_equal(size, np.repeat(sizes, n)):
            return False
        return bool((self._died[rows[:-n]] > self._table.alloc_event[rows[n:]]).all())
