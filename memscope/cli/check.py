"""``memscope check``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from memscope.cli.options import console, force_option, json_option, load_trace, print_json, rules_option, wrote
from memscope.errors import BudgetExceededError, InputFileError, MemscopeError, TrustError, UsageError, first_line
from memscope.names import shown
from memscope.units import parse_bytes

if TYPE_CHECKING:
    from memscope.compare.checks import Check
    from memscope.compare.gate import Gate, Unjudged


@click.command()
@click.argument("trace", type=click.Path(path_type=Path), required=False)
@click.option("--max-peak", metavar="SIZE", help="The most that may be allocated, such as 24GB.")
@click.option("--max-reserved", metavar="SIZE", help="The most that may be reserved.")
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    help="What memscope baseline wrote, or a trace: the peaks may not be higher than its.",
)
@click.option(
    "--tolerance",
    metavar="SHARE",
    default=None,
    help="So much more than the baseline's highest run is let through, 1% or 64MiB; its noise if that is more. "
    "[default: 1%]",
)
@click.option("--allow-partial", is_flag=True, help="Judge a recording of which parts may be missing by what it has.")
@click.option("--device", type=int, default=None, help="Device index. [default: each]")
@click.option("--config", type=click.Path(path_type=Path), help="A TOML file of several checks, in place of TRACE.")
@click.option("--top", type=click.IntRange(1), default=10, show_default=True, help="Rows of blame to show.")
@click.option("--junit", type=click.Path(path_type=Path), help="Write JUnit XML for a CI system.")
@click.option("--github", is_flag=True, help="Print GitHub annotations in place of text.")
@rules_option
@json_option
@force_option
def check(
    trace: Path | None,
    max_peak: str | None,
    max_reserved: str | None,
    baseline: Path | None,
    tolerance: str | None,
    allow_partial: bool,
    device: int | None,
    config: Path | None,
    top: int,
    junit: Path | None,
    github: bool,
    rules: Path | None,
    as_json: bool,
    force: bool,
) -> None:
    """Hold a run to a budget: exit code 2 where it is passed, with the owners and lines of the excess.

    Exit code 3 where the limits seem to be kept and the trace cannot prove it: events were lost, the recording began in
    mid-life, or memory ran out. A limit that is passed is passed whatever is missing. A check of --config whose trace
    cannot be read fails, the others are judged, and the exit code is 1.
    """
    if as_json and github:
        raise UsageError("--json and --github both write to stdout: choose one of them")
    options = (max_peak, max_reserved, baseline, tolerance, device)
    if (trace is None) == (config is None):
        raise UsageError("give a TRACE, or --config with several" if trace is None else "--config has its own traces")
    if config is not None and (any(option is not None for option in options) or allow_partial):
        raise UsageError("--config has the limits of its checks: give no others beside it")
    checks = _checks_of(config) if config is not None else (_check_of(trace, options, allow_partial),)
    judge = _gate if config is None else _gate_of_several
    gates = [judge(one, rules) for one in checks]
    if junit is not None:
        from memscope.reports.check.junit import write_junit

        write_junit(gates, junit, overwrite=force)
        wrote(junit)
    _print(gates, top, as_json=as_json, github=github)
    _end(gates)


def _checks_of(config: Path) -> tuple[Check, ...]:
    from memscope.compare.checks import read_checks

    return read_checks(config)


def _check_of(
    trace: Path | None,
    options: tuple[str | None, str | None, Path | None, str | None, int | None],
    allow_partial: bool,
) -> Check:
    from memscope.compare.baseline import parse_tolerance
    from memscope.compare.checks import Check

    max_peak, max_reserved, baseline, tolerance, device = options
    if trace is None or (max_peak is None and max_reserved is None and baseline is None):
        raise UsageError("there is nothing to check: give --max-peak, --max-reserved or --baseline")
    if tolerance is not None and baseline is None:
        raise UsageError("--tolerance is of a --baseline: there is none")
    found = Check(
        name=shown(trace.name),
        trace=trace,
        device=device,
        max_peak_bytes=None if max_peak is None else parse_bytes(max_peak),
        max_reserved_bytes=None if max_reserved is None else parse_bytes(max_reserved),
        max_peak_given=(max_peak or "").strip(),
        max_reserved_given=(max_reserved or "").strip(),
        baseline=baseline,
        allow_partial=allow_partial,
    )
    return found if tolerance is None else replace(found, tolerance=parse_tolerance(tolerance))


def _gate(check: Check, rules: Path | None) -> Gate:
    from memscope.compare.baseline import baseline_of, is_baseline, read_baseline
    from memscope.compare.gate import run_check

    before = None
    if check.baseline is not None:
        is_file = is_baseline(check.baseline) or (check.baseline.suffix == ".json" and not check.baseline.exists())
        if is_file:
            before = read_baseline(check.baseline)
        else:
            before = baseline_of([load_trace(check.baseline, rules)], check.device)
    return run_check(check, load_trace(check.trace, rules), before)


def _gate_of_several(check: Check, rules: Path | None) -> Gate | Unjudged:
    """The same for one of several: what cannot be judged is told beside the others, which are."""
    from memscope.compare.gate import Unjudged

    try:
        return _gate(check, rules)
    except (UsageError, InputFileError, TrustError) as error:
        return Unjudged(check, first_line(error), error.exit_code)


def _print(gates: Sequence[Gate | Unjudged], top: int, *, as_json: bool, github: bool) -> None:
    if as_json:
        from memscope.reports.check.json import check_json

        print_json(check_json(gates))
        return
    for gate in gates:
        if github:
            from memscope.reports.check.annotations import github_lines

            for line in github_lines(gate, Path.cwd()):
                click.echo(line)
        else:
            from memscope.reports.check.text import print_gate

            if gate is not gates[0]:
                click.echo()
            print_gate(gate, top, console())


def _end(gates: Sequence[Gate | Unjudged]) -> None:
    """Nothing where all is well.

    Raises
    ------
    MemscopeError
        If a check could not be made.
    BudgetExceededError
        If all could, and a limit was passed.
    TrustError
        If none was passed, and that cannot be believed.
    """
    from memscope.words.gate import gate_words

    for code, error in ((1, MemscopeError), (2, BudgetExceededError), (3, TrustError)):
        found = [gate for gate in gates if gate.exit_code == code]
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            raise error(f"{found[0].check.name}: {gate_words(found[0])}{more}")
