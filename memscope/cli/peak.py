"""``memscope peak``."""

from __future__ import annotations

from pathlib import Path

import click

from memscope.cli.options import (
    Choice,
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
@click.option(
    "--by",
    type=Choice(["category", "site", "module", "kind", "step", "tag", "rule"]),
    default="category",
    show_default=True,
    help="What to sum the memory by; kind is the same module of every layer together, rule what decided each category.",
)
@click.option("--top", type=click.IntRange(1), default=15, show_default=True, help="Rows to show.")
@rules_option
@json_option
def peak(
    trace: Path, event: int | None, device: int | None, by: str, top: int, rules: Path | None, as_json: bool
) -> None:
    """Say who is live at the peak of allocated memory, or after any other event."""
    from memscope.reports.json import moment_json
    from memscope.reports.text import print_moment

    analysis = load_trace(trace, rules)
    analysis.require_consistent()
    moments = [each.peak() if event is None else each.at(event) for each in analysis.devices_asked(device, event)]
    if as_json:
        print_each_json([moment_json(moment, by, top) for moment in moments])
        return
    for moment in moments:
        print_moment(moment, by, top, console(), has_header=moment is moments[0])
