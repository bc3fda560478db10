"""A trace with everything that can be computed from it, each result made once and on demand.

The command line, the reports and the dashboard all ask here, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from memscope.attribution.attribution import Attribution, attribute
from memscope.attribution.grouping import NOT_RECORDED as NOT_RECORDED
from memscope.attribution.ledger import usage_by_category
from memscope.attribution.rule_table import ALL_RULES, Rule
from memscope.attribution.sites import site_frames
from memscope.attribution.steps import find_steps
from memscope.device.moment import Moment as Moment
from memscope.errors import ContradictionError, UsageError
from memscope.findings.find import find_findings
from memscope.findings.finding import Findings
from memscope.fragmentation.over_time import Outline, OverTime, outline, summarise
from memscope.fragmentation.series import FragmentationSeries, fragmentation_series
from memscope.kv_cache.lens import KvLens
from memscope.lifetimes.completeness import Completeness
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.lifetimes import Lifetimes
from memscope.lifetimes.steps import Steps
from memscope.replay.limits import recorded_capacity
from memscope.trace.categories import Category
from memscope.trace.open import open_trace
from memscope.trace.schema import NONE_ID, Action
from memscope.trace.tables import Int32Array, Int64Array
from memscope.trace.trace import Trace
from memscope.trace.validate import contradictions

if TYPE_CHECKING:
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
        self._kv_lenses: dict[int, KvLens] = {}

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

    def kv_lens(self, device: int | None = None) -> KvLens:
        """A device's key/value cache over its events; false where none is known of."""
        lifetimes = self.device(device)
        if lifetimes.device not in self._kv_lenses:
            self._kv_lenses[lifetimes.device] = KvLens(lifetimes, self.attribution(lifetimes.device))
        return self._kv_lenses[lifetimes.device]

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
