"""The memory of one test: recorded, measured, and held to what its markers ask for."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from memscope.analysis import Analysis
from memscope.attribution.grouping import NOT_RECORDED
from memscope.capture.recorder import Recorder
from memscope.compare.baseline import (
    Tolerance,
    baseline_of,
    changed_since,
    peak_of,
    read_baseline,
    write_baseline,
)
from memscope.compare.diff import rows_at
from memscope.compare.difference import Row
from memscope.device.device import Device
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID
from memscope.trace.trace import Trace
from memscope.units import format_alike, format_bytes
from memscope.words.compare import row_name, signed_bytes
from memscope.words.labels import row_label

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Way = Literal["auto", "cuda", "dry-run"]
_N_BLAMED = 10


@dataclass(frozen=True, slots=True)
class Limits:
    """What a test is held to; None and empty for nothing of that kind."""

    peak_bytes: int | None = None
    leak_bytes: int | None = None
    baseline: Path | None = None
    tolerance: Tolerance = field(default_factory=Tolerance)
    writes_baseline: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """What a test needed.

    Attributes
    ----------
    peak_bytes
        The most that was in use at once of what it allocated, on the device where that was most.
    n_allocations
        What it allocated, on all devices.
    is_predicted
        Whether it ran without a GPU.
    failures
        What it was held to and did not keep, each with whose memory it is.
    notes
        What was written.
    """

    peak_bytes: int
    n_allocations: int
    is_predicted: bool
    failures: tuple[str, ...]
    notes: tuple[str, ...] = ()


def way_of(way: Way) -> Literal["cuda", "dry-run"]:
    """How a test is recorded: on the GPU where there is one, else dry."""
    if way != "auto":
        return way
    import torch

    return "cuda" if torch.cuda.is_available() else "dry-run"


def new_recorder(way: Way, gpu: str, path: Path | None) -> Recorder:
    """A recording of one test.

    Raises
    ------
    UsageError
        If there is no such GPU.
    """
    return Recorder(path, backend=way_of(way), gpu=gpu, on_oom=False, overwrite=True)


def measure(trace: Trace, limits: Limits, name: str) -> Measured:
    """Measure a test's recording and hold it to its limits.

    Raises
    ------
    MemscopeError
        If the recording contradicts itself, or its baseline cannot be read.
    """
    analysis = Analysis(trace, name)
    analysis.require_consistent()
    devices = [device for device in analysis.devices if device.n_events]
    peaks = {device.index: peak_of(device, only_own=True).bytes for device in devices}
    highest = max(devices, key=lambda device: peaks[device.index], default=None)
    failures: list[str] = []
    notes: list[str] = []
    if highest is not None and limits.peak_bytes is not None and peaks[highest.index] > limits.peak_bytes:
        failures.append(_peak_failure(highest, peaks[highest.index], limits.peak_bytes))
    if limits.leak_bytes is not None:
        failures += [text for device in devices if (text := _leak_failure(device, limits.leak_bytes))]
    if limits.baseline is not None:
        text, is_failure = _against_baseline(analysis, highest, limits)
        (failures if is_failure else notes).append(text)
    return Measured(
        peak_bytes=max(peaks.values(), default=0),
        n_allocations=sum(int(np.count_nonzero(device.allocations.alloc_event != NONE_ID)) for device in devices),
        is_predicted=analysis.is_dry_run,
        failures=tuple(failures),
        notes=tuple(text for text in notes if text),
    )


def collect_garbage() -> None:
    """Let go of what only waits for Python's collector, so that it is no leak."""
    gc.collect()


def _peak_failure(device: Device, peak_bytes: int, limit_bytes: int) -> str:
    peak = peak_of(device, only_own=True)
    actual, most = format_alike(peak_bytes, limit_bytes)
    over = format_bytes(peak_bytes - limit_bytes)
    head = f"limit_gpu_memory: the test needs {actual} of GPU memory, {over} over its limit of {most}"
    rows = rows_at(peak.moment, rows=peak.rows)
    return "\n".join((head, "who holds most of it:", *_lines(rows, lambda row: format_bytes(row.b_bytes))))


def _leak_failure(device: Device, limit_bytes: int) -> str:
    """Lines of code whose memory outlives the test by more than the limit; empty where there are none."""
    end, table = device.end(), device.allocations
    rows = end.in_use_rows
    own = (table.alloc_event[rows] != NONE_ID) & (device.attribution.category[rows] != Category.WORKSPACE)
    rows = rows[own]
    by_line: dict[str, int] = {}
    for site, size in zip(device.sites_of(rows), table.block_bytes[rows].tolist(), strict=True):
        by_line[site or NOT_RECORDED] = by_line.get(site or NOT_RECORDED, 0) + size
    leaks = sorted(((size, site) for site, size in by_line.items() if size > limit_bytes), reverse=True)
    if not leaks:
        return ""
    total, most = sum(size for size, _ in leaks), format_bytes(limit_bytes)
    head = f"limit_gpu_leaks: {format_bytes(total)} outlive the test at lines that may keep {most} each"
    return "\n".join((head, *(f"  {format_bytes(size):>10}  {site}" for size, site in leaks[:_N_BLAMED])))


def _against_baseline(analysis: Analysis, device: Device | None, limits: Limits) -> tuple[str, bool]:
    """What is to be said of a baseline, and whether it is a failure."""
    path = limits.baseline
    assert path is not None
    if device is None:
        return f"gpu_memory_baseline: the test allocates nothing, and has nothing to compare with {path.name}", True
    found = baseline_of([analysis], device.index, only_own=True)
    if limits.writes_baseline:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_baseline(found, path, overwrite=True)
        return f"wrote {path.name}: {format_bytes(found.peak_allocated.highest_bytes)}", False
    if not path.exists():
        name = f"{path.parent.name}/{path.name}"
        return f"gpu_memory_baseline: there is no {name} yet: write it with --memscope-update-baselines", True
    before = read_baseline(path)
    most = before.peak_allocated.limit_bytes(limits.tolerance)
    actual = found.peak_allocated.highest_bytes
    if actual <= most:
        return "", False
    now, then = format_alike(actual, before.peak_allocated.highest_bytes)
    over = format_bytes(actual - most)
    head = f"gpu_memory_baseline: the test needs {now} of GPU memory, {then} in {path.name}: {over} over what it allows"
    grown = [row for row in changed_since(before, device, only_own=True) if row.delta_bytes > 0]
    return "\n".join((head, "what grew:", *_lines(grown, lambda row: signed_bytes(row.delta_bytes)))), True


def _lines(rows: Sequence[Row], size_of: Callable[[Row], str]) -> list[str]:
    shown = [row for row in rows if row.b_bytes][:_N_BLAMED]
    lines = []
    for row in shown:
        site = f" ({row.site})" if row.site is not None and row.site != row.key else ""
        lines.append(f"  {size_of(row):>10}  {row_label(row.category)}: {row_name(row)}{site}")
    return lines
