"""``memscope redact``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from memscope.cli.options import console, force_option, json_option, load_trace, print_json, trace_argument, wrote
from memscope.errors import UsageError

if TYPE_CHECKING:
    from memscope.analysis import Analysis
    from memscope.export.redaction import Redaction
    from memscope.reports.export.redaction import RedactionReport


@click.command()
@trace_argument
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="File to write: .memscope, or .pickle."
)
@click.option(
    "--key",
    default="",
    metavar="TEXT",
    help="What pseudonyms are made with: the same key gives the same ones, and none can be guessed without it.",
)
@click.option("--kept", is_flag=True, help="List every name that was kept.")
@json_option
@force_option
def redact(trace: Path, output: Path, key: str, kept: bool, as_json: bool, force: bool) -> None:
    """Make a copy of a trace that can be shared: names of files, functions, modules and labels become pseudonyms.

    Numbers stay, and so do names that are public, such as those of PyTorch's own files: the report says which.
    """
    from memscope.export.redaction import redact as make
    from memscope.reports.export.redaction import print_redaction, redaction_json
    from memscope.trace.container import SUFFIX, write_container
    from memscope.trace.snapshot.write import write_snapshot

    if output.suffix not in (SUFFIX, ".pickle", ".pkl"):
        raise UsageError(f"{output}: name it {output.stem}{SUFFIX} or {output.stem}.pickle, which says what to write")
    analysis = load_trace(trace)
    analysis.require_consistent()
    found = make(analysis.trace, key)
    write = write_container if output.suffix == SUFFIX else write_snapshot
    wrote(write(found.trace, output, overwrite=force))
    report = report_of(analysis, found)
    if as_json:
        print_json(redaction_json(report))
    else:
        print_redaction(report, console(), lists_kept=kept)


def report_of(analysis: Analysis, found: Redaction) -> RedactionReport:
    """What is said of a trace's redaction, wherever one is made."""
    from memscope.export.redaction import changed_allocations
    from memscope.reports.export.redaction import RedactionReport

    n_changed = changed_allocations(analysis, found)
    return RedactionReport(analysis.name, found.replaced, found.kept, found.left_out, n_changed)
