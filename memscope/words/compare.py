"""A difference of two moments in words: what changed, where each moment lies, and what became of what."""

from __future__ import annotations

from memscope.compare.difference import Change, Difference, Row
from memscope.device.device import Moment
from memscope.names import shown
from memscope.trace.marks import describe_moment, phase_spans
from memscope.trace.schema import NONE_ID
from memscope.units import format_alike, format_bytes, format_items
from memscope.words.labels import row_label, short_place, split_site

CHANGES = (Change.NEW, Change.GROWN, Change.SHRUNK, Change.GONE)
"""What becomes of rows, in the order in which it is said."""


def signed_bytes(n_bytes: int) -> str:
    """A difference with its sign: ``+12.0 MiB``."""
    return f"+{format_bytes(n_bytes)}" if n_bytes > 0 else format_bytes(n_bytes)


def headline(difference: Difference) -> str:
    """``b.memscope holds 1.2 GiB more than a.memscope at its peak: 10.0 GiB → 11.2 GiB allocated``."""
    a, b = difference.a, difference.b
    sizes = " → ".join(format_alike(a.allocated_bytes, b.allocated_bytes))
    delta = difference.delta_bytes
    if difference.is_one_trace:
        later = f"between {place_words(a)} and {place_words(b)}"
        if not delta:
            return f"nothing allocated grew {later}: {format_bytes(a.allocated_bytes)} at both"
        return f"allocated memory {'grew' if delta > 0 else 'shrank'} by {format_bytes(abs(delta))} {later}: {sizes}"
    names = trace_names(difference)
    at_peaks = all(one.event == one.device.peak().event for one in (a, b))
    when = "at its peak" if at_peaks else "then"
    if not delta:
        return f"both hold {format_bytes(a.allocated_bytes)} allocated {'at their peaks' if at_peaks else 'then'}"
    more = "more" if delta > 0 else "less"
    return f"{names[1]} holds {format_bytes(abs(delta))} {more} than {names[0]} {when}: {sizes} allocated"


def trace_names(difference: Difference) -> tuple[str, str]:
    """What the two recordings are called: by their files, and as much of the folders as tells them apart."""
    recordings = [moment.device.recording for moment in (difference.a, difference.b)]
    names = [recording.name for recording in recordings]
    if names[0] != names[1] or difference.is_one_trace:
        return names[0], names[1]
    paths = [recording.path for recording in recordings]
    if None not in paths and paths[0] != paths[1]:
        return shown(str(paths[0])), shown(str(paths[1]))
    return f"{names[0]} (A)", f"{names[1]} (B)"


def place_words(moment: Moment) -> str:
    """Where a moment lies: its event, and its step and phase where they were marked."""
    if moment.event == NONE_ID:
        return "the start"
    where = describe_moment(moment.device.trace, moment.event)
    return f"event {moment.event:,}" + (f" ({where})" if where else "")


def place_hint(difference: Difference) -> str:
    """That both moments lie in different phases, where they do: much of what differs is then the phase's."""
    phases = [_phase(moment) for moment in (difference.a, difference.b)]
    if None in phases or phases[0] == phases[1]:
        return ""
    return (
        f"A is in {phases[0]} then, B in {phases[1]}: part of what differs is that; "
        "--at-a and --at-b compare other moments"
    )


def owners_hint(difference: Difference) -> str:
    """That only one side has owners, where it is so: both are then told by their lines of code."""
    if difference.owners_in is None:
        return ""
    lacks = "B" if difference.owners_in == "A" else "A"
    told = "both are matched and named by category and line of code"
    return f"only {difference.owners_in} has owners, {lacks} has none: {told}"


def _phase(moment: Moment) -> str | None:
    """The innermost phase that a moment lies in, None where none was marked."""
    within = [span for span in phase_spans(moment.device.trace) if span.begin <= moment.event < span.end]
    return max(within, key=lambda span: span.depth).label if within else None


def changes_words(difference: Difference) -> str:
    """``2 new (+1.0 MiB), 3 grown (+4.0 MiB); 12 the same``: how many rows, and their differences."""
    parts = []
    for change in CHANGES:
        rows = difference.rows_of(change)
        if rows:
            parts.append(f"{len(rows)} {change.value} ({signed_bytes(sum(row.delta_bytes for row in rows))})")
    n_same = len(difference.rows_of(Change.SAME))
    return "; ".join([", ".join(parts) or "nothing differs", f"{n_same} the same"])


def matched_words(difference: Difference) -> str:
    """How allocations were matched."""
    matched = difference.matched
    by = "owner, stack and phase" if difference.owners_in is None else "stack and phase"
    text = f"{format_items(matched.n_same_stack, 'allocation')} matched by {by}"
    if matched.n_moved:
        text += f", {matched.n_moved:,} by owner or function (their lines have moved)"
    return f"{text}; {matched.n_new:,} new, {matched.n_gone:,} gone"


def row_name(row: Row) -> str:
    """What a row is called."""
    return row_label(row.key) if row.is_rounding or row.key == row.category else row.key


def row_short(row: Row) -> str:
    """The same in few words: of a line of code its function and the end of its path."""
    function, place = split_site(row_name(row))
    return f"{function} · {short_place(place)}" if place else function


def differing_facts(difference: Difference) -> list[tuple[str, str, str]]:
    """What else is not the same: torch, settings, GPU, capacity, step count; a name and both values each."""
    rows = [
        (name, one, two)
        for (name, one), (_, two) in zip(_facts(difference.a), _facts(difference.b), strict=True)
        if one != two
    ]
    return [] if difference.is_one_trace else rows


def _facts(moment: Moment) -> list[tuple[str, str]]:
    device, metadata = moment.device, moment.device.trace.metadata
    total, steps = device.total_bytes, device.steps
    conf = metadata.alloc_conf
    return [
        ("recorded by", metadata.origin),
        ("torch", metadata.torch_version or "not recorded"),
        ("allocator settings", "not recorded" if conf is None else conf or "default"),
        ("device", device.name or "not recorded"),
        ("device memory", "not recorded" if total is None else format_bytes(total)),
        ("steps", "cannot be told" if steps is None else str(len(steps))),
        ("events", f"{device.n_events:,}"),
    ]
