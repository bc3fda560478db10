"""What a run used to need: the peaks of some runs, how far they lay apart, and who held the memory.

A baseline is a small JSON file that is kept beside the code. It names files by the ends of their paths, so that it says
nothing of the machine that it was made on.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from typing_extensions import Self

from memscope.analysis import Analysis
from memscope.attribution.ledger import ROUNDING
from memscope.compare._holdings import path_end
from memscope.compare.diff import rows_at
from memscope.compare.difference import Row
from memscope.compare.for_inputs import SizePeak, size_peaks, step_peaks
from memscope.device.device import Device, Moment
from memscope.errors import InputFileError, UsageError
from memscope.files import whole_file
from memscope.trace.categories import CATEGORY_BY_LABEL, Category
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array
from memscope.units import format_alike, parse_bytes

FORMAT = "memscope-baseline"
FORMAT_VERSION = 1
_MOST_BYTES = 16 << 20
_MOST_APART = 0.2
"""The share of the highest peak by which those of one configuration hardly differ."""
_LINE = re.compile(r":-?\d+ ")


@dataclass(frozen=True, slots=True)
class Band:
    """A number of some runs, in bytes: the lowest, the one in the middle (the lower of two) and the highest."""

    lowest_bytes: int
    median_bytes: int
    highest_bytes: int

    @property
    def noise_bytes(self) -> int:
        """How far the runs lie apart."""
        return self.highest_bytes - self.lowest_bytes

    def limit_bytes(self, tolerance: Tolerance, granule_bytes: int = 0) -> int:
        """The most that a further run may have: beyond the highest the tolerance, or the noise if that is larger."""
        return self.highest_bytes + max(tolerance.of(self.median_bytes), self.noise_bytes, granule_bytes)

    @classmethod
    def of(cls, sizes: Sequence[int]) -> Self:
        """The band of some sizes, at least one."""
        ordered = sorted(sizes)
        return cls(ordered[0], ordered[(len(ordered) - 1) // 2], ordered[-1])


@dataclass(frozen=True, slots=True)
class HeldBefore:
    """What one holder had of one category at the peak of the run in the middle.

    ``key`` is the holder's name, files in it by the ends of their paths.
    """

    key: str
    category: str
    bytes: int
    n_allocations: int


@dataclass(frozen=True, slots=True)
class Baseline:
    """What some runs needed on one device.

    Attributes
    ----------
    device
        The device's index.
    n_runs
        So many runs were measured.
    peak_allocated, peak_reserved
        Their peaks; the second is None where segments were not recorded in one of them.
    held
        Who held the allocated bytes at the peak of the run in the middle: they sum to it, rounding among them.
    facts
        What it was measured with: torch's version, allocator settings, the device's name; None where not recorded.
    for_inputs
        What steps need, by the size of their inputs; empty where inputs are not told, or left out.
    """

    device: int
    n_runs: int
    peak_allocated: Band
    peak_reserved: Band | None
    held: tuple[HeldBefore, ...]
    facts: dict[str, str | None]
    for_inputs: tuple[SizePeak, ...] = ()

    @property
    def held_bytes(self) -> int:
        """The allocated bytes that ``held`` sums to."""
        return sum(one.bytes for one in self.held)


class Peak(NamedTuple):
    """The highest allocated bytes of a device: how many, when, and the rows of what was in use (None: all of it)."""

    moment: Moment
    bytes: int
    rows: Int64Array | None


def peak_of(device: Device, *, only_own: bool = False) -> Peak:
    """The peak of a device; with ``only_own``, of what was allocated while it was recorded, and nothing before."""
    if not only_own:
        peak = device.peak()
        return Peak(peak, peak.allocated_bytes, None)
    table = device.allocations
    own = np.flatnonzero(table.alloc_event != NONE_ID)
    series = device.lifetimes.in_use_usage(own)
    index = int(np.argmax(series))
    moment = Moment(device, device.usage.event_at(index))
    rows = moment.in_use_rows
    return Peak(moment, int(series[index]), rows[table.alloc_event[rows] != NONE_ID])


def baseline_of(analyses: Sequence[Analysis], index: int | None = None, *, only_own: bool = False) -> Baseline:
    """Measure some runs of one configuration.

    Parameters
    ----------
    index
        The device; as :meth:`~memscope.analysis.Analysis.device` chooses if not given.
    only_own
        Whether what was allocated before the recordings began is left out; reserved memory is then not measured.

    Raises
    ------
    UsageError
        If there is no run, or one has no such device.
    ContradictionError
        If one contradicts itself.
    """
    if not analyses:
        raise UsageError("a baseline needs at least one run")
    for analysis in analyses:
        analysis.require_consistent()
    devices = [analysis.device(index) for analysis in analyses]
    peaks = [peak_of(device, only_own=only_own) for device in devices]
    reserved = [None if only_own else device.peak_reserved().reserved_bytes for device in devices]
    allocated = Band.of([peak.bytes for peak in peaks])
    of_middle = next(peak for peak in peaks if peak.bytes == allocated.median_bytes)
    middle = of_middle.moment.device
    measured = [size for size in reserved if size is not None]
    return Baseline(
        device=middle.index,
        n_runs=len(devices),
        peak_allocated=allocated,
        peak_reserved=Band.of(measured) if len(measured) == len(reserved) else None,
        held=_merged(rows_at(of_middle.moment, rows=of_middle.rows)),
        facts=facts_of(middle),
        for_inputs=() if only_own else size_peaks([step_peaks(device) for device in devices]),
    )


def doubts_of(analyses: Sequence[Analysis], index: int | None = None) -> tuple[str, ...]:
    """Why some runs may not be of one configuration, a sentence each; empty where nothing says so.

    Peaks of one configuration lie close together, and its weights have the same names.
    """
    devices = [analysis.device(index) for analysis in analyses]
    found = []
    peaks = [device.peak().allocated_bytes for device in devices]
    low, high = peaks.index(min(peaks)), peaks.index(max(peaks))
    if peaks[high] - peaks[low] > _MOST_APART * peaks[high]:
        sizes = format_alike(peaks[low], peaks[high])
        found.append(
            f"their peaks lie far apart: {sizes[0]} ({_run(analyses, low)}), {sizes[1]} ({_run(analyses, high)})"
        )
    owners = [_weights_owners(device) for device in devices]
    first, *others = [i for i, names in enumerate(owners) if names] or [0]
    other = next((i for i in others if owners[i] != owners[first]), None)
    if other is not None:
        only = sorted(owners[first] - owners[other]) or sorted(owners[other] - owners[first])
        has, lacks = (first, other) if owners[first] - owners[other] else (other, first)
        found.append(f"{_run(analyses, has)} holds weights {only[0]!r}, {_run(analyses, lacks)} does not")
    return tuple(found)


def _run(analyses: Sequence[Analysis], i: int) -> str:
    """What a run is called: by its number as well where others have the same name."""
    names = [analysis.name for analysis in analyses]
    return names[i] if names.count(names[i]) == 1 else f"{names[i]} (run {i + 1})"


def _weights_owners(device: Device) -> set[str]:
    """The owners of weights at a device's peak, layers together; lines of code are none."""
    rows = rows_at(device.peak())
    return {row.key for row in rows if row.category == Category.WEIGHTS.label and row.key != row.site}


def facts_of(device: Device) -> dict[str, str | None]:
    """What a device was recorded with."""
    metadata = device.trace.metadata
    return {
        "origin": metadata.origin,
        "torch_version": metadata.torch_version,
        "alloc_conf": metadata.alloc_conf,
        "device_name": device.name,
    }


def _merged(rows: Sequence[Row]) -> tuple[HeldBefore, ...]:
    sums: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        total = sums.setdefault((path_end(row.key), row.category), [0, 0])
        total[0] += row.b_bytes
        total[1] += row.n_b
    return tuple(HeldBefore(*name, *total) for name, total in sums.items())


def changed_since(baseline: Baseline, device: Device, *, only_own: bool = False) -> tuple[Row, ...]:
    """What a device holds at its peak beyond what the baseline's run in the middle held: the largest increase first.

    The rows sum to the difference of both peaks, rounding among them. Holders are matched by name and category, lines
    of code without their numbers where no line of that number is in both.
    """
    before = {(one.key, one.category): one for one in baseline.held}
    peak = peak_of(device, only_own=only_own)
    now = rows_at(peak.moment, rows=peak.rows)
    names = [(path_end(row.key), row.category) for row in now]
    left = {name: one for name, one in before.items() if name not in set(names)}
    by_function: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for name in left:
        by_function.setdefault((_LINE.sub(" ", name[0]), name[1]), []).append(name)
    found = []
    used: set[tuple[str, str]] = set()
    for row, name in zip(now, names, strict=True):
        was = before.get(name) if name not in used else None
        if was is None and name not in used:
            candidates = by_function.get((_LINE.sub(" ", name[0]), name[1]), [])
            was = left.pop(candidates.pop(0)) if candidates else None
        used.add(name)
        n_bytes, n = (0, 0) if was is None else (was.bytes, was.n_allocations)
        found.append(Row(row.key, row.category, n_bytes, row.b_bytes, n, row.n_b, row.site))
    found += [Row(one.key, one.category, one.bytes, 0, one.n_allocations, 0, None) for one in left.values()]
    return tuple(sorted(found, key=lambda row: (row.is_rounding, -row.delta_bytes, row.key)))


def write_baseline(baseline: Baseline, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a baseline as JSON; the file appears whole or not at all.

    Raises
    ------
    UsageError
        If the file exists and ``overwrite`` is false.
    InputFileError
        If it cannot be written there.
    """
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(baseline)}
    with whole_file(path, overwrite=overwrite) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode("utf-8", "surrogatepass"))
    return Path(path)


def is_baseline(path: str | Path) -> bool:
    """Whether a file begins as a baseline does; false where it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return f'"format": "{FORMAT}"'.encode() in file.read(200)
    except OSError:
        return False


def read_baseline(path: str | Path) -> Baseline:
    """Read what :func:`write_baseline` wrote.

    Raises
    ------
    InputFileError
        If it is no baseline, or a newer memscope's.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputFileError(path, "not a readable baseline: it is larger than any")
        return _baseline(json.loads(path.read_bytes().decode("utf-8", "surrogatepass")))
    except OSError as error:
        raise InputFileError(path, f"cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise InputFileError(path, f"not a readable baseline: {reason}") from error


def _baseline(record: Any) -> Baseline:
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError("it is not what memscope baseline writes")
    if _count(record["format_version"]) > FORMAT_VERSION:
        raise ValueError(f"written by a newer memscope (format {record['format_version']})")
    held = tuple(
        HeldBefore(_text(one["key"]), _category(one["category"]), _count(one["bytes"]), _count(one["n_allocations"]))
        for one in record["held"]
    )
    facts = {_text(name): None if value is None else _text(value) for name, value in record["facts"].items()}
    reserved = record["peak_reserved"]
    found = Baseline(
        device=_count(record["device"]),
        n_runs=_count(record["n_runs"]),
        peak_allocated=_band(record["peak_allocated"]),
        peak_reserved=None if reserved is None else _band(reserved),
        held=held,
        facts=facts,
        for_inputs=tuple(
            SizePeak(*(_count(one[name]) for name in ("inputs_bytes", "highest_bytes", "noise_bytes", "n_runs")))
            for one in record.get("for_inputs", ())
        ),
    )
    sizes = [one.inputs_bytes for one in found.for_inputs]
    if sizes != sorted(set(sizes)):
        raise ValueError("the sizes of its inputs are not in order")
    if found.held_bytes != found.peak_allocated.median_bytes:
        raise ValueError("its rows do not sum to its peak")
    return found


def _band(record: dict[str, Any]) -> Band:
    band = Band(*(_count(record[name]) for name in ("lowest_bytes", "median_bytes", "highest_bytes")))
    if not band.lowest_bytes <= band.median_bytes <= band.highest_bytes:
        raise ValueError("the lowest, the middle and the highest of its peaks are not in order")
    return band


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise ValueError(f"{str(value)[:40]!r} is no count of bytes")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]!r} is no name")
    return value


def _category(value: Any) -> str:
    if value not in CATEGORY_BY_LABEL and value != ROUNDING:
        raise ValueError(f"{str(value)[:40]!r} is no category")
    return _text(value)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How much more than a baseline is let through: a share of it, or bytes."""

    frac: float = 0.0
    bytes: int = 0

    def of(self, n_bytes: int) -> int:
        """In bytes, of a size."""
        return self.bytes + math.floor(self.frac * n_bytes)


def parse_tolerance(text: str) -> Tolerance:
    """Read ``1%`` or a size such as ``64MiB``.

    Raises
    ------
    UsageError
        If the text is neither.
    """
    share = re.fullmatch(r"\s*(\d{1,4}(?:\.\d{1,9})?)\s*%\s*", text)
    if share is not None:
        return Tolerance(frac=float(share[1]) / 100)
    try:
        return Tolerance(bytes=parse_bytes(text))
    except UsageError as error:
        raise UsageError(f"{text!r} is no tolerance: write 1%, or a size such as 64MiB") from error
