"""``memscope estimate``."""

from __future__ import annotations

import sys

import click

from memscope.cli.options import Choice, console, json_option, print_json, say
from memscope.errors import UsageError
from memscope.gpus import DEFAULT_GPU, GpuModel, find_gpu, find_usable_gpu, gpu_names
from memscope.planning.plan import ATTENTIONS, DTYPES, MODES, OPTIMIZERS, Mode


@click.command()
@click.option("--config", required=True, metavar="FILE", help="A model's config.json, or a preset such as llama-3-8b.")
@click.option("--mode", type=Choice(MODES), required=True, help="What is done with it.")
@click.option("--batch", "n_samples", type=int, default=1, show_default=True, help="Samples of a batch.")
@click.option("--seq", "n_tokens", type=int, default=1024, show_default=True, help="Tokens of each sample.")
@click.option("--dtype", type=Choice(tuple(DTYPES)), default="bf16", show_default=True, help="Type of the weights.")
@click.option("--optimizer", type=Choice(OPTIMIZERS), default="adamw", show_default=True, help="What trains it.")
@click.option("--new-tokens", type=int, default=16, show_default=True, help="Tokens generated after the prompt.")
@click.option("--checkpointing", is_flag=True, help="Compute each layer again in the backward pass.")
@click.option("--attention", type=Choice(ATTENTIONS), default="sdpa", show_default=True, help="As in transformers.")
@click.option(
    "--gpu", "names", multiple=True, metavar="NAME", help=f"A card, several, or all. [default: {DEFAULT_GPU}]"
)
@click.option(
    "--solve",
    type=Choice(("batch", "seq", "gpu")),
    default=None,
    help="Find the largest batch or length that fits the card, or the smallest card.",
)
@json_option
def estimate(
    config: str,
    mode: Mode,
    n_samples: int,
    n_tokens: int,
    dtype: str,
    optimizer: str,
    new_tokens: int,
    checkpointing: bool,
    attention: str,
    names: tuple[str, ...],
    solve: str | None,
    as_json: bool,
) -> None:
    """Say what a model will take, before a card is rented: built of its config without weights, and dry-run.

    The run is never stopped by a card: each one's capacity is applied afterwards, and what does not fit is an answer.
    """
    from memscope.planning.as_json import estimate_json
    from memscope.planning.as_text import print_estimate
    from memscope.planning.estimate import estimate as find
    from memscope.planning.plan import Plan
    from memscope.planning.solve import solve_card, solve_number
    from memscope.serving.model_config import read_model_config

    plan = Plan(
        config=read_model_config(config),
        mode=mode,
        n_samples=n_samples,
        n_tokens=n_tokens,
        dtype=dtype,
        optimizer=optimizer,
        n_new_tokens=new_tokens,
        checkpoints=checkpointing,
        attention=attention,
    )
    gpus = _cards(names, takes_all=solve == "gpu")
    solved = None
    if solve is None:
        found = find(plan, gpus, _say)
    elif solve == "gpu":
        solved = solve_card(plan, gpus, _say)
        found = solved.estimate
    else:
        if len(gpus) > 1:
            raise UsageError(f"--solve {solve} is for one card: give one --gpu")
        solved = solve_number(solve, plan, gpus[0], _say)
        found = solved.estimate
    if as_json:
        print_json(estimate_json(found, solved))
        return
    print_estimate(found, console(), solved)


def _cards(names: tuple[str, ...], *, takes_all: bool) -> list[GpuModel]:
    """The cards that were asked for; all of the catalogue where that is said, or where one is looked for."""
    if "all" in names or (takes_all and not names):
        return [find_gpu(name) for name in gpu_names()]
    return [find_usable_gpu(name) for name in dict.fromkeys(names or (DEFAULT_GPU,))]


def _say(text: str) -> None:
    """What is being dry-run, on stderr where that is a terminal."""
    if sys.stderr.isatty():
        say(f"memscope: dry run of {text}")
