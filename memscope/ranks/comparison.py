"""What a comparison of recordings is made of: rows, spreads, steps, differences. :mod:`.compare` makes it.

A row is one device of one recording.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from memscope.analysis import Analysis
from memscope.device.device import Device
from memscope.trace.schema import NONE_ID


class RankSource(Enum):
    """What told which rank a trace is of."""

    METADATA = "recording"
    """The recording itself says it."""
    FILE_NAME = "file name"
    """The file is called ``…-rank3…``."""
    NONE = "nothing"
    """Nothing says it."""


@dataclass(frozen=True, slots=True)
class PeakUse:
    """What one device held after one event.

    Attributes
    ----------
    event
        −1 for before the first.
    step
        Name of the step that it lies in, an unfinished one too; None where no step was recorded, or after the last.
    where
        The moment in words, ``step 2, backward``; empty where neither steps nor phases were recorded.
    reserved_bytes
        None where the segments were not recorded.
    """

    event: int
    step: str | None
    where: str
    allocated_bytes: int
    active_bytes: int
    reserved_bytes: int | None

    @property
    def free_bytes(self) -> int | None:
        """Reserved bytes not in use, None where reserved bytes were not recorded."""
        return None if self.reserved_bytes is None else self.reserved_bytes - self.active_bytes


@dataclass(frozen=True, slots=True)
class RankRow:
    """One device of one rank.

    Attributes
    ----------
    label
        What to call it: ``rank 3``, or ``rank 3, device 1`` where the rank has several devices; in a comparison of what
        is not one run's ranks, the file in place of the rank.
    rank, rank_source
        The rank, None where nothing tells it, and what told it.
    position
        Which of the analyses it is a part of.
    path, name
        The file (None where the trace was not opened from one), and what messages call it.
    device_name, total_bytes
        As recorded, None where not.
    available_bytes
        What PyTorch could reserve of the device at the most, None where not known.
    n_events, n_steps
        Of this device; finished steps only.
    peak, peak_active, peak_reserved
        The first moments of the highest allocated, active and reserved bytes; the last is None where the segments were
        not recorded.
    category_bytes
        Requested bytes of each category in use at ``peak``, and what rounding added: they sum to its allocated bytes.
    oom_events
        Positions of its ``oom`` events.
    warnings
        What weakens the answers about its trace, a sentence each.
    """

    label: str
    rank: int | None
    rank_source: RankSource
    position: int
    device: int
    path: Path | None
    name: str
    device_name: str | None
    total_bytes: int | None
    available_bytes: int | None
    n_events: int
    n_steps: int
    peak: PeakUse
    peak_active: PeakUse
    peak_reserved: PeakUse | None
    category_bytes: Mapping[str, int]
    oom_events: tuple[int, ...]
    warnings: tuple[str, ...]

    @property
    def free_at_peak_reserved_bytes(self) -> int | None:
        """Reserved bytes not in use when most was reserved, None where that was not recorded."""
        return None if self.peak_reserved is None else self.peak_reserved.free_bytes

    @property
    def headroom_bytes(self) -> int | None:
        """What PyTorch could still have reserved when it had most, None where not known."""
        highest = None if self.peak_reserved is None else self.peak_reserved.reserved_bytes
        return None if highest is None or self.available_bytes is None else max(self.available_bytes - highest, 0)


@dataclass(frozen=True, slots=True)
class Spread:
    """How far the rows lie apart in one number; of equal rows the first is named.

    Attributes
    ----------
    highest, lowest, median
        Positions in :attr:`RankComparison.rows`. Of an even number of rows the lower of the two in the middle is the
        median, so that it is a row.
    n_rows
        Rows in which it was measured.
    """

    highest: int
    lowest: int
    median: int
    highest_bytes: int
    lowest_bytes: int
    median_bytes: int
    n_rows: int

    @property
    def spread_bytes(self) -> int:
        """Highest − lowest."""
        return self.highest_bytes - self.lowest_bytes

    @property
    def spread_frac(self) -> float | None:
        """The spread as a share of the highest, None where that is 0."""
        return self.spread_bytes / self.highest_bytes if self.highest_bytes else None


@dataclass(frozen=True, slots=True)
class StepUse:
    """The most that one device held within one step, what it held when the step began included.

    That is what ``torch.cuda.max_memory_allocated`` says after ``reset_peak_memory_stats`` at the step's begin.

    Attributes
    ----------
    begin, end
        Half-open range of the step's events.
    allocated_event, reserved_event
        After which event it held so much for the first time in the step; −1 is before the first.
    is_finished
        False where the recording ended within the step.
    """

    begin: int
    end: int
    allocated_bytes: int
    allocated_event: int
    reserved_bytes: int | None
    reserved_event: int | None
    is_finished: bool

    def holds(self, event: int) -> bool:
        """Whether the moment after an event lies in the step; −1, before all events, lies in the first."""
        return self.begin <= event < self.end or event == self.allocated_event == NONE_ID


@dataclass(frozen=True, slots=True)
class AlignedStep:
    """One step in every row.

    Attributes
    ----------
    label
        Its name; None for what follows the last step of all.
    occurrence
        How many steps of this name came before it.
    uses
        By row; None where the row did not record this step.
    allocated, reserved
        How far the rows that recorded it lie apart.
    """

    label: str | None
    occurrence: int
    uses: tuple[StepUse | None, ...]
    allocated: Spread
    reserved: Spread | None

    @property
    def title(self) -> str:
        """``step 3``, ``step 3 (2nd)`` … or ``after the last step``."""
        if self.label is None:
            return "after the last step"
        again = f" ({self.occurrence + 1})" if self.occurrence else ""
        return step_words(self.label) + again


@dataclass(frozen=True, slots=True)
class Difference:
    """What one category, owner or line of code held in the highest and in the lowest row.

    ``kind`` is ``category``, ``rounding``, ``owner``, ``site`` or ``none`` (neither owner nor stack was recorded).
    """

    name: str
    kind: str
    highest_bytes: int
    lowest_bytes: int

    @property
    def difference_bytes(self) -> int:
        """Highest row − lowest row; negative where the lowest row held more of it."""
        return self.highest_bytes - self.lowest_bytes


@dataclass(frozen=True, slots=True)
class Differences:
    """What the row with the highest peak held more, and less, than the row that held least in the same step.

    Attributes
    ----------
    highest, lowest
        Positions in :attr:`RankComparison.rows`.
    step
        The step of the highest peak; None where no other row recorded it, and each row is taken at its own peak.
    highest_event, lowest_event
        The moments compared: when each held most in the step.
    highest_allocated_bytes, lowest_allocated_bytes
        Allocated bytes then.
    categories
        Requested bytes in use by category, and rounding; largest difference first, those without one last. The
        differences sum to that of the allocated bytes.
    holders
        Block bytes in use by owner, by line of code where no owner is known; largest difference first, those without
        one left out. The differences sum to that of the allocated bytes.
    """

    highest: int
    lowest: int
    step: AlignedStep | None
    highest_event: int
    lowest_event: int
    highest_allocated_bytes: int
    lowest_allocated_bytes: int
    categories: tuple[Difference, ...]
    holders: tuple[Difference, ...]

    @property
    def difference_bytes(self) -> int:
        """By how many allocated bytes they differ."""
        return self.highest_allocated_bytes - self.lowest_allocated_bytes


@dataclass(frozen=True, slots=True)
class SettingDifference:
    """A setting or a fact of the recording that is not the same in all rows; ``values`` by row, None: not recorded."""

    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class RankComparison:
    """Recordings side by side.

    Attributes
    ----------
    analyses
        As given.
    rows
        One for each trace and device: by rank, then device, or in the order given where they are not one run's.
    is_one_run
        Whether the traces are, by what they and their files' names say, different ranks of one run.
    peak_allocated
        How far the rows' highest allocated bytes lie apart.
    peak_reserved
        The same for reserved bytes; None where no row measured them.
    category_spreads
        How far the rows' categories (and rounding) lie apart, each row at its own peak; empty ones left out.
    steps
        In order; empty where no steps were recorded.
    differences
        None where there is only one row.
    settings_that_differ
        Empty where all is the same.
    without_devices
        Names of traces without events and segments, of which there is no row.
    """

    analyses: tuple[Analysis, ...]
    rows: tuple[RankRow, ...]
    is_one_run: bool
    peak_allocated: Spread
    peak_reserved: Spread | None
    category_spreads: Mapping[str, Spread]
    steps: tuple[AlignedStep, ...]
    differences: Differences | None
    settings_that_differ: tuple[SettingDifference, ...]
    without_devices: tuple[str, ...]

    @property
    def n_ranks(self) -> int:
        """Number of ranks, or of traces that are not one run's; each may have several rows."""
        return len({row.rank if self.is_one_run else row.position for row in self.rows})

    @property
    def noun(self) -> str:
        """What is compared: ``rank``, or ``trace`` where the traces are not one run's."""
        return "rank" if self.is_one_run else "trace"

    def device_of(self, row: int) -> Device:
        """The device that a row is about."""
        return self.analyses[self.rows[row].position].device(self.rows[row].device)


def step_words(label: str) -> str:
    """``step 3`` for ``3``; a name that says so itself is left."""
    return label if label.lower().startswith("step") else f"step {label}"
