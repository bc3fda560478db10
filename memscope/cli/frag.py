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
    print_each_json,
    rules_option,
    trace_argument,
)


@click.command()
@trace_argument
@event_option
@device_option
@click.option("--top", type=click.IntRange(1), default=10, show_default=True, help="Pins to show.")
@click.option("--over-time", is_flag=True, help="Also show how it was over all events, and the worst moments.")
@rules_option
@json_option
def frag(
    trace: Path,
    event: int | None,
    device: int | None,
    top: int,
    over_time: bool,
    rules: Path | None,
    as_json: bool,
) -> None:
    """Measure fragmentation at the peak of reserved memory (or after any event), and name the blocks that pin it."""
    from memscope.reports.fragmentation import fragmentation_json, print_fragmentation

    analysis = load_trace(trace, rules)
    analysis.require_consistent()
    devices = analysis.devices_asked(device, event)
    moments = [each.fragmentation_moment() if event is None else each.at(event) for each in devices]
    if as_json:
        print_each_json([fragmentation_json(moment, top) for moment in moments])
        return
    for moment in moments:
        print_fragmentation(moment, top, console(), over_time=over_time, has_header=moment is moments[0])
