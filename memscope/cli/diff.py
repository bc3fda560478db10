"""``memscope diff``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from memscope.cli.options import (
    Choice,
    console,
    force_option,
    html_option,
    json_option,
    load_trace,
    print_each_json,
    rules_option,
    wrote,
)
from memscope.errors import UsageError, needed_for

if TYPE_CHECKING:
    from memscope.compare.difference import Difference


@click.command()
@click.argument("a", type=click.Path(path_type=Path), metavar="A")
@click.argument("b", type=click.Path(path_type=Path), metavar="[B]", required=False)
@click.option("--at-a", type=int, default=None, help="Moment of A, after this event. [default: its peak]")
@click.option("--at-b", type=int, default=None, help="Moment of B, after this event. [default: its peak]")
@click.option("--steps", metavar="I:J", help="Step I of A and step J of B, or of A alone, each at its highest.")
@click.option(
    "--by",
    type=Choice(["holder", "owner", "site", "module", "category"]),
    default="holder",
    show_default=True,
    help="What the rows are: owners, the same of every layer together (holder) or one by one, lines of code, modules.",
)
@click.option("--top", type=click.IntRange(1), default=15, show_default=True, help="Rows to show.")
@click.option("--device", type=int, default=None, help="Device index. [default: each that both have]")
@rules_option
@json_option
@html_option
@force_option
def diff(
    a: Path,
    b: Path | None,
    at_a: int | None,
    at_b: int | None,
    steps: str | None,
    by: str,
    top: int,
    device: int | None,
    rules: Path | None,
    as_json: bool,
    output: Path | None,
    force: bool,
) -> None:
    """Say what B holds beyond A at its peak, and whose it is.

    Allocations are matched by owner, stack, phase and step, never by address; lines that have moved are matched by
    function. The rows sum to the difference. Without B two moments of A are compared: two steps, or two events.
    """
    if steps is not None and (at_a is not None or at_b is not None):
        raise UsageError("--steps and --at-a or --at-b name two different moments: give one of them")
    if b is None and steps is None and at_a is None and at_b is None:
        raise UsageError("there is one trace: give a second, or two moments of this one with --steps 3:5 or --at-a")
    if output is not None:
        with needed_for("an HTML page", "dash"):
            from memscope.reports.diff.page import write_diff_html
    found = _differences(a, b, at_a, at_b, steps, by, device, rules)
    if as_json:
        from memscope.reports.diff.json import diff_json

        print_each_json([diff_json(one) for one in found])
    if output is not None:
        write_diff_html(found, output, overwrite=force)
        wrote(output)
    elif not as_json:
        from memscope.reports.diff.text import print_diff

        for one in found:
            if one is not found[0]:
                click.echo()
            print_diff(one, top, console())


def _differences(
    a: Path,
    b: Path | None,
    at_a: int | None,
    at_b: int | None,
    steps: str | None,
    by: str,
    device: int | None,
    rules: Path | None,
) -> list[Difference]:
    """One for each device that is compared."""
    from memscope.compare.diff import diff_moments
    from memscope.compare.difference import By
    from memscope.compare.moments import common_devices, highest_in_step, moment_asked, parse_steps

    first = load_trace(a, rules)
    first.require_consistent()
    second = first if b is None else load_trace(b, rules)
    second.require_consistent()
    if device is None and b is None:
        device = first.device_of_event(at_a if at_a is not None else at_b).index
    pair = None if steps is None else parse_steps(steps)
    found = []
    for one, two in common_devices(first, second, device):
        if pair is not None:
            moments = highest_in_step(one, pair.a), highest_in_step(two, pair.b)
        else:
            moments = moment_asked(one, at_a), moment_asked(two, at_b)
        found.append(diff_moments(*moments, By(by)))
    return found
