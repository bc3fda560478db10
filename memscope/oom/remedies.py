"""What would have let a failed request through: each change is tried in a replay before it is offered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from memscope._kernels import caching_replay as kernel
from memscope.advise.harmful import harmful_combinations
from memscope.advise.settings import grid, torch_release, variable_name
from memscope.errors import UsageError
from memscope.oom.blocks import proposals
from memscope.oom.causes import Situation
from memscope.oom.owners import Names
from memscope.oom.rerun import Change, Rerun
from memscope.oom.restart import Restart
from memscope.oom.verdict import Counterfactual, OomClass
from memscope.replay.config import CachingAllocatorConfig
from memscope.replay.requests import requests_of
from memscope.trace.categories import Category
from memscope.trace.tables import Int64Array
from memscope.units import format_bytes

_SCALES_WITH_BATCH = (Category.ACTIVATIONS, Category.TEMPORARIES, Category.INPUTS, Category.KV_CACHE)
"""What the batch model shrinks. Workspaces and unknown memory are left as they are, which errs on the safe side."""
_BATCH_STEPS = 100
"""Reductions are told in whole percent: a model of a batch is not finer."""
_OF_THE_MOMENT = ("blocks", "cap", "outside", "memory")
"""What can be tried from the recorded state, without what came before."""
_N_PROPOSALS = 6
_MAX_GRID_EVENTS = 300_000
"""Above this many events only single options are tried: each costs a replay of them all."""
_N_BLOCKS_SHOWN = 5

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


@dataclass(frozen=True, slots=True)
class Remedies:
    """What was found, what was not, and how well the failure itself was replayed.

    ``replay_error_bytes`` is replayed minus recorded reserved bytes at the failure; None if it could not be replayed.
    """

    found: tuple[Counterfactual, ...]
    not_found: tuple[str, ...]
    replay_error_bytes: int | None


def find_remedies(situation: Situation, names: Names, verdict: OomClass) -> Remedies:
    """Search the changes that fit a cause. Each costs a replay, linear in the events before the failed request.

    Where a replay of the recording does not come to the same failure, what concerns only that moment is tried from the
    recorded state, and the rest is left unchecked.
    """
    s = situation
    try:
        rerun = Rerun(s.lifetimes, s.request, s.limit, s.room, s.config)
        as_recorded = rerun.serve()
        if not as_recorded.is_served and as_recorded.failed_event is None:
            error_bytes = as_recorded.reserved_bytes - s.room.state.reserved_bytes
            search = _Search(s, names, rerun, error_bytes, rerun.is_modelled)
            return _all(search, _PREFERENCE[verdict], (), error_bytes)
        how = "already fails earlier" if as_recorded.failed_event is not None else "serves this request"
        why = f"a replay of the recording as it was {how}"
        restart = Restart(s.lifetimes, s.request, s.limit, s.room, s.config)
        if not restart.serve(Change()).is_served:
            search = _Search(s, names, restart, 0, False)
            kinds = tuple(kind for kind in _PREFERENCE[verdict] if kind in _OF_THE_MOMENT)
            return _all(search, kinds, (f"settings and batches were not checked: {why}",), None)
    except UsageError as error:
        why = str(error)
    return _unchecked(s, names, verdict, f"not checked by replay: {why}")


def _all(search: _Search, kinds: tuple[str, ...], not_found: tuple[str, ...], error_bytes: int | None) -> Remedies:
    results = [search.find(kind) for kind in kinds]
    found = tuple(result for result in results if isinstance(result, Counterfactual))
    return Remedies(found, (*not_found, *(text for text in results if isinstance(text, str) and text)), error_bytes)


def _unchecked(situation: Situation, names: Names, verdict: OomClass, why: str) -> Remedies:
    """Without a replay only the layout at the failure is known: which blocks lie in the way, and what cap refused."""
    search = _Search(situation, names, None, 0, False)
    candidates = {
        "cap": search.cap_change(),
        "blocks": search.first_proposal(),
        "frees-complete": _FREES,
        "no-pools": _POOLS,
    }
    wanted = (candidates.get(kind) for kind in _PREFERENCE[verdict])
    found = tuple(replace(change, checked="unchecked", note=why) for change in wanted if change is not None)
    return Remedies(found, (f"settings and batches: {why}",), None)


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


class _Search:
    """Tries one kind of change after another."""

    def __init__(
        self,
        situation: Situation,
        names: Names,
        rerun: Rerun | Restart | None,
        error_bytes: int,
        is_modelled: bool,
    ) -> None:
        self._is_modelled = is_modelled
        self._s = situation
        self._names = names
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
        release = torch_release(self._s.lifetimes.trace.metadata)
        for conf in self._confs(release):
            try:
                is_served = self._serves(Change(conf=conf))
            except UsageError:
                continue
            if is_served:
                checked, note = self._checked()
                line = f"{variable_name(release)}={conf}" if conf else f"unset {variable_name(release)}"
                return Counterfactual("setting", f"set {line}" if conf else line, checked, note, conf=conf, line=line)
        return "no setting of PyTorch's allocator that was tried serves it in a replay"

    def _confs(self, release: tuple[int, int] | None) -> Iterator[str]:
        """Settings in the order of what they ask of the user: a switch, one number, then more."""
        fraction, total = self._s.limit.memory_fraction, self._s.limit.total_bytes
        confs = grid(release, can_collect_garbage=fraction < 1 and total is not None)
        recorded = replace(self._s.config, memory_fraction=1.0)
        n_events = self._s.request.event - self._s.lifetimes.first_event
        most = 1 if n_events > _MAX_GRID_EVENTS else 3
        ordered = sorted(confs, key=lambda conf: (conf.count(":"), not conf.endswith(":True")))
        for conf in ordered:
            config = CachingAllocatorConfig.parse(conf)
            if conf.count(":") <= most and config != recorded and not harmful_combinations(config):
                yield conf

    def _sets(self) -> tuple[Int64Array, ...]:
        s = self._s
        lacking = s.request.driver_bytes - max(s.limit.low_bytes - s.room.state.reserved_bytes, 0)
        return proposals(s.room, s.request, s.config, lacking)

    def _blocks(self) -> Counterfactual | str:
        for rows in self._sets()[:_N_PROPOSALS]:
            if self._serves(Change(freed_rows=rows)):
                checked, note = self._checked()
                return replace(self._freed(rows), checked=checked, note=note)
        return "no small set of live blocks was found whose freeing serves it in a replay"

    def first_proposal(self) -> Counterfactual | None:
        """The smallest set of blocks in the way, not checked; None if there is none."""
        sets = self._sets()
        return self._freed(sets[0]) if sets else None

    def _freed(self, rows: Int64Array) -> Counterfactual:
        table = self._s.lifetimes.allocations
        size = int(table.block_bytes[rows].sum())
        largest = rows[np.argsort(-table.block_bytes[rows], kind="stable")]
        blocks = tuple(self._names.block(int(row)) for row in largest[:_N_BLOCKS_SHOWN])
        what = "this block" if len(rows) == 1 else f"these {len(rows):,} blocks"
        return Counterfactual(
            "blocks",
            f"{what} ({format_bytes(size)}) freed before the request",
            "unchecked",
            changed_bytes=size,
            blocks=blocks,
            n_blocks=len(rows),
        )

    def _batch(self) -> Counterfactual | str:
        rows = np.flatnonzero(np.isin(self._names.attribution.category, _SCALES_WITH_BATCH))
        table = self._s.lifetimes.allocations
        live = int(table.block_bytes[rows[table.active_at(self._s.request.event)[rows]]].sum())
        if not live:
            return "how much less batch would do cannot be told: no live memory is known to scale with it"

        def serves(n_steps: int) -> bool:
            return self._serves(Change(scale_frac=n_steps / _BATCH_STEPS, scaled_rows=rows))

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
            "activations, temporaries, inputs and KV cache scale with the batch; the failed request does not",
            changed_bytes=int(live * frac),
            reduction_frac=frac,
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
        op = requests_of(self._s.lifetimes).op
        if not np.any(op == kernel.OP_FREE_LATER):
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

    def _outside(self) -> Counterfactual | str:
        more = self._more()
        if not self._serves(Change(more_bytes=more + max(self._error_bytes, 0))):
            return "it fails in a replay even with that memory"
        checked, note = self._checked()
        return Counterfactual(
            "outside", f"{format_bytes(more)} less held outside PyTorch", checked, note, changed_bytes=more
        )

    def _memory(self) -> Counterfactual | str:
        more = self._more()
        if not self._serves(Change(more_bytes=more + max(self._error_bytes, 0))):
            return ""
        checked, note = self._checked()
        return Counterfactual(
            "memory",
            f"{format_bytes(more)} more device memory, for this one request",
            checked,
            note,
            changed_bytes=more,
        )
