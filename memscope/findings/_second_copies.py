"""Models that are live twice: made again while the earlier one is still held, or copied and the copy kept."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from memscope.device.device import Device
from memscope.findings.finding import Finding, Severity, largest_rows, site_name, sites_by_bytes
from memscope.findings.returned import Returned
from memscope.trace.categories import Category, CategorySource
from memscope.trace.tables import BoolArray, Int64Array
from memscope.units import format_bytes, format_fraction, format_items

MIN_BYTES = 64 << 20
MIN_PEAK_FRAC = 0.05
WARNING_PEAK_FRAC = 0.10
"""Shares of the peak from which a copy is worth a word, and a change of the program."""
MIN_SAME_FRAC = 0.95
"""Of the weights' bytes: so much must be there once more, tensor by tensor, and of the copy no less must be that."""
_OF_USE = (Category.ACTIVATIONS, Category.GRADIENTS)
"""What a model makes when it is used, and not while it is made."""
_MAY_BE_COPIES = (Category.UNKNOWN, Category.INPUTS)
"""Gradients, moments and what an optimizer makes have the sizes of the weights as well."""
MIN_TENSORS = 2
"""One tensor that is made over and over is a buffer that a module replaces; what keeps it is a leak, not a model."""
MIN_LIFE_FRAC = 0.1
"""Of the recording: a copy that is gone sooner was made for a moment."""


def find_second_copies(device: Device, returned: Returned) -> list[Finding]:
    """Weights that are live more than once, late in the recording or else at its peak."""
    for event in dict.fromkeys((_fullest_late(device), device.peak().event)):
        found = [*_made_again(device, event, returned), *_copied(device, event, returned)]
        if found:
            return found
    return []


def _fullest_late(device: Device) -> int:
    """The event of the last third after which most is allocated: what is there then has stayed."""
    allocated = device.usage.allocated_bytes
    first = 2 * len(allocated) // 3
    return device.usage.event_at(first + int(np.argmax(allocated[first:])))


def _enough(device: Device, size: int) -> bool:
    return size >= max(MIN_BYTES, MIN_PEAK_FRAC * device.peak().active_bytes)


def _severity(device: Device, size: int) -> Severity:
    return Severity.WARNING if size >= WARNING_PEAK_FRAC * device.peak().active_bytes else Severity.INFO


def _made_again(device: Device, event: int, returned: Returned) -> Iterator[Finding]:
    """Weights that the same lines have made before, while those are still there.

    What is made between two uses of the model is one generation; two with the same stacks and sizes are one model, made
    twice.
    """
    table, category = device.allocations, device.attribution.category
    has_stack = table.stack_id >= 0
    rows = np.flatnonzero(
        table.active_at(event) & (category == Category.WEIGHTS) & has_stack & (table.alloc_event >= 0)
    )
    used = np.sort(table.alloc_event[np.isin(category, _OF_USE)])
    generation = np.searchsorted(used, table.alloc_event[rows])
    alike: dict[tuple[tuple[int, int], ...], list[Int64Array]] = {}
    for each in np.unique(generation).tolist():
        members = rows[generation == each]
        made_of = zip(table.stack_id[members].tolist(), table.requested_bytes[members].tolist(), strict=True)
        alike.setdefault(tuple(sorted(made_of)), []).append(members)
    for models in alike.values():
        if len(models[-1]) < MIN_TENSORS:
            continue
        older = np.concatenate(models[:-1]) if len(models) > 1 else np.empty(0, np.int64)
        size = int(table.block_bytes[older].sum())
        if not _enough(device, size):
            continue
        (site,) = sites_by_bytes(device, older, table.block_bytes[older], 1)
        anew = int(table.alloc_event[models[-1]].min())
        times = "the model" if len(models) == 2 else f"{len(models) - 1} models"
        yield Finding(
            kind="model-made-again",
            severity=_severity(device, size),
            device=device.index,
            title=f"{format_bytes(size)} of weights are still held of {times} made earlier at the same lines ({site})",
            text=(
                f"The same stacks made the same {format_items(len(models[-1]), 'tensor')} again (event {anew:,}), and "
                "the earlier ones are live beside them. Deleting a model frees nothing that an output with its graph, "
                "an optimizer, a hook or a notebook's variable still refers to."
            ),
            bytes=size,
            event=event,
            view="allocations",
            rows=largest_rows(device, older),
            sites=(site,),
            evidence={"n_models": len(models), "n_allocations": len(older), "made_again_event": anew},
            fix="let go of the earlier model's outputs (detach() or del), optimizer and other references before",
            returned_bytes=returned.freed_after(older, np.full(len(older), anew - 1)),
        )


def _copied(device: Device, event: int, returned: Returned) -> Iterator[Finding]:
    """Memory that one line made and that has, tensor by tensor, the sizes of the weights."""
    table, category = device.allocations, device.attribution.category
    live = table.active_at(event)
    weights = np.flatnonzero(live & (category == Category.WEIGHTS))
    weight_bytes = int(table.requested_bytes[weights].sum())
    if not _enough(device, weight_bytes):
        return
    gone = np.minimum(device.died_event, device.lifetimes.end_event)
    lasts = gone - table.alloc_event >= MIN_LIFE_FRAC * device.n_events
    is_average = device.attribution.source == CategorySource.INFERRED
    may_be = live & (np.isin(category, _MAY_BE_COPIES) | is_average) & (table.stack_id >= 0)
    may_be &= (category != Category.WEIGHTS) & (table.alloc_event >= 0) & lasts
    others = np.flatnonzero(may_be)
    frames = device.site_frames_of(others)
    for frame in np.unique(frames).tolist():
        copies = _copies(table.requested_bytes, weights, others[frames == frame])
        if not copies:
            continue
        rows = np.concatenate(copies)
        same = int(table.requested_bytes[rows].sum())
        size, site = int(table.block_bytes[rows].sum()), site_name(device, frame)
        share = format_fraction(size / device.peak().active_bytes)
        what = "a second copy" if len(copies) == 1 else f"{len(copies)} more copies"
        yield Finding(
            kind="copy-of-weights",
            severity=_severity(device, size),
            device=device.index,
            title=f"{format_bytes(size)}, {share} of the peak, are {what} of the weights, made at {site}",
            text=(
                f"{format_items(len(rows), 'tensor')} of the same sizes as the weights are live beside them: a "
                "checkpoint that was loaded onto the device, a state dict that was copied, an average of the weights."
            ),
            bytes=size,
            event=event,
            view="allocations",
            rows=largest_rows(device, rows),
            sites=(site,),
            evidence={
                "n_copies": len(copies),
                "n_allocations": len(rows),
                "weight_bytes": weight_bytes,
                "same_bytes": same,
            },
            fix="load a checkpoint with map_location='cpu' and drop it once it is loaded; keep averages on the host",
            returned_bytes=returned.without(rows),
        )


def _copies(requested_bytes: Int64Array, weights: Int64Array, rows: Int64Array) -> list[Int64Array]:
    """Rows that are the weights once more, and those that are them yet again."""
    wanted = requested_bytes[weights]
    found: list[Int64Array] = []
    while True:
        is_same = _same_sizes(wanted, requested_bytes[rows])
        if requested_bytes[rows[is_same]].sum() < MIN_SAME_FRAC * wanted.sum():
            return found
        found.append(rows[is_same])
        rows = rows[~is_same]


def _same_sizes(wanted_bytes: Int64Array, given_bytes: Int64Array) -> BoolArray:
    """Which of the given sizes are among the wanted ones, each of those taken once: bool (given,)."""
    order = np.argsort(given_bytes, kind="stable")
    ordered = given_bytes[order]
    nth = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
    wanted = np.sort(wanted_bytes)
    n_wanted = np.searchsorted(wanted, ordered, side="right") - np.searchsorted(wanted, ordered)
    found = np.zeros(len(given_bytes), np.bool_)
    found[order] = nth < n_wanted
    return found
