"""Reports as text for a terminal. They receive computed results and only format them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from textwrap import wrap
from typing import Any

from rich.console import Console
from rich.text import Text

from memscope.analysis import Analysis
from memscope.attribution.driver_usage import DEVICE_ROW_MEANINGS, UNEXPLAINED
from memscope.attribution.grouping import NOT_RECORDED, Group
from memscope.attribution.ledger import NOT_ON_THE_DEVICE, NOT_ON_THE_DEVICE_MEANING, ROW_MEANINGS
from memscope.device.device import Device, Moment
from memscope.device.recording import RecordedTrace
from memscope.findings.finding import Finding, Findings, Severity
from memscope.names import shown
from memscope.reports.terminal import Column, FittedTable, Kind
from memscope.trace.categories import Category
from memscope.trace.marks import describe_moment
from memscope.trace.schema import NONE_ID
from memscope.units import format_bytes, format_count, format_fraction, format_items
from memscope.words.driver_usage import collectives_words
from memscope.words.headlines import coverage_words, inferred_words
from memscope.words.labels import row_label

_STYLES = {Severity.SEVERE: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}
_INDENT = 10
_WIDTH = 120
_NOTHING = "Nothing found that needs attention."


def print_findings(findings: Findings, console: Console) -> None:
    """Print a device's findings, worst first, and what could not be looked for."""
    console.print()
    console.print(Text("Findings", style="bold"))
    for finding in findings.findings:
        label = Text(f"  {finding.severity.label:<8}", style=_STYLES[finding.severity])
        console.print(label + Text(finding.title))
        for text, style in ((_with_event(finding), "dim"), (finding.fix_words, "")):
            for line in wrap(text, width=min(console.width, _WIDTH) - _INDENT):
                console.print(Text(f"{'':{_INDENT}}{line}", style=style))
    if not findings.findings:
        console.print(f"  {_NOTHING}")
    for note in findings.notes:
        console.print(Text(f"  · {note}", style="dim"))


def _with_event(finding: Finding) -> str:
    return finding.text if finding.event == NONE_ID else f"{finding.text} (event {finding.event:,})"


def findings_json(findings: Findings) -> list[dict[str, Any]]:
    """A device's findings, worst first."""
    return [
        {
            "kind": finding.kind,
            "severity": finding.severity.label,
            "device": finding.device,
            "title": finding.title,
            "text": finding.text,
            "bytes": finding.bytes,
            "event": finding.event,
            "view": finding.view,
            "rows": list(finding.rows),
            "sites": list(finding.sites),
            "evidence": dict(finding.evidence),
            "fix": finding.fix or None,
            "returned_bytes": finding.returned_bytes,
        }
        for finding in findings.findings
    ]


def findings_html(findings: Findings) -> str:
    """A device's findings as a list; markup in what they name is escaped."""
    classes = {Severity.SEVERE: "bad", Severity.WARNING: "warn", Severity.INFO: "quiet"}
    items = "".join(
        f'<li><b class="{classes[finding.severity]}">{finding.severity.label}</b> {escape(finding.title)}'
        f'<br><span class="quiet">{escape(_with_event(finding))}</span>'
        f"{f'<br>{escape(finding.fix_words)}' if finding.fix else ''}</li>"
        for finding in findings.findings
    )
    listed = f"<ul>{items}</ul>" if items else f"<p>{_NOTHING}</p>"
    return listed + "".join(f'<p class="quiet">{escape(note)}</p>' for note in findings.notes)


_NOT_MEASURED = "not measured"
_N_UNKNOWN_SITES = 3
_N_INFERRED = 6
_WITH_DTYPES = ("module", "kind")


def print_report(analysis: Analysis, console: Console) -> None:
    """Print the report: what the trace is, what it cannot say, and each device at its peak."""
    print_trust_header(analysis, console)
    for device in analysis.devices:
        console.print()
        _print_device(device, console)
        print_findings(analysis.opinions(device.index).findings, console)
    if len(analysis.trace.metadata.notes) > 1:
        console.print()
        console.print(Text("About this recording", style="bold"))
        for note in analysis.trace.metadata.shown_notes[1:]:
            console.print(Text(f"  · {note}", style="dim"))


def print_trust_header(recording: RecordedTrace, console: Console) -> None:
    """Print what the trace is and what it cannot say."""
    trace, metadata = recording.trace, recording.trace.metadata
    torch = f", torch {metadata.torch_version}" if metadata.torch_version else ""
    console.print(Text(recording.name, style="bold"))
    settings = shown(metadata.alloc_conf or "") or ("default" if metadata.alloc_conf == "" else "not recorded")
    console.print(
        Text(
            f"  {metadata.origin}{torch}, {format_items(trace.n_events, 'event')}, "
            f"{format_items(len(trace.segments), 'segment')}, settings {settings}"
        )
    )
    completeness = recording.completeness
    if recording.is_exact and not completeness.warnings:
        console.print(Text(f"  ● {recording.trust_sentence()}", style="green"))
    for warning in completeness.warnings:
        console.print(Text(f"  ⚠ {warning}", style="yellow"))
    if metadata.notes:
        console.print(Text(f"  · {metadata.shown_notes[0]}", style="dim"))


def _print_device(device: Device, console: Console) -> None:
    peak, reserved = device.peak(), device.peak_reserved()
    label = f"Device {device.index}{f' ({device.name})' if device.name else ''}"
    console.print(Text(f"{label}: {_peak_words(peak)}", style="bold"))
    console.print(
        f"  reserved {_size(reserved.reserved_bytes)} at most, {_size(peak.reserved_bytes)} then; "
        f"active {format_bytes(peak.active_bytes)}"
    )
    if _other_moment(device):
        console.print(Text(f"  {_other_moment(device)}", style="dim"))
    if device.total_bytes is not None and device.headroom_bytes is not None:
        others = device.limits.reserved_by_others_bytes
        held = f", of which others hold {format_bytes(others)}" if others else ""
        room = f"headroom {format_bytes(device.headroom_bytes)}"
        console.print(f"  {room}; the device has {format_bytes(device.total_bytes)}{held}")
    n_ooms = len(device.oom_events)
    if n_ooms:
        first = int(device.oom_events[0])
        size = format_bytes(int(device.trace.size_bytes[first]))
        again = f", and {n_ooms - 1} more after it" if n_ooms > 1 else ""
        words = f"  out of memory at event {first:,}, asking for {size}{again}; memscope oom says why"
        console.print(Text(words, style="bold red"))
    print_ledger(peak, console)
    print_fragmentation_line(peak, console)


def _other_moment(device: Device) -> str:
    """Where ``frag`` looks, if that is not the peak of this report."""
    judged = device.fragmentation_moment()
    if judged.event == device.peak().event or not device.lifetimes.segments_are_known:
        return ""
    return f"the ledger is of the peak of allocated; memscope frag looks {when(judged)}"


def _size(size: int | None) -> str:
    return _NOT_MEASURED if size is None else format_bytes(size)


def _peak_words(moment: Moment) -> str:
    return f"peak {format_bytes(moment.allocated_bytes)} allocated {when(moment)}"


def when(moment: Moment) -> str:
    """Where a moment lies: ``after event 316 (step 1, backward)``."""
    where = describe_moment(moment.device.trace, moment.event)
    at = "before the first event" if moment.event == NONE_ID else f"after event {moment.event:,}"
    return f"{at} ({where})" if where else at


def print_ledger(moment: Moment, console: Console) -> None:
    """Print a moment's ledger and how much of it is attributed."""
    ledger = moment.ledger
    table = FittedTable(
        Column("ledger", Kind.NAME),
        Column("size"),
        Column(f"of {ledger.total_of}"),
        Column("bytes", place=1),
        Column("its own peak", place=3, style="dim"),
        Column("", Kind.WORDS, place=2, style="dim", called="what the rows mean"),
    )
    highest = {category.label: int(series.max()) for category, series in moment.device.category_usage.items()}
    for row in ledger.rows:
        if row.bytes or row.name == Category.UNKNOWN.label or highest.get(row.name):
            meaning = ROW_MEANINGS.get(row.name, "")
            own_peak = format_bytes(highest[row.name]) if row.name in highest else ""
            share = share_words(row.bytes, ledger.total_bytes)
            table.add_row(
                row_label(row.name), format_bytes(row.bytes), share, format_count(row.bytes), own_peak, meaning
            )
    total = (format_bytes(ledger.total_bytes), share_words(ledger.total_bytes, ledger.total_bytes))
    exact = format_count(ledger.total_bytes)
    table.add_row(ledger.total_of, *total, exact, "", "the sum, to the byte", style="bold")
    if ledger.unbacked_bytes:
        size = ledger.unbacked_bytes
        figures = (format_bytes(size), "", format_count(size), "")
        table.add_row(NOT_ON_THE_DEVICE, *figures, NOT_ON_THE_DEVICE_MEANING, style="yellow")
    table.print(console)
    if ledger.total_of == "active":
        console.print(Text("  free memory is not measured: the segments were not recorded", style="yellow"))
    _print_driver_usage(moment, console)
    words = coverage_words(moment)
    if words:
        console.print(Text(f"  {words}"))
    for part in moment.coverage.inferred[:_N_INFERRED]:
        console.print(Text(f"    {inferred_words(part)}", style="dim"))
    _print_unknown_sites(moment, console)


def share_words(n_bytes: int, total_bytes: int) -> str:
    """A share of what a column's heading says; empty where that is nothing."""
    return format_fraction(n_bytes / total_bytes) if total_bytes else ""


def _print_unknown_sites(moment: Moment, console: Console) -> None:
    """Print where the most memory without a category comes from."""
    for site, size, _, n in moment.unknown_sites(_N_UNKNOWN_SITES):
        allocations = "1 allocation" if n == 1 else f"{format_count(n)} allocations"
        console.print(Text(f"    unknown {format_bytes(size)} in {allocations}: {_site_words(site)}", style="dim"))


def _site_words(site: str) -> str:
    return "made where no stack was recorded" if site == NOT_RECORDED else site


def _print_driver_usage(moment: Moment, console: Console) -> None:
    """Print what the device itself says is used; a dry run has no device to ask."""
    count = moment.ledger.driver_usage
    if moment.ledger.modelled_collectives is not None:
        console.print(Text(f"  {collectives_words(moment.ledger.modelled_collectives)}"))
    if count is None:
        if not moment.device.recording.is_dry_run:
            console.print(Text(f"  beyond PyTorch: {_NOT_MEASURED}, {moment.ledger.not_measured}", style="dim"))
        return
    sampled = when(Moment(moment.device, count.event))
    then = "" if count.is_same_reserved else ", when PyTorch had reserved a different size"
    console.print(Text(f"  the device's own count, sampled {sampled}{then}", style="dim"))
    table = FittedTable(
        Column("", Kind.NAME),
        Column(""),
        Column("", place=1, called="bytes"),
        Column("", Kind.WORDS, place=2, style="dim", called="what the rows mean"),
        has_header=False,
    )
    for row in count.rows:
        if row.bytes or row.name == UNEXPLAINED:
            meaning = DEVICE_ROW_MEANINGS.get(row.name, "")
            table.add_row(row_label(row.name), format_bytes(row.bytes), format_count(row.bytes), meaning)
    total = (format_bytes(count.total_bytes), format_count(count.total_bytes))
    table.add_row("device used", *total, "the sum, to the byte", style="bold")
    table.print(console)


def print_fragmentation_line(moment: Moment, console: Console) -> None:
    """Print a moment's fragmentation in one line; nothing where segments were not recorded."""
    if not moment.lifetimes.segments_are_known:
        return
    overall = moment.fragmentation.overall
    if overall.utilisation_frac is None:
        return
    console.print(
        f"  fragmentation: {format_fraction(overall.utilisation_frac)} of reserved in use, "
        f"{format_bytes(overall.free_in_split_segments_bytes)} free but pinned, "
        f"{format_bytes(overall.releasable_bytes)} releasable, "
        f"largest free block {format_bytes(overall.largest_free_block_bytes)}"
    )


def print_moment(moment: Moment, by: str, top: int, console: Console, *, has_header: bool = True) -> None:
    """Print who is live after an event; the header is the trace's."""
    grouped = moment.grouped(by)
    if has_header:
        print_trust_header(moment.device.recording, console)
    console.print()
    console.print(
        Text(
            f"Device {moment.device.index} {when(moment)}: "
            f"{format_bytes(moment.allocated_bytes)} allocated, {format_bytes(moment.active_bytes)} active, "
            f"{_size(moment.reserved_bytes)} reserved",
            style="bold",
        )
    )
    if by == "category":
        print_ledger(moment, console)
        return
    steps = moment.device.steps if by == "step" else None
    if steps is not None and steps.source != "marks":
        console.print(Text(f"  steps told by {steps.source}: the program marked none", style="dim"))
    _print_groups(moment, by, grouped, top, console)


def _print_groups(moment: Moment, by: str, grouped: Sequence[Group], top: int, console: Console) -> None:
    """Print groups and what nobody requested: together all that is reserved."""
    ledger = moment.ledger
    dtypes = moment.dtypes(by) if by in _WITH_DTYPES else {}
    columns = [Column("size"), Column(f"of {ledger.total_of}"), Column("allocations"), Column(by, Kind.WORDS)]
    table = FittedTable(*columns, *([Column("dtype", Kind.WORDS, place=1)] if dtypes else []))

    def add(n_bytes: int, n_allocations: int | None, label: str, style: str | None = None) -> None:
        n_words = "" if n_allocations is None else format_count(n_allocations)
        types = (", ".join(dtypes.get(label, ())),) if dtypes else ()
        share = share_words(n_bytes, ledger.total_bytes)
        table.add_row(format_bytes(n_bytes), share, n_words, label, *types, style=style)

    for group in grouped[:top]:
        add(group.requested_bytes, group.n_allocations, row_label(group.label) if by == "tag" else group.label)
    rest = grouped[top:]
    if rest:
        n_rest = sum(group.n_allocations for group in rest)
        add(sum(group.requested_bytes for group in rest), n_rest, f"{format_count(len(rest))} more, together", "dim")
    others = [row for row in ledger.rows if not row.is_category and row.bytes]
    if others:
        names = dict.fromkeys("free memory" if row.name.startswith("free") else row_label(row.name) for row in others)
        add(sum(row.bytes for row in others), None, ", ".join(names), "dim")
    add(ledger.total_bytes, None, f"{ledger.total_of}: the sum, to the byte", "bold")
    table.print(console)
