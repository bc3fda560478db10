"""``memscope baseline``."""

from __future__ import annotations

from pathlib import Path

import click

from memscope.cli.options import console, force_option, json_option, load_trace, print_json, rules_option, say, wrote


@click.command()
@click.argument("traces", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="TRACE...")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The baseline, a JSON file.")
@click.option("--device", type=int, default=None, help="Device index. [default: the first that ran out, or the first]")
@rules_option
@json_option
@force_option
def baseline(
    traces: tuple[Path, ...], output: Path, device: int | None, rules: Path | None, as_json: bool, force: bool
) -> None:
    """Write what runs of one configuration need, for memscope check: their peaks, their noise, and who held what.

    Give several runs of the same program to have the band in which they lie. The file is small, holds no path of this
    machine, and is kept beside the code.
    """
    from memscope.compare.baseline import baseline_of, doubts_of, write_baseline
    from memscope.reports.check.json import baseline_json
    from memscope.reports.check.text import print_baseline

    runs = [load_trace(trace, rules) for trace in traces]
    found = baseline_of(runs, device)
    doubts = doubts_of(runs, device)
    write_baseline(found, output, overwrite=force)
    wrote(output)
    if doubts:
        say(f"memscope: these may not be runs of one configuration: {'; '.join(doubts)}")
    if as_json:
        print_json(baseline_json(found))
    else:
        print_baseline(found, console())
