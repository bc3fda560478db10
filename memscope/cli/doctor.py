"""``memscope doctor``."""

from __future__ import annotations

from dataclasses import asdict

import click

from memscope.cli.options import console, json_option, print_json

_SIGNS = {"ok": ("●", "green"), "info": ("●", "blue"), "warning": ("⚠", "yellow"), "missing": ("○", "dim")}


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Say what this machine can record, and what is in the way."""
    from rich.text import Text

    from memscope.capture.doctor import diagnose
    from memscope.reports.terminal import Column, FittedTable, Kind

    diagnosis = diagnose()
    if as_json:
        print_json(asdict(diagnosis))
        return
    out = console()
    table = FittedTable(Column("", Kind.NAME), Column("", Kind.NAME), Column("", Kind.WORDS), has_header=False)
    for check in diagnosis.checks:
        sign, style = _SIGNS[check.status]
        table.add_row(Text(sign, style), check.name, check.finding)
        if check.advice:
            table.add_row("", "", Text(check.advice, "dim"))
    table.print(out)
    out.print()
    for can, what in (
        (diagnosis.can_read_traces, "read traces and snapshots, report, verify, replay"),
        (diagnosis.can_dry_run, "dry-run a script: memscope run --dry-run script.py"),
        (diagnosis.can_record_cuda, "record on a GPU: memscope run script.py"),
    ):
        out.print(Text.assemble(("yes  " if can else "no   ", "green" if can else "dim"), what))
