"""Everything worth saying about a device, by fixed rules: the same trace always gives the same findings."""

from __future__ import annotations

import numpy as np

from memscope.attribution.attribution import Attribution
from memscope.attribution.steps import REPEATED_STEPS
from memscope.findings.delayed import find_delayed_frees
from memscope.findings.driver import find_driver_calls
from memscope.findings.finding import Finding, Findings, in_order
from memscope.findings.fragmented import find_fragmentation, find_growing_pools
from memscope.findings.held_late import find_held_late
from memscope.findings.kv_growth import find_kv_growth
from memscope.findings.leaks import MIN_STEPS, find_leaks, find_regrown
from memscope.findings.patterns import find_patterns
from memscope.findings.rounding import find_rounding
from memscope.findings.subject import Subject
from memscope.fragmentation.series import FragmentationSeries
from memscope.lifetimes.device import DeviceLifetimes
from memscope.lifetimes.steps import Steps
from memscope.trace.categories import Category
from memscope.trace.schema import NONE_ID
from memscope.trace.tables import Int32Array

MOSTLY_UNKNOWN_FRAC = 0.5
"""With more than this share of all allocated bytes in no category, that no KV cache was seen says nothing; and with
fewer than this share of the allocations with a stack, neither does what repeats."""


def find_findings(
    lifetimes: DeviceLifetimes,
    attribution: Attribution,
    series: FragmentationSeries | None,
    steps: Steps | None,
    site_frame_of_stack: Int32Array,
) -> Findings:
    """Look for everything that :mod:`memscope.findings` knows. O(n log n) in the events.

    Parameters
    ----------
    series
        The device's fragmentation over its events, None where the segments were not recorded.
    steps
        Its steps, None where they are not known.
    site_frame_of_stack
        int32 (stacks,): the user's own frame of each stack.
    """
    subject = Subject(lifetimes, attribution, series, steps, site_frame_of_stack)
    if not lifetimes.n_events:
        return Findings(lifetimes.device, (), ("no events were recorded: what happens over time cannot be judged",))
    found: list[Finding] = []
    for look in (find_fragmentation, find_growing_pools, find_delayed_frees, find_rounding, find_driver_calls):
        found += look(subject)
    found += find_kv_growth(subject)
    if steps is not None and not _are_guessed(subject):
        patterns = find_patterns(subject, steps)
        for look_at_steps in (find_leaks, find_regrown, find_held_late):
            found += look_at_steps(subject, steps, patterns)
    return Findings(lifetimes.device, in_order(found), _notes(subject))


def _are_guessed(subject: Subject) -> bool:
    """Whether steps rest on repetition alone: then loading equal layers one by one would look like a leak."""
    if subject.steps is None or subject.steps.source != REPEATED_STEPS:
        return False
    has_stack = subject.lifetimes.allocations.stack_id != NONE_ID
    return bool(np.count_nonzero(has_stack) < MOSTLY_UNKNOWN_FRAC * len(has_stack))


def _notes(subject: Subject) -> tuple[str, ...]:
    notes = []
    if subject.series is None:
        notes.append("fragmentation and driver calls were not judged: the segments were not recorded")
    if subject.steps is None:
        notes.append("leaks were not looked for: steps not known")
    elif _are_guessed(subject):
        notes.append("leaks were not looked for: without stacks a loop over steps looks like a loop over layers")
    elif len(subject.steps) < MIN_STEPS:
        n = len(subject.steps)
        notes.append(f"leaks were not looked for: {n} step{'s' if n > 1 else ''} recorded, {MIN_STEPS} are needed")
    table, attribution = subject.lifetimes.allocations, subject.attribution
    unknown = int(table.requested_bytes[attribution.category == Category.UNKNOWN].sum())
    if unknown > MOSTLY_UNKNOWN_FRAC * int(table.requested_bytes.sum()):
        notes.append("growing KV caches were not looked for: most allocations have no category")
    return tuple(notes)
