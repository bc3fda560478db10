"""``memscope tune``."""

from __future__ import annotations

from pathlib import Path

import click

from memscope.cli.options import console, device_option, json_option, load_trace, print_each_json, trace_argument
from memscope.cli.sweeping import SweepOptions, progress, sweep_options


@click.command()
@trace_argument
@sweep_options
@device_option
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Settings to list, best first.")
@json_option
def tune(trace: Path, sweep: SweepOptions, device: int | None, top: int, as_json: bool) -> None:
    """Find the settings of PyTorch's allocator that this run needs the least memory with.

    Prints the line to set, its predicted peak and what it costs; or that fragmentation is not the problem.
    """
    from memscope.advise.tune import tune as search
    from memscope.device.to_come import state_to_come
    from memscope.reports.replay import print_tuning, tuning_json

    analysis = load_trace(trace)
    analysis.require_consistent()
    found = []
    for each in analysis.devices_asked(device):
        with progress(f"replaying {analysis.name}") as on_done:
            found.append(
                search(
                    each.lifetimes,
                    limits=sweep.limits,
                    to_come_bytes=state_to_come(each),
                    spread=sweep.spread,
                    on_done=on_done,
                )
            )
    if as_json:
        print_each_json([tuning_json(analysis, tuning, top) for tuning in found])
        return
    for tuning in found:
        print_tuning(analysis, tuning, console(), top)
