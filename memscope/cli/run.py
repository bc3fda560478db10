"""``memscope run``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from memscope.cli.emulating import EmulationOptions, emulation_options, enter_emulation
from memscope.cli.options import announce_compilation, force_option
from memscope.errors import UsageError

if TYPE_CHECKING:
    from memscope.trace.trace import Trace

_SUFFIX = ".memscope"


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write. [default: SCRIPT.memscope]")
@force_option
@click.option("--dry-run", is_flag=True, help="Run on tensors without memory, on a simulated device. Needs no GPU.")
@click.option(
    "--emulate", is_flag=True, help="Run PyTorch's CUDA build on an emulated device. Needs no GPU; see below."
)
@click.option("--gpu", default=None, help="Dry run, emulate: the device, by name or size. [default: H100-80GB]")
@click.option("--conf", default=None, help="Dry run, emulate: PYTORCH_ALLOC_CONF. [default: the environment's]")
@emulation_options
@click.option("--no-stacks", is_flag=True, help="Record no Python stacks.")
@click.option("-m", "module", default=None, help="Run a module, as python -m does.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="SCRIPT [ARGS]...")
@click.pass_context
def run(
    ctx: click.Context,
    output: Path | None,
    force: bool,
    dry_run: bool,
    emulate: bool,
    gpu: str | None,
    conf: str | None,
    emulation: EmulationOptions,
    no_stacks: bool,
    module: str | None,
    arguments: tuple[str, ...],
) -> None:
    r"""Record a script, unchanged; its own options follow its name.

    The script's output and exit code are its own. However it ends, the trace is kept.

    \b
    --emulate needs Linux on x86-64, a CUDA build of torch and, at first use,
    a C compiler. PyTorch's own allocator decides everything; nothing is computed:
      - values are garbage: a script that reads some back gets zeros, and branches
        accordingly (Hugging Face generate() ends by its length all the same);
      - Triton kernels, torch.compile and collectives do not work;
      - cuDNN is switched off: convolutions take PyTorch's own kernels.
    """
    if module is None and not arguments:
        raise UsageError("nothing to run: name a script, or a module with -m")
    _check_device_options(emulation, gpu, conf, is_dry_run=dry_run, is_emulated=emulate)
    target, script_arguments = (module, arguments) if module is not None else (arguments[0], arguments[1:])
    path = output or Path(_default_name(target, is_module=module is not None))
    if path.exists() and not force:
        raise UsageError(f"{path} exists already: choose another name with -o, or overwrite it with -f")
    from memscope.trace.unfinished import cut_off_message

    cut_off = None if force else cut_off_message(path)
    if cut_off is not None:
        raise UsageError(f"{cut_off}, or overwrite it with -f")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is not a folder: make it first")
    from memscope.capture.gpus import DEFAULT_GPU

    if dry_run:
        announce_compilation()
    if emulate:
        enter_emulation(emulation, gpu or DEFAULT_GPU, conf)
    from memscope.capture.recorder import Recorder
    from memscope.capture.script import run_recorded

    recorder = Recorder(
        path,
        backend="dry-run" if dry_run else "cuda" if emulate else "auto",
        gpu=gpu or DEFAULT_GPU,
        conf=None if emulate else conf,
        stacks=None if no_stacks else "python",
        overwrite=True,
    )
    code = run_recorded(recorder, target, script_arguments, is_module=module is not None)
    sys.stdout.flush()
    click.echo(f"memscope: wrote {path} ({_summary(recorder.trace)})", err=True)
    ctx.exit(code)


def _check_device_options(
    emulation: EmulationOptions, gpu: str | None, conf: str | None, *, is_dry_run: bool, is_emulated: bool
) -> None:
    """Raise where options that do not go together are given."""
    if is_dry_run and is_emulated:
        raise UsageError("--dry-run and --emulate are two ways without a GPU: choose one")
    if not is_emulated:
        emulation.require_none()
    if not (is_dry_run or is_emulated) and (gpu is not None or conf is not None):
        raise UsageError("--gpu and --conf are for --dry-run and --emulate; on a GPU, set PYTORCH_ALLOC_CONF")


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
    return f"{format_count(trace.n_events)} events{ended}, {trace.metadata.origin}{_values_words(trace)}"


def _values_words(trace: Trace) -> str:
    n_read = trace.metadata.extra.get("emulated_values_read_back", 0)
    return f": the {n_read:,} times that it read values back it got zeros" if n_read else ""
