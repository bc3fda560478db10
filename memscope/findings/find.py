"""Everything worth saying about a device, by fixed rules: the same trace always gives the same findings."""

from __future__ import annotations

from dataclasses import replace

from memscope.device.device import Device
from memscope.findings._delayed import find_delayed_frees
from memscope.findings._driver import find_driver_calls
from memscope.findings._failed import find_failed_requests
from memscope.findings._foreach import find_foreach
from memscope.findings._fragmented import find_fragmentation, find_growing_pools
from memscope.findings._idle_streams import find_idle_streams
from memscope.findings._kv_growth import find_kv_growth
from memscope.findings._rounding import find_rounding
from memscope.findings._second_copies import find_second_copies
from memscope.findings.finding import Finding, Findings, in_order
from memscope.findings.joined import find_joined
from memscope.findings.over_steps.held_late import find_held_late
from memscope.findings.over_steps.leaks import find_leaks, find_regrown
from memscope.findings.over_steps.patterns import find_patterns
from memscope.findings.over_steps.within import JudgedSteps, judged_steps
from memscope.findings.returned import Returned
from memscope.kv_cache.lens import KvLens
from memscope.trace.categories import Category

MOSTLY_UNKNOWN_FRAC = 0.5
"""With more than this share of all allocated bytes in no category, that no KV cache was seen says nothing."""


_LOOKS = (
    find_fragmentation,
    find_growing_pools,
    find_delayed_frees,
    find_idle_streams,
    find_rounding,
    find_driver_calls,
    find_foreach,
    find_second_copies,
    find_failed_requests,
    find_joined,
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
    judged = judged_steps(device)
    if judged.steps is not None:
        patterns = find_patterns(device, judged.steps)
        for look_at_steps in (find_leaks, find_regrown, find_held_late):
            found += look_at_steps(device, judged.steps, patterns, returned)
    if device.lifetimes.fatal_oom_event is not None:
        found = [replace(one, is_spare=one.returned_bytes is not None) for one in found]
    return Findings(device.index, in_order(found), _notes(device, judged))


def _notes(device: Device, judged: JudgedSteps) -> tuple[str, ...]:
    notes = []
    if device.fragmentation_series is None:
        notes.append("fragmentation and driver calls were not judged: the segments were not recorded")
    if judged.why_not:
        notes.append(f"leaks were not looked for: {judged.why_not}")
    table, attribution = device.allocations, device.attribution
    unknown = int(table.requested_bytes[attribution.category == Category.UNKNOWN].sum())
    if unknown > MOSTLY_UNKNOWN_FRAC * int(table.requested_bytes.sum()):
        notes.append("growing KV caches were not looked for: most allocations have no category")
    return tuple(notes)
