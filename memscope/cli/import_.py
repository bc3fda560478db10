"""``memscope import``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from memscope.cli.options import console, force_option, load_trace, say, span_options
from memscope.cli.outputs import check_output
from memscope.errors import UsageError
from memscope.units import format_bytes, format_count

if TYPE_CHECKING:
    from memscope.analysis import Analysis
    from memscope.export.redaction import Redaction

_ENDINGS = (
    ".memscope.part",
    ".memscope",
    *(".gz", ".xz", ".bz2", ".zst", ".zip"),
    *(".pickle", ".pkl", ".json", ".html", ".csv", ".pt"),
)
"""Of the names of inputs, in the order in which one may stand behind the other."""
_AS_IT_IS = "every command reads it as it is"
_NAME_IT = "name the file for a part of it with -o"
_NOT_IN_NAMES = re.compile(r"[^\w.-]")


@click.command(name="import")
@click.argument("snapshots", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="SNAPSHOT...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File to write, or folder. [default: beside the input]",
)
@click.option("--redact", is_flag=True, help="Replace names of yours by pseudonyms, as memscope redact does.")
@span_options
@force_option
def import_(
    snapshots: tuple[Path, ...],
    output: Path | None,
    redact: bool,
    steps: str | None,
    events: str | None,
    force: bool,
) -> None:
    """Convert torch memory snapshots, and logs of RMM, to .memscope files, which are small and open at once.

    With --events a pickled snapshot takes the memory of that part alone, where what is in use before it can be told by
    passing over the events; steps are found in the whole.
    """
    from memscope.export.reading import parse_span
    from memscope.trace.container import SUFFIX, write_container
    from memscope.trace.open import is_container

    span = parse_span(steps, events)
    if output is not None and len(snapshots) > 1 and not output.is_dir():
        raise UsageError(f"{output} must be a folder that exists, because there are {len(snapshots)} inputs")
    targets = [_target(snapshot, output, SUFFIX) for snapshot in snapshots]
    twice = next((target for target in targets if targets.count(target) > 1), None)
    if twice is not None:
        raise UsageError(f"several of the inputs would become {twice}: import them one by one, each with -o")
    for snapshot, target in zip(snapshots, targets, strict=True):
        if output is None and is_container(snapshot):
            raise UsageError(f"{snapshot} is a .memscope file already: {_AS_IT_IS if span is None else _NAME_IT}")
        analysis = load_trace(snapshot, span=span)
        check_output(target, snapshot, overwrite=force)
        analysis.require_consistent()
        found = _redacted(analysis) if redact else None
        write_container(analysis.trace if found is None else found.trace, target, overwrite=force)
        size = target.stat().st_size
        say(f"{target}  {format_count(analysis.trace.n_events)} events  {format_bytes(size)}", err=False)
        if found is not None:
            _print_redaction(analysis, found)


def _redacted(analysis: Analysis) -> Redaction:
    from memscope.export.redaction import redact

    return redact(analysis.trace)


def _print_redaction(analysis: Analysis, found: Redaction) -> None:
    """What became of the names, as ``memscope redact`` says it."""
    from memscope.cli.redact import report_of
    from memscope.reports.export.redaction import print_redaction

    print_redaction(report_of(analysis, found), console(), lists_kept=False)


def _target(snapshot: Path, output: Path | None, suffix: str) -> Path:
    """The file to write: the input's name without what says how it was packed, and the part of it that was named."""
    from memscope.trace.open import split_part

    if output is not None and not output.is_dir():
        return output
    file, part = split_part(snapshot)
    stem = _stem(file.name) if part is None else f"{_stem(file.name)}-{_NOT_IN_NAMES.sub('_', _stem(part))}"
    folder = file.parent if output is None else output
    return folder / (stem + suffix)


def _stem(name: str) -> str:
    for ending in _ENDINGS:
        name = name.removesuffix(ending)
    return name
