"""One device of a trace: every measured fact of it, and its moments.

Whatever two surfaces say of a device is computed here or below, once. What is thought of it (findings, a verdict on a
failed request) stands above: see :mod:`memscope.analysis`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from memscope.attribution import grouping as groups
from memscope.attribution.attribution import Attribution, attribute
from memscope.attribution.call_tree import CallTree, ModuleTree, call_tree, module_tree
from memscope.attribution.grouping import NOT_RECORDED, Group, Grouping, groups_frame, largest_first, sum_groups
from memscope.attribution.ledger import Coverage, Ledger, coverage_at, ledger_at, usage_by_category
from memscope.attribution.rule import Rule
from memscope.attribution.rule_table import ALL_RULES
from memscope.attribution.steps import find_steps
from memscope.device.limits import Limits, available_bytes, recorded_limits
from memscope.device.recording import RecordedTrace
from memscope.errors import UsageError, needed_for
from memscope.fragmentation.metrics import Fragmentation, measure_fragmentation
from memscope.fragmentation.over_time import Outline, OverTime, outline, summarise
from memscope.fragmentation.pins import Holder, Pin, find_pins, holders_of
from memscope.fragmentation.series import FragmentationSeries, fragmentation_series
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.rules import large_segment_bytes
from memscope.lifetimes.state import AllocatorState
from memscope.lifetimes.steps import Steps
from memscope.lifetimes.tables import AllocationTable, UsageSeries
from memscope.trace.categories import Category, CategorySource
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array
from memscope.trace.trace import Trace

if TYPE_CHECKING:
    import pandas as pd


class Device:
    """One device of a trace.

    Parameters
    ----------
    recording
        The trace that it is in.
    lifetimes
        Its allocations, usage and states.
    rules
        What tells the categories of allocations without identity, in order.
    """

    def __init__(self, recording: RecordedTrace, lifetimes: DeviceLifetimes, rules: Sequence[Rule] = ALL_RULES) -> None:
        self.recording = recording
        self.lifetimes = lifetimes
        self.rules = tuple(rules)

    def __repr__(self) -> str:
        return f"<Device {self.index} of {self.trace!r}>"

    @property
    def index(self) -> int:
        """Its number, as PyTorch counts devices; what only names a device holds this as ``device``, as traces do."""
        return self.lifetimes.device

    @property
    def trace(self) -> Trace:
        """The trace, with the events of all devices."""
        return self.recording.trace

    @property
    def n_events(self) -> int:
        """Number of its events."""
        return self.lifetimes.n_events

    @property
    def allocations(self) -> AllocationTable:
        """Its allocations, one row each."""
        return self.lifetimes.allocations

    @property
    def usage(self) -> UsageSeries:
        """Allocated, active, requested and reserved bytes after each event."""
        return self.lifetimes.usage

    @property
    def died_event(self) -> Int64Array:
        """When the program let go of each allocation: int64 (rows,), the largest int64 for never."""
        return self.lifetimes.died_event

    @property
    def oom_events(self) -> Int64Array:
        """Positions of its ``oom`` events."""
        return self.lifetimes.oom_events

    @cached_property
    def has_times(self) -> bool:
        """Whether its events carry times that go on, so that something can be drawn over time."""
        times = self.trace.time_ns[self.lifetimes.first_event : self.lifetimes.end_event]
        return len(times) > 1 and bool(np.all(times != NONE_ID)) and int(times.max()) > int(times.min())

    @property
    def name(self) -> str | None:
        """What the GPU calls itself, None where that was not recorded."""
        return self.trace.metadata.device_names.get(self.index)

    @property
    def total_bytes(self) -> int | None:
        """Its memory, None where that was not recorded."""
        return self.trace.metadata.device_total_bytes.get(self.index)

    @property
    def headroom_bytes(self) -> int | None:
        """What PyTorch could still have reserved when it had most, None where either is not known.

        What others hold of the device, and what a memory fraction leaves out, is not counted.
        """
        highest = self.peak_reserved().reserved_bytes
        return None if self.available_bytes is None or highest is None else max(self.available_bytes - highest, 0)

    @cached_property
    def limits(self) -> Limits:
        """Its memory and what others hold of it, as far as the recording tells."""
        return recorded_limits(self.lifetimes)

    @property
    def available_bytes(self) -> int | None:
        """What its allocator can reserve at the most, None where that is not known."""
        return available_bytes(self.lifetimes)

    @cached_property
    def attribution(self) -> Attribution:
        """Category and owner of each allocation."""
        return attribute(self.lifetimes, self.rules)

    @cached_property
    def category_usage(self) -> dict[Category, Int64Array]:
        """Requested bytes of each category after each event: int64 (n + 1,)."""
        return usage_by_category(self.lifetimes, self.attribution)

    @cached_property
    def steps(self) -> Steps | None:
        """Its steps, by the program's marks or else found from its phases; None where nothing tells them."""
        return find_steps(self.lifetimes)

    @cached_property
    def fragmentation_series(self) -> FragmentationSeries | None:
        """Its fragmentation after every event; None where the segments were not recorded."""
        return fragmentation_series(self.lifetimes)

    @cached_property
    def fragmentation_over_time(self) -> OverTime | None:
        """Its fragmentation over its events in a few numbers; None where it was not measured."""
        series = self.fragmentation_series
        if series is None:
            return None
        has_times = self.recording.has_device_times and np.any(self.trace.time_ns != NONE_ID)
        times = self.trace.time_ns if has_times else None
        return summarise(series, time_ns=times, available_bytes=self.available_bytes)

    def fragmentation_outline(self, n_runs: int) -> Outline | None:
        """Its fragmentation in at most so many runs of events; None where it was not measured."""
        series = self.fragmentation_series
        return None if series is None else outline(series, n_runs, available_bytes=self.available_bytes)

    def category_of(self, row: int) -> Category:
        """The category of an allocation."""
        return Category(int(self.attribution.category[row]))

    def owner_of(self, row: int) -> str | None:
        """The owner's name of an allocation, None where none was seen."""
        return self.trace.shown_string(int(self.attribution.owner_id[row]))

    def site_of(self, row: int) -> str | None:
        """The user's line of code that made an allocation, None where no stack was recorded."""
        return self.recording.sites.of_stack(int(self.allocations.stack_id[row]))

    def sites_of(self, rows: Int64Array) -> list[str | None]:
        """The user's line of code of each of some allocations; each distinct stack is looked up once."""
        return self.recording.sites.of_stacks(self.allocations.stack_id[rows])

    def site_frames_of(self, rows: Int64Array) -> Int64Array:
        """The frame of the user's line of code of each of some allocations, −1 where no stack was recorded: int64."""
        return self.recording.sites.frames_of(self.allocations.stack_id[rows])

    def peak(self) -> Moment:
        """The first moment at which allocated bytes are at their highest."""
        return Moment(self, self.usage.peak_event)

    def peak_reserved(self) -> Moment:
        """The first moment of the highest reserved bytes; that of allocated bytes where they are not known."""
        event = self.usage.peak_reserved_event
        return self.peak() if event is None else Moment(self, event)

    def fragmentation_moment(self) -> Moment:
        """The moment that fragmentation is judged at.

        That is where a request failed and ended the run; else where reserved bytes peak, or allocated ones where those
        never change.
        """
        if self.lifetimes.fatal_oom_event is not None:
            return Moment(self, self.lifetimes.fatal_oom_event)
        reserved = self.usage.reserved_bytes
        never_changes = reserved is None or int(reserved.min()) == int(reserved.max())
        return self.peak() if never_changes else self.peak_reserved()

    def worst_fragmented(self) -> Moment | None:
        """The first moment with the most reserved bytes not in use; None where segments were not recorded."""
        usage = self.usage
        if usage.reserved_bytes is None:
            return None
        return Moment(self, usage.event_at(int(np.argmax(usage.reserved_bytes - usage.active_bytes))))

    def at(self, event: int) -> Moment:
        """The moment after an event; −1 is before the first.

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
        lifetimes = self.lifetimes
        if event != NONE_ID and not lifetimes.first_event <= event < lifetimes.end_event:
            raise UsageError(
                f"event {event} belongs to device {int(self.trace.device[event])}; those of device {self.index} "
                f"are {lifetimes.first_event} to {lifetimes.last_event}"
            )
        return Moment(self, event)

    def end(self) -> Moment:
        """The moment after the last event."""
        return Moment(self, self.lifetimes.last_event)


class Moment:
    """One device after one event: who is live, what is free, and the ledger."""

    def __init__(self, device: Device, event: int) -> None:
        self.device = device
        self.event = event

    def __repr__(self) -> str:
        return f"<Moment after event {self.event:,} of device {self.device.index}>"

    @property
    def lifetimes(self) -> DeviceLifetimes:
        """The device's allocations, usage and states."""
        return self.device.lifetimes

    def _series_at(self, name: str) -> int | None:
        usage = self.device.usage
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
        time_ns = int(self.device.trace.time_ns[self.event])
        return None if time_ns == NONE_ID else time_ns

    @cached_property
    def state(self) -> AllocatorState:
        """The exact segments and blocks."""
        return self.lifetimes.state_at(self.event)

    @cached_property
    def ledger(self) -> Ledger:
        """The bytes, row by row."""
        return ledger_at(self.lifetimes, self.device.attribution, self.event)

    @cached_property
    def coverage(self) -> Coverage:
        """How much of what is in use has a category."""
        return coverage_at(self.lifetimes, self.device.attribution, self.event)

    @cached_property
    def fragmentation(self) -> Fragmentation:
        """Fragmentation of the state."""
        return measure_fragmentation(self.device.trace, self.state)

    def pins(self, limit: int = 20) -> tuple[Pin, ...]:
        """The sets of blocks that hold most free bytes hostage."""
        handle = large_segment_bytes(self.device.trace.metadata.alloc_conf)
        return find_pins(self.state, limit, large_handle_bytes=handle)

    def holders(self, pin: Pin, limit: int = 5) -> tuple[Holder, ...]:
        """Who holds the largest blocks of a pin, how old they are, and the steps that they were born in."""
        rows, steps = pin.allocation_ids[:limit], self.device.steps
        return holders_of(self.lifetimes, self.device.attribution, rows, self.event, steps)

    @cached_property
    def rows(self) -> Int64Array:
        """Rows of the allocations in use or pending, largest block first."""
        table = self.device.allocations
        rows = np.flatnonzero(table.active_at(self.event))
        return rows[np.argsort(-table.block_bytes[rows], kind="stable")]

    def allocations(self) -> pd.DataFrame:
        """Every allocation in use or pending, largest first, one row each.

        Columns: ``address requested_bytes block_bytes category source confidence owner tensor site stream alloc_event
        is_pending``; ``owner``, ``tensor`` and ``site`` are None where not known, ``confidence`` is NaN where nothing
        was inferred.
        """
        with needed_for("a DataFrame", "pandas"):
            import pandas as pd

        trace, table = self.device.trace, self.device.allocations
        attribution, rows = self.device.attribution, self.rows
        return pd.DataFrame(
            {
                "address": trace.real_addresses(table.address[rows]),
                "requested_bytes": table.requested_bytes[rows],
                "block_bytes": table.block_bytes[rows],
                "category": [Category(c).label for c in attribution.category[rows]],
                "source": [CategorySource(s).label for s in attribution.source[rows]],
                "confidence": attribution.confidence[rows],
                "owner": [trace.shown_string(int(i)) for i in attribution.owner_id[rows]],
                "tensor": [trace.shown_string(int(i)) for i in attribution.tensor_id[rows]],
                "site": self.device.sites_of(rows),
                "stream": [None if s < 0 else int(trace.stream_handles[s]) for s in table.stream_id[rows]],
                "alloc_event": table.alloc_event[rows],
                "is_pending": table.pending_at(self.event)[rows],
            }
        )

    def by_category(self) -> pd.DataFrame:
        """Bytes and count in use by category, in stacking order, empty ones left out."""
        return self.by(Grouping.CATEGORY)

    def by_site(self) -> pd.DataFrame:
        """Bytes and count in use by the user's line of code, largest first."""
        return self.by(Grouping.SITE)

    def by_module(self) -> pd.DataFrame:
        """Bytes and count in use by the module in the owner's name, largest first."""
        return self.by(Grouping.MODULE)

    def by(self, grouping: Grouping | str) -> pd.DataFrame:
        """Bytes and count in use by category, site, module, kind of module, step, tag or rule, largest first.

        Columns: ``requested_bytes block_bytes n_allocations``, all int64. Categories come in stacking order. A step is
        the one that the allocation was made in.

        Raises
        ------
        UsageError
            If the steps of the program cannot be told.
        """
        return groups_frame(self.grouped(grouping), Grouping(grouping).value)

    def grouped(self, grouping: Grouping | str) -> tuple[Group, ...]:
        """The rows of :meth:`by`, without pandas."""
        grouping, rows = Grouping(grouping), self.in_use_rows
        found = sum_groups(self.device.allocations, rows, self._labels(grouping, rows))
        if grouping is Grouping.CATEGORY:
            return tuple(sorted(found, key=lambda group: Category[group.label.upper()]))
        return largest_first(found)

    def dtypes(self, grouping: Grouping | str) -> dict[str, tuple[str, ...]]:
        """The types of the tensors in each group of :meth:`grouped`, as far as they were seen: sorted, by label."""
        grouping, rows = Grouping(grouping), self.in_use_rows
        seen = rows[self.device.attribution.tensor_id[rows] != NONE_ID]
        found: dict[str, set[str]] = {}
        texts = (self.device.trace.strings[i] for i in self.device.attribution.tensor_id[seen].tolist())
        for label, text in zip(self._labels(grouping, seen), texts, strict=True):
            found.setdefault(label, set()).add(text.partition(" ")[0])
        return {label: tuple(sorted(dtypes)) for label, dtypes in found.items()}

    def unknown_sites(self, limit: int) -> tuple[Group, ...]:
        """The lines of code whose allocations in use have no category, largest first."""
        rows = self.in_use_rows
        unknown = rows[self.device.attribution.category[rows] == Category.UNKNOWN]
        found = sum_groups(self.device.allocations, unknown, self._labels(Grouping.SITE, unknown))
        return largest_first(found)[:limit]

    def call_tree(self) -> CallTree:
        """The calls that made what is in use, outermost first."""
        return call_tree(self.device.trace, self.device.allocations, self.in_use_rows)

    def module_tree(self) -> ModuleTree:
        """The modules that own what is in use."""
        attribution = self.device.attribution
        return module_tree(self.device.trace, self.device.allocations, attribution, self.in_use_rows)

    @cached_property
    def in_use_rows(self) -> Int64Array:
        """Rows of the allocations in use, largest block first: their blocks are the allocated bytes."""
        return self.rows[~self.device.allocations.pending_at(self.event)[self.rows]]

    def _labels(self, grouping: Grouping, rows: Int64Array) -> list[str]:
        """The group of each allocation."""
        trace, attribution = self.device.trace, self.device.attribution
        if grouping is Grouping.SITE:
            return [site or NOT_RECORDED for site in self.device.sites_of(rows)]
        if grouping is Grouping.MODULE:
            return groups.module_groups(trace, attribution, rows)
        if grouping is Grouping.KIND:
            return groups.kind_groups(trace, attribution, rows)
        if grouping is Grouping.TAG:
            return groups.tag_groups(trace, attribution, rows)
        if grouping is Grouping.RULE:
            return groups.rule_groups(attribution, rows)
        if grouping is Grouping.STEP:
            steps = self.device.steps
            return groups.step_groups(self.device.allocations, steps, rows, self.device.recording.name)
        return groups.category_groups(attribution, rows)
