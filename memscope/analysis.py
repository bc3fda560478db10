"""A trace with everything that can be computed from it, each result made once and on demand.

The command line, the reports and the dashboard all ask here, so that they cannot disagree.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from memscope.attribution.attribution import Attribution, attribute
from memscope.attribution.ledger import Coverage, Ledger, coverage_at, ledger_at, usage_by_category
from memscope.attribution.sites import module_of_owner, site_frames
from memscope.errors import ContradictionError, UsageError
from memscope.fragmentation.metrics import Fragmentation, measure_fragmentation
from memscope.fragmentation.pins import Pin, find_pins
from memscope.lifetimes.completeness import Completeness
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.lifetimes import Lifetimes
from memscope.lifetimes.state import AllocatorState
from memscope.trace.categories import Category, CategorySource
from memscope.trace.open import open_trace
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.tables import Int32Array, Int64Array
from memscope.trace.trace import Trace
from memscope.trace.validate import contradictions

if TYPE_CHECKING:
    import pandas as pd

NOT_RECORDED = "not recorded"
"""Name of the group of allocations whose owner or stack is not known."""


def load(path: str | Path) -> Analysis:
    """Open a ``.memscope`` file or a torch snapshot.

    Raises
    ------
    InputFileError
        If it cannot be read.
    """
    return Analysis(open_trace(path), path)


class Analysis:
    """A trace and its analyses.

    Parameters
    ----------
    trace
        The trace; it is not changed.
    path
        The file that it was opened from, for messages.
    """

    def __init__(self, trace: Trace, path: str | Path | None = None) -> None:
        self.trace = trace
        self.path = None if path is None else Path(path)
        self._attributions: dict[int, Attribution] = {}
        self._category_usage: dict[int, dict[Category, np.ndarray]] = {}

    def __repr__(self) -> str:
        return f"<Analysis of {self.trace!r}>"

    @cached_property
    def lifetimes(self) -> Lifetimes:
        """Allocations, usage and states of every device.

        Raises
        ------
        ContradictionError
            If the final segments and blocks contradict themselves, so that no state can be built.
        """
        if contradictions(self.trace):
            self.require_consistent()
        return Lifetimes(self.trace)

    @cached_property
    def contradictions(self) -> tuple[str, ...]:
        """Where the trace contradicts itself; empty for every sound recording."""
        found = contradictions(self.trace)
        return tuple(map(str, found)) if found else self.lifetimes.completeness.contradictions

    def require_consistent(self) -> None:
        """Refuse to go on with a trace that contradicts itself.

        Raises
        ------
        ContradictionError
            Naming the first contradiction, and how many more there are.
        """
        found = self.contradictions
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            raise ContradictionError(f"{self.name} contradicts itself: {found[0]}{more}")

    @property
    def name(self) -> str:
        """What to call the trace: the file that it was opened from."""
        return self.path.name if self.path is not None else self.trace.metadata.source_file or "the trace"

    @property
    def completeness(self) -> Completeness:
        """What the trace cannot say."""
        return self.lifetimes.completeness

    @property
    def is_dry_run(self) -> bool:
        """Whether the trace is a prediction rather than a recording of a device."""
        return self.trace.metadata.source == "dry-run"

    @property
    def is_emulated(self) -> bool:
        """Whether the device was an emulated one: PyTorch's own allocator, on no GPU."""
        return self.trace.metadata.is_emulated

    @property
    def is_exact(self) -> bool:
        """Whether this is a recording of a real device from which nothing is missing."""
        return self.completeness.is_complete and not self.is_dry_run and not self.is_emulated

    def trust_sentence(self) -> str:
        """How far the trace can be trusted, in one sentence; its warnings and notes say the rest."""
        if self.is_dry_run:
            return "A dry run: every tensor's memory is predicted, nothing was measured on a device."
        if self.completeness.is_complete and self.is_emulated:
            return "Every byte that PyTorch's allocator gave out is accounted for, on an emulated device, not on a GPU."
        if self.completeness.is_complete:
            return "Every byte since the first allocation is accounted for."
        if self.completeness.n_events_lost is None:
            return "Whether anything is missing at the start of this recording cannot be told."
        return "Parts of what the device did are missing from this recording."

    @property
    def devices(self) -> tuple[int, ...]:
        """Devices of the trace."""
        return self.trace.devices

    def device(self, device: int | None = None) -> DeviceLifetimes:
        """Lifetimes of one device, the first unless one is named.

        Raises
        ------
        UsageError
            If the trace has no such device, or none at all.
        """
        if device is None:
            if not self.devices:
                raise UsageError("this trace is empty: it has no segments and no events")
            device = self.devices[0]
        return self.lifetimes.device(device)

    def attribution(self, device: int) -> Attribution:
        """Category and owner of each allocation of a device."""
        if device not in self._attributions:
            self._attributions[device] = attribute(self.device(device))
        return self._attributions[device]

    def category_usage(self, device: int) -> dict[Category, np.ndarray]:
        """Requested bytes of each category after each event of a device: int64 (n + 1,)."""
        if device not in self._category_usage:
            self._category_usage[device] = usage_by_category(self.device(device), self.attribution(device))
        return self._category_usage[device]

    @cached_property
    def site_frame_of_stack(self) -> Int32Array:
        """The user's own frame of each stack: int32 (stacks,)."""
        return site_frames(self.trace)

    def peak(self, device: int | None = None) -> Moment:
        """The first moment at which a device's allocated bytes are at their highest."""
        lifetimes = self.device(device)
        return Moment(self, lifetimes, lifetimes.usage.peak_event)

    def peak_reserved(self, device: int | None = None) -> Moment:
        """The first moment of a device's highest reserved bytes; that of allocated bytes where they are not known."""
        lifetimes = self.device(device)
        event = lifetimes.usage.peak_reserved_event
        return Moment(self, lifetimes, lifetimes.usage.peak_event if event is None else event)

    def fragmentation_moment(self, device: int | None = None) -> Moment:
        """The moment that fragmentation is judged at: reserved bytes peak, or allocated where those never change."""
        reserved = self.device(device).usage.reserved_bytes
        never_changes = reserved is None or int(reserved.min()) == int(reserved.max())
        return self.peak(device) if never_changes else self.peak_reserved(device)

    def worst_fragmented(self, device: int) -> Moment | None:
        """The first moment with the most reserved bytes not in use; None where segments were not recorded."""
        lifetimes = self.device(device)
        usage = lifetimes.usage
        if usage.reserved_bytes is None:
            return None
        free = usage.reserved_bytes - usage.active_bytes
        return Moment(self, lifetimes, usage.event_at(int(np.argmax(free))))

    def at(self, event: int, device: int | None = None) -> Moment:
        """The moment after an event; −1 is before the first. Without a device, that of the event.

        Raises
        ------
        UsageError
            If the trace has no such event, or it is another device's.
        """
        n_events = self.trace.n_events
        if not NONE_ID <= event < n_events:
            raise UsageError(
                f"event {event} is not in this trace: it has events 0 to {n_events - 1}, or −1 for its start"
            )
        if device is None and event != NONE_ID:
            device = int(self.trace.device[event])
        lifetimes = self.device(device)
        if event != NONE_ID and not lifetimes.first_event <= event < lifetimes.end_event:
            raise UsageError(
                f"event {event} belongs to device {int(self.trace.device[event])}; those of device {lifetimes.device} "
                f"are {lifetimes.first_event} to {lifetimes.last_event}"
            )
        return Moment(self, lifetimes, event)

    def end(self, device: int | None = None) -> Moment:
        """The moment after a device's last event."""
        lifetimes = self.device(device)
        return Moment(self, lifetimes, lifetimes.last_event)

    def oom_events(self, device: int) -> Int64Array:
        """Positions of a device's ``oom`` events."""
        lifetimes = self.device(device)
        positions = np.flatnonzero(self.trace.action[lifetimes.first_event : lifetimes.end_event] == Action.OOM)
        return positions + lifetimes.first_event


class Moment:
    """One device after one event: who is live, what is free, and the ledger."""

    def __init__(self, analysis: Analysis, lifetimes: DeviceLifetimes, event: int) -> None:
        self.analysis = analysis
        self.lifetimes = lifetimes
        self.device = lifetimes.device
        self.event = event

    def __repr__(self) -> str:
        return f"<Moment after event {self.event:,} of device {self.device}>"

    def _series_at(self, name: str) -> int | None:
        usage = self.lifetimes.usage
        series = getattr(usage, name)
        return None if series is None else int(series[usage.index_of(self.event) if self.event != NONE_ID else 0])

    @property
    def allocated_bytes(self) -> int:
        """Bytes of blocks in use."""
        return self._series_at("allocated_bytes") or 0

    @property
    def active_bytes(self) -> int:
        """Bytes of blocks in use or pending."""
        return self._series_at("active_bytes") or 0

    @property
    def reserved_bytes(self) -> int | None:
        """Bytes of segments, None where they were not recorded."""
        return self._series_at("reserved_bytes")

    @property
    def time_ns(self) -> int | None:
        """When the event happened, None where that was not recorded."""
        if self.event == NONE_ID:
            return None
        time_ns = int(self.analysis.trace.time_ns[self.event])
        return None if time_ns == NONE_ID else time_ns

    @cached_property
    def state(self) -> AllocatorState:
        """The exact segments and blocks."""
        return self.lifetimes.state_at(self.event)

    @cached_property
    def ledger(self) -> Ledger:
        """The bytes, row by row."""
        return ledger_at(self.lifetimes, self.analysis.attribution(self.device), self.event)

    @cached_property
    def coverage(self) -> Coverage:
        """How much of what is in use has a category."""
        return coverage_at(self.lifetimes, self.analysis.attribution(self.device), self.event)

    @cached_property
    def fragmentation(self) -> Fragmentation:
        """Fragmentation of the state."""
        return measure_fragmentation(self.analysis.trace, self.state)

    def pins(self, limit: int = 20) -> tuple[Pin, ...]:
        """The segments that hold most free bytes hostage."""
        return find_pins(self.state, limit)

    @cached_property
    def rows(self) -> Int64Array:
        """Rows of the allocations in use or pending, largest block first."""
        table = self.lifetimes.allocations
        rows = np.flatnonzero(table.active_at(self.event))
        return rows[np.argsort(-table.block_bytes[rows], kind="stable")]

    def allocations(self) -> pd.DataFrame:
        """Every allocation in use or pending, largest first, one row each.

        Columns: ``address requested_bytes block_bytes category source owner site stream alloc_event is_pending``;
        ``owner`` and ``site`` are None where not known.
        """
        import pandas as pd

        trace, table = self.analysis.trace, self.lifetimes.allocations
        attribution, rows = self.analysis.attribution(self.device), self.rows
        return pd.DataFrame(
            {
                "address": table.address[rows],
                "requested_bytes": table.requested_bytes[rows],
                "block_bytes": table.block_bytes[rows],
                "category": [Category(c).label for c in attribution.category[rows]],
                "source": [CategorySource(s).label for s in attribution.source[rows]],
                "owner": [trace.string(int(i)) for i in attribution.owner_id[rows]],
                "site": self._sites(rows),
                "stream": [None if s < 0 else int(trace.stream_handles[s]) for s in table.stream_id[rows]],
                "alloc_event": table.alloc_event[rows],
                "is_pending": table.pending_at(self.event)[rows],
            }
        )

    def _sites(self, rows: Int64Array) -> list[str | None]:
        """The line of code of each row; each distinct stack is looked up once."""
        stack_ids = self.lifetimes.allocations.stack_id[rows]
        distinct, first, position = np.unique(stack_ids, return_index=True, return_inverse=True)
        texts = [self.site_of(int(rows[i])) for i in first[: len(distinct)]]
        return [texts[i] for i in position]

    def site_of(self, row: int) -> str | None:
        """The user's line of code that made an allocation, None where no stack was recorded."""
        stack_id = int(self.lifetimes.allocations.stack_id[row])
        if stack_id == NONE_ID:
            return None
        frame_id = int(self.analysis.site_frame_of_stack[stack_id])
        return None if frame_id == NONE_ID else str(self.analysis.trace.frame(frame_id))

    def by_category(self) -> pd.DataFrame:
        """Bytes and count in use by category, in stacking order, empty ones left out."""
        return self._grouped("category").sort_index(key=_category_order)

    def by_site(self) -> pd.DataFrame:
        """Bytes and count in use by the user's line of code, largest first."""
        return self._grouped("site").sort_values("requested_bytes", ascending=False, kind="stable")

    def by_module(self) -> pd.DataFrame:
        """Bytes and count in use by the module in the owner's name, largest first."""
        return self._grouped("module").sort_values("requested_bytes", ascending=False, kind="stable")

    def _grouped(self, key: str) -> pd.DataFrame:
        live = self.allocations()
        live = live[~live["is_pending"]]
        live = live.assign(owner=live["owner"].fillna(NOT_RECORDED), site=live["site"].fillna(NOT_RECORDED))
        if key == "module":
            live["module"] = [module_of_owner(owner) for owner in live["owner"]]
        grouped = live.groupby(key).agg(
            requested_bytes=("requested_bytes", "sum"),
            block_bytes=("block_bytes", "sum"),
            n_allocations=("address", "size"),
        )
        return grouped.astype("int64")


def _category_order(index: pd.Index[str]) -> pd.Index[int]:
    import pandas as pd

    return pd.Index([Category[label.upper()] for label in index])
