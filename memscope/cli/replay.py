"""``memscope replay``."""

from __future__ import annotations

from pathlib import Path

import click

from memscope.cli.options import console, device_option, json_option, load_trace, print_json, trace_argument
from memscope.units import parse_bytes


@click.command()
@trace_argument
@click.option("--strategy", "strategies", multiple=True, help="A strategy; repeatable. [default: all]")
@click.option(
    "--conf",
    "confs",
    multiple=True,
    metavar="ALLOC_CONF",
    help='Settings for the caching allocator, as in PYTORCH_ALLOC_CONF; "" is the default; repeatable.',
)
@click.option("--capacity", default=None, metavar="SIZE", help="Device memory, such as 80GiB. [default: no limit]")
@device_option
@json_option
def replay(
    trace: Path,
    strategies: tuple[str, ...],
    confs: tuple[str, ...],
    capacity: str | None,
    device: int | None,
    as_json: bool,
) -> None:
    """Serve the recorded requests with other allocators and settings, and compare their peaks."""
    from memscope.replay.compare import compare
    from memscope.reports.replay import comparison_json, print_comparison

    total_bytes = None if capacity is None else parse_bytes(capacity)
    analysis = load_trace(trace)
    analysis.require_consistent()
    comparison = compare(analysis.device(device), strategies, confs, total_bytes=total_bytes)
    if as_json:
        print_json(comparison_json(analysis, comparison))
    else:
        print_comparison(analysis, comparison, console())
