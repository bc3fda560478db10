"""The verdict on an out-of-memory error, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from html import escape
from typing import Any

from rich.console import Console
from rich.text import Text

from memscope.device.recording import RecordedTrace
from memscope.oom.room import FreeGroup
from memscope.oom.verdict import (
    Counterfactual,
    Failure,
    FreedBlock,
    OomClass,
    OomOwner,
    OomVerdict,
    Remedies,
    oom_headline,
)
from memscope.reports.json import trace_json
from memscope.reports.terminal import Column, FittedTable, Kind
from memscope.reports.text import print_trust_header
from memscope.techniques.through import LetThrough
from memscope.trace.marks import describe_moment
from memscope.trace.schema import NONE_ID
from memscope.units import format_bytes, format_count, format_handle
from memscope.words.labels import row_label
from memscope.words.techniques import OF_TECHNIQUES, technique_words

_N_EVENTS_NAMED = 8
_CHECKED = {
    "exact": ("✓", "green", "checked by replay"),
    "modelled": ("≈", "yellow", "by a modelled replay"),
    "unchecked": ("?", "yellow", "not checked by replay"),
}


def oom_json(recording: RecordedTrace, verdict: OomVerdict) -> dict[str, Any]:
    """The object of ``memscope oom --json``."""
    event, remedies = verdict.event, verdict.remedies
    time_ns = NONE_ID if event is None else int(recording.trace.time_ns[event])
    return {
        "trace": trace_json(recording),
        "verdict": verdict.verdict.value,
        "headline": oom_headline(verdict),
        "reason": verdict.reason,
        "is_certain": verdict.is_certain,
        "device": verdict.device,
        "event": event,
        "where": None if event is None else describe_moment(recording.trace, event) or None,
        "time_ns": None if time_ns == NONE_ID else time_ns,
        "events": list(verdict.events),
        **_failure_json(verdict.failure),
        "evidence": list(verdict.evidence),
        "also": [cause.value for cause in verdict.cause.also],
        **_around_json(verdict.failure),
        "counterfactual": None if verdict.counterfactual is None else _counterfactual_json(verdict.counterfactual),
        "counterfactuals": [_counterfactual_json(change) for change in remedies.found],
        "not_found": list(remedies.not_found),
        "techniques": [asdict(technique) for technique in verdict.techniques],
        "trust": list(verdict.trust),
        "replay_error_bytes": remedies.replay_error_bytes,
    }


def _failure_json(failure: Failure | None) -> dict[str, Any]:
    """The request, the counters, the free memory and the limits; null where not measured, or where nothing failed."""
    request = None if failure is None else failure.request
    free, limit, outside = (None, None, None) if failure is None else (failure.free, failure.limit, failure.outside)
    return {
        "requested_bytes": None if request is None else request.rounded_bytes,
        "driver_bytes": None if request is None else request.driver_bytes,
        "stream": None if request is None else request.stream,
        "pool": None if request is None or request.pool is None else list(request.pool),
        "allocated_bytes": None if failure is None else failure.allocated_bytes,
        "active_bytes": None if failure is None else failure.active_bytes,
        "reserved_bytes": None if free is None else free.reserved_bytes,
        "free_bytes": None if free is None else free.free_bytes,
        "device_free_bytes": None if limit is None else limit.device_free_bytes,
        "largest_free_block_bytes": None if free is None else free.largest_bytes,
        "pending_bytes": None if free is None else free.pending_bytes,
        "private_free_bytes": None if free is None else free.private_bytes,
        "releasable_bytes": None if free is None else free.releasable_bytes,
        "packed_bytes": None if free is None else free.packed_bytes,
        "limit": None if limit is None else asdict(limit),
        "outside": None if outside is None else asdict(outside),
    }


def _around_json(failure: Failure | None) -> dict[str, Any]:
    """Where memory was free, and who held it."""
    groups = () if failure is None or failure.free is None else failure.free.groups
    return {
        "groups": [{**asdict(group), "pool": _pool_json(group)} for group in groups],
        "owners": [] if failure is None else [asdict(owner) for owner in failure.owners],
    }


def _pool_json(group: FreeGroup) -> list[int] | None:
    return None if group.pool is None else list(group.pool)


def _counterfactual_json(change: Counterfactual) -> dict[str, Any]:
    return {**asdict(change), "blocks": [asdict(block) for block in change.blocks]}


def print_oom(recording: RecordedTrace, verdict: OomVerdict, console: Console) -> None:
    """Print the verdict: the line, what it rests on, where memory was free, who held it, what would have helped."""
    colour = {OomClass.NO_OOM: "green", OomClass.CANNOT_TELL: "yellow"}.get(verdict.verdict, "red")
    console.print(Text(_sentence(oom_headline(verdict)), style=f"bold {colour}"))
    if verdict.event is not None:
        console.print(Text(f"  {_place(recording, verdict)}", style="dim"))
    if verdict.verdict is not OomClass.NO_OOM and verdict.reason not in oom_headline(verdict):
        console.print(Text(f"  {_sentence(verdict.reason)}."))
    for text in verdict.evidence:
        console.print(Text(f"  · {text}"))
    if verdict.failure is not None and verdict.failure.free is not None and verdict.failure.free.groups:
        _print_groups(verdict.failure.free.groups, verdict.failure.device_free_bytes, console)
    if verdict.failure is not None and verdict.failure.owners:
        _print_owners(verdict.failure.owners, console)
    if verdict.remedies.found or verdict.remedies.not_found:
        _print_counterfactuals(verdict.remedies, console)
    if verdict.techniques:
        _print_techniques(verdict.techniques, console)
    if verdict.trust:
        console.print()
        console.print(Text("How far this can be trusted", style="bold"))
        for text in verdict.trust:
            console.print(Text(f"  ⚠ {text}", style="yellow"))
    console.print()
    print_trust_header(recording, console)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _place(recording: RecordedTrace, verdict: OomVerdict) -> str:
    event = verdict.event
    assert event is not None
    where = describe_moment(recording.trace, event)
    name = recording.trace.metadata.device_names.get(verdict.device)
    place = f"device {verdict.device}{f' ({name})' if name else ''}, event {event:,}{f' ({where})' if where else ''}"
    others = [other for other in verdict.events if other != event]
    if not others:
        return place
    named = ", ".join(format_count(other) for other in others[:_N_EVENTS_NAMED])
    more = f" and {format_count(len(others) - _N_EVENTS_NAMED)} more" if len(others) > _N_EVENTS_NAMED else ""
    what = "another request failed at event" if len(others) == 1 else "other requests failed at events"
    return f"{place}; {what} {named}{more} (memscope oom judges each)"


def _print_groups(groups: Sequence[FreeGroup], driver_bytes: int | None, console: Console) -> None:
    console.print()
    console.print(Text("Where memory was free", style="bold"))
    table = FittedTable(
        Column("pool", Kind.NAME),
        Column("stream", Kind.NAME, place=5),
        Column("class", Kind.NAME),
        Column("reserved", place=2),
        Column("free"),
        Column("waiting", place=6),
        Column("releasable", place=4),
        Column("pinned", place=3),
        Column("largest free", place=1),
        Column("for this request", Kind.WORDS, style="dim"),
    )
    for group in groups:
        table.add_row(
            "not recorded" if group.pool is None else "default" if group.pool == (0, 0) else str(group.pool),
            "not recorded" if group.stream is None else "default" if group.stream == 0 else format_handle(group.stream),
            group.size_class,
            *map(
                format_bytes,
                (
                    group.reserved_bytes,
                    group.free_bytes,
                    group.pending_bytes,
                    group.releasable_bytes,
                    group.pinned_bytes,
                    group.largest_free_bytes,
                ),
            ),
            group.why_not or "may use it",
        )
    left = "not recorded" if driver_bytes is None else format_bytes(driver_bytes)
    table.add_row("driver", "", "", "", left, style="bold")
    table.print(console)


def _print_owners(owners: Sequence[OomOwner], console: Console) -> None:
    console.print()
    console.print(Text("Who held memory", style="bold"))
    table = FittedTable(
        Column("together"),
        Column("allocations", place=1),
        Column("category", Kind.NAME),
        Column("owner and line", Kind.WORDS),
    )
    for owner in owners:
        others = f" and {owner.n_owners - 1:,} more" if owner.n_owners > 1 else ""
        name = None if owner.owner is None else f"{owner.owner}{others}"
        table.add_row(
            format_bytes(owner.block_bytes),
            format_count(owner.n_allocations),
            row_label(owner.category),
            _name(name, owner.site),
        )
    table.print(console)


def _name(owner: str | None, site: str | None) -> str:
    return ", ".join(text for text in (owner, site) if text) or "no owner or stack recorded"


def _print_counterfactuals(remedies: Remedies, console: Console) -> None:
    console.print()
    console.print(Text("What would have let it through", style="bold"))
    for change in remedies.found:
        mark, colour, words = _CHECKED[change.checked]
        note = f": {change.note}" if change.note else ""
        console.print(Text(f"  {mark} {change.text}", style=colour).append(f"  ({words}{note})", style="dim"))
        for block in change.blocks:
            console.print(Text(f"      {_block(block)}", style="dim"))
        if change.n_blocks > len(change.blocks) > 0:
            console.print(Text(f"      and {format_count(change.n_blocks - len(change.blocks))} smaller", style="dim"))
    for text in remedies.not_found:
        console.print(Text(f"  · {text}", style="dim"))


def _print_techniques(techniques: Sequence[LetThrough], console: Console) -> None:
    console.print()
    console.print(Text("What to change in the program, the cheapest first", style="bold"))
    for technique in techniques:
        console.print(Text(f"  ≈ {technique_words(technique)}", style="yellow"))
        if technique.how:
            console.print(Text(f"      {technique.how}", style="dim"))
    console.print(Text(f"  {OF_TECHNIQUES}", style="dim"))


def _block(block: FreedBlock) -> str:
    born = "before the recording" if block.alloc_event is None else f"event {block.alloc_event:,}"
    return f"{format_bytes(block.block_bytes)} {row_label(block.category)}: {_name(block.owner, block.site)} ({born})"


def oom_html(recording: RecordedTrace, verdict: OomVerdict) -> str:
    """The verdict as a part of the HTML report; markup in names is escaped."""
    parts = [f'<p><b class="bad">{escape(_sentence(oom_headline(verdict)))}</b></p>']
    if verdict.reason not in oom_headline(verdict):
        parts.append(f"<p>{escape(_sentence(verdict.reason))}.</p>")
    if verdict.event is not None:
        parts.append(f'<p class="quiet">{escape(_sentence(_place(recording, verdict)))}</p>')
    parts.append(_list_html(escape(text) for text in verdict.evidence))
    parts.append(_list_html(f'<span class="warn">⚠</span> {escape(text)}' for text in verdict.trust))
    changes = [_change_html(change) for change in verdict.remedies.found]
    changes += [f'<span class="quiet">{escape(text)}</span>' for text in verdict.remedies.not_found]
    if changes:
        parts.append(f"<p><b>What would have let it through</b></p>{_list_html(changes)}")
    if verdict.techniques:
        listed = _list_html(escape(technique_words(technique)) for technique in verdict.techniques)
        parts.append(f"<p><b>What to change in the program</b>, {OF_TECHNIQUES}</p>{listed}")
    return "".join(parts)


def _list_html(items: Iterable[str]) -> str:
    listed = "".join(f"<li>{item}</li>" for item in items)
    return f"<ul>{listed}</ul>" if listed else ""


def _change_html(change: Counterfactual) -> str:
    mark, _, words = _CHECKED[change.checked]
    note = f": {change.note}" if change.note else ""
    text = f'{mark} {escape(change.text)} <span class="quiet">({escape(words + note)})</span>'
    blocks = [f'<span class="quiet">{escape(_block(block))}</span>' for block in change.blocks]
    if change.n_blocks > len(change.blocks) > 0:
        blocks.append(f'<span class="quiet">and {format_count(change.n_blocks - len(change.blocks))} smaller</span>')
    return text + _list_html(blocks)
