"""``memscope fit``."""

from __future__ import annotations

import sys

import click

from memscope.cli.options import console, json_option, print_json
from memscope.errors import UsageError
from memscope.gpus import DEFAULT_GPU, find_usable_gpu
from memscope.planning.plan import MOST


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "--vary",
    required=True,
    metavar="ARGUMENT",
    help="The script's argument, as the script has it: --batch-size, or train.batch= for one joined to its value.",
)
@click.option("--gpu", default=DEFAULT_GPU, show_default=True, metavar="NAME", help="The card, by name or size.")
@click.option("--from", "least", type=int, default=1, show_default=True, help="The least value.")
@click.option("--to", "most", type=int, default=MOST, show_default=True, help="The most.")
@click.option("-m", "--module", default=None, help="Run a module, as python -m does; its arguments follow --.")
@json_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="SCRIPT [ARGS]...")
def fit(
    vary: str, gpu: str, least: int, most: int, module: str | None, as_json: bool, arguments: tuple[str, ...]
) -> None:
    """Find the largest value of a script's own argument that fits a card, in a few dry runs of the script.

    The answer is confirmed by one run at its border and one past it. More is taken to need more memory.
    """
    from memscope.planning.as_json import fitted_json
    from memscope.planning.as_text import print_fitted
    from memscope.planning.script import fit_script

    if module is None and not arguments:
        raise UsageError("nothing to run: name a script, or a module with -m")
    target, rest = (("-m", module), arguments) if module is not None else (arguments[:1], arguments[1:])
    card = find_usable_gpu(gpu)
    found = fit_script(target, rest, vary, card, least=least, most=most, on_run=_say)
    if as_json:
        print_json(fitted_json(found))
        return
    print_fitted(found, console())


def _say(text: str) -> None:
    """What is being dry-run, on stderr where that is a terminal."""
    if sys.stderr.isatty():
        click.echo(f"memscope: dry run of {text}", err=True)
