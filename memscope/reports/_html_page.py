"""The page of the HTML report: its style, its script, and the frame that everything stands in."""

from __future__ import annotations

import json
from collections.abc import Callable
from html import escape
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from memscope.figures.theme import FONT_FAMILY, HATCHED_ROWS, MONO_FAMILY, THEMES, Theme
from memscope.files import whole_file

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
@media print{button{display:none}section{border-color:#ccc}}
"""

_SCRIPT = """
const root=document.documentElement;
function draw(scheme){root.dataset.scheme=scheme;
document.querySelectorAll(".picture").forEach(function(place){
const figure=JSON.parse(document.getElementById(place.id+"-"+scheme).textContent);
Plotly.react(place,figure.data,figure.layout,{displayModeBar:false,responsive:true});});}
document.getElementById("scheme").addEventListener("click",function(){draw(root.dataset.scheme==="dark"?"light":"dark");});
window.addEventListener("beforeprint",function(){draw("light");});
draw(window.matchMedia("(prefers-color-scheme: dark)").matches?"dark":"light");
"""


def page(title: str, body: str) -> str:
    """A whole HTML page around a body that is already markup; the title is text."""
    style = _STYLE.replace("FONT", FONT_FAMILY).replace("MONO", MONO_FAMILY)
    variables = "".join(_variables(theme) for theme in THEMES.values())
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{variables}{style}</style><script>{get_plotlyjs()}</script></head>\n"
        f"<body><main>{body}</main><script>{_SCRIPT}</script></body></html>\n"
    )


def _variables(theme: Theme) -> str:
    page_color, line = _PAGE_COLORS[theme.name]
    names = ("ink", "muted", "faint", "surface", "red", "amber")
    colors = {name: getattr(theme, name) for name in names} | {"page": page_color, "line": line}
    rows = "".join(f"--row-{name}:{color};" for name, color in theme.rows.items())
    body = "".join(f"--{name}:{color};" for name, color in colors.items())
    hatched = ",".join(f'[data-scheme="{theme.name}"] .row-{name}' for name in HATCHED_ROWS)
    hatch = f"{hatched}{{background:repeating-linear-gradient(135deg,{theme.faint} 0 1.5px,transparent 1.5px 4px)}}"
    plain = "".join(f".row-{name}{{background:var(--row-{name})}}" for name in theme.rows if name not in HATCHED_ROWS)
    return f':root[data-scheme="{theme.name}"]{{{body}{rows}}}{hatch}{plain}'


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
