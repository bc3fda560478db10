"""``memscope frag``."""

from __future__ import annotations

from pathlib import Path

import click

from memscope.cli.options import (
    console,
    device_option,
    event_option,
    json_option,
    load_trace,
    print_json,
    trace_argument,
)


@click.command()
@trace_argument
@event_option
@device_option
@click.option("--top", type=click.IntRange(1), default=10, show_default=True, help="Pinned segments to show.")
@json_option
def frag(trace: Path, event: int | None, device: int | None, top: int, as_json: bool) -> None:
    """Measure fragmentation at the peak of reserved memory (or after any event), and name the blocks that pin it."""
    from memscope.reports.json import fragmentation_json
    from memscope.reports.summary import print_fragmentation

    analysis = load_trace(trace)
    analysis.require_consistent()
    moment = analysis.fragmentation_moment(device) if event is None else analysis.at(event, device)
    if as_json:
        print_json(fragmentation_json(moment, top))
    else:
        print_fragmentation(moment, top, console())
