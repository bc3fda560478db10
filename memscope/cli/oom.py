"""``memscope oom``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from memscope.cli.options import console, device_option, json_option, load_trace, print_json, trace_argument
from memscope.errors import TrustError, UsageError
from memscope.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from memscope.analysis import Analysis


@click.command()
@trace_argument
@click.option(
    "--at",
    "event",
    type=int,
    default=None,
    help="Which out-of-memory error, by its event. [default: what ended the recording, or the first]",
)
@click.option("--capacity", metavar="SIZE", help="Device memory, such as 24GiB, where it was not recorded.")
@device_option
@json_option
def oom(trace: Path, event: int | None, capacity: str | None, device: int | None, as_json: bool) -> None:
    """Say why memory ran out, and the smallest change that would have let the request through.

    Changes are checked by replaying the recorded requests. Exit code 0 if the cause is told or no request failed, 3 if
    the trace does not hold what a cause rests on.
    """
    from memscope.oom.verdict import OomClass
    from memscope.reports.oom import oom_json, print_oom

    analysis = load_trace(trace)
    analysis.require_consistent()
    if capacity is not None:
        device = analysis.device_of_event(event, device).index
        analysis = _with_capacity(analysis, parse_bytes(capacity), device)
    verdict = analysis.oom(device, event)
    if as_json:
        print_json(oom_json(analysis, verdict))
    else:
        print_oom(analysis, verdict, console())
    if verdict.verdict is OomClass.CANNOT_TELL:
        raise TrustError(f"{analysis.name}: why memory ran out cannot be told: {verdict.reason}")


def _with_capacity(analysis: Analysis, total_bytes: int, index: int) -> Analysis:
    """The same trace with the size of its device, which snapshots do not have."""
    from memscope.analysis import Analysis

    metadata = analysis.trace.metadata
    recorded = metadata.device_total_bytes.get(index)
    if recorded is not None:
        raise UsageError(f"--capacity: the memory of device {index} is recorded, {format_bytes(recorded)}")
    totals = metadata.device_total_bytes | {index: total_bytes}
    trace = replace(analysis.trace, metadata=replace(metadata, device_total_bytes=totals))
    return Analysis(trace, analysis.path, rules=analysis.rules)
