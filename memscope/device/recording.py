"""A recorded trace as a whole: its name, what it cannot say, and how far it can be trusted."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from memscope.attribution.sites import Sites
from memscope.errors import ContradictionError
from memscope.lifetimes.completeness import Completeness, measure_completeness
from memscope.lifetimes.device import DeviceLifetimes
from memscope.names import shown
from memscope.trace.trace import Trace
from memscope.trace.validate import contradictions


class RecordedTrace:
    """A trace, and what holds for all of its devices.

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

    @property
    def name(self) -> str:
        """What to call the trace: the file that it was opened from."""
        return shown(self.path.name if self.path is not None else self.trace.metadata.source_file or "the trace")

    @cached_property
    def lifetimes(self) -> tuple[DeviceLifetimes, ...]:
        """Allocations, usage and states of each device, in the order of the trace's devices.

        Raises
        ------
        ContradictionError
            If the final segments and blocks contradict themselves, so that no state can be built.
        """
        if contradictions(self.trace):
            self.require_consistent()
        return tuple(DeviceLifetimes(self.trace, index) for index in self.trace.devices)

    @cached_property
    def completeness(self) -> Completeness:
        """What the trace cannot say."""
        return measure_completeness(self.trace, self.lifetimes)

    @cached_property
    def contradictions(self) -> tuple[str, ...]:
        """Where the trace contradicts itself; empty for every sound recording."""
        found = contradictions(self.trace)
        return tuple(map(str, found)) if found else self.completeness.contradictions

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

    @cached_property
    def sites(self) -> Sites:
        """The user's line of code in each stack."""
        return Sites(self.trace)

    @property
    def is_dry_run(self) -> bool:
        """Whether the trace is a prediction rather than a recording of a device."""
        return self.trace.metadata.source == "dry-run"

    @property
    def is_emulated(self) -> bool:
        """Whether the device was an emulated one: PyTorch's own allocator, on no GPU."""
        return self.trace.metadata.is_emulated

    @property
    def has_device_times(self) -> bool:
        """Whether times are those of a program on a GPU, not of a dry run or an emulated device."""
        return not (self.is_dry_run or self.is_emulated)

    @property
    def is_exact(self) -> bool:
        """Whether this is a recording of a real device from which nothing is missing."""
        return self.completeness.is_complete and not self.is_dry_run and not self.is_emulated

    def trust_sentence(self) -> str:
        """How far the trace can be trusted, in one sentence; its warnings and notes say the rest."""
        if self.is_dry_run:
            return "A dry run: every tensor's memory is predicted, nothing was measured on a device."
        but = "; what is not known of them is said beside this" if self.completeness.warnings else ""
        if self.completeness.is_complete and self.is_emulated:
            given = "Every byte that PyTorch's allocator gave out is accounted for"
            return f"{given}, on an emulated device, not on a GPU{but}."
        if self.completeness.is_complete:
            return f"Every byte since the first allocation is accounted for{but}."
        if self.completeness.over_device_bytes:
            return "More is reserved than the device has: part of it is not there, and is not accounted for."
        if self.completeness.n_events_lost is None:
            return "Whether anything is missing at the start of this recording cannot be told."
        return "Parts of what the device did are missing from this recording."
