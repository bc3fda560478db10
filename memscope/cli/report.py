"""``memscope report``."""

from __future__ import annotations

from pathlib import Path

import click

from memscope.cli.options import console, force_option, json_option, load_trace, print_json, trace_argument


@click.command()
@trace_argument
@json_option
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write one self-contained offline HTML file.")
@force_option
def report(trace: Path, as_json: bool, output: Path | None, force: bool) -> None:
    """Say where the memory went, at the peak of each device, and how far the answer can be trusted."""
    from memscope.reports.json import report_json

    analysis = load_trace(trace)
    if as_json:
        print_json(report_json(analysis))
    analysis.require_consistent()
    if output is not None:
        from memscope.reports.html import write_html_report

        write_html_report(analysis, output, overwrite=force)
        click.echo(f"memscope: wrote {output}", err=True)
    elif not as_json:
        from memscope.reports.summary import print_report

        print_report(analysis, console())
