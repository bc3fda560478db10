"""``memscope run``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from memscope.cli.options import announce_compilation, force_option
from memscope.errors import UsageError

if TYPE_CHECKING:
    from memscope.trace.trace import Trace

_SUFFIX = ".memscope"


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write. [default: SCRIPT.memscope]")
@force_option
@click.option("--dry-run", is_flag=True, help="Run on tensors without memory, on a simulated device. Needs no GPU.")
@click.option("--gpu", default=None, help="Dry run: the device, by name or by size. [default: H100-80GB]")
@click.option("--conf", default=None, help="Dry run: PYTORCH_ALLOC_CONF to simulate. [default: the environment's]")
@click.option("--no-stacks", is_flag=True, help="Record no Python stacks.")
@click.option("-m", "module", default=None, help="Run a module, as python -m does.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="SCRIPT [ARGS]...")
@click.pass_context
def run(
    ctx: click.Context,
    output: Path | None,
    force: bool,
    dry_run: bool,
    gpu: str | None,
    conf: str | None,
    no_stacks: bool,
    module: str | None,
    arguments: tuple[str, ...],
) -> None:
    """Record a script, unchanged; its own options follow its name.

    The script's output and exit code are its own. However it ends, the trace is kept.
    """
    if module is None and not arguments:
        raise UsageError("nothing to run: name a script, or a module with -m")
    if not dry_run and (gpu is not None or conf is not None):
        raise UsageError("--gpu and --conf are for --dry-run; on a GPU, set PYTORCH_ALLOC_CONF")
    target, script_arguments = (module, arguments) if module is not None else (arguments[0], arguments[1:])
    path = output or Path(_default_name(target, is_module=module is not None))
    if path.exists() and not force:
        raise UsageError(f"{path} exists already: choose another name with -o, or overwrite it with -f")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is not a folder: make it first")
    if dry_run:
        announce_compilation()
    from memscope.capture.gpus import DEFAULT_GPU
    from memscope.capture.recorder import Recorder
    from memscope.capture.script import run_recorded

    recorder = Recorder(
        path,
        backend="dry-run" if dry_run else "auto",
        gpu=gpu or DEFAULT_GPU,
        conf=conf,
        stacks=None if no_stacks else "python",
        overwrite=True,
    )
    code = run_recorded(recorder, target, script_arguments, is_module=module is not None)
    sys.stdout.flush()
    click.echo(f"memscope: wrote {path} ({_summary(recorder.trace)})", err=True)
    ctx.exit(code)


def _default_name(target: str, *, is_module: bool) -> str:
    """``train.memscope`` for ``src/train.py``; the rank goes before the suffix where there is one."""
    stem = target if is_module else Path(target).stem
    rank = os.environ.get("RANK")
    return f"{stem}-rank{rank}{_SUFFIX}" if rank else f"{stem}{_SUFFIX}"


def _summary(trace: Trace) -> str:
    from memscope.trace.schema import Action
    from memscope.units import format_count

    n_ooms = int((trace.action == Action.OOM).sum())
    ended = f", {n_ooms} out of memory" if n_ooms else ""
    return f"{format_count(trace.n_events)} events{ended}, {trace.metadata.source}"
