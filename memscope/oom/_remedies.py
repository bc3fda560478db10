"""What would have let a failed request through: each change is tried in a replay before it is offered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from memscope._core import caching
from memscope.advise.confs import harmful_combinations, variable_name
from memscope.advise.tune import confs_in_order
from memscope.attribution.steps import REPEATED_STEPS
from memscope.device.to_come import category_of_request
from memscope.errors import UsageError
from memscope.oom._causes import Situation
from memscope.oom._owners import block_of
from memscope.oom._request import FailedRequest, handle_bytes
from memscope.oom._rerun import Change, Reach, Rerun, Restart
from memscope.oom.room import Room
from memscope.oom.verdict import Counterfactual, OomClass, Remedies
from memscope.replay.config import CachingAllocatorConfig
from memscope.replay.requests import requests_of
from memscope.trace.categories import Category
from memscope.trace.schema import BlockState
from memscope.trace.tables import BoolArray, Int64Array
from memscope.units import format_bytes, format_count

_N_WINDOWS = 3
"""Proposals taken from windows of the request's own segments: rules of split limits refuse some."""
_MAX_BLOCKS = 32
"""More blocks than this are not a change that anybody would make."""


def proposals(
    room: Room, request: FailedRequest, config: CachingAllocatorConfig, lacking_bytes: int, kept_rows: Int64Array
) -> tuple[Int64Array, ...]:
    """Sets of rows to free, small ones, those of the fewest bytes first.

    Parameters
    ----------
    lacking_bytes
        What the driver would have had to have more, for what was asked of it.
    kept_rows
        Rows that a program cannot free.

    Returns
    -------
    tuple of int64 (n,)
        Rows of the device's allocations.
    """
    of_block = room.state.allocation_ids
    live = (room.state.blocks.state == BlockState.ACTIVE_ALLOCATED) & ~np.isin(of_block, kept_rows)
    found = [*_windows(room, request, live), *_segments(room, live, lacking_bytes)]
    found += _mapped(room, live, config, lacking_bytes)
    sizes = room.state.blocks.size_bytes
    sets = {tuple(sorted(of_block[chosen].tolist())): int(sizes[chosen].sum()) for chosen in found if len(chosen)}
    ordered = sorted(sets, key=lambda rows: (sets[rows], len(rows)))
    return tuple(np.array(rows, np.int64) for rows in ordered if min(rows) >= 0 and len(rows) <= _MAX_BLOCKS)


def _windows(room: Room, request: FailedRequest, live: BoolArray) -> Iterator[Int64Array]:
    """Neighbouring blocks of one segment that would together hold the request, by the bytes to be freed."""
    blocks = room.state.blocks
    own = room.is_own[blocks.segment_id]
    stuck = ~live & (blocks.state != BlockState.INACTIVE)
    n = len(blocks)
    if not n:
        return
    total = np.concatenate([[0], np.cumsum(blocks.size_bytes)])
    cost = np.concatenate([[0], np.cumsum(np.where(live, blocks.size_bytes, 0))])
    n_stuck = np.concatenate([[0], np.cumsum(stuck)])
    end = np.searchsorted(total, total[:-1] + request.rounded_bytes)
    inside = own & (end <= n)
    inside[inside] = blocks.segment_id[end[inside] - 1] == blocks.segment_id[inside]
    start = np.flatnonzero(inside)
    start = start[n_stuck[end[start]] == n_stuck[start]]
    order = np.argsort(cost[end[start]] - cost[start], kind="stable")
    for first in start[order[:_N_WINDOWS]].tolist():
        window = np.arange(first, end[first])
        yield window[live[window]]


def _segments(room: Room, live: BoolArray, lacking_bytes: int) -> Iterator[Int64Array]:
    """Whole segments to empty, so that a reclaim gives them back: the cheapest one, and the cheapest together."""
    state = room.state
    segments, blocks = state.segments, state.blocks
    n = len(segments)
    held = np.zeros(n, np.int64)
    np.add.at(held, blocks.segment_id[live], blocks.size_bytes[live])
    stuck = np.zeros(n, np.int64)
    np.add.at(stuck, blocks.segment_id[~live & (blocks.state != BlockState.INACTIVE)], 1)
    can_go = np.flatnonzero((segments.pool_id <= 0) & ~segments.is_expandable & (held > 0) & (stuck == 0))
    enough = can_go[segments.size_bytes[can_go] >= lacking_bytes]
    if len(enough):
        best = int(enough[np.argmin(held[enough])])
        yield np.flatnonzero(live & (blocks.segment_id == best))
    by_cost = can_go[np.argsort(held[can_go] / segments.size_bytes[can_go], kind="stable")]
    gained = np.cumsum(segments.size_bytes[by_cost])
    n_needed = int(np.searchsorted(gained, lacking_bytes)) + 1
    if n_needed <= len(by_cost):
        chosen = np.isin(blocks.segment_id, by_cost[:n_needed])
        yield np.flatnonzero(live & chosen)


def _mapped(room: Room, live: BoolArray, config: CachingAllocatorConfig, lacking_bytes: int) -> Iterator[Int64Array]:
    """Blocks of expandable segments whose handles would be unmapped: the smallest one, and the best together."""
    state = room.state
    segments, blocks = state.segments, state.blocks
    segment = blocks.segment_id
    rows = np.flatnonzero(live & segments.is_expandable[segment] & (segments.pool_id[segment] <= 0))
    if not len(rows):
        return
    free = blocks.state == BlockState.INACTIVE
    before = np.maximum(rows - 1, 0)
    after = np.minimum(rows + 1, len(blocks) - 1)
    joins_left = (before != rows) & free[before] & (segment[before] == segment[rows])
    joins_right = (after != rows) & free[after] & (segment[after] == segment[rows])
    begin = np.where(joins_left, blocks.address[before], blocks.address[rows]) - segments.address[segment[rows]]
    finish = blocks.address[rows] + blocks.size_bytes[rows] - segments.address[segment[rows]]
    finish = finish + np.where(joins_right, blocks.size_bytes[after], 0)
    large, small = handle_bytes(True, config), handle_bytes(False, config)
    unit = np.where(segments.is_large[segment[rows]], large, small)
    gain = np.maximum(finish // unit - -(-begin // unit), 0) * unit
    enough = rows[gain >= lacking_bytes]
    if len(enough):
        yield enough[[int(np.argmin(blocks.size_bytes[enough]))]]
    order = np.argsort(blocks.size_bytes[rows] / np.maximum(gain, 1), kind="stable")
    n_needed = int(np.searchsorted(np.cumsum(gain[order]), lacking_bytes)) + 1
    if n_needed <= len(order):
        yield rows[order[:n_needed]]


_SCALES_WITH_BATCH = (Category.ACTIVATIONS, Category.TEMPORARIES, Category.INPUTS, Category.KV_CACHE)
"""What the batch model shrinks. Workspaces and unknown memory are left as they are, which errs on the safe side."""
_BATCH_STEPS = 100
"""Reductions are told in whole percent: a model of a batch is not finer."""
_OF_THE_MOMENT = ("blocks", "cap", "outside", "memory")
"""What can be tried from the recorded state, without what came before."""
_N_PROPOSALS = 6
_N_BLOCKS_SHOWN = 5
_NEEDED = (Category.WEIGHTS, Category.OPTIMIZER_STATE)
"""What a program cannot free and go on."""
_GRANULE_BYTES = caching.SMALL_SEGMENT_BYTES
"""What memory that a device lacks is told in: the driver gives out no less at a time."""
_N_REACHES = 8
"""Settings that serve the request, and are then followed on to the recording's end."""

_PREFERENCE = {
    OomClass.EXTERNAL_FRAGMENTATION: ("setting", "blocks", "batch", "memory"),
    OomClass.STREAM_DELAYED_FREES: ("frees-complete", "setting", "blocks", "batch"),
    OomClass.PRIVATE_POOL: ("no-pools", "setting", "blocks", "batch"),
    OomClass.FRACTION_CAP: ("cap", "setting", "blocks", "batch"),
    OomClass.OTHER_PROCESS: ("outside", "blocks", "batch"),
    OomClass.NON_PYTORCH: ("outside", "blocks", "batch"),
    OomClass.CAPACITY: ("blocks", "batch", "memory"),
    OomClass.CANNOT_TELL: ("blocks", "batch", "memory"),
}
"""What is looked for, and which comes first: what costs the program least."""


def find_remedies(situation: Situation, verdict: OomClass) -> Remedies:
    """Search the changes that fit a cause. Each costs a replay, linear in the events before the failed request.

    Where a replay of the recording does not come to the same failure, what concerns only that moment is tried from the
    recorded state, and the rest is left unchecked.
    """
    s = situation
    if s.limit.refused_with_room and not s.limit.refused_by_cap:
        return Remedies((), ("nothing was searched: what refused the request is not known",))
    try:
        rerun = Rerun(s)
        as_recorded = rerun.serve()
        if not as_recorded.is_served and as_recorded.failed_event is None:
            error_bytes = as_recorded.reserved_bytes - s.room.state.reserved_bytes
            search = _Search(s, rerun, error_bytes, rerun.is_modelled)
            return _all(search, _PREFERENCE[verdict], (), error_bytes)
        how = "already fails earlier" if as_recorded.failed_event is not None else "serves this request"
        why = f"a replay of the recording as it was {how}"
        restart = Restart(s)
        if not restart.serve(Change()).is_served:
            search = _Search(s, restart, 0, False)
            kinds = tuple(kind for kind in _PREFERENCE[verdict] if kind in _OF_THE_MOMENT)
            return _all(search, kinds, (f"settings and batches were not checked: {why}",), None)
    except UsageError as error:
        why = str(error)
    return _unchecked(s, verdict, why)


def _all(search: _Search, kinds: tuple[str, ...], not_found: tuple[str, ...], error_bytes: int | None) -> Remedies:
    results = [search.find(kind) for kind in kinds]
    found = tuple(result for result in results if isinstance(result, Counterfactual))
    return Remedies(found, (*not_found, *(text for text in results if isinstance(text, str) and text)), error_bytes)


def _unchecked(situation: Situation, verdict: OomClass, why: str) -> Remedies:
    """Without a replay only the layout at the failure is known: which blocks lie in the way, and what cap refused."""
    search = _Search(situation, None, 0, False)
    candidates = {
        "cap": search.cap_change(),
        "blocks": search.first_proposal(),
        "frees-complete": _FREES,
        "no-pools": _POOLS,
    }
    wanted = (candidates.get(kind) for kind in _PREFERENCE[verdict])
    found = tuple(replace(change, checked="unchecked", note=why) for change in wanted if change is not None)
    return Remedies(found, (f"settings and batches were not checked: {why}",), None)


_FREES = Counterfactual(
    "frees-complete",
    "frees that do not wait for other streams (record_stream): keep tensors on one stream, or free them earlier",
    "modelled",
    "every free of the run completes when it is asked for",
)
_POOLS = Counterfactual(
    "no-pools",
    "the private pools' memory in the default pool: share one pool between graphs, or drop pools before this",
    "modelled",
    "every request of a private pool goes to the default pool",
)


def _scaling_words(category: Category) -> str:
    scaling = "activations, temporaries, inputs and KV cache scale with the batch"
    if category in _SCALES_WITH_BATCH:
        return f"{scaling}, and so does the failed request ({category.label.replace('_', ' ')})"
    if category == Category.UNKNOWN:
        return f"{scaling}; the failed request is taken not to: what it was for is not known"
    return f"{scaling}; the failed request does not ({category.label.replace('_', ' ')})"


def _spare_words(spare_bytes: int) -> str:
    return f"leaves {format_bytes(spare_bytes) if spare_bytes else 'nothing'} to spare"


class _Search:
    """Tries one kind of change after another."""

    def __init__(
        self,
        situation: Situation,
        rerun: Rerun | Restart | None,
        error_bytes: int,
        is_modelled: bool,
    ) -> None:
        self._is_modelled = is_modelled
        self._s = situation
        self._rerun = rerun
        self._error_bytes = error_bytes

    def find(self, kind: str) -> Counterfactual | str:
        """The change of a kind that lets the request through, or why there is none; empty where it does not apply."""
        search: dict[str, Callable[[], Counterfactual | str]] = {
            "setting": self._setting,
            "blocks": self._blocks,
            "batch": self._batch,
            "cap": self._cap,
            "frees-complete": self._frees,
            "no-pools": self._pools,
            "outside": self._outside,
            "memory": self._memory,
        }
        return search[kind]()

    def _serves(self, change: Change) -> bool:
        assert self._rerun is not None
        return self._rerun.serve(change).is_served

    def _checked(self) -> tuple[str, str]:
        """How far a replay's word goes, and why not further."""
        if not self._is_modelled and not self._error_bytes:
            return "exact", "from the recorded state" if isinstance(self._rerun, Restart) else ""
        if not self._error_bytes:
            return "modelled", "parts of the recording can be read in more than one way"
        error = format_bytes(abs(self._error_bytes))
        return "modelled", f"the replay is {error} of reserved memory off at the failure"

    def _setting(self) -> Counterfactual | str:
        """The first that comes to the recording's end; else the one that comes farthest of the first few."""
        farthest: tuple[int, str, Reach, int] | None = None
        n_tried = 0
        for conf in self._confs():
            assert isinstance(self._rerun, Rerun)
            try:
                outcome = self._rerun.serve(Change(conf=conf))
            except UsageError:
                continue
            if not outcome.is_served:
                continue
            reach = self._rerun.reach(conf)
            end = self._s.device.lifetimes.end_event if reach.failed_event is None else reach.failed_event
            if farthest is None or end > farthest[0]:
                farthest = end, conf, reach, max(self._s.limit.low_bytes - outcome.reserved_bytes, 0)
            n_tried += 1
            if reach.failed_event is None or n_tried == _N_REACHES:
                break
        if farthest is None:
            return "no setting of PyTorch's allocator that was tried serves it in a replay"
        _, conf, reach, spare_bytes = farthest
        checked, note = self._checked()
        variable = variable_name(self._s.device.trace.metadata)
        line = f"{variable}={conf}" if conf else f"unset {variable}"
        return Counterfactual(
            "setting",
            f"set {line}" if conf else line,
            checked,
            "; ".join(text for text in (note, _spare_words(spare_bytes), self._reach_words(reach)) if text),
            conf=conf,
            line=line,
            n_events_after=reach.n_events,
            fails_again_event=reach.failed_event,
            spare_bytes=spare_bytes,
        )

    def _reach_words(self, reach: Reach) -> str:
        if reach.failed_event is not None:
            n_later = format_count(reach.failed_event - self._s.request.event)
            event = f"event {format_count(reach.failed_event)}, {n_later} later"
            if reach.failed_event in self._s.device.oom_events:
                return f"it does not serve the request of {event}, which failed in the recording too"
            return f"with it memory runs out at {event}"
        if not reach.n_events:
            return "nothing follows in the recording: what would have been asked for next is not known"
        return f"with it all requests of the {format_count(reach.n_events)} events that follow are served"

    def _confs(self) -> Iterator[str]:
        """Settings in the order in which they are recommended everywhere, without the recorded ones."""
        fraction = self._s.limit.memory_fraction
        recorded = replace(self._s.config, memory_fraction=1.0)
        for conf in confs_in_order(self._s.device.lifetimes):
            config = CachingAllocatorConfig.parse(conf)
            if config != recorded and not harmful_combinations(config, fraction):
                yield conf

    def _sets(self) -> tuple[Int64Array, ...]:
        s = self._s
        lacking = s.request.driver_bytes - max(s.limit.low_bytes - s.room.state.reserved_bytes, 0)
        workspaces = np.flatnonzero(s.device.attribution.category == Category.WORKSPACE)
        return proposals(s.room, s.request, s.config, lacking, workspaces)

    def _blocks(self) -> Counterfactual | str:
        for rows in self._sets()[:_N_PROPOSALS]:
            if np.isin(self._s.device.attribution.category[rows], _NEEDED).any():
                continue
            if self._serves(Change(freed_rows=rows)):
                checked, note = self._checked()
                return replace(self._freed(rows), checked=checked, note=note)
        return "no small set of live blocks was found whose freeing serves it in a replay"

    def first_proposal(self) -> Counterfactual | None:
        """The smallest set of blocks in the way, not checked; None if there is none."""
        sets = self._sets()
        return self._freed(sets[0]) if sets else None

    def _freed(self, rows: Int64Array) -> Counterfactual:
        table = self._s.device.allocations
        size = int(table.block_bytes[rows].sum())
        largest = rows[np.argsort(-table.block_bytes[rows], kind="stable")]
        blocks = tuple(block_of(self._s.device, int(row)) for row in largest[:_N_BLOCKS_SHOWN])
        is_one = len(rows) == 1
        what, how = ("this block", "") if is_one else (f"these {len(rows):,} blocks", " together")
        return Counterfactual(
            "blocks",
            f"{what} ({format_bytes(size)}{how}) freed before the request",
            "unchecked",
            changed_bytes=size,
            blocks=blocks,
            n_blocks=len(rows),
        )

    def _batch(self) -> Counterfactual | str:
        rows = np.flatnonzero(np.isin(self._s.device.attribution.category, _SCALES_WITH_BATCH))
        table = self._s.device.allocations
        of_live = rows[table.active_at(self._s.request.event)[rows]]
        live = int(table.block_bytes[of_live].sum())
        category = category_of_request(self._s.device, self._s.request.event)
        request_scales = category in _SCALES_WITH_BATCH
        if not live and not request_scales:
            return "how much less batch would do cannot be told: no live memory is known to scale with it"
        assert isinstance(self._rerun, Rerun)
        scaled = np.append(rows, self._rerun.request_row) if request_scales else rows

        def serves(n_steps: int) -> bool:
            return self._serves(Change(scale_frac=n_steps / _BATCH_STEPS, scaled_rows=scaled))

        low, high = 0, _BATCH_STEPS - 1
        if not serves(high):
            return "no smaller batch would do, in the model that activations, inputs and caches scale with it"
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if serves(middle) else (middle, high)
        frac = high / _BATCH_STEPS
        return Counterfactual(
            "batch",
            f"a batch smaller by {high} %",
            "modelled",
            "; ".join(text for text in (_scaling_words(category), self._accumulated_words(of_live, live)) if text),
            changed_bytes=int((live + request_scales * self._s.request.rounded_bytes) * frac),
            reduction_frac=frac,
        )

    def _accumulated_words(self, rows: Int64Array, live_bytes: int) -> str:
        """What of the memory that a batch would shrink was there before this step: it may only grow more slowly."""
        steps = self._s.device.steps
        if steps is None or steps.source == REPEATED_STEPS:
            return ""  # what repeats may be the layers of one step
        table, first = self._s.device.allocations, self._s.device.lifetimes.first_event
        began = int(steps.end[steps.end <= self._s.request.event].max(initial=first))
        held = int(table.block_bytes[rows[table.alloc_event[rows] < began]].sum())
        if held <= live_bytes // 2:
            return ""
        return (
            f"{format_bytes(held)} of this memory is held from earlier steps: if it goes on growing, a smaller batch "
            "only delays the failure"
        )

    def cap_change(self) -> Counterfactual | None:
        """The cap that would have been enough, not checked; None without one."""
        limit = self._s.limit
        if not limit.refused_by_cap:
            return None
        wanted = self._s.room.state.reserved_bytes + self._s.request.segment_bytes
        text = f"a cap of at least {format_bytes(wanted)} on what PyTorch may reserve, or none"
        if limit.total_bytes is not None:
            text += f" (a memory fraction of {np.ceil(1000 * wanted / limit.total_bytes) / 1000:g})"
        return Counterfactual("cap", text, "unchecked", changed_bytes=self._s.request.segment_bytes)

    def _cap(self) -> Counterfactual | str:
        change = self.cap_change()
        wanted = self._s.room.state.reserved_bytes + self._s.request.segment_bytes
        if change is None:
            return ""
        if not self._serves(Change(cap_bytes=wanted + max(self._error_bytes, 0))):
            return "a higher cap does not serve it in a replay"
        checked, note = self._checked()
        return replace(change, checked=checked, note=note)

    def _frees(self) -> Counterfactual | str:
        op = requests_of(self._s.device.lifetimes).op
        if not np.any(op == caching.Op.FREE_LATER):
            return ""
        if not self._serves(Change(completes_frees=True)):
            return "it fails in a replay even where every free completes at once"
        return _FREES

    def _pools(self) -> Counterfactual | str:
        if not self._s.has_private_pools:
            return ""
        if not self._serves(Change(uses_pools=False)):
            return "it fails in a replay even without private pools"
        return replace(_POOLS, changed_bytes=self._s.room.free_bytes - self._s.room.usable_free_bytes)

    def _more(self) -> int:
        """What the driver would have had to have more."""
        s = self._s
        return max(s.request.driver_bytes - max(s.limit.low_bytes - s.room.state.reserved_bytes, 0), 0)

    def _least_more(self) -> int | None:
        """The least that the driver would have had to have more, from the start; None where no amount was found."""
        error_bytes = max(self._error_bytes, 0)
        n_granules = -(-self._more() // _GRANULE_BYTES)

        def serves(n: int) -> bool:
            return self._serves(Change(more_bytes=n * _GRANULE_BYTES + error_bytes))

        if not serves(n_granules):
            return None
        # With more memory earlier requests need fewer reclaims, so that less than what was lacking at the end may do.
        low, high = (0, n_granules) if isinstance(self._rerun, Rerun) else (n_granules - 1, n_granules)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if serves(middle) else (middle, high)
        return high * _GRANULE_BYTES

    def _outside(self) -> Counterfactual | str:
        more = self._least_more()
        if more is None:
            return "it fails in a replay even with that memory"
        checked, note = self._checked()
        text = f"{format_bytes(more)} less held outside PyTorch"
        return Counterfactual("outside", text, checked, note, changed_bytes=more)

    def _memory(self) -> Counterfactual | str:
        more = self._least_more()
        if more is None:
            return ""
        checked, note = self._checked()
        text = f"{format_bytes(more)} more device memory, for this one request"
        return Counterfactual("memory", text, checked, note, changed_bytes=more)
