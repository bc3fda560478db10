"""A recorded key/value cache in the HTML report: over the run, by layer, by cache, and what its growth cost."""

from __future__ import annotations

from html import escape

from memscope.analysis import Analysis
from memscope.figures.kv_lens import LABELS, MEANINGS, cache_figure, cache_finding, layers_figure
from memscope.figures.labels import NOT_MEASURED
from memscope.kv_lens.lens import KvLens
from memscope.kv_lens.series import SPLITS
from memscope.reports.html_page import in_themes, picture
from memscope.reports.html_parts import size, table
from memscope.reports.kv_lens import N_POOLS, LensReport, growth_verdict, kinds_words, lens_report, pool_words
from memscope.trace.schema import NONE_ID
from memscope.units import format_bytes, format_count, format_fraction

_N_CACHES = 12


def cache_sections(analysis: Analysis, device: int) -> list[tuple[str, str]]:
    """Titles and markup of the sections about a device's key/value cache; none where it has none."""
    report = lens_report(analysis, device)
    if report is None:
        return []
    lens, event = report.lens, report.event
    body = _split_table(report)
    if lens.lifetimes.n_events:
        over_run = in_themes(lambda theme: cache_figure(analysis, device, theme, moment=event))
        body = picture(f"kv-{device}", over_run, "the key/value cache over the run") + body
    layers = lens.by_layer(event)
    if any(row.key != NONE_ID for row in layers):
        bars = in_themes(lambda theme: layers_figure(layers, theme))
        body += picture(f"kv-layers-{device}", bars, "the layers at the cache's peak")
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
    at = f"At its peak, after event {format_count(report.event)}. " if report.lens.lifetimes.n_events else ""
    words = f"{at}Tokens held: {n_tokens} ({escape(source)})."
    return table(("", "size", "share", ""), rows, (1, 2)) + f'<p class="quiet">{words}</p>'


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
    more = f'<p class="quiet">{len(caches) - _N_CACHES:,} smaller ones</p>' if len(caches) > _N_CACHES else ""
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
