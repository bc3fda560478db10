"""The report as one HTML file that needs nothing else: no network, no fonts, no scripts from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from memscope.analysis import Analysis, Opinions
from memscope.device.device import Device, Moment
from memscope.device.recording import RecordedTrace
from memscope.device.to_come import state_to_come
from memscope.figures.address_map import map_figure
from memscope.figures.device import driver_usage_figure
from memscope.figures.kv_cache import cache_figure, layers_figure
from memscope.figures.ledger import ledger_figure
from memscope.figures.replay import replay_figure
from memscope.figures.timeline import timeline_figure
from memscope.kv_cache.lens import KvLens
from memscope.kv_cache.series import SPLITS
from memscope.oom.verdict import oom_headline
from memscope.replay.compare import Comparison, compare_confs
from memscope.reports import html_page as parts
from memscope.reports.html_page import in_themes, page, picture, size, table, write_page
from memscope.reports.kv_cache import HOW_CACHES_ARE_KNOWN, NO_CACHE, LensReport, lens_report
from memscope.reports.oom import oom_html
from memscope.reports.text import findings_html
from memscope.trace.schema import NONE_ID
from memscope.units import format_bytes, format_count, format_fraction, format_items
from memscope.words.driver_usage import collectives_words, device_finding, driver_usage_origin, why_not_measured
from memscope.words.headlines import allocations_finding, coverage_words, ledger_finding, map_finding, timeline_finding
from memscope.words.kv_cache import LABELS, MEANINGS, N_POOLS, cache_finding, growth_verdict, kinds_words, pool_words
from memscope.words.labels import NOT_MEASURED, sentence
from memscope.words.replay import LEGEND, calibration_words, limits_words, verdict_words

_N_CACHES = 12


def cache_sections(report: LensReport) -> list[tuple[str, str]]:
    """Titles and markup of the sections about a device's key/value cache."""
    lens, event, device = report.lens, report.event, report.lens.device
    body = _split_table(report)
    if device.n_events:
        over_run = in_themes(lambda theme: cache_figure(lens, theme, moment=event))
        body = picture(f"kv-{device.index}", over_run, "the key/value cache over the run") + body
    layers = lens.by_layer(event)
    if any(row.key != NONE_ID for row in layers):
        bars = in_themes(lambda theme: layers_figure(layers, theme))
        body += picture(f"kv-layers-{device.index}", bars, "the layers at that moment")
    body += _caches_table(lens) + _pools(lens, event)
    return [(cache_finding(lens, event), body), *_growth_section(report)]


def _split_table(report: LensReport) -> str:
    total = report.total
    held = {name: int(getattr(total, name)) for name in SPLITS}
    rows = [
        (LABELS[name], size(n_bytes), format_fraction(n_bytes / total.block_bytes), MEANINGS[name])
        for name, n_bytes in held.items()
        if n_bytes
    ]
    tokens, source = report.held_tokens()
    n_tokens = NOT_MEASURED if tokens is None else format_count(tokens)
    is_peak = report.event == report.lens.peak_event
    moment = f"after event {format_count(report.event)}. "
    at = f"At its peak, {moment}" if is_peak else sentence(moment)
    at = at if report.lens.device.n_events else ""
    words = f"{at}Tokens held: {n_tokens} ({escape(source)})."
    return table(("", "size", "of the cache", ""), rows, (1, 2)) + f'<p class="quiet">{words}</p>'


def _caches_table(lens: KvLens) -> str:
    caches = sorted(lens.caches, key=lambda cache: -cache.peak_bytes)
    if not caches:
        return ""
    rows = [
        (
            str(cache.cache_id),
            escape(kinds_words(cache)),
            _count(cache.n_sequences),
            _count(cache.n_tokens),
            "grows" if cache.capacity_tokens is None and cache.kinds else _count(cache.capacity_tokens),
            size(cache.bytes_per_token),
            size(cache.peak_bytes),
        )
        for cache in caches[:_N_CACHES]
    ]
    headings = ("cache", "kept by", "sequences", "tokens", "room", "a token", "peak")
    more = (
        f'<p class="quiet">{len(caches) - _N_CACHES:,} smaller caches are not shown</p>'
        if len(caches) > _N_CACHES
        else ""
    )
    return table(headings, rows, (2, 3, 4, 5, 6)) + more


def _count(n: int | None) -> str:
    return f'<span class="missing">{NOT_MEASURED}</span>' if n is None else format_count(n)


def _pools(lens: KvLens, event: int) -> str:
    pools = lens.pools_at(event)
    lines = [f"{pool_words(row)}. What they hold only their owner knows." for row in pools[:N_POOLS]]
    if len(pools) > N_POOLS:
        lines.append(f"{format_count(len(pools) - N_POOLS)} smaller ones are not shown.")
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def _growth_section(report: LensReport) -> list[tuple[str, str]]:
    cost, replay = report.lens.cost, report.replay
    if not cost.n_copies:
        return []
    title = f"It grows by copying: {format_count(cost.n_copies)} copies moved {format_bytes(cost.moved_bytes)}"
    body = f'<p class="quiet">Old tensors beside their replacements: {size(cost.copy_peak_bytes)} at most.</p>'
    if replay is not None:
        rows = []
        for one in replay.alternatives:
            saved = replay.saved_bytes(one)
            rows.append(
                (
                    one.name,
                    "out of memory" if one.result.oom is not None else size(one.result.peak_reserved_bytes),
                    "" if saved is None else f"−{format_bytes(-saved)}" if saved < 0 else size(saved),
                    size(one.peak_allocated_bytes),
                    size(one.free_at_peak_bytes),
                )
            )
        headings = ("the same requests, the cache", "peak reserved", "saved", "peak allocated", "free at the peak")
        how = f"Replayed in PyTorch's allocator under the recorded settings: {replay.alternatives[0].result.exactness}."
        body = table(headings, rows, (1, 2, 3, 4)) + body + f'<p class="quiet">{escape(how)}</p>'
    return [(f"{title}; {growth_verdict(replay)}", body)]


_N_ROWS = 12
_N_UNKNOWN_SITES = 5


def write_html_report(analysis: Analysis, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write the report of a trace.

    Parameters
    ----------
    overwrite
        Whether a file that is there already may be replaced.

    Raises
    ------
    UsageError
        If the file exists and may not be replaced.
    InputFileError
        If it cannot be written there.
    ContradictionError
        If the trace contradicts itself.
    """
    return write_page(html_report(analysis), path, overwrite=overwrite)


def html_report(analysis: Analysis) -> str:
    """The report of a trace as one page: what follows for each device, how far to trust it, then the evidence.

    Raises
    ------
    ContradictionError
        If the trace contradicts itself.
    """
    analysis.require_consistent()
    opinions = [analysis.opinions(device.index) for device in analysis.devices]
    body = parts.page_head(analysis.name, _facts(analysis)) + "".join(map(_answer, opinions))
    if not opinions:
        body += "<section><p>This trace is empty: it has no segments and no events.</p></section>"
    body += parts.trust(analysis)
    for one in opinions:
        name = parts.headline(_device_label(one.device)) if len(opinions) > 1 else ""
        body += name + _evidence(one)
    return page(f"memscope: {analysis.name}", body + parts.page_foot())


def write_kv_html(
    recording: RecordedTrace, reports: Sequence[LensReport], path: str | Path, *, overwrite: bool = False
) -> Path:
    """Write what a recorded key/value cache holds and wastes as one page; see :func:`write_html_report`."""
    return write_page(kv_html(recording, reports), path, overwrite=overwrite)


def kv_html(recording: RecordedTrace, reports: Sequence[LensReport]) -> str:
    """Each device's cache: what it holds, its layers and caches, what growing cost; then how far to trust it."""
    body = parts.page_head(recording.name, _facts(recording))
    for report in reports:
        (title, content), *others = cache_sections(report)
        body += parts.headline(title, _device_label(report.lens.device))
        body += f"<section>{content}</section>" + "".join(_section(*other) for other in others)
    if not reports:
        body += parts.headline(NO_CACHE, HOW_CACHES_ARE_KNOWN)
    return page(f"memscope kv: {recording.name}", body + parts.trust(recording) + parts.page_foot())


def write_replay_html(
    compared: Sequence[tuple[RecordedTrace, Comparison]], path: str | Path, *, overwrite: bool = False
) -> Path:
    """Write replays of one recording or several as one page; see :func:`write_html_report`."""
    return write_page(replay_html(compared), path, overwrite=overwrite)


def replay_html(compared: Sequence[tuple[RecordedTrace, Comparison]]) -> str:
    """What other allocators would have done with each recording: the verdict, the replays, what they assume."""
    names = ", ".join(recording.name for recording, _ in compared)
    body = parts.page_head(names, "replayed under other allocators and settings")
    for place, (recording, comparison) in enumerate(compared):
        of = f"{recording.name}, device {comparison.device} · {limits_words(comparison.limits)}"
        title = sentence(verdict_words(comparison.verdict))
        body += parts.headline(title, of) + f"<section>{_replays(comparison, place)}</section>"
        legend = "".join(f"<li>{escape(line)}</li>" for line in LEGEND)
        notes = dict.fromkeys(note for result in comparison.results for note in result.notes)
        body += _section("What the columns mean", f"<ul>{legend}</ul>")
        if notes:
            items = "".join(f"<li>{escape(note)}</li>" for note in notes)
            body += _section("What the replays assume", f"<ul>{items}</ul>")
        body += parts.trust(recording)
    return page(f"memscope replay: {names}", body + parts.page_foot())


def _facts(recording: RecordedTrace) -> str:
    trace, metadata = recording.trace, recording.trace.metadata
    conf = metadata.alloc_conf
    facts = [
        metadata.origin,
        f"torch {metadata.torch_version}" if metadata.torch_version else None,
        format_items(trace.n_events, "event"),
        f"settings {conf}" if conf else "default settings" if conf == "" else "settings not recorded",
    ]
    return " · ".join(str(fact) for fact in facts if fact)


def _device_label(device: Device) -> str:
    return f"GPU {device.index}{f' · {device.name}' if device.name else ''}"


def _section(title: str, *content: str) -> str:
    return f"<section><h3>{escape(title)}</h3>{''.join(content)}</section>"


def _answer(opinions: Opinions) -> str:
    """What follows for a device: the finding, its numbers, why memory ran out, what deserves attention."""
    device, peak = opinions.device, opinions.device.peak()
    if len(device.oom_events):
        verdict = opinions.oom()
        body = parts.headline(sentence(oom_headline(verdict)), _device_label(device), is_bad=True)
        body += f"<p>{escape(ledger_finding(peak))}</p>{parts.tiles(peak)}"
        body += _section("Out of memory", oom_html(device.recording, verdict))
    else:
        body = parts.headline(ledger_finding(peak), _device_label(device)) + parts.tiles(peak)
    return body + _section("Findings", findings_html(opinions.findings))


def _evidence(opinions: Opinions) -> str:
    device, index = opinions.device, opinions.device.index
    peak = device.peak()
    bar = picture(f"ledger-{index}", in_themes(lambda theme: ledger_figure(peak.ledger, theme)), "the ledger as a bar")
    words = sentence(coverage_words(peak)) or "Nothing is in use."
    coverage = f'<p class="quiet">{escape(words)}</p>' + parts.inferred_table(peak)
    coverage += parts.unknown_table(peak, _N_UNKNOWN_SITES)
    body = _section("Ledger", bar, parts.ledger_table(peak.ledger), coverage)
    body += _driver_usage(peak)
    if device.n_events:
        figures = in_themes(lambda theme: timeline_figure(device, theme, moment=peak.event))
        body += _section(timeline_finding(device), picture(f"timeline-{index}", figures, "memory over events"))
    cache = lens_report(opinions.kv_lens)
    body += "".join(_section(*one) for one in ([] if cache is None else cache_sections(cache)))
    body += _fragmentation(device.fragmentation_moment())
    if len(device.allocations):
        body += replay_section(compare_confs(device.lifetimes, state_to_come(device)))
    body += _section("Lines of code that hold most at the peak", parts.sites_table(peak, _N_ROWS))
    return body + _section(allocations_finding(peak), parts.allocations_table(peak, _N_ROWS))


def replay_section(comparison: Comparison) -> str:
    """What other settings would have reserved: the verdict, a picture, the numbers, and how far to trust them."""
    return _section(sentence(verdict_words(comparison.verdict)), _replays(comparison, comparison.device))


def _replays(comparison: Comparison, place: int) -> str:
    drawn = in_themes(lambda theme: replay_figure(comparison, theme))
    bars = picture(f"replay-{place}", drawn, "replays compared")
    check = f'<p class="quiet">{escape(calibration_words(comparison))}</p>'
    return bars + parts.replay_table(comparison) + check


def _driver_usage(peak: Moment) -> str:
    """What the device itself says is used: its rows at the peak and its lines over the run, or why there are none.

    A dry run has no device to ask.
    """
    if peak.device.recording.is_dry_run:
        modelled = peak.ledger.modelled_collectives
        return "" if modelled is None else f'<p class="quiet">{escape(collectives_words(modelled))}</p>'
    count, device = peak.ledger.driver_usage, peak.device
    is_sampled = bool((device.trace.samples.device == device.index).any())
    if count is None and not is_sampled:
        why = f'<p class="missing">{escape(why_not_measured(peak))}</p>'
        return _section(device_finding(peak), why)
    rows = f'<p class="quiet">{escape(why_not_measured(peak))}</p>'
    if count is not None:
        rows = parts.driver_usage_table(count) + f'<p class="quiet">{escape(driver_usage_origin(peak, count))}</p>'
    if not device.n_events:
        return _section(device_finding(peak), rows)
    axis = "time" if device.has_times else "event"
    figures = in_themes(lambda theme: driver_usage_figure(device, theme, axis=axis, moment=peak.event, height=320))
    drawn = picture(f"device-{device.index}", figures, "the device's own count against PyTorch's lines")
    return _section(device_finding(peak), drawn, rows)


def _fragmentation(moment: Moment) -> str:
    if not moment.lifetimes.segments_are_known and not len(moment.state.segments):
        return _section("Fragmentation", '<p class="missing">Not measured: the segments were not recorded.</p>')
    figures = in_themes(lambda theme: map_figure(moment, theme))
    drawn = picture(f"map-{moment.device.index}", figures, "segments and blocks at the moment of most reserved memory")
    if not moment.lifetimes.segments_are_known:
        return _section(map_finding(moment), drawn)
    body = _section(map_finding(moment), drawn, parts.groups_table(moment))
    return body + _section("Free memory that live blocks keep from going back", parts.pins_table(moment, _N_ROWS))
