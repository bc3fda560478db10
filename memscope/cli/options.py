"""Arguments and options that several verbs share, and how they write."""

from __future__ import annotations

import ctypes
import io
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from memscope.errors import UnknownNameError

if TYPE_CHECKING:
    from memscope.analysis import Analysis
    from memscope.export.reading import Span
    from memscope.reports.terminal import Terminal

SCHEMA_VERSION = 1
"""Version of every ``--json`` object: keys are added, never renamed, within a version."""

FLAGS = {
    "block_sizes": "--block-size",
    "peaks": "--tflops and --bandwidth",
    "preemption": "--preemption",
    "strategy": "--strategy",
    "swap_bytes": "--swap-space",
    "weight_bytes": "--weight-bytes",
}
"""Fields that errors name, and the options that stand for them."""

_LEAST_COLUMNS, _MOST_COLUMNS = 20, 10_000
"""What ``COLUMNS`` may say."""

_M_MMAP_THRESHOLD = -3  # in glibc's malloc.h

Command = TypeVar("Command", bound=Callable[..., Any])


_GROUP = "help_group"


class GroupedCommand(click.Command):
    """A command whose help has its options under headings, in the order in which :func:`grouped` gave them."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the options, those without a heading last."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                groups.setdefault(getattr(parameter, _GROUP, ""), []).append(record)
        rest = groups.pop("", [])
        for heading, records in (*groups.items(), ("Other", rest)):
            with formatter.section(heading):
                formatter.write_dl(records)


def grouped(heading: str, *options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Options of a command in the order of its help, under one heading of it."""

    def decorate(command: Command) -> Command:
        before = list(getattr(command, "__click_params__", ()))
        for option in reversed(options):
            command = option(command)
        for parameter in command.__click_params__:  # type: ignore[attr-defined]  # click's own place for them
            if parameter not in before:
                setattr(parameter, _GROUP, heading)
        return command

    return decorate


class Choice(click.Choice[str]):
    """Names to choose from; one that there is not is answered with that which was probably meant."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name, as it is.

        Raises
        ------
        UnknownNameError
            If there is none of it.
        """
        if value not in self.choices:
            option = "" if param is None else f"{param.opts[0]}: "
            raise UnknownNameError(f"{option}there is no {value!r}", str(value), self.choices)
        return super().convert(value, param, ctx)


def trace_argument(command: Command) -> Command:
    """The TRACE argument; whether it exists is said by the reader, in its own words."""
    return click.argument("trace", type=click.Path(path_type=Path))(command)


def json_option(command: Command) -> Command:
    """``--json``: one object on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")(command)


def device_option(command: Command) -> Command:
    """``--device``: one device of the trace."""
    return click.option(
        "--device",
        type=int,
        default=None,
        help="Device index. [default: the first that ran out of memory, or else each]",
    )(command)


def event_option(command: Command) -> Command:
    """``--at``: a moment."""
    return click.option(
        "--at", "event", type=int, default=None, help="Moment after this event; -1 is before the first. [default: peak]"
    )(command)


def force_option(command: Command) -> Command:
    """``-f``: overwrite."""
    return click.option("-f", "--force", is_flag=True, help="Overwrite the output file.")(command)


def html_option(command: Command) -> Command:
    """``-o``: a page in place of text."""
    return click.option(
        "-o", "--output", type=click.Path(path_type=Path), help="Write one self-contained offline HTML file."
    )(command)


def wrote(path: Path) -> None:
    """Say that a file was written, on stderr: stdout is for answers."""
    say(f"memscope: wrote {path}")


def say(text: str, *, err: bool = True) -> None:
    """Write one line, on stderr unless told otherwise, whatever the names in it hold."""
    from memscope.words.labels import printable

    click.echo(printable(text), err=err)


def rules_option(command: Command) -> Command:
    """``--rules``: the user's own rules."""
    return click.option(
        "--rules",
        type=click.Path(path_type=Path),
        default=None,
        help="A TOML file of your own category rules, tried before memscope's.",
    )(command)


def span_options(command: Command) -> Command:
    """``--steps`` and ``--events``: a part of the trace, cut out as it is read."""
    steps = click.option("--steps", metavar="I:J", help="Only from step I to step J, both included.")
    events = click.option("--events", metavar="A:B", help="Only from event A to event B, both included.")
    return steps(events(command))


def load_trace(path: Path, rules: Path | None = None, span: Span | None = None) -> Analysis:
    """Open a trace for a verb, or a part of it."""
    from memscope.analysis import load

    _give_back_freed_arrays()
    if span is None:
        return load(path, rules=rules)
    from memscope.export.reading import load_span

    return load_span(path, span, rules)


def _give_back_freed_arrays() -> None:
    """Let glibc hand arrays of a megabyte and more back to the system when they are freed.

    It would keep those of up to 32 MiB: a fourth of all memory where a trace has ten million events.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, 1 << 20)


def print_json(content: dict[str, Any]) -> None:
    """Write one JSON object to stdout, its schema version first."""
    found = {"schema_version": SCHEMA_VERSION, **content}
    try:
        text = json.dumps(found, indent=2, default=_plain, allow_nan=False)
    except ValueError:  # JSON has no infinity: what cannot be told as a number was not measured
        text = json.dumps(_finite(found), indent=2, default=_plain, allow_nan=False)
    sys.stdout.write(text.replace("\x7f", "\\u007f") + "\n")


def print_each_json(contents: Sequence[dict[str, Any]]) -> None:
    """Write what was found of one device, or of several: the first as ever, the others beside it."""
    first, *others = contents
    print_json({**first, "other_devices": others} if others else first)


def _finite(value: Any) -> Any:
    """The same with None for each number that is not finite."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: Any) -> Any:
    """Numpy scalars as Python numbers."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not JSON")


def console() -> Terminal:
    """A console on stdout, as wide as its terminal or as ``COLUMNS`` says.

    Where it is neither, tables have 120 columns and long lines stay whole, so that files and pipes look the same.
    """
    from memscope.reports.terminal import Terminal

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # what a pipe on Windows takes has not every sign of a report
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told) > 0:
        return Terminal(width=min(max(int(told), _LEAST_COLUMNS), _MOST_COLUMNS))
    is_terminal = sys.stdout.isatty()
    return Terminal(width=None if is_terminal else 120, soft_wrap=not is_terminal)
