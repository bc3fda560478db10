"""``memscope import``."""

from __future__ import annotations

from pathlib import Path

import click

from memscope.cli.options import force_option
from memscope.errors import UsageError
from memscope.units import format_bytes, format_count


@click.command(name="import")
@click.argument("snapshots", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="SNAPSHOT...")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="File to write, or folder. [default: beside the input]",
)
@force_option
def import_(snapshots: tuple[Path, ...], output: Path | None, force: bool) -> None:
    """Convert torch memory snapshots to .memscope files, which are small and open at once."""
    from memscope.trace.container import SUFFIX, write_container
    from memscope.trace.open import is_container, open_trace

    if output is not None and len(snapshots) > 1 and not output.is_dir():
        raise UsageError(f"{output} must be a folder that exists, because there are {len(snapshots)} inputs")
    for snapshot in snapshots:
        target = _target(snapshot, output, SUFFIX)
        trace = open_trace(snapshot)
        if output is None and is_container(snapshot):
            raise UsageError(f"{snapshot} is a .memscope file already: every command reads it as it is")
        write_container(trace, target, overwrite=force)
        size = target.stat().st_size
        click.echo(f"{target}  {format_count(trace.n_events)} events  {format_bytes(size)}")


def _target(snapshot: Path, output: Path | None, suffix: str) -> Path:
    stem = snapshot.name
    for ending in (".memscope.part", ".memscope", ".gz", ".xz", ".bz2", ".zst", ".pickle", ".pkl", ".html"):
        stem = stem.removesuffix(ending)
    if output is None:
        return snapshot.with_name(stem + suffix)
    return output / (stem + suffix) if output.is_dir() else output
