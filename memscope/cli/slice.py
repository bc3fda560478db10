"""``memscope slice``."""

from __future__ import annotations

from pathlib import Path

import click

from memscope.cli.options import (
    force_option,
    json_option,
    load_trace,
    print_json,
    say,
    span_options,
    trace_argument,
    wrote,
)
from memscope.errors import UsageError
from memscope.units import format_items

_SNAPSHOTS = (".pickle", ".pkl")


@click.command(name="slice")
@trace_argument
@span_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="File to write: .memscope, or .pickle for a snapshot that pytorch.org/memory_viz opens.",
)
@json_option
@force_option
def slice_(trace: Path, steps: str | None, events: str | None, output: Path, as_json: bool, force: bool) -> None:
    """Cut a part out of a trace: its events, and the segments and blocks that there are after the last of them.

    What was in use before the part begins is there as memory that predates it.
    """
    from memscope.export.reading import cut_out, parse_span, parts_of
    from memscope.trace.container import SUFFIX, write_container
    from memscope.trace.snapshot.write import write_snapshot

    span = parse_span(steps, events)
    if span is None:
        raise UsageError("give --steps 3:5 or --events 1000:2000, one of them")
    if output.suffix not in (SUFFIX, *_SNAPSHOTS):
        raise UsageError(f"{output}: name it {output.stem}{SUFFIX} or {output.stem}.pickle, which says what to write")
    analysis = load_trace(trace)
    parts = parts_of(analysis, span)
    found = cut_out(analysis, parts)
    write = write_snapshot if output.suffix in _SNAPSHOTS else write_container
    wrote(write(found, output, overwrite=force))
    if as_json:
        listed = [{"device": part.device, "first_event": part.begin, "last_event": part.end - 1} for part in parts]
        print_json({"trace": analysis.name, "output": str(output), "n_events": found.n_events, "parts": listed})
        return
    say(f"{output}  {format_items(found.n_events, 'event')} of {analysis.trace.n_events:,}", err=False)
