"""``memscope oom``."""

from __future__ import annotations

from pathlib import Path

import click

from memscope.cli.options import console, device_option, json_option, load_trace, print_json, trace_argument
from memscope.errors import TrustError


@click.command()
@trace_argument
@click.option("--at", "event", type=int, default=None, help="Which out-of-memory error, by its event. [default: first]")
@device_option
@json_option
def oom(trace: Path, event: int | None, device: int | None, as_json: bool) -> None:
    """Say why memory ran out, and the smallest change that would have let the request through.

    Changes are checked by replaying the recorded requests. Exit code 0 if the cause is told or no request failed, 3 if
    the trace does not hold what a cause rests on.
    """
    from memscope.oom.verdict import OomClass
    from memscope.reports.oom import oom_json, print_oom

    analysis = load_trace(trace)
    analysis.require_consistent()
    verdict = analysis.oom(device, event)
    if as_json:
        print_json(oom_json(analysis, verdict))
    else:
        print_oom(analysis, verdict, console())
    if verdict.verdict is OomClass.CANNOT_TELL:
        raise TrustError(f"{analysis.name}: why memory ran out cannot be told: {verdict.reason}")
