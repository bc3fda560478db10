"""``memscope export``."""

from __future__ import annotations

from pathlib import Path

import click

from memscope.cli.options import (
    Choice,
    force_option,
    json_option,
    load_trace,
    print_json,
    rules_option,
    say,
    trace_argument,
    wrote,
)
from memscope.errors import UsageError

_FORMATS = ("perfetto", "chrome", "csv", "parquet", "folded", "speedscope", "pprof", "memory_viz", "html")
_VIEWS = ("events", "allocations", "stacks", "frames", "usage", "segments", "owners", "steps")


@click.command()
@trace_argument
@click.option("--format", "name", type=Choice(_FORMATS), required=True, help="What to write.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="File to write.")
@click.option("--view", type=Choice(_VIEWS), default=None, help="csv, parquet: which table.  [default: allocations]")
@click.option(
    "--at", "event", type=int, default=None, help="folded, speedscope, pprof: after this event. [default: peak]"
)
@click.option("--device", type=int, default=None, help="folded, speedscope, pprof: device index. [default: each]")
@rules_option
@json_option
@force_option
def export(
    trace: Path,
    name: str,
    output: Path,
    view: str | None,
    event: int | None,
    device: int | None,
    rules: Path | None,
    as_json: bool,
    force: bool,
) -> None:
    """Write a trace for another tool.

    perfetto and chrome: a timeline of counters by category, steps, phases and allocations. csv and parquet: a view, as
    memscope sql has them. folded, speedscope and pprof: the stacks of what is in use at a moment, the peak of each
    device unless --at says another, in bytes as requested (the allocator's rounding is no part of them). memory_viz: a
    snapshot that pytorch.org/memory_viz opens. html: the report.
    """
    from memscope.export.formats import FORMATS, Asked
    from memscope.export.formats import export as write

    if view is not None and not FORMATS[name].is_of_view:
        raise UsageError(f"--view is for csv and parquet, not for {name}")
    asked = Asked(device=device, event=event, view=view or Asked().view)
    analysis = load_trace(trace, rules)
    path = write(analysis, name, output, asked, overwrite=force)
    wrote(path)
    is_empty = event is not None and not any(
        len(one.at(event).in_use_rows) for one in analysis.devices_asked(device, event)
    )
    if is_empty:
        say(f"memscope: nothing is in use after event {event:,}: {path} holds no stack")
    if as_json:
        print_json({"trace": analysis.name, "format": name, "output": str(path), "file_bytes": path.stat().st_size})
