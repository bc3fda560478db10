"""``memscope report``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from memscope.cli.options import (
    console,
    force_option,
    html_option,
    json_option,
    load_trace,
    print_json,
    rules_option,
    span_options,
    wrote,
)
from memscope.errors import SeveralSnapshotsError, needed_for

if TYPE_CHECKING:
    from memscope.analysis import Analysis

    Opening = Callable[[Path], Analysis]


class _Traces(click.Argument):
    """Several TRACEs in the usage line, but one of them is all that is missing."""

    def get_error_hint(self, ctx: click.Context | None) -> str:  # noqa: ARG002
        """What to call the argument in messages."""
        return "'TRACE'"


@click.command()
@click.argument("traces", cls=_Traces, nargs=-1, required=True, metavar="TRACE...", type=click.Path(path_type=Path))
@json_option
@html_option
@force_option
@span_options
@rules_option
def report(
    traces: tuple[Path, ...],
    as_json: bool,
    output: Path | None,
    force: bool,
    steps: str | None,
    events: str | None,
    rules: Path | None,
) -> None:
    """Say where the memory went, at the peak of each device, and how far the answer can be trusted.

    Several TRACEs are set side by side and aligned by step: who peaks, the spread, what differs. They are called ranks
    where they or their files' names say that they are. The snapshots of one file that holds several are taken alike.
    """
    from memscope.export.reading import parse_span

    span = parse_span(steps, events)

    def opened(path: Path) -> Analysis:
        return load_trace(path, rules, span)

    if len(traces) > 1:
        _report_ranks(traces, as_json, output, force, opened)
        return
    try:
        _report_one(traces[0], as_json, output, force, opened)
    except SeveralSnapshotsError as several:
        if several.asked is not None:
            raise
        _report_ranks(several.paths, as_json, output, force, opened)


def _report_one(trace: Path, as_json: bool, output: Path | None, force: bool, opened: Opening) -> None:
    from memscope.reports.json import report_json

    if output is not None:
        with needed_for("an HTML page", "dash"):
            from memscope.reports.html import write_html_report
    analysis = opened(trace)
    if as_json:
        print_json(report_json(analysis))
    analysis.require_consistent()
    if output is not None:
        write_html_report(analysis, output, overwrite=force)
        wrote(output)
    elif not as_json:
        from memscope.reports.text import print_report

        print_report(analysis, console())


def _report_ranks(traces: tuple[Path, ...], as_json: bool, output: Path | None, force: bool, opened: Opening) -> None:
    from memscope.ranks.compare import compare_ranks

    if output is not None:
        with needed_for("an HTML page", "dash"):
            from memscope.reports.ranks_html import write_ranks_html
    comparison = compare_ranks([opened(trace) for trace in traces])
    if as_json:
        from memscope.reports.ranks import ranks_json

        print_json(ranks_json(comparison))
    if output is not None:
        write_ranks_html(comparison, output, overwrite=force)
        wrote(output)
    elif not as_json:
        from memscope.reports.ranks import print_ranks

        print_ranks(comparison, console())
