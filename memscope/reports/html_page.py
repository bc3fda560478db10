"""The page of the HTML report, its style and script, and its parts. Every text from a trace is escaped here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from memscope.attribution.driver_usage import DEVICE_ROW_MEANINGS, DriverUsage
from memscope.attribution.grouping import Grouping
from memscope.attribution.ledger import NOT_ON_THE_DEVICE, NOT_ON_THE_DEVICE_MEANING, Ledger
from memscope.device.device import Moment
from memscope.device.recording import RecordedTrace
from memscope.figures.ledger import (
    LedgerLine,
    device_lines,
    empty_rows,
    ledger_lines,
    unmeasured_device_rows,
)
from memscope.figures.theme import FONT_FAMILY, HATCHED_ROWS, LIGHT, MONO_FAMILY, THEMES, Theme
from memscope.files import whole_file
from memscope.replay.compare import Comparison
from memscope.units import format_bytes, format_count, format_fraction
from memscope.version import __version__
from memscope.words.labels import (
    NOT_MEASURED,
    SCATTER_MEANING,
    pool_label,
    row_label,
    scatter_words,
    short_place,
    split_site,
    stream_label,
)
from memscope.words.replay import RECORDED, change_words, conf_label, oom_words, result_label

_BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:[KMGT]iB|B|%)(?!\w))")


def size(n_bytes: int | None) -> str:
    """A size with its exact bytes on hover, or "not measured"."""
    if n_bytes is None:
        return f'<span class="missing">{NOT_MEASURED}</span>'
    return f'<span title="{format_count(n_bytes)} bytes">{format_bytes(n_bytes)}</span>'


def swatch(row: str) -> str:
    """The colour of a ledger row."""
    return f'<span class="swatch row-{escape(row)}"></span>'


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[int] = ()) -> str:
    """A table of cells that are already markup; the columns in ``numeric`` are set right."""
    classes = ["num" if i in numeric else "" for i in range(len(headings))]
    head = "".join(f'<th class="{c}">{escape(h)}</th>' for h, c in zip(headings, classes, strict=True))
    body = "".join(
        "<tr>" + "".join(f'<td class="{c}">{cell}</td>' for cell, c in zip(row, classes, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def tiles(moment: Moment) -> str:
    """The four numbers of a device's peak."""
    device = moment.device
    highest, available = device.peak_reserved().reserved_bytes, device.available_bytes
    free = None if moment.reserved_bytes is None else moment.reserved_bytes - moment.active_bytes
    known = "device size not recorded" if available is None else f"of {format_bytes(available)} that PyTorch could have"
    share = f"{format_fraction(free / moment.reserved_bytes)} of reserved" if free and moment.reserved_bytes else ""
    cells = [
        ("Peak allocated", size(moment.allocated_bytes), f"active {format_bytes(moment.active_bytes)}"),
        (
            "Reserved then",
            size(moment.reserved_bytes),
            f"highest {format_bytes(highest)}" if highest is not None else "",
        ),
        ("Reserved, not in use", size(free), share),
        ("Headroom", size(device.headroom_bytes), known),
    ]
    parts = (f'<div class="tile"><span>{a}</span><b>{b}</b><span>{c}</span></div>' for a, b, c in cells)
    return f'<section class="tiles">{"".join(parts)}</section>'


def ledger_table(ledger: Ledger) -> str:
    """The ledger's rows, their sum, and the names of the empty ones."""
    nothing = ", ".join(empty_rows(ledger))
    more = f'<p class="quiet">Nothing in: {escape(nothing)}</p>' if nothing else ""
    rows = [
        (label, line.size, line.share, format_count(line.bytes), escape(line.meaning))
        for label, line in _labelled(ledger_lines(ledger))
    ]
    name, total, exact, sums = _total_row(ledger.total_of, ledger.total_bytes)
    rows.append((name, total, format_fraction(1) if ledger.total_bytes else "", exact, sums))
    if ledger.unbacked_bytes:
        n_bytes = ledger.unbacked_bytes
        figures = (format_bytes(n_bytes), "", format_count(n_bytes))
        rows.append((escape(NOT_ON_THE_DEVICE), *figures, escape(NOT_ON_THE_DEVICE_MEANING)))
    return table(("", "size", f"of {ledger.total_of}", "bytes", ""), rows, (1, 2, 3)) + more


def driver_usage_table(count: DriverUsage) -> str:
    """The rows of the device's own count and their sum; what was not measured is named."""
    rows = [
        (label, line.size, format_count(line.bytes), escape(line.meaning))
        for label, line in _labelled(device_lines(count))
    ]
    for name in unmeasured_device_rows(count):
        label = swatch(name) + escape(row_label(name))
        rows.append((label, size(None), "", escape(DEVICE_ROW_MEANINGS[name])))
    return table(("", "size", "bytes", ""), [*rows, _total_row("device used", count.total_bytes)], (1, 2))


def _labelled(lines: Iterable[LedgerLine]) -> Iterator[tuple[str, LedgerLine]]:
    return ((swatch(line.name) + escape(line.label), line) for line in lines)


def _total_row(name: str, n_bytes: int) -> tuple[str, str, str, str]:
    exact = f"<b>{format_count(n_bytes)}</b>"
    return f"<b>{escape(name)}</b>", f"<b>{format_bytes(n_bytes)}</b>", exact, "the sum, to the byte"


def inferred_table(moment: Moment) -> str:
    """What was inferred of memory from before the recording, how sure that is and why; empty where nothing was."""
    rows = [
        (
            swatch(part.category) + escape(row_label(part.category)),
            size(part.bytes),
            format_count(part.n_allocations),
            part.confidence_words,
            escape(part.evidence),
        )
        for part in moment.coverage.inferred
    ]
    return table(("inferred", "size", "allocations", "", "evidence"), rows, (1, 2)) if rows else ""


def unknown_table(moment: Moment, limit: int) -> str:
    """The lines of code whose memory in use has no category, empty where all of it has one."""
    rows = [
        (size(group.requested_bytes), format_count(group.n_allocations), escape(group.label))
        for group in moment.unknown_sites(limit)
    ]
    return table(("unknown", "allocations", "line of code"), rows, (0, 1)) if rows else ""


def groups_table(moment: Moment) -> str:
    """Fragmentation by pool, stream and size class."""
    rows = [
        (
            f"{group.size_class}, {escape(pool_label(group.pool))}, {escape(stream_label(group.stream))}",
            size(group.reserved_bytes),
            size(group.active_bytes),
            size(group.rounding_bytes),
            size(group.releasable_bytes),
            size(group.free_in_split_segments_bytes),
            size(group.largest_free_block_bytes),
            scatter_words(group.scatter_frac),
        )
        for group in moment.fragmentation.groups
    ]
    headings = ("group", "reserved", "active", "rounding", "releasable", "pinned", "largest free", "scatter")
    return table(headings, rows, range(1, 8)) + f'<p class="quiet">Scatter: {SCATTER_MEANING}.</p>'


def pins_table(moment: Moment, limit: int) -> str:
    """Free memory that live blocks keep from going back, and what freeing them would return."""
    rows = [
        (
            size(pin.held_bytes),
            size(pin.returned_bytes),
            size(pin.pinning_bytes),
            format_count(len(pin.allocation_ids)),
            holder(moment, pin.allocation_ids[0]),
        )
        for pin in moment.pins(limit)
    ]
    if not rows:
        return '<p class="quiet">No live block keeps free memory from going back.</p>'
    return table(("free, held", "gives back", "live, together", "blocks", "the largest of them"), rows, range(4))


def holder(moment: Moment, row: int) -> str:
    """Category and owner, or line of code, of an allocation."""
    device = moment.device
    category, owner, site = device.category_of(row).label, device.owner_of(row), device.site_of(row)
    words = escape(owner) if owner else ""
    if site:
        function, place = split_site(site)
        words += f' <code title="{escape(site)}">{escape(function)} {escape(short_place(place))}</code>'
    return f"{swatch(category)}{escape(row_label(category))} {words or '<span class=missing>no stack recorded</span>'}"


def sites_table(moment: Moment, limit: int) -> str:
    """The lines of code that hold most."""
    grouped = moment.grouped(Grouping.SITE)
    rows = []
    for group in grouped[:limit]:
        function, place = split_site(group.label)
        rows.append(
            (
                f"{escape(function)}<br><code class=quiet>{escape(place)}</code>",
                format_count(group.n_allocations),
                size(group.requested_bytes),
            )
        )
    rest = sum(group.requested_bytes for group in grouped[limit:])
    n_more = len(grouped) - limit
    more = f'<p class="quiet">{format_count(n_more)} more together hold {format_bytes(rest)}</p>' if n_more > 0 else ""
    return table(("line of code", "allocations", "requested"), rows, (1, 2)) + more


def allocations_table(moment: Moment, limit: int) -> str:
    """The largest live allocations."""
    lifetimes = moment.lifetimes.allocations
    rows = [
        (
            size(int(lifetimes.block_bytes[row])),
            holder(moment, row),
            "the start" if lifetimes.alloc_event[row] < 0 else format_count(int(lifetimes.alloc_event[row])),
        )
        for row in moment.rows[:limit].tolist()
    ]
    return table(("block", "what, and who", "since event"), rows, (0, 2))


def replay_table(comparison: Comparison) -> str:
    """Every number of a comparison of replays."""
    recorded = comparison.recorded
    peaks = (recorded.peak_reserved_bytes, recorded.peak_active_bytes, recorded.efficiency_frac)
    rows = [_replay_row(RECORDED, "", "", peaks, (recorded.n_device_allocs, recorded.n_device_frees, None))]
    for result in comparison.results:
        kind = f' <span class="quiet">{escape(result.exactness)}</span>'
        if result.oom is not None:
            kind += f'<br><span class="bad">{escape(oom_words(result.oom))}</span>'
        rows.append(
            _replay_row(
                result_label(comparison, result),
                kind,
                change_words(result.peak_reserved_bytes, recorded.peak_reserved_bytes),
                (result.peak_reserved_bytes, result.peak_active_bytes, result.efficiency_frac),
                (result.n_device_allocs, result.n_device_frees, result.n_retries),
            )
        )
    for one in comparison.refused:
        why = f'<br><span class="warn">{escape(one.reason)}</span>'
        rows.append((f"<code>{escape(conf_label(one.strategy, one.conf))}</code>{why}", *[""] * 7))
    headings = ("setting", "peak reserved", "vs recorded", "peak active", "efficiency")
    return table((*headings, "driver allocs", "frees", "retries"), rows, range(1, 8))


def _replay_row(
    label: str,
    more: str,
    change: str,
    peaks: tuple[int | None, int, float | None],
    counts: tuple[int | None, ...],
) -> tuple[str, ...]:
    reserved, active, efficiency = peaks
    return (
        f"<code>{escape(label)}</code>{more}",
        size(reserved),
        escape(change),
        size(active),
        "" if efficiency is None else format_fraction(efficiency),
        *("—" if count is None else format_count(count) for count in counts),
    )


def headline(text: str, about: str = "", *, is_bad: bool = False) -> str:
    """What follows, in large letters, and below it what of; a number is not parted from its unit."""
    whole = _BEFORE_UNIT.sub("\u00a0", text)
    below = f'<p class="quiet">{escape(about)}</p>' if about else ""
    return f"<h2{' class=bad' if is_bad else ''}>{escape(whole)}</h2>{below}"


def page_head(title: str, facts: str = "") -> str:
    """The line above everything: what the page is about, and the switch between light and dark."""
    words = f'<p class="quiet">{escape(facts)}</p>' if facts else ""
    return (
        f'<header><div><h1>{escape(title)}</h1>{words}</div><span class="spring"></span>'
        '<button id="scheme" type="button">light / dark</button></header>'
    )


def page_foot() -> str:
    """The line below everything."""
    return f"<footer>memscope {__version__} · sizes in binary units; exact bytes on hover</footer>"


def trust(recording: RecordedTrace) -> str:
    """How far the report can be trusted."""
    completeness, metadata = recording.completeness, recording.trace.metadata
    dot = '<span class="dot">●</span> ' if recording.is_exact else ""
    head = f"<p>{dot}{escape(recording.trust_sentence())}</p>"
    notes = "".join(f'<li><span class="warn">⚠</span> {escape(text)}</li>' for text in completeness.warnings)
    notes += "".join(f"<li>{escape(text)}</li>" for text in metadata.shown_notes)
    listed = f"<ul>{notes}</ul>" if notes else ""
    return f"<section><h3>Can it be trusted?</h3>{head}{listed}</section>"


_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""The page may load nothing: what is not in the file is not there."""

_PAGE_COLORS = {"light": ("#f5f6f8", "#e3e6eb"), "dark": ("#0e1115", "#262c35")}

_STYLE = """
body{margin:0;background:var(--page);color:var(--ink);font:14px/1.45 FONT;font-variant-numeric:tabular-nums;
font-feature-settings:"calt" 0}
main{max-width:1040px;margin:0 auto;padding:32px 24px 64px}
h1{font-size:16px;margin:0}h2{font-size:28px;line-height:1.25;letter-spacing:-.015em;font-weight:640;margin:40px 0 4px}
h3{font-size:16px;font-weight:620;margin:0 0 4px}
p{margin:0}.quiet{color:var(--muted);font-size:13px}.num{text-align:right;white-space:nowrap}
header{display:flex;align-items:center;gap:12px}header .spring{flex:1}
button{font:inherit;font-size:12px;color:inherit;
background:var(--surface);border:1px solid var(--line);border-radius:4px;
padding:4px 10px;cursor:pointer}
section{background:var(--surface);border:1px solid var(--line);border-radius:8px;padding:20px;margin-top:16px;
break-inside:avoid}
.tiles{display:grid;grid-template-columns:repeat(4,1fr);padding:0}
.tile{padding:14px 20px;border-left:1px solid var(--line)}
.tile:first-child{border-left:0}.tile b{display:block;font-size:22px;font-weight:620;letter-spacing:-.02em}
.tile>span{font-size:12px;color:var(--muted)}
table{border-collapse:collapse;width:100%;margin-top:12px;font-size:13px}
th{font-weight:500;font-size:12px;color:var(--muted);text-align:left;padding:4px 12px 4px 0}th.num{text-align:right}
td{padding:5px 12px 5px 0;border-top:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}
td:last-child,th:last-child{padding-right:0}
td.num{overflow-wrap:normal}tr.total td{font-weight:620}
code{font-family:MONO;font-size:12px}
.swatch{display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:8px}
ul{margin:8px 0 0;padding:0;list-style:none}li{margin:4px 0}.warn{color:var(--amber)}.bad{color:var(--red)}
.dot{color:var(--row-kv_cache)}.missing{font-style:italic;color:var(--muted)}
.picture{margin-top:12px}
footer{margin-top:32px;color:var(--muted);font-size:12px}
@media(max-width:760px){.tiles{grid-template-columns:repeat(2,1fr)}}
@media print{button{display:none}section{border-color:#ccc;padding:12px 16px}.tiles{padding:0}
body{background:#fff;print-color-adjust:exact;-webkit-print-color-adjust:exact}
main{max-width:none;padding:0}h2{font-size:22px;margin-top:24px}h2,h3{break-after:avoid;break-inside:avoid}
section{break-inside:auto}.picture,tr,.tiles{break-inside:avoid}thead{display:table-header-group}
td,th{padding-right:8px}.num{white-space:nowrap}code{font-size:11px}table{font-size:12px}}
@page{margin:14mm}
.printing main{max-width:680px;padding:0}
"""

_PRINT_PAGE = ("#ffffff", "#cccccc")
"""Paper is white, whatever the screen shows: the colours of its page and of its lines."""

_SCRIPT = """
const root=document.documentElement,paper=window.matchMedia("print");
let chosen=window.matchMedia("(prefers-color-scheme: dark)").matches?"dark":"light";
function draw(scheme){root.dataset.scheme=scheme;
document.querySelectorAll(".picture").forEach(function(place){
const figure=JSON.parse(document.getElementById(place.id+"-"+scheme).textContent);
if(root.classList.contains("printing"))Object.assign(figure.layout,{width:place.clientWidth,
height:figure.layout.height||place.offsetHeight,autosize:false});
Plotly.react(place,figure.data,figure.layout,{displayModeBar:false,responsive:true});});}
document.getElementById("scheme").addEventListener("click",function(){chosen=chosen==="dark"?"light":"dark";draw(chosen);});
function toPaper(is){if(is===root.classList.contains("printing"))return;
root.classList.toggle("printing",is);draw(is?"light":chosen);}
window.addEventListener("beforeprint",function(){toPaper(true);});
window.addEventListener("afterprint",function(){toPaper(false);});
paper.addEventListener("change",function(event){toPaper(event.matches);});
if(paper.matches)toPaper(true);else draw(chosen);
"""


def page(title: str, body: str) -> str:
    """A whole HTML page around a body that is already markup; the title is text."""
    style = _STYLE.replace("FONT", FONT_FAMILY).replace("MONO", MONO_FAMILY)
    variables = "".join(_variables(theme) for theme in THEMES.values())
    variables += f"@media print{{:root[data-scheme]{{{_colors(LIGHT, *_PRINT_PAGE)}}}}}"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{variables}{style}</style><script>{get_plotlyjs()}</script></head>\n"
        f"<body><main>{body}</main><script>{_SCRIPT}</script></body></html>\n"
    )


def _colors(theme: Theme, page_color: str, line: str) -> str:
    """The colours of a theme as the style names them."""
    names = ("ink", "muted", "faint", "surface", "red", "amber")
    colors = {name: getattr(theme, name) for name in names} | {"page": page_color, "line": line}
    rows = "".join(f"--row-{name}:{color};" for name, color in theme.rows.items())
    return "".join(f"--{name}:{color};" for name, color in colors.items()) + rows


def _variables(theme: Theme) -> str:
    hatched = ",".join(f'[data-scheme="{theme.name}"] .row-{name}' for name in HATCHED_ROWS)
    hatch = f"{hatched}{{background:repeating-linear-gradient(135deg,{theme.faint} 0 1.5px,transparent 1.5px 4px)}}"
    plain = "".join(f".row-{name}{{background:var(--row-{name})}}" for name in theme.rows if name not in HATCHED_ROWS)
    return f':root[data-scheme="{theme.name}"]{{{_colors(theme, *_PAGE_COLORS[theme.name])}}}{hatch}{plain}'


def write_page(content: str, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a page to a file; it appears whole or not at all.

    Raises
    ------
    UsageError
        If the file exists and may not be replaced.
    InputFileError
        If it cannot be written there.
    """
    with whole_file(path, overwrite=overwrite) as file:
        file.write(content.encode("utf-8", "backslashreplace"))
    return Path(path)


def in_themes(draw: Callable[[Theme], go.Figure]) -> dict[str, go.Figure]:
    """A figure in every theme, by the theme's name."""
    return {name: draw(theme) for name, theme in THEMES.items()}


def picture(place: str, figures: dict[str, go.Figure], description: str) -> str:
    """A figure's place and its data in every theme; data cannot end the script it stands in.

    Parameters
    ----------
    place
        Id of the place, unique in the page.
    figures
        Theme name → figure.
    description
        What the picture shows, for those who cannot see it.
    """
    data = "".join(
        f'<script type="application/json" id="{place}-{name}">{_script_json(figure)}</script>'
        for name, figure in figures.items()
    )
    return f'<div class="picture" id="{place}" role="img" aria-label="{escape(description)}"></div>{data}'


def _script_json(figure: go.Figure) -> str:
    content: str = figure.to_json()
    json.loads(content)  # a figure that is no JSON must fail here, not in the reader's browser
    return content.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
