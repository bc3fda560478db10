"""``memscope slice``."""

from __future__ import annotations

import re
from pathlib import Path

import click

from memscope.cli.options import force_option, json_option, load_trace, print_json, say, trace_argument, wrote
from memscope.errors import UsageError
from memscope.units import format_items

_EVENTS = re.compile(r"(\d{1,18}):(\d{1,18})")
_SNAPSHOTS = (".pickle", ".pkl")


@click.command(name="slice")
@trace_argument
@click.option("--steps", metavar="I:J", help="From step I to step J, both included.")
@click.option("--events", metavar="A:B", help="From event A to event B, both included.")
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
    from memscope.compare.moments import parse_steps
    from memscope.export.slices import part_of_events, part_of_steps, slice_trace
    from memscope.trace.container import SUFFIX, write_container
    from memscope.trace.snapshot.write import write_snapshot

    if (steps is None) == (events is None):
        raise UsageError("give --steps 3:5 or --events 1000:2000, one of them")
    if output.suffix not in (SUFFIX, *_SNAPSHOTS):
        raise UsageError(f"{output}: name it {output.stem}{SUFFIX} or {output.stem}.pickle, which says what to write")
    match = None if events is None else _EVENTS.fullmatch(events.strip())
    if events is not None and match is None:
        raise UsageError(f"{events!r} is no range of events: write 1000:2000")
    pair = None if steps is None else parse_steps(steps)
    analysis = load_trace(trace)
    analysis.require_consistent()
    if pair is not None:
        parts = part_of_steps(analysis, *pair)
    else:
        assert match is not None
        parts = part_of_events(analysis, int(match[1]), int(match[2]))
    found = slice_trace(analysis, parts)
    write = write_snapshot if output.suffix in _SNAPSHOTS else write_container
    wrote(write(found, output, overwrite=force))
    if as_json:
        listed = [{"device": part.device, "first_event": part.begin, "last_event": part.end - 1} for part in parts]
        print_json({"trace": analysis.name, "output": str(output), "n_events": found.n_events, "parts": listed})
        return
    say(f"{output}  {format_items(found.n_events, 'event')} of {analysis.trace.n_events:,}", err=False)
