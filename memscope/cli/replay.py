"""``memscope replay``."""

from __future__ import annotations

from pathlib import Path

import click

from memscope.cli.options import (
    console,
    device_option,
    force_option,
    html_option,
    json_option,
    load_trace,
    print_each_json,
    print_json,
    wrote,
)
from memscope.cli.sweeping import SweepOptions, progress, sweep_options
from memscope.errors import needed_for


def _list(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    """Print the registry and leave."""
    if not wanted or context.resilient_parsing:
        return
    from memscope.replay.strategies import STRATEGIES

    for strategy in STRATEGIES.values():
        click.echo(f"{strategy.name:16} {strategy.exactness:9} {strategy.summary}")
    context.exit()


@click.command()
@click.argument("traces", nargs=-1, required=True, metavar="TRACE...", type=click.Path(path_type=Path))
@click.option(
    "--strategy", "strategies", multiple=True, help="A strategy; repeatable. [default: all] (--list names them)"
)
@click.option(
    "--conf",
    "confs",
    multiple=True,
    metavar="ALLOC_CONF",
    help='Settings for the caching allocator, as in PYTORCH_ALLOC_CONF; "" is the default; repeatable.',
)
@click.option(
    "--list",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_list,
    help="Name the strategies.",
)
@click.option("--explain", is_flag=True, help="Also say what every modelled strategy assumes, and the whole legend.")
@sweep_options
@device_option
@json_option
@html_option
@force_option
def replay(
    traces: tuple[Path, ...],
    strategies: tuple[str, ...],
    confs: tuple[str, ...],
    sweep: SweepOptions,
    device: int | None,
    explain: bool,
    as_json: bool,
    output: Path | None,
    force: bool,
) -> None:
    """Serve the recorded requests with other allocators and settings, and compare their peaks.

    With several TRACEs, each is compared by itself; --json then prints them under "traces".
    """
    from memscope.device.to_come import state_to_come
    from memscope.replay.compare import compare
    from memscope.reports.replay import comparison_json, print_comparison

    if output is not None:
        with needed_for("an HTML page", "dash"):
            from memscope.reports.html import write_replay_html
    contents, compared = [], []
    for trace in traces:
        analysis = load_trace(trace)
        analysis.require_consistent()
        for each in analysis.devices_asked(device):
            with progress(f"replaying {analysis.name}") as on_done:
                comparison = compare(
                    each.lifetimes,
                    strategies,
                    confs,
                    limits=sweep.limits,
                    keeps_usage=False,
                    to_come_bytes=state_to_come(each),
                    spread=sweep.spread,
                    on_done=on_done,
                )
            if as_json:
                contents.append(comparison_json(analysis, comparison))
            if output is not None:
                compared.append((analysis, comparison))
            elif not as_json:
                print_comparison(analysis, comparison, console(), "" if explain else "--explain lists them")
    if as_json and len(traces) == 1:
        print_each_json(contents)
    elif as_json:
        print_json({"traces": contents})
    if output is not None:
        write_replay_html(compared, output, overwrite=force)
        wrote(output)
