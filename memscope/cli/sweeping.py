"""What the verbs that replay many times share: the device, where replays run, and a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from memscope.cli.options import Choice
from memscope.units import parse_bytes

if TYPE_CHECKING:
    from memscope.device.limits import Limits
    from memscope.replay.sweep import SweepWorkers

OnDone = Callable[[int, int], None]


class SweepOptions(NamedTuple):
    """What replays can have of the device, and where they run."""

    limits: Limits
    spread: SweepWorkers


def sweep_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--capacity --held-by-others --memory-fraction --jobs --engine --address``, given as one ``sweep`` argument."""

    @click.option(
        "--capacity",
        default=None,
        metavar="SIZE",
        help="Device memory, such as 80GiB. [default: as recorded]",
    )
    @click.option(
        "--held-by-others",
        default=None,
        metavar="SIZE",
        help="What contexts, libraries and other processes hold of it. [default: what was recorded]",
    )
    @click.option(
        "--memory-fraction",
        type=float,
        default=None,
        metavar="F",
        help="Share of the device that PyTorch may use. [default: as recorded]",
    )
    @click.option("-j", "--jobs", "n_jobs", type=int, default=1, help="Replays at a time; -1: all cores. [default: 1]")
    @click.option(
        "--engine",
        type=Choice(("local", "dask", "ray")),
        default="local",
        help="Where replays run. [default: local]",
    )
    @click.option("--address", default=None, help="Scheduler of the dask or ray cluster. [default: start one here]")
    @wraps(command)
    def with_options(
        capacity: str | None,
        held_by_others: str | None,
        memory_fraction: float | None,
        n_jobs: int,
        engine: Any,
        address: str | None,
        **others: Any,
    ) -> Any:
        from memscope.device.limits import Limits, checked_limits
        from memscope.replay.sweep import SweepWorkers

        sweep = SweepOptions(
            limits=checked_limits(
                Limits(
                    total_bytes=None if capacity is None else parse_bytes(capacity),
                    reserved_by_others_bytes=None if held_by_others is None else parse_bytes(held_by_others),
                    memory_fraction=memory_fraction,
                )
            ),
            spread=SweepWorkers(n_jobs, engine, address),
        )
        return command(sweep=sweep, **others)

    return with_options


@contextmanager
def progress(what: str) -> Iterator[OnDone | None]:
    """A bar on stderr while replays run, where that is a terminal; it shows what is done, of what is known to come."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def on_done(n_done: int, n_all: int) -> None:
            bar.update(task, completed=n_done, total=n_all)

        yield on_done
