"""A trace with everything that can be computed from it, each result made once and on demand.

The command line, the reports and the dashboard all ask here, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from memscope.attribution import grouping as groups
from memscope.attribution.attribution import Attribution, attribute
from memscope.attribution.call_tree import CallTree, ModuleTree, call_tree, module_tree
from memscope.attribution.grouping import NOT_RECORDED as NOT_RECORDED
from memscope.attribution.grouping import Grouping, sum_groups
from memscope.attribution.ledger import Coverage, Ledger, coverage_at, ledger_at, usage_by_category
from memscope.attribution.rules import ALL_RULES, Rule
from memscope.attribution.sites import site_frames
from memscope.attribution.steps import find_steps
from memscope.errors import ContradictionError, UsageError
from memscope.findings.find import find_findings
from memscope.findings.finding import Findings
from memscope.fragmentation.holders import Holder, holders_of
from memscope.fragmentation.metrics import Fragmentation, measure_fragmentation
from memscope.fragmentation.over_time import Outline, OverTime, outline, summarise
from memscope.fragmentation.pins import Pin, find_pins
from memscope.fragmentation.series import FragmentationSeries, fragmentation_series
from memscope.lifetimes.completeness import Completeness
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.lifetimes import Lifetimes
from memscope.lifetimes.segments import large_segment_bytes
from memscope.lifetimes.state import AllocatorState
from memscope.lifetimes.steps import Steps
from memscope.replay.capacity import recorded_capacity
from memscope.trace.categories import Category, CategorySource
from memscope.trace.open import open_trace
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.tables import Int32Array, Int64Array
from memscope.trace.trace import Trace
from memscope.trace.validate import contradictions

if TYPE_CHECKING:
    import pandas as pd

    from memscope.oom.verdict import OomVerdict


def load(path: str | Path, *, rules: str | Path | Sequence[Rule] | None = None) -> Analysis:
    """Open a ``.memscope`` file or a torch snapshot.

    Parameters
    ----------
    rules
        A TOML file of rules to try before memscope's own (:mod:`memscope.attribution.rule_file`), or the whole table.

    Raises
    ------
    InputFileError
        If either cannot be read.
    """
    from memscope.attribution.rule_file import rules_with

    in_force = rules_with(rules) if rules is None or isinstance(rules, str | Path) else rules
    return Analysis(open_trace(path), path, rules=in_force)


class Analysis:
    """A trace and its analyses.

    Parameters
    ----------
    trace
        The trace; it is not changed.
    path
        The file that it was opened from, for messages.
    rules
        What tells the categories of allocations without identity, in order.
    """

    def __init__(self, trace: Trace, path: str | Path | None = None, *, rules: Sequence[Rule] = ALL_RULES) -> None:
        self.trace = trace
        self.rules = tuple(rules)
        self.path = None if path is None else Path(path)
        self._attributions: dict[int, Attribution] = {}
        self._category_usage: dict[int, dict[Category, np.ndarray]] = {}
        self._steps: dict[int, Steps | None] = {}
        self._fragmentation: dict[int, FragmentationSeries | None] = {}
        self._findings: dict[int, Findings] = {}

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
            self._attributions[device] = attribute(self.device(device), self.rules)
        return self._attributions[device]

    def category_usage(self, device: int) -> dict[Category, np.ndarray]:
        """Requested bytes of each category after each event of a device: int64 (n + 1,)."""
        if device not in self._category_usage:
            self._category_usage[device] = usage_by_category(self.device(device), self.attribution(device))
        return self._category_usage[device]

    def steps(self, device: int) -> Steps | None:
        """A device's steps, by the program's marks or else found from its phases; None where nothing tells them."""
        if device not in self._steps:
            self._steps[device] = find_steps(self.device(device))
        return self._steps[device]

    def fragmentation_series(self, device: int) -> FragmentationSeries | None:
        """A device's fragmentation after every event; None where the segments were not recorded."""
        if device not in self._fragmentation:
            self._fragmentation[device] = fragmentation_series(self.device(device))
        return self._fragmentation[device]

    def available_bytes(self, device: int) -> int | None:
        """What a device's allocator can reserve at the most, None where that is not known."""
        fraction = self.trace.metadata.memory_fraction.get(device, 1.0)
        return recorded_capacity(self.device(device)).available_bytes(fraction)

    def fragmentation_over_time(self, device: int) -> OverTime | None:
        """A device's fragmentation over its events in a few numbers; None where it was not measured."""
        series = self.fragmentation_series(device)
        has_times = not (self.is_dry_run or self.is_emulated)
        times = self.trace.time_ns if has_times and np.any(self.trace.time_ns != NONE_ID) else None
        available = self.available_bytes(device)
        return None if series is None else summarise(series, time_ns=times, available_bytes=available)

    def fragmentation_outline(self, device: int, n_runs: int) -> Outline | None:
        """A device's fragmentation in at most so many runs of events; None where it was not measured."""
        series = self.fragmentation_series(device)
        return None if series is None else outline(series, n_runs, available_bytes=self.available_bytes(device))

    def findings(self, device: int) -> Findings:
        """What deserves attention on a device, worst first."""
        if device not in self._findings:
            self._findings[device] = find_findings(
                self.device(device),
                self.attribution(device),
                self.fragmentation_series(device),
                self.steps(device),
                self.site_frame_of_stack,
            )
        return self._findings[device]

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

    def oom(self, device: int | None = None, event: int | None = None, *, searches: bool = True) -> OomVerdict:
        """Why memory ran out on a device, and what would have let the request through.

        Parameters
        ----------
        device
            That of the event if not given, else the first on which a request failed.
        event
            An ``oom`` event; the device's first if not given.
        searches
            Whether to search changes that would have helped, which takes some dozens of replays.

        Raises
        ------
        UsageError
            If there is no such device, or the event is not one of its out-of-memory errors.
        """
        from memscope.oom.judge import judge_oom

        if device is None:
            if event is not None and 0 <= event < self.trace.n_events:
                device = int(self.trace.device[event])
            else:
                device = next((other for other in self.devices if len(self.oom_events(other))), None)
        lifetimes = self.device(device)
        attribution = self.attribution(lifetimes.device)
        return judge_oom(lifetimes, attribution, self.site_frame_of_stack, self.completeness, event, searches=searches)


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
        """The sets of blocks that hold most free bytes hostage."""
        handle = large_segment_bytes(self.analysis.trace.metadata.alloc_conf)
        return find_pins(self.state, limit, large_handle_bytes=handle)

    def holders(self, pin: Pin, limit: int = 5) -> tuple[Holder, ...]:
        """Who holds the largest blocks of a pin, how old they are, and the steps that they were born in."""
        rows, steps = pin.allocation_ids[:limit], self.analysis.steps(self.device)
        return holders_of(self.lifetimes, self.analysis.attribution(self.device), rows, self.event, steps)

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
        return self._grouped(Grouping.CATEGORY).sort_index(key=_category_order)

    def by_site(self) -> pd.DataFrame:
        """Bytes and count in use by the user's line of code, largest first."""
        return self.by(Grouping.SITE)

    def by_module(self) -> pd.DataFrame:
        """Bytes and count in use by the module in the owner's name, largest first."""
        return self.by(Grouping.MODULE)

    def by(self, grouping: Grouping | str) -> pd.DataFrame:
        """Bytes and count in use by category, site, module, step, tag or rule, largest first.

        Columns: ``requested_bytes block_bytes n_allocations``, all int64. Categories come in stacking order. A step is
        the one that the allocation was made in.

        Raises
        ------
        UsageError
            If the steps of the program cannot be told.
        """
        if Grouping(grouping) is Grouping.CATEGORY:
            return self.by_category()
        return self._grouped(Grouping(grouping)).sort_values("requested_bytes", ascending=False, kind="stable")

    def unknown_sites(self, limit: int) -> pd.DataFrame:
        """The lines of code whose allocations in use have no category, largest first; columns as in :meth:`by`."""
        rows = self._in_use
        unknown = rows[self.analysis.attribution(self.device).category[rows] == Category.UNKNOWN]
        found = sum_groups(self.lifetimes.allocations, unknown, self._labels(Grouping.SITE, unknown), "site")
        return found.sort_values("requested_bytes", ascending=False, kind="stable").head(limit)

    def call_tree(self) -> CallTree:
        """The calls that made what is in use, outermost first."""
        return call_tree(self.analysis.trace, self.lifetimes.allocations, self._in_use)

    def module_tree(self) -> ModuleTree:
        """The modules that own what is in use."""
        attribution = self.analysis.attribution(self.device)
        return module_tree(self.analysis.trace, self.lifetimes.allocations, attribution, self._in_use)

    @property
    def _in_use(self) -> Int64Array:
        """Rows that are live and not pending."""
        return self.rows[~self.lifetimes.allocations.pending_at(self.event)[self.rows]]

    def _grouped(self, grouping: Grouping) -> pd.DataFrame:
        rows = self._in_use
        return sum_groups(self.lifetimes.allocations, rows, self._labels(grouping, rows), grouping.value)

    def _labels(self, grouping: Grouping, rows: Int64Array) -> list[str]:
        """The group of each allocation."""
        trace, attribution = self.analysis.trace, self.analysis.attribution(self.device)
        if grouping is Grouping.SITE:
            return [site or NOT_RECORDED for site in self._sites(rows)]
        if grouping is Grouping.MODULE:
            return groups.module_groups(trace, attribution, rows)
        if grouping is Grouping.TAG:
            return groups.tag_groups(trace, attribution, rows)
        if grouping is Grouping.RULE:
            return groups.rule_groups(attribution, rows)
        if grouping is Grouping.STEP:
            steps = self.analysis.steps(self.device)
            return groups.step_groups(self.lifetimes.allocations, steps, rows, self.analysis.name)
        return groups.category_groups(attribution, rows)


def _category_order(index: pd.Index[str]) -> pd.Index[int]:
    import pandas as pd

    return pd.Index([Category[label.upper()] for label in index])
