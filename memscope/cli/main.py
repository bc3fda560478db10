"""The ``memscope`` program: verbs loaded when they are used, and the one place that turns errors into exit codes."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import NoReturn

import click

from memscope.cli.ending import ending_when_told
from memscope.cli.options import FLAGS
from memscope.cli.outputs import checking_output
from memscope.errors import FieldError, MemscopeError, nearest
from memscope.version import __version__

VERBS: dict[str, tuple[str, str]] = {
    "run": ("memscope.cli.run:run", "Record a script, unchanged; with --dry-run on no GPU at all."),
    "import": ("memscope.cli.import_:import_", "Convert torch snapshots and RMM logs to .memscope files."),
    "report": ("memscope.cli.report:report", "Where the memory went: summary, or a self-contained HTML file."),
    "peak": ("memscope.cli.peak:peak", "Who is live at the peak, or after any event."),
    "oom": ("memscope.cli.oom:oom", "Why memory ran out, and what would have let the request through."),
    "frag": ("memscope.cli.frag:frag", "Fragmentation, and the blocks that pin memory."),
    "verify": ("memscope.cli.verify:verify", "Replay under the recorded settings and compare with what PyTorch did."),
    "replay": ("memscope.cli.replay:replay", "What other allocators would have done with the same requests."),
    "tune": ("memscope.cli.tune:tune", "The allocator settings that this run needs the least memory with."),
    "whatif": (
        "memscope.cli.whatif:whatif",
        "What a technique would save: smaller states, checkpoints, other settings.",
    ),
    "fit": ("memscope.cli.fit:fit", "What value of a script's own argument fits a card at most."),
    "estimate": ("memscope.cli.estimate:estimate", "Will a model fit a card, and what is the most that fits."),
    "diff": (
        "memscope.cli.diff:diff",
        "Did a change make it worse: what one run holds beyond another, and whose it is.",
    ),
    "check": ("memscope.cli.check:check", "Hold a run to a budget or a baseline; exit code 2 where it is passed."),
    "baseline": ("memscope.cli.baseline:baseline", "What runs of one configuration need, for check to compare with."),
    "export": ("memscope.cli.export:export", "A trace for another tool: Perfetto, speedscope, pprof, CSV, Parquet, …"),
    "slice": ("memscope.cli.slice:slice_", "A part of a trace as a trace of its own."),
    "sql": ("memscope.cli.sql:sql", "Ask a trace in SQL."),
    "redact": ("memscope.cli.redact:redact", "A copy to share: names of yours become pseudonyms, numbers stay."),
    "kv": ("memscope.cli.kv:kv", "What a recorded key/value cache holds and wastes."),
    "serving": ("memscope.cli.serving:serving", "How many requests a GPU would serve, and how to keep their caches."),
    "dash": ("memscope.cli.dash:dash", "Open the dashboard."),
    "demo": ("memscope.cli.demo:demo", "The tour: record, report, verify, replay, dashboard. Needs no GPU."),
    "doctor": ("memscope.cli.doctor:doctor", "What this machine can record, and what is in the way."),
}
"""Verb → where its command is, and its line in the help: known without importing it."""


_FEW_VERBS = 6
_MAX_LINE = 1000


class LazyGroup(click.Group):
    """A group that imports a verb only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Verbs in the order of the work."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a verb's command."""
        if cmd_name not in VERBS:
            return None
        module, _, name = VERBS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        # What a program that is recorded does with signals is its own affair.
        return checking_output(command if cmd_name == "run" else ending_when_told(command))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """A verb's command; for a name that is none, say which was probably meant."""
        name = args[0]
        if name in VERBS or name.startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        near = nearest(name, VERBS)
        if near is not None:
            problem = f"there is no command {name!r}: did you mean {near!r}?"
        elif os.path.isfile(name):  # noqa: PTH113 (which answers for a name of any length)
            problem = f"{name!r} is a file: memscope report {name} says where its memory went"
        else:
            problem = f"there is no command {name!r}: choose one of {', '.join(VERBS)}"
        raise click.UsageError(problem, ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the verbs without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, text) in VERBS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="memscope")
def cli() -> None:
    """Say where the GPU memory of a PyTorch program went, and what would have saved it.

    TRACE is a .memscope file, a torch memory snapshot (.pickle or .json, packed or not, or memory_viz HTML) or an RMM
    CSV log. FILE#PART is one of several snapshots in a file.

    Exit codes: 0 ok; 1 bad usage, unreadable input, a failure; 2 budget exceeded; 3 the trace cannot be trusted for
    what was asked.
    """


def main() -> NoReturn:
    """Run the program: every error memscope raises on purpose becomes one line on stderr and its exit code."""
    try:
        result = cli.main(standalone_mode=False, prog_name="memscope")
        code = result if isinstance(result, int) else 0
        sys.stdout.flush()
    except click.exceptions.Exit as exit_:
        code = exit_.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        code = 1
    except click.NoSuchOption as error:
        _say(_no_such_option(error) + _how(error))
        code = 1
    except click.UsageError as error:
        _say(error.format_message().rstrip(".") + _how(error))
        code = 1
    except click.ClickException as error:
        _say(error.format_message())
        code = 1
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted")
        code = 130
    except MemscopeError as error:
        _say(error.worded(FLAGS) if isinstance(error, FieldError) else str(error))
        code = error.exit_code
    except BrokenPipeError:
        # The reader of a pipe (head, less) went away: nothing is wrong, and nothing more can be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        if os.environ.get("MEMSCOPE_DEBUG"):
            raise
        if isinstance(error, OSError) and error.filename is not None:  # of the machine, wherever it was met
            _say(f"{error.filename}: {error.strerror or error}")
        elif isinstance(error, MemoryError):
            _say(
                f"there is not enough memory for this: {error}" if str(error) else "there is not enough memory for this"
            )
        else:
            _say(f"a defect in memscope: {type(error).__name__}: {error} (set MEMSCOPE_DEBUG=1 for the traceback)")
        code = 1
    sys.exit(code)


def _how(error: click.UsageError) -> str:
    """Where to read on."""
    return f" ({error.ctx.command_path} --help says how)" if error.ctx is not None else ""


def _no_such_option(error: click.NoSuchOption) -> str:
    """Like any other name that there is not; where other verbs have the option, which."""
    parameters = [] if error.ctx is None else error.ctx.command.get_params(error.ctx)
    others = [] if error.ctx is None else _verbs_with(error.option_name, error.ctx.find_root())
    if 0 < len(others) <= _FEW_VERBS:
        has = "has" if len(others) == 1 else "have"
        return f"there is no option {error.option_name!r} here: {', '.join(others)} {has} it"
    near = nearest(error.option_name, (name for parameter in parameters for name in parameter.opts if name[:2] == "--"))
    return f"there is no option {error.option_name!r}" + (f": did you mean {near!r}?" if near else "")


def _verbs_with(option: str, root: click.Context) -> list[str]:
    """Verbs that take an option."""
    if not isinstance(root.command, click.Group):
        return []
    commands = {name: root.command.get_command(root, name) for name in root.command.list_commands(root)}
    return [
        name
        for name, command in commands.items()
        if command is not None and any(option in parameter.opts for parameter in command.params)
    ]


def _say(text: str) -> None:
    """One line, not too long, whatever the name of a file or the text of an error holds."""
    from memscope.words.labels import printable

    print(f"memscope: {printable(text, _MAX_LINE)}", file=sys.stderr)  # noqa: T201
