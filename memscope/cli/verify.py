"""``memscope verify``."""

from __future__ import annotations

from pathlib import Path

import click

from memscope.cli.options import console, json_option, load_trace, print_json, trace_argument
from memscope.errors import DivergenceError


@click.command()
@trace_argument
@json_option
def verify(trace: Path, as_json: bool) -> None:
    """Replay a trace under its recorded settings and compare every decision with what PyTorch really did.

    Exit code 0 if all are equal, 3 if not or if the trace does not allow the comparison.
    """
    from memscope.replay.verify.verify import VerifyResult, verify_device
    from memscope.reports.replay import print_verification, verification_failure, verification_json

    analysis = load_trace(trace)
    analysis.require_consistent()
    result = VerifyResult(tuple(verify_device(lifetimes) for lifetimes in analysis.lifetimes))
    if as_json:
        print_json(verification_json(analysis, result))
    else:
        print_verification(analysis, result, console())
    if not result.exact:
        raise DivergenceError(f"{analysis.name}: {verification_failure(result)}")
