"""Several recordings of one job side by side: who peaks, how far they lie apart, in which step, and what differs.

Under ``torchrun`` every process writes its own trace; a row of the comparison is one device of one of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from memscope.analysis import Analysis
from memscope.attribution.grouping import NOT_RECORDED
from memscope.attribution.ledger import ROUNDING
from memscope.attribution.sites import natural_order
from memscope.device.device import Device, Moment
from memscope.errors import UsageError
from memscope.lifetimes.steps import DeviceStep, StepKey, align_steps, device_steps
from memscope.names import shown
from memscope.ranks.comparison import (
    AlignedStep,
    Difference,
    Differences,
    PeakUse,
    RankComparison,
    RankRow,
    RankSource,
    SettingDifference,
    Spread,
    StepUse,
    step_words,
)
from memscope.trace.marks import describe_moment
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int64Array

_RANK_IN_NAME = re.compile(r"(?:^|[-_.])rank[-_]?(\d{1,9})(?!\d)", re.IGNORECASE)

_AFTER_LAST = "after the last step"

Place = tuple[int, int, int]
"""A row's rank (0 where they are not one run's), trace (its position among those compared) and device."""


class _Told(NamedTuple):
    """What is known of one trace's rank, and what to call the trace."""

    rank: int | None
    source: RankSource
    label: str


def compare_ranks(analyses: Sequence[Analysis]) -> RankComparison:
    """Set recordings side by side, aligned by step.

    They need not be of one run: traces of other versions, settings or numbers of steps are compared all the same, and
    what differs in that is named. One trace with several devices can be compared with itself.

    Parameters
    ----------
    analyses
        The recordings, in any order. All of them are followed through all of their events: linear in the events.

    Raises
    ------
    UsageError
        If two of several ranks claim to be the same one (both are named), or none has a device.
    ContradictionError
        If one contradicts itself; it is named.
    """
    for analysis in analyses:
        analysis.require_consistent()
    told, is_one_run = _told_of(analyses)
    places = sorted(
        ((one.rank or 0) if is_one_run else 0, position, device)
        for position, (analysis, one) in enumerate(zip(analyses, told, strict=True))
        for device in analysis.trace.devices
    )
    if not places:
        raise UsageError("there is nothing to compare: no trace has segments or events")
    if is_one_run:
        places.sort(key=lambda place: (place[0], place[2], place[1]))
        _require_distinct(analyses, places)
    steps_of_row = [device_steps(analyses[position].trace, device) for _, position, device in places]
    order, keys_of_row = align_steps(steps_of_row)
    n_of_label = Counter(told[position].label for _, position, _ in places)
    rows = tuple(
        _row(analyses[place[1]].device(place[2]), place, told[place[1]], n_of_label, steps, keys)
        for place, steps, keys in zip(places, steps_of_row, keys_of_row, strict=True)
    )
    aligned = _aligned_steps(analyses, rows, steps_of_row, order, keys_of_row)
    allocated = _spread({i: row.peak.allocated_bytes for i, row in enumerate(rows)})
    return RankComparison(
        analyses=tuple(analyses),
        rows=rows,
        is_one_run=is_one_run,
        peak_allocated=allocated,
        peak_reserved=_spread_of_measured([_reserved(row.peak_reserved) for row in rows]),
        category_spreads=_category_spreads(rows),
        steps=aligned,
        differences=_differences(analyses, rows, allocated, aligned),
        settings_that_differ=_settings_that_differ(analyses, rows),
        without_devices=tuple(analysis.name for analysis in analyses if not analysis.trace.devices),
    )


def rank_in_name(name: str) -> int | None:
    """The rank that a file's name carries, ``run-rank3.memscope``; None where it carries none."""
    found = _RANK_IN_NAME.findall(name)
    return int(found[-1]) if found else None


def _told_of(analyses: Sequence[Analysis]) -> tuple[list[_Told], bool]:
    """What tells each trace's rank and what to call it, and whether they are ranks of one run.

    They are where each tells its rank, files that tell it by name differ in nothing else, and not all of several claim
    the same one. What is not known to be one run's is called by its file.
    """
    ranks: list[tuple[int | None, RankSource]] = []
    patterns = set()
    for analysis in analyses:
        name = "" if analysis.path is None else analysis.path.name
        recorded, named = analysis.trace.metadata.rank, rank_in_name(name)
        if recorded is not None:
            ranks.append((recorded, RankSource.METADATA))
        elif named is not None:
            ranks.append((named, RankSource.FILE_NAME))
            patterns.add(_RANK_IN_NAME.sub("#", name))
        else:
            ranks.append((None, RankSource.NONE))
    numbers = [rank for rank, _ in ranks]
    is_repeated = len(numbers) > 1 and len(set(numbers)) == 1
    is_one_run = None not in numbers and len(patterns) <= 1 and not is_repeated
    labels = [f"rank {rank}" for rank in numbers] if is_one_run else _file_labels(analyses)
    return [_Told(*rank, label) for rank, label in zip(ranks, labels, strict=True)], is_one_run


def _file_labels(analyses: Sequence[Analysis]) -> list[str]:
    """The files' names, with as much of their folders as tells them apart; the same file is numbered."""
    paths = [Path(analysis.name) if analysis.path is None else analysis.path for analysis in analyses]
    n_parts = [1] * len(paths)
    while True:
        labels = [shown(str(Path(*path.parts[-n:]))) for path, n in zip(paths, n_parts, strict=True)]
        n_of = Counter(labels)
        alike = [i for i, label in enumerate(labels) if n_of[label] > 1 and n_parts[i] < len(paths[i].parts)]
        if not alike:
            break
        for i in alike:
            n_parts[i] += 1
    seen: Counter[str] = Counter()
    for i, label in enumerate(labels):
        seen[label] += 1
        if seen[label] > 1:
            labels[i] = f"{label} ({seen[label]})"
    return labels


def _require_distinct(analyses: Sequence[Analysis], places: Sequence[Place]) -> None:
    for (rank, one, device), (other_rank, two, other_device) in pairwise(places):
        if (rank, device) == (other_rank, other_device):
            files = " and ".join(str(a.path or a.name) for a in (analyses[one], analyses[two]))
            raise UsageError(f"{files} both say that they are rank {rank}, device {device}: give one of each rank")


def _row(
    device: Device,
    place: Place,
    told: _Told,
    n_of_label: Mapping[str, int],
    steps: Sequence[DeviceStep],
    keys: Sequence[StepKey | None],
) -> RankRow:
    _, position, index = place
    usage, peak = device.usage, device.peak()
    active = device.at(usage.event_at(int(np.argmax(usage.active_bytes))))
    reserved = None if usage.reserved_bytes is None else device.peak_reserved()
    return RankRow(
        label=f"{told.label}, device {index}" if n_of_label[told.label] > 1 else told.label,
        rank=told.rank,
        rank_source=told.source,
        position=position,
        device=index,
        path=device.recording.path,
        name=device.recording.name,
        device_name=device.name,
        total_bytes=device.total_bytes,
        available_bytes=device.available_bytes,
        n_events=device.n_events,
        n_steps=sum(step.is_finished for step in steps),
        peak=_use_at(peak, steps, keys),
        peak_active=_use_at(active, steps, keys),
        peak_reserved=None if reserved is None else _use_at(reserved, steps, keys),
        category_bytes={name: size for (name, _), size in _category_bytes(peak).items()},
        oom_events=tuple(device.oom_events.tolist()),
        warnings=device.recording.completeness.warnings,
    )


def _use_at(moment: Moment, steps: Sequence[DeviceStep], keys: Sequence[StepKey | None]) -> PeakUse:
    i = _step_of(moment.event, steps)
    key = None if i is None else keys[i]
    trace = moment.device.trace
    # Phases are marked among one device's events; on the others they say nothing.
    where = describe_moment(trace, moment.event) if len(trace.devices) == 1 else ""
    if i is not None:
        words = _AFTER_LAST if key is None else step_words(key[0]) + ("" if steps[i].is_finished else ", unfinished")
        where = where.replace(_AFTER_LAST, words, 1) or words
    label = None if key is None else key[0]
    return PeakUse(moment.event, label, where, moment.allocated_bytes, moment.active_bytes, moment.reserved_bytes)


def _step_of(event: int, steps: Sequence[DeviceStep]) -> int | None:
    """The step that an event lies in; the first where it is −1, which comes before all events."""
    if event == NONE_ID:
        return 0 if steps else None
    return next((i for i, step in enumerate(steps) if step.begin <= event < step.end), None)


def _reserved(use: PeakUse | None) -> int | None:
    return None if use is None else use.reserved_bytes


def _spread(sizes: Mapping[int, int]) -> Spread:
    """How far some sizes lie apart: row → bytes, at least one."""
    order = sorted((size, row) for row, size in sizes.items())
    lowest_bytes, lowest = order[0]
    median_bytes, median = order[(len(order) - 1) // 2]
    highest_bytes = order[-1][0]
    highest = next(row for size, row in order if size == highest_bytes)
    return Spread(highest, lowest, median, highest_bytes, lowest_bytes, median_bytes, len(order))


def _spread_of_measured(sizes: Sequence[int | None]) -> Spread | None:
    """How far some sizes lie apart, by row; None where none was measured."""
    measured = {row: size for row, size in enumerate(sizes) if size is not None}
    return _spread(measured) if measured else None


def _category_spreads(rows: Sequence[RankRow]) -> dict[str, Spread]:
    names = dict.fromkeys(name for row in rows for name, size in row.category_bytes.items() if size)
    ordered = [name for name in rows[0].category_bytes if name in names]
    return {name: _spread({i: row.category_bytes[name] for i, row in enumerate(rows)}) for name in ordered}


def _aligned_steps(
    analyses: Sequence[Analysis],
    rows: Sequence[RankRow],
    steps_of_row: Sequence[Sequence[DeviceStep]],
    order: Sequence[StepKey | None],
    keys_of_row: Sequence[Sequence[StepKey | None]],
) -> tuple[AlignedStep, ...]:
    """Each step once, with what every row held in it."""
    uses: dict[StepKey | None, dict[int, StepUse]] = {key: {} for key in order}
    for i, row in enumerate(rows):
        for step, key in zip(steps_of_row[i], keys_of_row[i], strict=True):
            uses[key][i] = _use_within(analyses[row.position].device(row.device), step)
    return tuple(_aligned_step(key, [uses[key].get(i) for i in range(len(rows))]) for key in order if uses[key])


def _aligned_step(key: StepKey | None, uses: Sequence[StepUse | None]) -> AlignedStep:
    label, occurrence = (None, 0) if key is None else key
    return AlignedStep(
        label=label,
        occurrence=occurrence,
        uses=tuple(uses),
        allocated=_spread({i: use.allocated_bytes for i, use in enumerate(uses) if use is not None}),
        reserved=_spread_of_measured([None if use is None else use.reserved_bytes for use in uses]),
    )


def _use_within(device: Device, step: DeviceStep) -> StepUse:
    usage = device.usage
    begin, end = usage.index_of(step.begin) - 1, usage.index_of(step.end)

    def highest(series: Int64Array) -> tuple[int, int]:
        index = begin + int(np.argmax(series[begin:end]))
        return int(series[index]), usage.event_at(index)

    allocated_bytes, allocated_event = highest(usage.allocated_bytes)
    reserved = None if usage.reserved_bytes is None else highest(usage.reserved_bytes)
    return StepUse(
        begin=step.begin,
        end=step.end,
        allocated_bytes=allocated_bytes,
        allocated_event=allocated_event,
        reserved_bytes=None if reserved is None else reserved[0],
        reserved_event=None if reserved is None else reserved[1],
        is_finished=step.is_finished,
    )


def _differences(
    analyses: Sequence[Analysis], rows: Sequence[RankRow], allocated: Spread, steps: Sequence[AlignedStep]
) -> Differences | None:
    """Compare the row of the highest peak with the one that held least in the same step."""
    if len(rows) < 2:
        return None
    highest = allocated.highest
    peak = rows[highest].peak
    step = next((step for step in steps if (use := step.uses[highest]) is not None and use.holds(peak.event)), None)
    others = {} if step is None else {i: use for i, use in enumerate(step.uses) if use is not None and i != highest}
    if others:
        lowest = min(others, key=lambda i: (others[i].allocated_bytes, i))
        lowest_event = others[lowest].allocated_event
    else:
        step = None
        lowest = min((i for i in range(len(rows)) if i != highest), key=lambda i: (rows[i].peak.allocated_bytes, i))
        lowest_event = rows[lowest].peak.event
    one, two = (
        analyses[rows[i].position].device(rows[i].device).at(event)
        for i, event in ((highest, peak.event), (lowest, lowest_event))
    )
    return Differences(
        highest=highest,
        lowest=lowest,
        step=step,
        highest_event=one.event,
        lowest_event=two.event,
        highest_allocated_bytes=one.allocated_bytes,
        lowest_allocated_bytes=two.allocated_bytes,
        categories=_largest_first(_category_bytes(one), _category_bytes(two), keep_equal=True),
        holders=_largest_first(_holder_bytes(one), _holder_bytes(two), keep_equal=False),
    )


Named = dict[tuple[str, str], int]
"""Bytes by name and kind."""


def _category_bytes(moment: Moment) -> Named:
    """Requested bytes in use by category, and rounding: they sum to the allocated bytes."""
    named: Named = {}
    for row in moment.ledger.rows:
        if row.is_category:
            named[row.name, "category"] = row.bytes
        elif row.name == ROUNDING:
            named[row.name, "rounding"] = row.bytes
    return named


def _holder_bytes(moment: Moment) -> Named:
    """Block bytes in use by owner, else by line of code: they sum to the allocated bytes."""
    device, rows = moment.device, moment.in_use_rows
    owners = (device.trace.shown_string(int(i)) for i in device.attribution.owner_id[rows])
    sizes = device.allocations.block_bytes[rows].tolist()
    named: Counter[tuple[str, str]] = Counter()
    for owner, site, size in zip(owners, device.sites_of(rows), sizes, strict=True):
        if owner is not None:
            named[owner, "owner"] += size
        elif site is not None:
            named[site, "site"] += size
        else:
            named[NOT_RECORDED, "none"] += size
    return named


def _largest_first(one: Named, two: Named, *, keep_equal: bool) -> tuple[Difference, ...]:
    found = [Difference(*key, one.get(key, 0), two.get(key, 0)) for key in {**one, **two}]
    found = [d for d in found if d.difference_bytes or (keep_equal and (d.highest_bytes or d.lowest_bytes))]
    return tuple(sorted(found, key=lambda d: (-abs(d.difference_bytes), natural_order(d.name))))


def _settings_that_differ(analyses: Sequence[Analysis], rows: Sequence[RankRow]) -> tuple[SettingDifference, ...]:
    """Settings, versions, device sizes and lengths that are not the same in all rows."""
    by_row = []
    for row in rows:
        metadata = analyses[row.position].trace.metadata
        by_row.append(
            {
                "source": metadata.origin,
                "torch_version": metadata.torch_version,
                "alloc_conf": metadata.alloc_conf,
                **{f"allocator_settings.{name}": value for name, value in metadata.allocator_settings.items()},
                "device_name": row.device_name,
                "device_total_bytes": row.total_bytes,
                "memory_fraction": metadata.memory_fraction.get(row.device),
                "n_steps": row.n_steps,
                "n_events": row.n_events,
            }
        )
    names = dict.fromkeys(name for values in by_row for name in values)
    columns = {name: tuple(values.get(name) for values in by_row) for name in names}
    return tuple(SettingDifference(n, values) for n, values in columns.items() if any(v != values[0] for v in values))
