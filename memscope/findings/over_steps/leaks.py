"""Leaks: places that keep more after every step.

A pattern leaks if, over the last steps, it kept one allocation more (or several) after each of them. Counting
allocations, and not bytes alone, tells a leak from a batch that grew longer. Looking at the last steps alone leaves out
what is made lazily in the first ones: optimizer state, workspaces, caches that fill up.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np

from memscope.device.device import Device
from memscope.findings.finding import Finding, Severity, largest_rows, site_name
from memscope.findings.joined import joined_rows_of
from memscope.findings.over_steps.patterns import Patterns
from memscope.findings.returned import Returned
from memscope.lifetimes.steps import Steps
from memscope.trace.categories import Category
from memscope.trace.tables import BoolArray, Int64Array
from memscope.units import format_bytes, format_count

MIN_STEPS = 4
"""Fewer steps prove nothing: what the first two make lazily looks like growth, and two of growth may be chance."""
MAX_WINDOW_STEPS = 20
"""That many steps of growth in a row are proof enough, however long the run was before."""
MIN_BYTES_PER_STEP = 64 << 10
"""A thousand steps of less than this keep less than 64 MiB: logged losses, counters."""
SEVERE_BYTES_PER_STEP = 1 << 20
"""A thousand steps of this are a GiB."""
MISSES_ALLOWED_FRAC = 0.1
"""Steps of the window that need not grow: some programs skip a step now and then."""
_SURE_STEPS = 5
_WHY = {
    False: "Something still refers to them: a list of losses or outputs with their graph, a cache without a limit.",
    True: "Either one sequence goes on, or something still refers to the caches of requests that are done.",
}
MAX_REPORTED = 5


def window_steps(n_steps: int) -> int:
    """Number of last steps over which growth is judged: half of them, but at least three."""
    return min(max(MIN_STEPS - 1, n_steps // 2), MAX_WINDOW_STEPS)


def growing_patterns(patterns: Patterns, window: int) -> BoolArray:
    """Which patterns keep more allocations after the steps of the window, and never fewer: bool (patterns,)."""
    change = np.diff(patterns.n_live, axis=1)[:, -window:]
    bytes_change = np.diff(patterns.live_bytes, axis=1)[:, -window:]
    n_grown = np.count_nonzero(change > 0, axis=1)
    grows: BoolArray = (n_grown >= window - int(window * MISSES_ALLOWED_FRAC)) & np.all(change >= 0, axis=1)
    # It must still go on at the end: a cache that has filled up is no leak.
    grows &= (change[:, -1] > 0) & (bytes_change.sum(axis=1) > 0)
    return grows


def find_leaks(device: Device, steps: Steps, patterns: Patterns, returned: Returned) -> list[Finding]:
    """Patterns that keep more after every step, one finding for each line of code.

    Nothing is said of fewer than ``MIN_STEPS`` steps. A KV cache that gets more entries is named as such: it may be one
    sequence that goes on, and is not called a leak. One that grows by copying is found by ``kv_growth``.
    """
    if len(steps) < MIN_STEPS or not len(patterns):
        return []
    window = window_steps(len(steps))
    last = int(steps.end[-1]) - 1
    by_site: dict[tuple[int, bool], list[int]] = defaultdict(list)
    for pattern in np.flatnonzero(growing_patterns(patterns, window)).tolist():
        row = patterns.live_rows(pattern, device, last)[-1:]
        is_kv_cache = bool(device.attribution.category[row[0]] == Category.KV_CACHE)
        by_site[int(device.site_frames_of(row)[0]), is_kv_cache].append(pattern)
    found = [_grown(device, steps, patterns, key, members, window) for key, members in by_site.items()]
    kept = [(finding, members) for finding, members in zip(found, by_site.values(), strict=True) if finding is not None]
    kept.sort(key=lambda one: -(one[0].bytes or 0))
    told = [(finding, *_kept_rows(device, steps, patterns, members)) for finding, members in kept[:MAX_REPORTED]]
    found_with_fix = [_with_fix(finding, rows, ends, returned) for finding, rows, ends in told]
    if len(told) > 1:
        together = returned.freed_after(*(np.concatenate([one[i] for one in told]) for i in (1, 2)))
        found_with_fix[0] = _with_others(found_with_fix[0], len(told), together)
    return found_with_fix


def _kept_rows(device: Device, steps: Steps, patterns: Patterns, members: list[int]) -> tuple[Int64Array, Int64Array]:
    """What patterns keep at the end, and the last event of the step that made each of them."""
    rows = np.concatenate([patterns.live_rows(pattern, device, int(steps.end[-1]) - 1) for pattern in members])
    step = steps.step_of(device.allocations.alloc_event[rows])
    rows, step = rows[step >= 0], step[step >= 0]
    return rows, steps.end[step] - 1


def _with_fix(finding: Finding, rows: Int64Array, ends: Int64Array, returned: Returned) -> Finding:
    """What would be reserved if what is kept were let go of at the end of the step that made it."""
    fix = "drop the references after each step; keep numbers (item()) or detached copies on the host instead"
    if finding.kind == "kv-kept":
        fix = "let go of the caches of requests that are done"
    return replace(finding, fix=fix, returned_bytes=returned.freed_after(rows, ends))


def _with_others(finding: Finding, n_found: int, together_bytes: int | None) -> Finding:
    """That what each of several returns alone does not add up, and what they return together."""
    if together_bytes is None:
        return finding
    text = (
        f"{finding.text} All {n_found} places that keep more, mended together, return {format_bytes(together_bytes)} "
    )
    text += "by replay: what is told of each is for it alone, and does not add up."
    return replace(finding, text=text, evidence={**finding.evidence, "returned_together_bytes": together_bytes})


def _grown(
    device: Device, steps: Steps, patterns: Patterns, key: tuple[int, bool], members: list[int], window: int
) -> Finding | None:
    """The finding for the patterns of one line of code (and whether they are KV caches); None if they are small."""
    site, is_kv_cache = key
    grown = np.diff(patterns.live_bytes[members].sum(axis=0))[-window:]
    per_step = int(np.median(grown))
    if per_step < MIN_BYTES_PER_STEP:
        return None
    n_grown = int(np.count_nonzero(grown > 0))
    first_step, last_step = len(steps) - window, len(steps) - 1
    last = int(steps.end[-1]) - 1
    rows = np.concatenate([_born_since(device, steps, patterns, p, first_step, last) for p in members])
    kept_bytes = int(device.allocations.block_bytes[rows].sum())
    name = site_name(device, site)
    n_each = round(len(rows) / window)
    each = f" ({format_count(n_each)} a step)" if n_each > 1 else ""
    more = f"{format_bytes(per_step)} more is kept after each step"
    found = "" if steps.source == "marks" else f" Steps were found from {steps.source}."
    is_large = per_step >= SEVERE_BYTES_PER_STEP
    return Finding(
        kind="kv-kept" if is_kv_cache else "leak",
        severity=Severity.SEVERE if is_large and not is_kv_cache else Severity.WARNING,
        device=device.index,
        title=f"KV cache: {more}, allocated at {name}" if is_kv_cache else f"Leak: {more}, allocated at {name}",
        text=(
            f"In {n_grown} of the last {window} steps it kept more than after the step before: "
            f"{format_count(len(rows))} allocations{each}, {format_bytes(kept_bytes)}. {_WHY[is_kv_cache]}{found}"
        ),
        bytes=kept_bytes,
        event=last,
        view="allocations",
        rows=largest_rows(device, rows),
        sites=(name,),
        evidence={
            "bytes_per_step": per_step,
            "live_bytes": int(patterns.live_bytes[members, -1].sum()),
            "n_steps": len(steps),
            "n_steps_grown": n_grown,
            "n_steps_judged": window,
            "first_step": steps.labels[first_step],
            "last_step": steps.labels[last_step],
            "n_allocations": len(rows),
            "n_patterns": len(members),
            "confidence": "high" if n_grown == window and window >= _SURE_STEPS else "medium",
            "steps_from": steps.source,
        },
    )


def _born_since(
    device: Device, steps: Steps, patterns: Patterns, pattern: int, first_step: int, last: int
) -> Int64Array:
    rows = patterns.live_rows(pattern, device, last)
    is_new = device.allocations.alloc_event[rows] >= steps.begin[first_step]
    born: Int64Array = rows[is_new]
    return born


def find_regrown(device: Device, steps: Steps, patterns: Patterns, _returned: Returned) -> list[Finding]:
    """Patterns that keep equally many allocations, but larger ones after every step.

    A buffer that is extended each step looks so, and so does what is kept of batches that get longer: which of the two
    cannot be told, and is not claimed.
    """
    window = window_steps(len(steps))
    if len(steps) <= MIN_STEPS or not len(patterns):
        return []
    same_count = np.all(np.diff(patterns.n_live, axis=1)[:, -window:] == 0, axis=1)
    grown = np.diff(patterns.requested_bytes, axis=1)[:, -window:]
    renewed = np.all(patterns.n_born[:, -window:] > 0, axis=1)
    chosen = same_count & renewed & np.all(grown > 0, axis=1) & (grown.mean(axis=1) >= MIN_BYTES_PER_STEP)
    last = int(steps.end[-1]) - 1
    is_joined, found = joined_rows_of(device), []  # what joins outputs is told whatever the steps are
    for pattern in np.flatnonzero(chosen).tolist():
        rows = patterns.live_rows(pattern, device, last)
        if device.attribution.category[rows[-1]] != Category.KV_CACHE and not is_joined[rows[-1]]:
            per_step = int(np.median(grown[pattern]))
            found.append(_regrown(device, rows, per_step, window, last))
    found.sort(key=lambda finding: -(finding.bytes or 0))
    return found[:MAX_REPORTED]


def _regrown(device: Device, rows: Int64Array, per_step: int, window: int, last: int) -> Finding:
    name = site_name(device, int(device.site_frames_of(rows[-1:])[0]))
    size = int(device.allocations.block_bytes[rows].sum())
    return Finding(
        kind="larger-each-step",
        severity=Severity.WARNING,
        device=device.index,
        title=f"{format_bytes(per_step)} larger after each step: what {name} allocates",
        text=(
            f"In each of the last {window} steps it was made anew, larger than before; now {format_bytes(size)}. "
            "A buffer is extended every step, results are joined to earlier ones, or batches get longer."
        ),
        bytes=size,
        event=last,
        view="allocations",
        rows=largest_rows(device, rows),
        sites=(name,),
        evidence={"bytes_per_step": per_step, "n_steps_judged": window, "n_allocations": len(rows)},
        fix="make a buffer in its full size once; collect results on the host (eval_accumulation_steps in a Trainer)",
    )
