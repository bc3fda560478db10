"""Every format that a trace can be written in, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from memscope.analysis import Analysis
from memscope.device.device import Moment
from memscope.errors import UsageError, needed_for
from memscope.export._profiles import write_folded, write_pprof, write_speedscope
from memscope.export._timeline import write_timeline
from memscope.export.views import view_table
from memscope.files import whole_file
from memscope.trace.snapshot.write import write_snapshot


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for beside the format.

    Attributes
    ----------
    device, event
        Of which moment a profile is: the peak of every device unless given.
    view
        Which table: see :mod:`.views`.
    """

    device: int | None = None
    event: int | None = None
    view: str = "allocations"


@dataclass(frozen=True, slots=True)
class Format:
    """A format, and whether it is of one moment (a profile) or of one view (a table)."""

    suffix: str
    meaning: str
    write: Callable[[Analysis, Asked, BinaryIO], None] | None
    is_of_moment: bool = False
    is_of_view: bool = False


def _moments(analysis: Analysis, asked: Asked) -> list[Moment]:
    devices = analysis.devices_asked(asked.device, asked.event)
    return [device.peak() if asked.event is None else device.at(asked.event) for device in devices]


def _timeline(analysis: Analysis, asked: Asked, file: BinaryIO) -> None:  # noqa: ARG001
    write_timeline(analysis, file)


def _csv(analysis: Analysis, asked: Asked, file: BinaryIO) -> None:
    import pyarrow as pa
    from pyarrow import csv

    table = view_table(analysis, asked.view)
    types = [pa.string() if pa.types.is_dictionary(field.type) else field.type for field in table.schema]
    csv.write_csv(table.cast(pa.schema(list(zip(table.column_names, types, strict=True)))), file)


def _parquet(analysis: Analysis, asked: Asked, file: BinaryIO) -> None:
    import pyarrow.parquet as pq

    pq.write_table(view_table(analysis, asked.view), file, compression="zstd")


def _folded(analysis: Analysis, asked: Asked, file: BinaryIO) -> None:
    write_folded(_moments(analysis, asked), file)


def _speedscope(analysis: Analysis, asked: Asked, file: BinaryIO) -> None:
    write_speedscope(_moments(analysis, asked), analysis.name, file)


def _pprof(analysis: Analysis, asked: Asked, file: BinaryIO) -> None:
    write_pprof(_moments(analysis, asked), file)


FORMATS: Mapping[str, Format] = {
    "perfetto": Format(".json", "a timeline for ui.perfetto.dev (Chrome's trace events)", _timeline),
    "chrome": Format(".json", "the same", _timeline),
    "csv": Format(".csv", "a view as CSV", _csv, is_of_view=True),
    "parquet": Format(".parquet", "a view as Parquet", _parquet, is_of_view=True),
    "folded": Format(".folded", "stacks in use at a moment, for flamegraph.pl", _folded, is_of_moment=True),
    "speedscope": Format(".speedscope.json", "the same for speedscope", _speedscope, is_of_moment=True),
    "pprof": Format(".pb.gz", "the same for pprof", _pprof, is_of_moment=True),
    "memory_viz": Format(".pickle", "a snapshot for pytorch.org/memory_viz", None),
    "html": Format(".html", "the report as one page", None),
}


def export(
    analysis: Analysis, name: str, path: str | Path, asked: Asked | None = None, *, overwrite: bool = False
) -> Path:
    """Write a trace in another format; the file appears whole or not at all.

    Raises
    ------
    UsageError
        If the file exists and ``overwrite`` is false, or the format is of no moment and one is asked for.
    InputFileError
        If it cannot be written there.
    MissingDependencyError
        If a page needs a package that is not installed.
    """
    form, asked = FORMATS[name], asked or Asked()
    if (asked.device is not None or asked.event is not None) and not form.is_of_moment:
        raise UsageError(
            f"{name} is of the whole trace: a device or a moment is chosen for folded, speedscope and pprof"
        )
    analysis.require_consistent()
    if name == "memory_viz":
        return write_snapshot(analysis.trace, path, overwrite=overwrite)
    if name == "html":
        with needed_for("an HTML page", "dash"):
            from memscope.reports.html import write_html_report
        return write_html_report(analysis, path, overwrite=overwrite)
    assert form.write is not None
    with whole_file(path, overwrite=overwrite) as file:
        form.write(analysis, asked, file)
    return Path(path)
