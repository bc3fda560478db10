"""``memscope whatif``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from memscope.cli.options import console, device_option, json_option, load_trace, print_each_json, rules_option
from memscope.cli.sweeping import progress
from memscope.errors import UsageError
from memscope.gpus import GpuModel, find_usable_gpu

if TYPE_CHECKING:
    from memscope.analysis import Analysis


@click.command()
@click.argument("trace", type=click.Path(path_type=Path), required=False)
@click.option(
    "-a",
    "--apply",
    "asked",
    multiple=True,
    metavar="T",
    help="A technique, such as checkpoint:every=1; several times for several, each by itself and then together.",
)
@click.option("--all", "all_", is_flag=True, help="Every technique that applies, the largest saving first.")
@click.option("--fit", "gpu", default=None, metavar="GPU", help="The cheapest techniques with which it fits a card.")
@click.option("--list", "lists", is_flag=True, help="List the techniques and exit.")
@device_option
@rules_option
@json_option
def whatif(
    trace: Path | None,
    asked: tuple[str, ...],
    all_: bool,
    gpu: str | None,
    lists: bool,
    device: int | None,
    rules: Path | None,
    as_json: bool,
) -> None:
    """Say what a technique would have made of this run: the peak after it, what it costs, how far it is proved.

    The recorded requests are changed as the technique changes the program, and served by PyTorch's allocator, so that
    fragmentation is part of the answer. A technique that is in force already saves 0.
    """
    from memscope.reports.whatif.json import what_ifs_json
    from memscope.reports.whatif.text import print_techniques, print_what_ifs
    from memscope.techniques.registry import TECHNIQUES
    from memscope.techniques.whatif import what_if, what_if_all

    if lists:
        print_techniques(TECHNIQUES.values(), console())
        return
    if trace is None:
        raise UsageError("give a TRACE, or --list for the techniques")
    if bool(asked) + all_ + (gpu is not None) != 1:
        raise UsageError(
            "choose one of --apply TECHNIQUE, --all for every one that applies, and --fit GPU; memscope whatif --list "
            "names the techniques"
        )
    card = None if gpu is None else find_usable_gpu(gpu)
    analysis = load_trace(trace, rules)
    analysis.require_consistent()
    if card is not None:
        _fit(analysis, card, device, as_json=as_json)
        return
    found = []
    for each in analysis.devices_asked(device):
        with progress(f"changing {analysis.name}") as on_done:
            found.append(what_if_all(each, on_done=on_done) if all_ else what_if(each, asked, on_done=on_done))
    if as_json:
        print_each_json([what_ifs_json(analysis, answer) for answer in found])
        return
    for answer in found:
        print_what_ifs(analysis, answer, console())


def _fit(analysis: Analysis, card: GpuModel, device: int | None, *, as_json: bool) -> None:
    """What to change so that a run fits a card."""
    from memscope.reports.whatif.json import fit_plan_json
    from memscope.reports.whatif.text import print_fit_plan
    from memscope.techniques.fit import fit_plan

    plans = []
    for each in analysis.devices_asked(device):
        with progress(f"changing {analysis.name}") as on_done:
            plans.append((each.index, fit_plan(each, card, on_done)))
    if as_json:
        print_each_json([fit_plan_json(analysis, index, plan) for index, plan in plans])
        return
    for index, plan in plans:
        print_fit_plan(analysis, index, plan, console())
