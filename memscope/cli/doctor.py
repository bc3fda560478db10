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

    diagnosis = diagnose()
    if as_json:
        print_json(asdict(diagnosis))
        return
    out = console()
    for check in diagnosis.checks:
        sign, style = _SIGNS[check.status]
        out.print(Text.assemble((sign, style), f" {check.name:<20} {check.finding}"))
        if check.advice:
            out.print(Text(f"  {'':<20} {check.advice}", style="dim"))
    out.print()
    for can, what in (
        (diagnosis.can_read_traces, "read traces and snapshots, report, verify, replay"),
        (diagnosis.can_dry_run, "dry-run a script: memscope run --dry-run script.py"),
        (diagnosis.can_record_cuda, "record on a GPU: memscope run script.py"),
    ):
        out.print(Text.assemble(("yes  " if can else "no   ", "green" if can else "dim"), what))
