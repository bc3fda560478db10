"""Everything worth saying about a device, by fixed rules: the same trace always gives the same findings."""

from __future__ import annotations

import numpy as np

from memscope.attribution.steps import REPEATED_STEPS
from memscope.device.device import Device
from memscope.findings._delayed import find_delayed_frees
from memscope.findings._driver import find_driver_calls
from memscope.findings._foreach import find_foreach
from memscope.findings._fragmented import find_fragmentation, find_growing_pools
from memscope.findings._held_late import find_held_late
from memscope.findings._idle_streams import find_idle_streams
from memscope.findings._kv_growth import find_kv_growth
from memscope.findings._leaks import MIN_STEPS, find_leaks, find_regrown
from memscope.findings._patterns import find_patterns
from memscope.findings._returned import Returned
from memscope.findings._rounding import find_rounding
from memscope.findings._second_copies import find_second_copies
from memscope.findings.finding import Finding, Findings, in_order
from memscope.kv_cache.lens import KvLens
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import BoolArray

_OF_USE = (
    Category.ACTIVATIONS,
    Category.INPUTS,
    Category.TEMPORARIES,
    Category.GRADIENTS,
    Category.COMMUNICATION,
)
"""What a program has that computes with its model, and one does not that only makes or loads it."""
_OF_START = (Category.WEIGHTS, Category.OPTIMIZER_STATE, Category.KV_CACHE)
"""What is made layer by layer at the start."""
MIN_PASSING = 4
"""Allocations of no category that come and go, for each that stays: what a model's use makes. A conversion makes one or
two."""
MOSTLY_UNKNOWN_FRAC = 0.5
"""With more than this share of all allocated bytes in no category, that no KV cache was seen says nothing; and with
fewer than this share of the allocations with a stack, neither does what repeats."""


_LOOKS = (
    find_fragmentation,
    find_growing_pools,
    find_delayed_frees,
    find_idle_streams,
    find_rounding,
    find_driver_calls,
    find_foreach,
    find_second_copies,
)
"""What needs neither steps nor a key/value cache."""


def find_findings(device: Device, lens: KvLens) -> Findings:
    """Look for everything that :mod:`memscope.findings` knows. O(n log n) in the events.

    Parameters
    ----------
    lens
        The device's key/value cache.
    """
    if not device.n_events:
        return Findings(device.index, (), ("no events were recorded: what happens over time cannot be judged",))
    found: list[Finding] = []
    returned = Returned(device.lifetimes)
    for look in _LOOKS:
        found += look(device, returned)
    found += find_kv_growth(device, lens)
    steps = device.steps
    if steps is not None and not _are_guessed(device) and not _may_be_start_up(device):
        patterns = find_patterns(device, steps)
        for look_at_steps in (find_leaks, find_regrown, find_held_late):
            found += look_at_steps(device, steps, patterns, returned)
    return Findings(device.index, in_order(found), _notes(device))


def _are_guessed(device: Device) -> bool:
    """Whether steps rest on repetition alone: then loading equal layers one by one would look like a leak."""
    if device.steps is None or device.steps.source != REPEATED_STEPS:
        return False
    has_stack = device.allocations.stack_id != NONE_ID
    return bool(np.count_nonzero(has_stack) < MOSTLY_UNKNOWN_FRAC * len(has_stack))


def _may_be_start_up(device: Device) -> bool:
    """Whether steps rest on repetition alone, and most of them do not show that the program was in use.

    Weights made, loaded or converted layer by layer, and the layers of a cache, repeat and stay: that is no leak.
    Memory of use shows use, and so does much memory of no category that comes and goes in each step; but loading makes
    such memory too where what stays is known to be weights or a cache, and so does a conversion, a piece or two for
    each that stays.
    """
    steps = device.steps
    if steps is None or steps.source != REPEATED_STEPS:
        return False
    table, category = device.allocations, device.attribution.category
    step = steps.step_of(table.alloc_event)

    def are_few(rows: BoolArray) -> bool:
        return 2 * len(np.unique(step[rows & (step >= 0)])) < len(steps)

    if not are_few(np.isin(category, _OF_USE)):
        return False
    stays = (step >= 0) & (table.let_go_event == NONE_ID)
    kept_bytes = int(table.block_bytes[stays].sum())
    made_bytes = int(table.block_bytes[stays & np.isin(category, _OF_START)].sum())
    passes = (step >= 0) & (steps.step_of(table.let_go_event) == step)
    n_passing, n_staying = (np.bincount(step[rows], minlength=len(steps)) for rows in (passes, stays))
    n_of_use = int(np.count_nonzero((n_passing > 0) & (n_passing >= MIN_PASSING * n_staying)))
    return 2 * made_bytes >= kept_bytes or 2 * n_of_use < len(steps)


def _notes(device: Device) -> tuple[str, ...]:
    notes = []
    if device.fragmentation_series is None:
        notes.append("fragmentation and driver calls were not judged: the segments were not recorded")
    if device.steps is None:
        notes.append("leaks were not looked for: steps not known")
    elif _are_guessed(device):
        notes.append("leaks were not looked for: without stacks a loop over steps looks like a loop over layers")
    elif _may_be_start_up(device):
        notes.append(
            "leaks were not looked for: what repeats shows no use of a model: it may be the start, layer by layer"
        )
    elif len(device.steps) < MIN_STEPS:
        n = len(device.steps)
        notes.append(f"leaks were not looked for: {n} step{'s' if n > 1 else ''} recorded, {MIN_STEPS} are needed")
    table, attribution = device.allocations, device.attribution
    unknown = int(table.requested_bytes[attribution.category == Category.UNKNOWN].sum())
    if unknown > MOSTLY_UNKNOWN_FRAC * int(table.requested_bytes.sum()):
        notes.append("growing KV caches were not looked for: most allocations have no category")
    return tuple(notes)
